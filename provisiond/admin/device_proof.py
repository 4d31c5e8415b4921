"""The proof that a device's access is gone: what was tried on it, what came of that, and the receipt."""

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from provisiond.admin.device_records import DeviceAdminStore, DeviceRecord, DeviceRecords
from provisiond.admin.hub_revocation import take_from_hub
from provisiond.connectors import ConnectionTrial, HubConnector, TrialOutcome
from provisiond.model import AuditRecord, Check, EnrollmentKind, Registration, Retirement, TpmMaterial
from provisiond.ports import Clock, Entropy, Write

PROVED: Final = "proved"
"""Every credential that is known here was tried, and was refused."""
JUDGED: Final = "judged"
"""Nothing could be tried; whatever the device presents, what is stored now refuses it."""
NOT_PROVED: Final = "not-proved"
DELETED: Final = "device.delete"
"""The event of a device that was taken out, with its registration."""
STILL_OPEN: Final = "still-open"
"""Connecting as the device succeeded."""


class DeviceProbe(Protocol):
    """The running service, as a revocation is carried out and proved on it."""

    async def cut(self, device_id: str) -> bool | None:
        """End the device's session; False when it had none, None when the service is not running."""
        ...

    async def try_connect(self, registration: Registration, key: bytes) -> ConnectionTrial:
        """Connect to the embedded hub as the device would, with this key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A device whose access was taken away; whether that is so is to be proved.

    Args:
        event: `device.disable` or `device.delete`.
        device: as it was before.
        keys: what it could sign with until then.
        done: what was changed.
        retirement: what its hub has still to be told, at a hub that has identities of its own.
    """

    event: str
    device: DeviceRecord
    keys: tuple[bytes, ...] = dataclasses.field(repr=False)
    done: tuple[Check, ...]
    retirement: Retirement | None = None


class DeviceProof:
    """Tries what a revoked device could try.

    Args:
        store: where records are, and receipts go.
        records: what is known of devices.
        clock, entropy: the time, and what tracking ids are made of.
        actor: who asks, for the audit log.
    """

    def __init__(
        self, store: DeviceAdminStore, *, records: DeviceRecords, clock: Clock, entropy: Entropy, actor: str
    ) -> None:
        self._store = store
        self._records = records
        self._clock = clock
        self._entropy = entropy
        self._actor = actor

    async def prove(
        self,
        revocation: Revocation,
        probe: DeviceProbe,
        *,
        connector: HubConnector | None = None,
        published: Check | None = None,
    ) -> AuditRecord:
        """Cut the live session, try to connect as the device would, and store what was observed: the receipt.

        Args:
            revocation: what was changed.
            probe: the running service, for its own hub.
            connector: of the hub that the device is on, where that is another one.
            published: what became of its certificate, where it has one.

        Returns:
            The receipt, as it is in the audit log; its outcome is `proved`, `judged`, `not-proved` or `still-open`.

        Raises:
            StoreUnavailable: the receipt was not stored.
        """
        registration = revocation.device.registration
        if revocation.device.is_embedded:
            cut = await self._cut(revocation, probe)
            trials = [await probe.try_connect(registration, key) for key in revocation.keys]
            observed = (cut, *map(_trial_check, trials), await self._judge(revocation))
        else:
            # One that has moved away may still be connected here.
            cuts = (await self._cut(revocation, probe),) if revocation.device.departures else ()
            observed, trials = await self._prove_at_hub(revocation, connector)
            observed = (*cuts, *observed)
        observed = (*observed, published) if published is not None else observed
        observed = (*observed, *await self._other_ids(revocation))
        receipt = AuditRecord(
            tracking_id=str(uuid.UUID(bytes=self._entropy.token_bytes(16), version=4)),
            at=self._clock.now(),
            event=revocation.event,
            registration_id=registration.registration_id,
            outcome=_outcome(trials, observed),
            reason="; ".join(check.finding for check in observed),
            enrollment_kind=registration.enrollment_kind,
            enrollment_id=registration.enrollment_id,
            hub=registration.hub,
            actor=self._actor,
            trace=(*revocation.done, *observed),
        )
        await self._store.commit(Write(audit=receipt))
        return receipt

    async def _prove_at_hub(
        self, revocation: Revocation, connector: HubConnector | None
    ) -> tuple[tuple[Check, ...], list[ConnectionTrial]]:
        hub = revocation.device.registration.hub
        if connector is None or revocation.retirement is None:
            return (Check("hub", False, f"hub {hub} is not linked any more: nobody can tell it"),), []
        found = await take_from_hub(
            revocation.retirement,
            revocation.device.registration,
            connector,
            store=self._store,
            clock=self._clock,
            entropy=self._entropy,
            actor=self._actor,
        )
        trials = [] if found.trial is None else [found.trial]
        return (*found.checks, *map(_trial_check, trials)), trials

    async def _cut(self, revocation: Revocation, probe: DeviceProbe) -> Check:
        match await probe.cut(revocation.device.registration.device_id):
            case None:
                return Check("session", True, "the service is not running: nobody is connected")
            case True:
                return Check("session", True, "the live session was cut")
            case _:
                return Check("session", True, "it was not connected")

    async def _judge(self, revocation: Revocation) -> Check:
        """What the embedded hub would say by what is stored now, whatever the device presents."""
        device_id = revocation.device.registration.device_id
        found = await self._store.find_device(device_id.lower())
        enrollment = None if found is None else await self._records.enrollment_of(found)
        if found is None or enrollment is None or not enrollment.enabled:
            what = "there is no such device" if found is None else "nothing enabled lets it in"
            return Check("judgement", True, f"the hub refuses whatever is presented: {what}")
        return Check("judgement", False, f"enrollment {enrollment.id} lets it in")

    async def _other_ids(self, revocation: Revocation) -> tuple[Check, ...]:
        """What deleting a TPM's registration leaves open: it may take another id that its group allows."""
        registration = revocation.device.registration
        ek_hash = registration.endorsement_key_hash
        if revocation.event != DELETED or ek_hash is None or registration.enrollment_kind is not EnrollmentKind.GROUP:
            return ()
        group = await self._store.get_enrollment(EnrollmentKind.GROUP, registration.enrollment_id.lower())
        if group is None or not group.enabled or not isinstance(group.attestation, TpmMaterial):
            return ()
        if not set(group.attestation.allowed_ids) - {registration.key}:
            return ()
        finding = f"its TPM may take another id that group {group.id} allows, unless the deny list has {ek_hash.hex()}"
        return (Check("endorsement-key", False, finding),)


def _trial_check(trial: ConnectionTrial) -> Check:
    refused = trial.outcome is TrialOutcome.REFUSED
    return Check("trial", refused, f"connecting as the device: {trial.outcome}: {trial.finding}")


def _outcome(trials: Sequence[ConnectionTrial], observed: Sequence[Check]) -> str:
    if any(trial.outcome is TrialOutcome.ACCEPTED for trial in trials):
        return STILL_OPEN
    if not all(check.passed for check in observed):
        return NOT_PROVED
    return PROVED if trials else JUDGED
