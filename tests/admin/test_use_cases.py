"""What operators do."""

from dataclasses import replace

import pytest

from provisiond.admin import Admin
from provisiond.errors import AlreadyExists, EtagMismatch, InvalidArgument, RecordNotFound
from provisiond.model import EnrollmentKind, ProvisioningStatus, SymmetricKeyMaterial, TpmMaterial, X509Material
from provisiond.ports import Write
from provisiond.system import SystemEntropy
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, certificates, group, individual
from tests.store.records import make_registration

INDIVIDUAL, GROUP = EnrollmentKind.INDIVIDUAL, EnrollmentKind.GROUP
NO_KEYS = SymmetricKeyMaterial(primary_key=b"", secondary_key=b"")


async def test_a_created_enrollment_is_found_whatever_its_case(admin):
    created = await admin.create_enrollment(individual("Sensor-7"))
    assert await admin.get_enrollment(INDIVIDUAL, "SENSOR-7") == created
    assert created.id == "Sensor-7"


async def test_missing_keys_are_generated_with_64_bytes_and_given_ones_stay(store, clock):
    admin = Admin(store=store, clock=clock, entropy=SystemEntropy(), hubs=(), actor="ada")
    generated = (await admin.create_enrollment(individual("a", NO_KEYS))).attestation
    assert len(generated.primary_key) == len(generated.secondary_key) == 64
    assert generated.primary_key != generated.secondary_key
    half = SymmetricKeyMaterial(primary_key=PRIMARY_KEY, secondary_key=b"")
    assert (await admin.create_enrollment(individual("b", half))).attestation.primary_key == PRIMARY_KEY


async def test_the_ids_that_a_tpm_group_allows_are_kept_as_they_are_compared(admin):
    await admin.create_enrollment(group("g", TpmMaterial(allowed_ids=("Pump-1", "pump-1", "pump-2"))))
    found = await admin.get_enrollment(GROUP, "g")
    assert found.attestation.allowed_ids == ("pump-1", "pump-2")


async def test_an_id_is_enrolled_once_whatever_its_case(admin):
    await admin.create_enrollment(individual("sensor-7"))
    with pytest.raises(AlreadyExists, match=r"(?i)sensor-7"):
        await admin.create_enrollment(individual("SENSOR-7"))


async def test_an_enrollment_and_a_group_may_have_the_same_id(admin):
    await admin.create_enrollment(individual("line-4"))
    await admin.create_enrollment(group("line-4"))


async def test_what_is_not_there_is_not_found(admin):
    with pytest.raises(RecordNotFound, match="there is no enrollment x"):
        await admin.get_enrollment(INDIVIDUAL, "x")
    with pytest.raises(RecordNotFound, match="there is no enrollment group x"):
        await admin.change_enrollment(GROUP, "x", lambda e: e)
    with pytest.raises(RecordNotFound):
        await admin.delete_enrollment(INDIVIDUAL, "x")
    with pytest.raises(RecordNotFound, match="no device has registered as x"):
        await admin.get_registration("x")
    with pytest.raises(RecordNotFound):
        await admin.delete_registration("x")


async def test_a_change_keeps_the_id_and_the_creation_and_makes_a_new_etag(admin, clock):
    created = await admin.create_enrollment(individual("Sensor-7"))
    clock.advance(60)
    changed = await admin.change_enrollment(
        INDIVIDUAL, "sensor-7", lambda e: replace(e, id="other", device_id="pump", created_at=clock.now())
    )
    assert (changed.id, changed.device_id, changed.created_at) == ("Sensor-7", "pump", created.created_at)
    assert changed.updated_at > created.updated_at
    assert changed.etag != created.etag
    assert await admin.get_enrollment(INDIVIDUAL, "Sensor-7") == changed


async def test_a_change_with_another_etag_is_refused(admin):
    created = await admin.create_enrollment(individual("a"))
    with pytest.raises(EtagMismatch, match="its etag is"):
        await admin.change_enrollment(INDIVIDUAL, "a", lambda e: e, if_match="another")
    for etag in (created.etag, "*", None):
        created = await admin.change_enrollment(INDIVIDUAL, "a", lambda e: e, if_match=etag or created.etag)


