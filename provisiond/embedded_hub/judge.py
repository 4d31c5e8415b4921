"""Who may be which device: reads what is stored about a claim, and has it judged."""

from provisiond.attestation import x509
from provisiond.model import Connection, EnrollmentKind, Trace
from provisiond.ports import Clock, DeviceStore, FactsQuery, HubDirectory
from provisiond.registration.attest import AttestationPolicy
from provisiond.registration.hub_access import HubAccess, HubFacts, is_here, judge_access


class AccessJudge:
    """`registration.hub_access` on the store; `policy` is replaced at a reload."""

    def __init__(self, *, store: DeviceStore, hubs: HubDirectory, clock: Clock, policy: AttestationPolicy) -> None:
        self.policy = policy
        self._store = store
        self._hubs = hubs
        self._clock = clock

    async def judge(self, connection: Connection) -> HubAccess:
        """Judge a connection by what is stored now.

        Raises:
            AttestationError: it is not proved to be the device, or the device may not be here.
            StoreUnavailable, CorruptRecord: nobody can say.
        """
        facts = await self._facts(connection)
        return judge_access(connection, facts, policy=self.policy, now=self._clock.now(), trace=Trace())

    async def _facts(self, connection: Connection) -> HubFacts:
        registration = await self._store.find_device(connection.claimed_id.key)
        if registration is None:
            return HubFacts()
        hashes = x509.issuer_hashes(connection.unverified_chain)
        stored = await self._store.facts(FactsQuery(registration_key=registration.key, issuer_hashes=hashes))
        group = None
        if registration.enrollment_kind is EnrollmentKind.GROUP:
            group = await self._store.find_enrollment(EnrollmentKind.GROUP, registration.enrollment_id.lower())
        hubs = self._hubs.snapshot()
        departures = () if is_here(registration, hubs) else await self._store.departures_of(registration.key)
        return HubFacts(
            registration=registration,
            individual=stored.individual,
            group=group,
            issuers=stored.groups,
            hubs=hubs,
            departures=tuple(departures),
        )
