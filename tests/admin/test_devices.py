"""Taking a device's access away, and proving it."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from provisiond.admin.devices import JUDGED, NOT_PROVED, PROVED, STILL_OPEN, Devices
from provisiond.attestation.symmetric_key import derive_device_key
from provisiond.connectors import ConnectionTrial, TrialOutcome
from provisiond.errors import InvalidArgument, RecordNotFound
from provisiond.model import (
    DevicePresence,
    EnrollmentKind,
    Hub,
    ProvisioningStatus,
    RegistrationStatus,
    Retirement,
    TpmMaterial,
)
from provisiond.ports import Write
from tests.admin.conftest import HUBS
from tests.certificates import make_leaf
from tests.embedded_hub.gateway import make_registration
from tests.enrollment_factory import PRIMARY_KEY, SECONDARY_KEY, certificates, group, individual
from tests.fakes_decision import NOW, FakeEntropy

FAR = Hub(name="far", host="far.example", type="mosquitto", immediate=False)


@dataclass
class Probe:
    """A running service that says what the test says; None: it does not run."""

    connected: bool | None = False
    outcome: TrialOutcome = TrialOutcome.REFUSED
    cuts: list = field(default_factory=list)
    keys: list = field(default_factory=list)

    async def cut(self, device_id):
        self.cuts.append(device_id)
        return self.connected

    async def try_connect(self, registration, key):
        self.keys.append(key)
        return ConnectionTrial(outcome=self.outcome, finding="CONNACK 5")


@pytest.fixture
def devices(admin, store, clock):
    return Devices(
        admin=admin, store=store, clock=clock, entropy=FakeEntropy(drawn=1000), hubs=(*HUBS, FAR), actor="ada"
    )


@pytest.fixture
def enroll(admin, store):
    async def enroll(enrollment, registration_id=None, **changes):
        try:
            created = await admin.get_enrollment(enrollment.kind, enrollment.id)
        except RecordNotFound:
            created = await admin.create_enrollment(enrollment)
        registration = replace(
            make_registration(created, registration_id or enrollment.id), **{"hub": "east", **changes}
        )
        await store.commit(Write(registration=registration))
        return registration

    return enroll


async def individual_status(admin, registration_id):
    return (await admin.get_enrollment(EnrollmentKind.INDIVIDUAL, registration_id)).provisioning_status


# --- looking


async def test_a_device_is_shown_with_what_lets_it_in_where_it_is_and_when_it_was_seen(devices, enroll, store):
    await enroll(individual("Dev-1", device_id="Pump-7"))
    await enroll(group("keys"), "Dev-2", hub="far")
    presence = DevicePresence(device_key="pump-7", connected=True, changed_at=NOW, last_seen_at=NOW)
    await store.put_presence([presence])
    first, second = await devices.list_devices(limit=10)
    assert (first.enrollment.id, first.hub.name, first.presence, first.is_embedded) == ("Dev-1", "east", presence, True)
    assert (second.enrollment.id, second.hub.name, second.presence, second.is_embedded) == ("keys", "far", None, False)
    assert await devices.list_devices(limit=10, hub="far") == [second]
    assert await devices.get_device("PUMP-7") == first


async def test_a_device_that_there_is_not(devices):
    for call in (devices.get_device, devices.disable, devices.enable, devices.delete):
        with pytest.raises(RecordNotFound):
            await call("nobody")


# --- disabling


async def test_disabling_a_device_disables_its_individual_enrollment_and_is_proved_by_trying(devices, enroll, admin):
    await enroll(individual("Dev-1", device_id="Pump-7"))
    probe = Probe(connected=True)
    receipt = await devices.prove(await devices.disable("Pump-7"), probe)
    assert await individual_status(admin, "Dev-1") is ProvisioningStatus.DISABLED
    assert (receipt.event, receipt.outcome, receipt.actor, receipt.hub) == ("device.disable", PROVED, "ada", "east")
    assert probe.cuts == ["Pump-7"]
    assert probe.keys == [PRIMARY_KEY, SECONDARY_KEY]
    assert [check.name for check in receipt.trace] == ["enrollment", "session", "trial", "trial", "judgement"]


async def test_the_receipt_is_in_the_audit_log(devices, enroll, store):
    await enroll(individual("Dev-1"))
    receipt = await devices.prove(await devices.disable("Dev-1"), Probe())
    assert await store.get_audit(receipt.tracking_id) == receipt


async def test_disabling_a_member_of_a_group_takes_it_alone_out_of_the_group(devices, enroll, admin):
    await enroll(group("keys"), "Dev-1")
    probe = Probe()
    receipt = await devices.prove(await devices.disable("Dev-1"), probe)
    assert await individual_status(admin, "Dev-1") is ProvisioningStatus.DISABLED
    assert (await admin.get_enrollment(EnrollmentKind.GROUP, "keys")).enabled
    assert receipt.outcome == PROVED
    derived = [derive_device_key(key, "Dev-1") for key in (PRIMARY_KEY, SECONDARY_KEY)]
    assert probe.keys == derived
    again = Probe()
    await devices.prove(await devices.disable("Dev-1"), again)
    assert again.keys == derived, "a block has keys of its own, which prove nothing"


@pytest.mark.parametrize("enrolled_by", [group("keys"), individual("Dev-1")], ids=["group", "individual"])
async def test_a_device_whose_enrollment_is_gone_is_kept_out_of_every_group(devices, enroll, admin, enrolled_by):
    await enroll(enrolled_by, "Dev-1")
    await admin.delete_enrollment(enrolled_by.kind, enrolled_by.id)
    for _ in range(2):
        receipt = await devices.prove(await devices.disable("Dev-1"), Probe())
        assert receipt.outcome == JUDGED
        assert await individual_status(admin, "Dev-1") is ProvisioningStatus.DISABLED
    await devices.enable("Dev-1")
    with pytest.raises(RecordNotFound):
        await individual_status(admin, "Dev-1")


async def test_a_certificate_cannot_be_tried_and_is_judged(devices, enroll):
    pinned = make_leaf("Dev-1")
    await enroll(individual("Dev-1", certificates(pinned)))
    receipt = await devices.prove(await devices.disable("Dev-1"), Probe())
    assert receipt.outcome == JUDGED
    assert "whatever is presented" in receipt.trace[-1].finding


@pytest.mark.parametrize(
    ("outcome", "expected"), [(TrialOutcome.UNREACHABLE, NOT_PROVED), (TrialOutcome.ACCEPTED, STILL_OPEN)]
)
async def test_what_was_observed_is_what_the_receipt_says(devices, enroll, outcome, expected):
    await enroll(individual("Dev-1"))
    receipt = await devices.prove(await devices.disable("Dev-1"), Probe(connected=None, outcome=outcome))
    assert receipt.outcome == expected


async def test_an_enrollment_that_was_enabled_again_meanwhile_is_not_proved(devices, enroll, admin):
    await enroll(individual("Dev-1", certificates(make_leaf("Dev-1"))))
    revocation = await devices.disable("Dev-1")
    await admin.set_provisioning_status(EnrollmentKind.INDIVIDUAL, "Dev-1", ProvisioningStatus.ENABLED)
    assert (await devices.prove(revocation, Probe())).outcome == NOT_PROVED


# --- enabling


async def test_enabling_gives_back_what_was_there(devices, enroll, admin):
    await enroll(individual("Dev-1"))
    await enroll(group("keys"), "Dev-2")
    for name in ("Dev-1", "Dev-2"):
        await devices.disable(name)
        enabled = await devices.enable(name)
        assert enabled.enrollment.enabled
    assert await individual_status(admin, "Dev-1") is ProvisioningStatus.ENABLED
    with pytest.raises(RecordNotFound):
        await admin.get_enrollment(EnrollmentKind.INDIVIDUAL, "Dev-2")


async def test_enabling_what_is_enabled_changes_nothing(devices, enroll, admin):
    await enroll(individual("Dev-1"))
    before = await admin.get_enrollment(EnrollmentKind.INDIVIDUAL, "Dev-1")
    await devices.enable("Dev-1")
    assert await admin.get_enrollment(EnrollmentKind.INDIVIDUAL, "Dev-1") == before


async def test_a_device_whose_whole_group_is_disabled_or_gone_is_not_enabled_alone(devices, enroll, admin):
    await enroll(group("keys", enabled=False), "Dev-1")
    with pytest.raises(InvalidArgument, match="enrollment-group enable keys"):
        await devices.enable("Dev-1")
    await admin.delete_enrollment(EnrollmentKind.GROUP, "keys")
    with pytest.raises(InvalidArgument, match="gone"):
        await devices.enable("Dev-1")


async def test_a_hub_with_identities_of_its_own_makes_the_device_anew(devices, enroll, store):
    await enroll(individual("Dev-1"), hub="far")
    await devices.disable("Dev-1")
    await devices.enable("Dev-1")
    assert (await store.get_registration("dev-1")).status is RegistrationStatus.ASSIGNING


# --- deleting


async def test_deleting_takes_out_the_enrollment_and_the_registration(devices, enroll, admin, store):
    await enroll(individual("Dev-1"))
    probe = Probe()
    receipt = await devices.prove(await devices.delete("Dev-1"), probe)
    assert (receipt.event, receipt.outcome) == ("device.delete", PROVED)
    assert probe.keys == [PRIMARY_KEY, SECONDARY_KEY]
    assert await store.get_registration("dev-1") is None
    with pytest.raises(RecordNotFound):
        await admin.get_enrollment(EnrollmentKind.INDIVIDUAL, "Dev-1")


async def test_a_deleted_member_of_a_group_does_not_come_back_by_itself(devices, enroll, admin, store):
    await enroll(group("keys"), "Dev-1")
    await devices.delete("Dev-1")
    assert await store.get_registration("dev-1") is None
    assert await individual_status(admin, "Dev-1") is ProvisioningStatus.DISABLED


@pytest.mark.parametrize(
    ("allowed", "expected"), [(("dev-1", "dev-2"), NOT_PROVED), (("dev-1",), JUDGED), ((), JUDGED)]
)
async def test_a_deleted_tpm_that_may_take_another_id_of_its_group_is_not_proved_gone(
    devices, enroll, allowed, expected
):
    keys = {"endorsement_key": b"ek", "endorsement_key_hash": b"h" * 32, "hub_key": None}
    await enroll(group("tpms", TpmMaterial(allowed_ids=allowed)), "Dev-1", **keys)
    receipt = await devices.prove(await devices.delete("Dev-1"), Probe())
    assert receipt.outcome == expected
    assert ((b"h" * 32).hex() in receipt.reason) is (expected == NOT_PROVED)


async def test_a_device_that_is_deleted_after_its_enrollment_leaves_none_and_after_its_group_does(
    devices, enroll, admin
):
    for enrolled_by, registration_id in ((individual("Dev-1"), "Dev-1"), (group("keys"), "Dev-2")):
        await enroll(enrolled_by, registration_id)
        await admin.delete_enrollment(enrolled_by.kind, enrolled_by.id)
        await devices.delete(registration_id)
    with pytest.raises(RecordNotFound):
        await individual_status(admin, "Dev-1")
    assert await individual_status(admin, "Dev-2") is ProvisioningStatus.DISABLED


async def test_what_a_device_has_left_elsewhere_is_shown_and_goes_when_it_is_revoked(devices, enroll, store, clock):
    await enroll(individual("dev-1"))
    due_at = clock.now() + timedelta(hours=1)
    left = Retirement(hub="far", device_id="dev-1", registration_id="dev-1", due_at=due_at, grace_s=3600)
    await store.put_retirement(left)
    assert (await devices.get_device("dev-1")).departures == (replace(left, due_at=due_at.replace(microsecond=0)),)
    await devices.disable("dev-1")
    (gone,) = await store.list_retirements("far", due_by=clock.now(), limit=10)
    assert gone.grace_s == 0


async def test_a_device_that_has_moved_away_is_cut_off_here_as_well(devices, enroll, store, clock):
    await enroll(individual("dev-1"), hub="far")
    left = Retirement(hub="east", device_id="dev-1", registration_id="dev-1", due_at=clock.now(), grace_s=3600)
    await store.put_retirement(left)
    probe = Probe(connected=True)
    receipt = await devices.prove(await devices.disable("dev-1"), probe)
    assert probe.cuts == ["dev-1"]
    assert "the live session was cut" in receipt.reason
