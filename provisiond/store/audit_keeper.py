"""The daemon's care for the audit trail: signs it, and removes what need not be kept."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from provisiond.errors import StoreError
from provisiond.ports import Clock
from provisiond.store.audit_trail import AuditTrail, ChainHead
from provisiond.store.checkpoints import CheckpointSigner

ROWS_BETWEEN_CHECKPOINTS: Final = 1000
"""What whoever gets at the database could change unseen; an hour of a busy gateway."""
AGE_MAX: Final = timedelta(days=1)
"""A checkpoint a day, when there is anything to sign."""
ROUND_S: Final = 60.0
"""How often the head is looked at: two small reads."""
_RETAIN_EVERY: Final = timedelta(hours=1)


class AuditKeeper:
    """Signs the head every 1,000 rows, daily, after every revocation and at the end; removes what is too old.

    Args:
        trail: of the open store.
        signer: the key.
        clock: the time.
        keep: how long rows are kept; called each time, so that a reload counts.
        report: hears of what went wrong; the next round tries again.
    """

    def __init__(
        self,
        trail: AuditTrail,
        signer: CheckpointSigner,
        *,
        clock: Clock,
        keep: Callable[[], timedelta],
        report: Callable[[str], object],
    ) -> None:
        self._trail = trail
        self._signer = signer
        self._clock = clock
        self._keep = keep
        self._report = report
        self._signed: ChainHead | None = None
        self._signed_at = clock.now()
        self._retained_at = clock.now() - _RETAIN_EVERY

    async def run(self) -> None:
        """Look after it until cancelled; the last rows are signed by `close`."""
        while True:
            await self.look()
            await asyncio.sleep(ROUND_S)

    async def look(self) -> None:
        """One round."""
        try:
            await self._sign_if_due()
            await self._retain_if_due()
        except StoreError as error:
            self._report(str(error))

    async def close(self) -> None:
        """Sign what there is, at the end."""
        try:
            await self._sign(await self._trail.head())
        except StoreError as error:
            self._report(str(error))

    async def _sign_if_due(self) -> None:
        head, now = await self._trail.head(), self._clock.now()
        signed = self._signed
        due = (
            signed is None
            or head.seq - signed.seq >= ROWS_BETWEEN_CHECKPOINTS
            or head.revocations != signed.revocations
            or now - self._signed_at >= AGE_MAX
        )
        if due:
            await self._sign(head)

    async def _sign(self, head: ChainHead) -> None:
        if self._signed is not None and (head.seq, head.revocations) == (self._signed.seq, self._signed.revocations):
            return
        now = self._clock.now()
        await self._trail.sign_head(self._signer, now)
        self._signed, self._signed_at = head, now

    async def _retain_if_due(self) -> None:
        now = self._clock.now()
        if now - self._retained_at < _RETAIN_EVERY:
            return
        await self._trail.remove_older(now - self._keep(), signer=self._signer, now=now)
        self._retained_at = now