async def test_a_change_never_overwrites_somebody_elses(admin, store):
    await admin.create_enrollment(individual("a"))
    other = await store.get_enrollment(INDIVIDUAL, "a")

    class MeanwhileChanged:
        """The store, in which somebody else wins the race."""

        def __getattr__(self, name):
            return getattr(store, name)

        async def get_enrollment(self, _kind, _key):
            return replace(other, etag="read-before-the-change")

    late = Admin(store=MeanwhileChanged(), clock=admin._clock, entropy=admin._entropy, hubs=(), actor="bob")
    with pytest.raises(EtagMismatch):
        await late.change_enrollment(INDIVIDUAL, "a", lambda e: replace(e, device_id="x"))
    assert (await admin.get_enrollment(INDIVIDUAL, "a")).device_id is None


async def test_disable_and_enable(admin):
    await admin.create_enrollment(group("g"))
    assert not (await admin.set_provisioning_status(GROUP, "g", ProvisioningStatus.DISABLED)).enabled
    assert (await admin.set_provisioning_status(GROUP, "g", ProvisioningStatus.ENABLED)).enabled


async def test_pages_follow_each_other(admin):
    for name in ("C", "a", "B"):
        await admin.create_enrollment(individual(name))
    first = await admin.list_enrollments(INDIVIDUAL, limit=2)
    assert [e.id for e in first] == ["a", "B"]
    assert [e.id for e in await admin.list_enrollments(INDIVIDUAL, after="B")] == ["C"]


async def test_deleting_an_enrollment_leaves_the_registration_record(admin, store):
    created = await admin.create_enrollment(individual("Device-1"))
    await store.commit(Write(registration=make_registration("Device-1")))
    with pytest.raises(EtagMismatch):
        await admin.delete_enrollment(INDIVIDUAL, "Device-1", if_match="another")
    await admin.delete_enrollment(INDIVIDUAL, "Device-1", if_match=created.etag)
    assert (await admin.get_registration("DEVICE-1")).registration_id == "Device-1"


async def test_a_registration_is_listed_by_its_enrollment_and_deleted(admin, store):
    await store.commit(Write(registration=make_registration("Device-1", enrollment_kind=GROUP, enrollment_id="g")))
    assert [r.registration_id for r in await admin.list_registrations(enrollment_id="G")] == ["Device-1"]
    assert await admin.list_registrations(enrollment_id="other") == []
    await admin.delete_registration("device-1")
    assert await admin.find_registration("Device-1") is None


async def test_every_change_is_audited_with_who_and_what(admin, store):
    await admin.create_enrollment(individual("Device-1"))
    await admin.change_enrollment(INDIVIDUAL, "Device-1", lambda e: replace(e, device_id="x", iot_hubs=("east",)))
    await admin.delete_enrollment(INDIVIDUAL, "Device-1")
    await admin.create_enrollment(group("g"))
    await store.commit(Write(registration=make_registration("Device-1")))
    await admin.delete_registration("Device-1")
    rows = [record for _, record in await store.list_audit(limit=10)]
    assert [row.event for row in rows] == [
        "enrollment.create",
        "enrollment.update",
        "enrollment.delete",
        "enrollment-group.create",
        "registration.delete",
    ]
    assert {row.actor for row in rows} == {"ada"}
    assert rows[0].reason == "symmetricKey, enabled"
    assert rows[1].reason == "changed: device_id, iot_hubs"
    assert PRIMARY_KEY.decode() not in str(rows)


async def test_one_ca_is_in_one_group(admin):
    root, other = make_ca("Root"), make_ca("Other")
    renewed = make_ca("Root", key=root.key)
    await admin.create_enrollment(group("first", certificates(root)))
    for taken in (root, renewed):
        with pytest.raises(AlreadyExists, match="enrollment group first has this CA already"):
            await admin.create_enrollment(group("second", certificates(other, taken)))
    await admin.create_enrollment(group("second", certificates(other)))
    with pytest.raises(AlreadyExists):
        await admin.change_enrollment(GROUP, "second", lambda e: replace(e, attestation=certificates(root)))
    await admin.change_enrollment(GROUP, "first", lambda e: replace(e, attestation=certificates(root, renewed)))


async def test_a_refused_enrollment_is_not_stored(admin, store):
    pinned = make_leaf("another-name")
    with pytest.raises(InvalidArgument):
        await admin.create_enrollment(individual("a", X509Material(primary_der=pinned.der)))
    assert await admin.list_enrollments(INDIVIDUAL) == []
    assert await store.list_audit(limit=1) == []
