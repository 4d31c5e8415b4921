"""CA groups by the names of certificates; damaged rows harm only those who need them."""

import asyncio
from hashlib import sha256

import pytest

from provisiond.errors import CorruptRecord
from provisiond.model import EnrollmentKind, X509Material
from provisiond.ports import FactsQuery
from provisiond.store import SqliteStore
from tests.certificates import make_ca
from tests.store.damage import overwrite
from tests.store.records import make_audit, make_enrollment, make_group

ROOT, LINE, OTHER = make_ca("Root"), make_ca("Line", make_ca("Root")), make_ca("Other")


def name_hash(certificate):
    return sha256(certificate.certificate.subject.public_bytes()).digest()


def question(*certificates, key="device-1"):
    return FactsQuery(registration_key=key, issuer_hashes=frozenset(map(name_hash, certificates)))


async def group_ids(store, *certificates):
    return [group.id for group in (await store.facts(question(*certificates))).groups]


async def test_a_ca_group_is_found_by_the_name_of_its_certificate(store):
    await store.create_enrollment(make_group("root", ca_der=ROOT.der), make_audit())
    await store.create_enrollment(make_group("line", ca_der=LINE.der), make_audit())
    assert await group_ids(store, ROOT) == ["root"]
    assert await group_ids(store, LINE, ROOT) == ["line", "root"]
    assert await group_ids(store, OTHER) == []
    assert await group_ids(store) == []


async def test_groups_that_share_a_ca_are_all_found(store):
    await store.create_enrollment(make_group("a", ca_der=ROOT.der), make_audit())
    await store.create_enrollment(make_group("b", ca_der=ROOT.der), make_audit())
    assert await group_ids(store, ROOT) == ["a", "b"]


async def test_a_group_is_found_by_its_secondary_certificate(store):
    material = X509Material(primary_der=ROOT.der, secondary_der=OTHER.der)
    await store.create_enrollment(make_group("rolling", attestation=material), make_audit())
    assert await group_ids(store, OTHER) == await group_ids(store, ROOT) == ["rolling"]
    assert await group_ids(store, OTHER, ROOT) == ["rolling"]


async def test_a_group_is_found_by_its_new_certificate_only_after_an_update(store):
    await store.create_enrollment(make_group("g", ca_der=ROOT.der), make_audit())
    assert await group_ids(store, ROOT) == ["g"]
    await store.update_enrollment(make_group("g", ca_der=OTHER.der), if_match=None, audit=make_audit())
    assert await group_ids(store, ROOT) == []
    assert await group_ids(store, OTHER) == ["g"]


async def test_a_deleted_group_is_found_no_more(store):
    await store.create_enrollment(make_group("g", ca_der=ROOT.der), make_audit())
    assert await group_ids(store, ROOT) == ["g"]
    await store.delete_enrollment(EnrollmentKind.GROUP, "g", if_match=None, audit=make_audit())
    assert await group_ids(store, ROOT) == []


async def test_a_pinned_certificate_of_one_device_makes_no_group(store):
    enrollment = make_enrollment("device-1", attestation=X509Material(primary_der=ROOT.der))
    await store.create_enrollment(enrollment, make_audit())
    assert await group_ids(store, ROOT) == []


async def test_a_group_is_parsed_once_while_it_stays_the_same(store):
    await store.create_enrollment(make_group("g", ca_der=ROOT.der), make_audit())
    first = await store.facts(question(ROOT))
    again = await store.facts(question(ROOT))
    assert first.groups[0] is again.groups[0]


async def test_a_damaged_individual_enrollment_harms_its_own_device_only(path):
    async with await SqliteStore.open(path) as store:
        await store.create_enrollment(make_enrollment("device-1", device_id="the-first"), make_audit())
        await store.create_enrollment(make_enrollment("device-2"), make_audit())
    overwrite(path, b"the-first", b"the-fir\xf3t")  # one bit; no longer UTF-8
    async with await SqliteStore.open(path) as store:
        damaged, sound = await asyncio.gather(
            store.facts(question(key="device-1")), store.facts(question(key="device-2")), return_exceptions=True
        )
        assert isinstance(damaged, CorruptRecord)
        assert (damaged.table, damaged.key) == ("enrollment", "device-1")
        assert sound.individual.id == "device-2"
        with pytest.raises(CorruptRecord):
            await store.get_enrollment(EnrollmentKind.INDIVIDUAL, "device-1")
        with pytest.raises(CorruptRecord):
            await store.list_enrollments(EnrollmentKind.INDIVIDUAL, limit=9)
        assert not store.fatal.is_set()


@pytest.mark.parametrize("ca_der", [None, ROOT.der], ids=["symmetric key", "CA"])
async def test_a_damaged_group_is_not_left_out_silently(path, ca_der):
    async with await SqliteStore.open(path) as store:
        await store.create_enrollment(make_group("g", ca_der=ca_der, origin="MARK"), make_audit())
    overwrite(path, b"MARK", b"MARC")
    async with await SqliteStore.open(path) as store:
        query = FactsQuery(
            registration_key="device-1", issuer_hashes=frozenset({name_hash(ROOT)}), symmetric_key_groups=True
        )
        results = await asyncio.gather(*(store.facts(query) for _ in range(2)), return_exceptions=True)
        assert [type(result) for result in results] == [CorruptRecord, CorruptRecord]
        assert (await store.facts(FactsQuery(registration_key="device-1"))).groups == ()
        assert await store.check() == (str(results[0]),)
