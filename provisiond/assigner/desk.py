"""What every part of a hub's work needs: the connector under its deadline, the store, words for the audit log."""

import asyncio
import uuid
from base64 import b64encode
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

from provisiond.assigner.limits import AssignerLimits
from provisiond.connectors import HubConnector, retirement_reason
from provisiond.errors import HubUnavailable
from provisiond.model import AuditRecord, Check, Registration, RegistrationStatus, Retirement
from provisiond.ports import Clock, Entropy, HubObserver, OutboxStore

T = TypeVar("T")

ACTOR: Final = "assigner"
"""Who acts, in the audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One hub's: its name and connector, and what is used to work on it."""

    hub: str
    connector: HubConnector
    store: OutboxStore
    clock: Clock
    entropy: Entropy
    observer: HubObserver
    limits: AssignerLimits

    async def call(self, call: Awaitable[T]) -> T:
        """Call the hub within the deadline.

        Raises:
            HubFault: as the connector; HubUnavailable when there is no answer in time.
        """
        try:
            async with asyncio.timeout(self.limits.call_timeout_s):
                return await call
        except TimeoutError as error:
            raise HubUnavailable(f"no answer within {self.limits.call_timeout_s:g} s") from error

    async def take_back(self, registration: Registration) -> bool:
        """See that what was made for a row that has changed meanwhile goes again, if it is of no use any more.

        Returns:
            Whether something is to go; the hub's queue has it.
        """
        current = await self.store.get_registration(registration.key)
        if current is not None and current.status is not RegistrationStatus.DISABLED:
            return (
                False  # still to be made here, with what the row says now; or elsewhere, which has its own retirement
            )
        # Deleted, not disabled, in either case: should the device be let in again, it is made anew.
        await self.store.put_retirement(
            Retirement(
                hub=self.hub,
                device_id=registration.device_id,
                registration_id=registration.registration_id,
                due_at=self.clock.now(),
                reason=f"{'deleted' if current is None else 'disabled'} while it was being made",
            )
        )
        return True

    def audit(
        self, event: str, registration: Registration, *, outcome: str, finding: str, reason: str = ""
    ) -> AuditRecord:
        """A record of what was done for a registration; `failed` is the one outcome that did not go its way."""
        return AuditRecord(
            tracking_id=self._tracking_id(),
            at=self.clock.now(),
            event=event,
            registration_id=registration.registration_id,
            outcome=outcome,
            reason=reason,
            enrollment_kind=registration.enrollment_kind,
            enrollment_id=registration.enrollment_id,
            hub=self.hub,
            actor=ACTOR,
            trace=(Check("hub", outcome != "failed", f"{self.hub}: {finding}"),),
        )

    def retirement_audit(self, retirement: Retirement) -> AuditRecord:
        """A record of a retirement that was carried out."""
        return AuditRecord(
            tracking_id=self._tracking_id(),
            at=self.clock.now(),
            event="retire",
            registration_id=retirement.registration_id,
            outcome=f"{retirement.action.value}d",
            reason=retirement_reason(retirement),
            hub=self.hub,
            actor=ACTOR,
            trace=(Check("hub", True, f"{self.hub}: {retirement.device_id} {retirement.action.value}d"),),
        )

    def etag(self) -> str:
        """A fresh one."""
        return b64encode(f'"{self._tracking_id()}"'.encode()).decode("ascii")

    def jitter(self) -> float:
        """0 to 1, at random."""
        return self.entropy.token_bytes(1)[0] / 255

    def _tracking_id(self) -> str:
        return str(uuid.UUID(bytes=self.entropy.token_bytes(16), version=4))
