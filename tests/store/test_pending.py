"""Unknown devices wait in bounded number and time."""

from dataclasses import replace
from datetime import timedelta

import pytest

from provisiond.errors import AlreadyExists, RecordNotFound
from provisiond.model import AttestationType, EnrollmentKind, PendingDevice
from provisiond.ports import PendingLimits
from provisiond.store.pending import PER_ID_MAX
from provisiond.store.pending_devices import PendingDevices
from tests.store.records import AT, make_audit, make_enrollment

LIMITS = PendingLimits(devices=6, ttl_s=3600)


def device(id_="Pump-1", evidence=b"certificate", *, at=AT, **changes):
    made = PendingDevice(
        registration_id=id_,
        attestation_type=AttestationType.X509,
        evidence=evidence,
        proved=False,
        first_seen_at=at.replace(microsecond=0),
        last_seen_at=at.replace(microsecond=0),
        remote_address="10.0.0.7",
        tracking_id="t-1",
    )
    return replace(made, **changes)


@pytest.fixture
def queue(store):
    return PendingDevices(store)


async def test_a_device_waits_as_it_was_seen(store, queue):
    assert await store.put_pending(device(), limits=LIMITS)
    assert await queue.list() == [device()]
    assert await queue.list(registration_key="pump-1") == [device()]
    assert await queue.list(registration_key="pump-2") == []


async def test_coming_back_is_counted(store, queue):
    await store.put_pending(device(), limits=LIMITS)
    later = device("PUMP-1", at=AT + timedelta(minutes=5), proved=True, remote_address="10.0.0.8", tracking_id="t-2")
    await store.put_pending(later, limits=LIMITS)
    (found,) = await queue.list()
    assert (found.attempts, found.proved, found.remote_address, found.tracking_id) == (2, True, "10.0.0.8", "t-2")
    assert found.last_seen_at - found.first_seen_at == timedelta(minutes=5)


async def test_there_is_room_for_so_many_and_for_fewer_of_one_id(store, queue):
    for number in range(PER_ID_MAX):
        assert await store.put_pending(device(evidence=b"%d" % number), limits=LIMITS)
    assert not await store.put_pending(device(evidence=b"one too many"), limits=LIMITS)
    assert await store.put_pending(device("b"), limits=LIMITS)
    assert await store.put_pending(device("c"), limits=LIMITS)
    assert not await store.put_pending(device("d"), limits=LIMITS)
    assert await store.put_pending(device("b"), limits=LIMITS), "who waits already may come back"


async def test_who_was_rejected_makes_room_longest_unseen_first(store, queue):
    for number in range(LIMITS.devices):
        await store.put_pending(device(f"p-{number}", at=AT + timedelta(seconds=number)), limits=LIMITS)
    for number in (3, 2):
        (found,) = await queue.list(registration_key=f"p-{number}")
        await queue.reject(found, make_audit())
    assert await store.put_pending(device("new-1"), limits=LIMITS)
    assert [one.registration_id for one in await queue.list(rejected=True)] == ["p-3"]
    assert await store.put_pending(device("new-2"), limits=LIMITS)
    assert not await store.put_pending(device("new-3"), limits=LIMITS)


async def test_who_is_not_seen_any_more_makes_room(store, queue):
    await store.put_pending(device("old"), limits=LIMITS)
    await store.put_pending(device("new", at=AT + timedelta(seconds=3601)), limits=LIMITS)
    assert [one.registration_id for one in await queue.list()] == ["new"]


async def test_accepting_enrolls_and_lets_nobody_wait_under_that_id(store, queue):
    await store.put_pending(device(), limits=LIMITS)
    await store.put_pending(device(evidence=b"another"), limits=LIMITS)
    await store.put_pending(device("other"), limits=LIMITS)
    await queue.accept(make_enrollment("Pump-1"), make_audit())
    assert (await store.get_enrollment(EnrollmentKind.INDIVIDUAL, "pump-1")).id == "Pump-1"
    assert [one.registration_id for one in await queue.list()] == ["other"]
    await store.put_pending(device(), limits=LIMITS)  # its request was decided on before
    with pytest.raises(AlreadyExists):
        await queue.accept(make_enrollment("pump-1"), make_audit())
    assert [one.registration_id for one in await queue.list()] == ["other"]


async def test_a_rejected_device_stays_rejected_when_it_comes_back(store, queue):
    await store.put_pending(device(), limits=LIMITS)
    await queue.reject(device(), make_audit(event="registration.reject"))
    await store.put_pending(device(), limits=LIMITS)
    assert await queue.list() == []
    assert [one.attempts for one in await queue.list(rejected=True)] == [2]
    with pytest.raises(RecordNotFound):
        await queue.reject(device(), make_audit())
