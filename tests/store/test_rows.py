"""Records come back from the file as they went in, and a digest tells when one did not."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisiond.errors import CorruptRecord, StoreError
from provisiond.model import (
    AllocationPolicy,
    AttestationType,
    AuditRecord,
    Check,
    Enrollment,
    EnrollmentKind,
    InitialTwin,
    ProvisioningStatus,
    Registration,
    RegistrationStatus,
    ReprovisionPolicy,
    Substatus,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
)
from provisiond.store import SqliteStore, audit, enrollments, registrations, rows
from provisiond.store.connection import connect_here, transaction
from tests.store.records import make_audit, make_enrollment, make_registration

any_text = st.text(st.characters(exclude_categories=()), max_size=30)  # lone surrogates and NUL, too
ids = st.text("aBz019-._:", max_size=126).map(lambda text: f"{text}x")
times = st.datetimes(datetime(1971, 1, 1), datetime(2999, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001 - made aware
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(any_text, json_values, max_size=3)
octets = st.binary(max_size=80)
material = (
    st.builds(X509Material, primary_der=octets, secondary_der=st.none() | octets)
    | st.builds(SymmetricKeyMaterial, primary_key=octets, secondary_key=octets)
    | st.builds(
        TpmMaterial,
        endorsement_key=st.none() | octets,
        storage_root_key=st.none() | octets,
        allowed_ids=st.lists(ids, max_size=3).map(tuple),
        pcr_policy=st.none() | documents,
    )
)
individual_enrollments = st.builds(
    Enrollment,
    kind=st.just(EnrollmentKind.INDIVIDUAL),
    id=ids,
    attestation=material,
    provisioning_status=st.sampled_from(ProvisioningStatus),
    device_id=st.none() | any_text,
    allocation_policy=st.none() | st.sampled_from(AllocationPolicy),
    iot_hubs=st.lists(any_text, max_size=3).map(tuple),
    custom_allocation=st.none() | documents,
    reprovision_policy=st.none() | st.builds(ReprovisionPolicy),
    initial_twin=st.none() | st.builds(InitialTwin, tags=documents, desired=documents),
    iot_edge=st.booleans(),
    device_information=st.none() | documents,
    origin=st.sampled_from(["operator", "config"]),
    etag=any_text,
    created_at=times,
    updated_at=times,
)
any_registration = st.builds(
    Registration,
    registration_id=ids,
    status=st.sampled_from(RegistrationStatus),
    substatus=st.none() | st.sampled_from(Substatus),
    operation_id=any_text,
    version=st.integers(1, 2**62),
    hub=st.none() | any_text,
    assigned_host=st.none() | any_text,
    device_id=any_text,
    enrollment_kind=st.sampled_from(EnrollmentKind),
    enrollment_id=any_text,
    attestation_type=st.sampled_from(AttestationType),
    endorsement_key_hash=st.none() | st.binary(min_size=32, max_size=32),
    endorsement_key=st.none() | octets,
    storage_root_key=st.none() | octets,
    hub_key=st.none() | octets,
    payload=json_values,
    error_code=st.none() | st.integers(400000, 500000),
    error_message=st.none() | any_text,
    etag=any_text,
    created_at=times,
    updated_at=times,
)
audit_records = st.builds(
    AuditRecord,
    tracking_id=any_text,
    at=times,
    event=any_text,
    registration_id=any_text,
    outcome=any_text,
    code=st.none() | st.integers(400000, 500000),
    reason=any_text,
    enrollment_kind=st.none() | st.sampled_from(EnrollmentKind),
    enrollment_id=st.none() | any_text,
    hub=st.none() | any_text,
    actor=any_text,
    trace=st.lists(st.builds(Check, any_text, st.booleans(), any_text, any_text), max_size=3).map(tuple),
)
through_a_file = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def connection(path):
    async with await SqliteStore.open(path):
        pass
    connection = connect_here(path, read_only=False)
    connection.execute("PRAGMA synchronous=OFF")  # hundreds of commits prove nothing more
    yield connection
    connection.close()


@pytest.fixture
def digest(connection):
    return rows.RowDigest(rows.read_digest_key(connection))


@through_a_file
@given(enrollment=individual_enrollments)
def test_an_enrollment_comes_back_as_it_went_in(connection, digest, enrollment):
    with transaction(connection):
        connection.execute("DELETE FROM enrollment")
        enrollments.insert(connection, rows.enrollment_row(enrollment, digest), ())
    assert enrollments.load(connection, EnrollmentKind.INDIVIDUAL, enrollment.key, digest) == enrollment


@through_a_file
@given(registration=any_registration)
def test_a_registration_comes_back_as_it_went_in(connection, digest, registration):
    with transaction(connection):
        registrations.store(connection, [rows.registration_row(registration, digest)])
    assert registrations.load(connection, registration.key, digest) == registration


@through_a_file
@given(record=audit_records)
def test_an_audit_record_comes_back_as_it_went_in(connection, record):
    with transaction(connection):
        audit.append(connection, [rows.audit_row(record)])
    assert audit.load(connection, record.tracking_id) == record


@given(record=st.sampled_from([make_enrollment(), make_registration()]), position=st.integers(0), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_record_changes_its_digest(record, position, bit):
    digest = rows.RowDigest(b"k" * 32)
    is_enrollment = isinstance(record, Enrollment)
    row = rows.enrollment_row(record, digest) if is_enrollment else rows.registration_row(record, digest)
    damaged = bytearray(row.record.encode())
    damaged[position % len(damaged)] ^= 1 << bit
    table, part = (rows.ENROLLMENT, b"individual") if is_enrollment else (rows.REGISTRATION, b"1")
    with pytest.raises(CorruptRecord, match="device-1"):
        digest.check(row.digest.encode(), table, row.key.encode(), part, bytes(damaged))


def test_the_same_row_has_another_digest_in_another_database():
    row = rows.enrollment_row(make_enrollment(), rows.RowDigest(b"a" * 32))
    assert row.digest != rows.enrollment_row(make_enrollment(), rows.RowDigest(b"b" * 32)).digest


@pytest.mark.parametrize("value", [object(), {1: object()}], ids=["object", "nested"])
def test_a_value_that_json_cannot_hold_is_refused_before_it_is_queued(value):
    with pytest.raises(StoreError, match="cannot be stored"):
        rows.registration_row(make_registration(payload=value), rows.RowDigest(b"k" * 32))


def test_the_search_time_of_an_audit_row_is_whole_seconds():
    at = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=7, microseconds=999_999)
    assert rows.audit_row(make_audit(at=at)).at_s == 1893456007
