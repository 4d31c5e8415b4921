"""What is asked of the store for the work on hubs, on SQLite."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial

from provisiond.model import AuditRecord, JSONValue, RegistrationStatus, Retirement
from provisiond.store import hubs, rows
from provisiond.store.hops import Hops
from provisiond.store.writer import MutationItem


class SqliteOutboxStore(Hops):
    """`ports.OutboxStore` on one file, and what operators change about hubs."""

    async def list_retirements(
        self, hub: str, *, due_by: datetime, after_device: str = "", limit: int
    ) -> Sequence[Retirement]:
        """What is to go from a hub and is due, by device id; raises StoreUnavailable."""
        return await self._ask(
            partial(hubs.list_retirements, hub=hub, due_by=due_by, after_device=after_device, limit=limit)
        )

    async def put_retirement(self, retirement: Retirement, audit: AuditRecord | None = None) -> None:
        """Have an identity go from a hub; raises StoreUnavailable."""
        put = partial(hubs.put_retirements, retirements=(retirement,))
        await self._writes.call(MutationItem(apply=put, audit=None if audit is None else rows.audit_row(audit)))

    async def expedite_retirements(self, registration_id: str, at: datetime) -> None:
        """Have everything of a registration that is to go from a hub go at this time; raises StoreUnavailable."""
        expedite = partial(hubs.expedite_retirements, registration_id=registration_id, at=at)
        await self._writes.call(MutationItem(apply=expedite))

    async def finish_retirement(self, retirement: Retirement, audit: AuditRecord) -> bool:
        """Forget one that is done; False when the device has come back meanwhile; raises StoreUnavailable."""
        finish = partial(hubs.finish_retirement, retirement=retirement)
        finished: bool = await self._writes.call(MutationItem(apply=finish, audit=rows.audit_row(audit)))
        return finished

    async def departures_of(self, registration_key: str) -> Sequence[Retirement]:
        """What a registration still has at hubs that it is to go from; raises StoreUnavailable."""
        return await self._look(partial(hubs.departures_of, registration_key=registration_key))

    async def count_departing(self) -> Mapping[str, int]:
        """How much is to go from each hub, now or later; raises StoreUnavailable."""
        return await self._ask(hubs.count_departing)

    async def departing_devices(self, hub_names: Collection[str]) -> frozenset[str]:
        """Lower-case ids of the devices that are to go from these hubs; raises StoreUnavailable."""
        return await self._ask(partial(hubs.departing_devices, hub_names=tuple(hub_names)))

    async def awaited_arrivals(self, hub: str, *, limit: int) -> Sequence[Retirement]:
        """What goes elsewhere as soon as its device was seen at this hub; raises StoreUnavailable."""
        return await self._ask(partial(hubs.awaited, hub=hub, limit=limit))

    async def note_arrivals(self, hub: str, registration_keys: Collection[str], at: datetime) -> int:
        """Have what these have left elsewhere go now; nearly always that is nothing. Raises StoreUnavailable."""
        if not await self._ask(hubs.anybody_is_awaited):
            return 0
        note = partial(hubs.note_arrivals, hub=hub, registration_keys=tuple(registration_keys), at=at)
        noted: int = await self._writes.call(MutationItem(apply=note))
        return noted

    async def count_by_hub(self) -> Mapping[str, Mapping[RegistrationStatus, int]]:
        """Registrations by hub name and status, from counters; raises StoreUnavailable."""
        return await self._ask(hubs.count)

    async def draining_hubs(self) -> frozenset[str]:
        """Names of the hubs that operators drain; raises StoreUnavailable."""
        return await self._ask(hubs.draining)

    async def set_hub_draining(self, name: str, wanted: bool, audit: AuditRecord) -> bool:
        """Drain a hub, or no longer; whether that was a change; raises StoreUnavailable."""
        change = partial(hubs.set_draining, name=name, wanted=wanted)
        changed: bool = await self._writes.call(MutationItem(apply=change, audit=rows.audit_row(audit)))
        return changed

    async def put_hub_observation(self, name: str, observed: Mapping[str, JSONValue]) -> None:
        """Say what was seen of a hub; raises StoreUnavailable."""
        await self._writes.call(MutationItem(apply=partial(hubs.put_observation, name=name, observed=observed)))

    async def hub_observations(self) -> Mapping[str, Mapping[str, JSONValue]]:
        """What was last seen of each hub; raises StoreUnavailable."""
        return await self._ask(hubs.observations)

    async def revoke_certificate(self, issuer_hash: str, serial: int, at: datetime) -> None:
        """Have a certificate in its issuer's revocation list; raises StoreUnavailable."""
        revoke = partial(hubs.revoke_certificate, issuer_hash=issuer_hash, serial=serial, at=at)
        await self._writes.call(MutationItem(apply=revoke))

    async def release_certificates(self, issuer_hash: str, serials: Collection[int]) -> None:
        """Take certificates off their issuer's revocation list; raises StoreUnavailable."""
        release = partial(hubs.release_certificates, issuer_hash=issuer_hash, serials=tuple(serials))
        await self._writes.call(MutationItem(apply=release))

    async def revoked_certificates(self, issuer_hash: str) -> Mapping[int, datetime]:
        """Serial numbers of an issuer's revoked certificates, and since when; raises StoreUnavailable."""
        return await self._ask(partial(hubs.revoked_certificates, issuer_hash=issuer_hash))
