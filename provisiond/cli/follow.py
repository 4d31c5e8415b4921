"""Following the audit trail as it grows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from provisiond.model import AuditRecord
from provisiond.store.audit_trail import AuditQuery, AuditTrail

_INTERVAL_S: Final = 0.5
"""A person sees no difference, and two small reads a second cost nothing."""
_BATCH: Final = 500


async def follow(trail: AuditTrail, query: AuditQuery, *, after: int) -> AsyncIterator[tuple[int, AuditRecord]]:
    """Records that match and come after a sequence number, as they come, until cancelled."""
    while True:
        found = await trail.find(replace(query, after=after, before=None, newest=False, limit=_BATCH))
        for seq, record in found:
            yield seq, record
            after = seq
        if len(found) < _BATCH:
            await asyncio.sleep(_INTERVAL_S)
