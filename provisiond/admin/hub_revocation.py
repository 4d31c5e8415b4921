"""Taking an identity from a hub of its own kind, and looking whether that is so."""

import asyncio
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from provisiond.connectors import ConnectionTrial, HubConnector, identity_of
from provisiond.errors import HubFault, VersionConflict
from provisiond.model import AuditRecord, Check, Registration, Retirement, RetirementAction
from provisiond.ports import Clock, Entropy, Write
from provisiond.registration.machine import Event, step

_COMMIT_ATTEMPTS: Final = 8
_DEADLINE_S: Final = 15.0
"""For everything: an operator waits. What was not done by then, the service does as soon as the hub answers."""


class RetirementStore(Protocol):
    """What this needs of the store."""

    async def get_registration(self, key: str) -> Registration | None:
        """One record, or None."""
        ...

    async def commit(self, write: Write) -> None:
        """As `DecisionStore.commit`."""
        ...

    async def expedite_retirements(self, registration_id: str, at: datetime) -> None:
        """Have everything of a registration that is to go from a hub go now."""
        ...

    async def finish_retirement(self, retirement: Retirement, audit: AuditRecord) -> bool:
        """Forget a retirement that is done."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFinding:
    """What was done and observed at a hub.

    Args:
        checks: each step; one that did not pass leaves the revocation unproved.
        trial: what happened when we tried to connect as the device; None where that cannot be tried.
    """

    checks: tuple[Check, ...]
    trial: ConnectionTrial | None = None


async def order_retirement(
    registration: Registration, action: RetirementAction, *, store: RetirementStore, now: datetime
) -> Retirement | None:
    """Have the identity of a registration go from its hub now; the service sees to it, should nobody else.

    The registration is disabled in the same write: what the service may just be making there is of no use then. What it
    has left at hubs that it was moved from goes at once as well.

    Returns:
        The order, or None when the registration is gone or on no hub.

    Raises:
        VersionConflict: the registration changes all the time.
    """
    await store.expedite_retirements(registration.registration_id, now)
    for _ in range(_COMMIT_ATTEMPTS):
        found = await store.get_registration(registration.key)
        if found is None or found.hub is None:
            return None
        retirement = Retirement(
            hub=found.hub,
            device_id=found.device_id,
            registration_id=found.registration_id,
            action=action,
            due_at=now.replace(microsecond=0),
            reason="an operator asked for it",
        )
        disabled = replace(found, status=step(found.status, Event.REVOKED), version=found.version + 1, updated_at=now)
        try:
            await store.commit(Write(registration=disabled, expected_version=found.version, retire=retirement))
        except VersionConflict:
            continue
        return retirement
    raise VersionConflict(f"{registration.registration_id} changes all the time; try again")


async def take_from_hub(
    retirement: Retirement,
    registration: Registration,
    connector: HubConnector,
    *,
    store: RetirementStore,
    clock: Clock,
    entropy: Entropy,
    actor: str,
) -> HubFinding:
    """Disable or delete an identity in its hub now, read it back, and try to connect as the device.

    Args:
        retirement: is in the store already, so that the service does what fails here.
        registration: as it was, with the device's credentials.
        connector: of the hub.
        store: forgets the retirement when it is done.
        clock: for the audit record.
        entropy: likewise.
        actor: who asks.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await _carry_out(retirement, connector)
            audit = AuditRecord(
                tracking_id=str(uuid.UUID(bytes=entropy.token_bytes(16), version=4)),
                at=clock.now(),
                event="retire",
                registration_id=retirement.registration_id,
                outcome=f"{retirement.action.value}d",
                reason=retirement.reason,
                hub=retirement.hub,
                actor=actor,
            )
            await store.finish_retirement(retirement, audit)
            read = await _read(retirement, connector)
            trial = await connector.try_connect(identity_of(registration))
    except HubFault as fault:
        return _postponed(retirement, str(fault))
    except TimeoutError:
        return _postponed(retirement, f"no answer within {_DEADLINE_S:g} s")
    done = Check("hub", True, f"hub {retirement.hub} has {retirement.action.value}d {retirement.device_id}")
    return HubFinding(checks=(done, read), trial=trial)


async def _carry_out(retirement: Retirement, connector: HubConnector) -> None:
    if retirement.action is RetirementAction.DISABLE:
        await connector.disable([retirement.device_id])
    else:
        await connector.delete([retirement.device_id])


async def _read(retirement: Retirement, connector: HubConnector) -> Check:
    if not getattr(connector, "reads", True):
        return Check("identity", False, f"hub {retirement.hub} does not say what it has: nothing could be read back")
    state = (await connector.read([retirement.device_id])).get(retirement.device_id)
    if state is None:
        return Check("identity", True, f"hub {retirement.hub} has no identity {retirement.device_id}")
    if not state.enabled:
        return Check("identity", True, f"hub {retirement.hub} has the identity {retirement.device_id} disabled")
    return Check("identity", False, f"hub {retirement.hub} still has the identity {retirement.device_id} enabled")


def _postponed(retirement: Retirement, reason: str) -> HubFinding:
    finding = f"hub {retirement.hub} could not be told: {reason}; the service tells it as soon as it answers"
    return HubFinding(checks=(Check("hub", False, finding),))
