"""The ports, on a real file."""

import asyncio
import stat
from dataclasses import replace
from datetime import timedelta

import pytest

from provisiond.errors import (
    AlreadyExists,
    EtagMismatch,
    InvalidArgument,
    RecordNotFound,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)
from provisiond.model import EnrollmentKind, RegistrationStatus, TpmMaterial
from provisiond.ports import AdminStore, DecisionStore, FactsQuery, StoredChallenge, Write
from provisiond.store import SqliteStore
from tests.store.damage import overwrite
from tests.store.records import AT, make_audit, make_enrollment, make_group, make_registration, make_write

INDIVIDUAL, GROUP = EnrollmentKind.INDIVIDUAL, EnrollmentKind.GROUP


def test_the_store_has_both_ports(store: SqliteStore):
    decision: DecisionStore = store
    admin: AdminStore = store
    assert decision is admin


# --- commit ----------------------------------------------------------------------------------------------------------


async def test_a_committed_registration_and_its_audit_row_are_there(store):
    write = make_write("Device-1", tracking_id="t")
    await store.commit(write)
    assert await store.get_registration("device-1") == write.registration
    assert await store.get_audit("t") == write.audit


async def test_a_write_may_be_an_audit_row_alone(store):
    await store.commit(Write(audit=make_audit("t", outcome="refused", code=401002)))
    assert (await store.get_audit("t")).code == 401002


async def test_a_write_of_nothing_is_no_error(store):
    await store.commit(Write())


async def test_a_second_first_version_conflicts_and_leaves_no_audit_row(store):
    await store.commit(make_write(tracking_id="first"))
    with pytest.raises(VersionConflict, match="at version 1, not 0"):
        await store.commit(make_write(hub="other", tracking_id="second"))
    assert (await store.get_registration("device-1")).hub == "local"
    assert await store.get_audit("second") is None


async def test_a_stale_version_conflicts(store):
    await store.commit(make_write(version=1))
    await store.commit(make_write(version=2))
    with pytest.raises(VersionConflict):
        await store.commit(make_write(version=2))


async def test_a_version_of_a_deleted_registration_conflicts(store):
    await store.commit(make_write())
    await store.delete_registration("device-1", if_match=None, audit=make_audit())
    with pytest.raises(VersionConflict):
        await store.commit(make_write(version=2))


async def test_500_writes_at_once_share_few_transactions(store):
    await asyncio.gather(*(store.commit(make_write(f"device-{number}")) for number in range(500)))
    assert store.statistics.rows == 500
    assert store.statistics.transactions <= 5
    assert await store.count_registrations() == {"assigned": 500}


async def test_a_conflict_in_a_group_touches_nobody_else(store):
    writes = [make_write(f"device-{number % 10}", tracking_id=f"t-{number}") for number in range(30)]
    results = await asyncio.gather(*(store.commit(write) for write in writes), return_exceptions=True)
    assert results[:10] == [None] * 10
    assert all(isinstance(result, VersionConflict) for result in results[10:])
    assert len(await store.list_audit(limit=100)) == 10


async def test_successive_versions_may_meet_in_one_group(store):
    await asyncio.gather(*(store.commit(make_write(version=version)) for version in (1, 2, 3)))
    assert (await store.get_registration("device-1")).version == 3


async def test_one_write_with_impossible_values_fails_alone(store):
    poisoned = make_write("device-2", version=2**63 + 1)
    poisoned = replace(poisoned, expected_version=0)
    results = await asyncio.gather(
        store.commit(make_write("device-1")),
        store.commit(poisoned),
        store.commit(make_write("device-3")),
        return_exceptions=True,
    )
    assert isinstance(results[1], StoreError)
    assert results[0] is results[2] is None
    assert await store.count_registrations() == {"assigned": 2}


async def test_a_caller_that_is_cancelled_loses_nothing_of_the_others(store):
    tasks = [asyncio.create_task(store.commit(make_write(f"device-{number}"))) for number in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [None] * 50
    for number in range(1, 100, 2):
        assert await store.get_registration(f"device-{number}") is not None


async def test_two_stores_on_one_file_that_race_for_an_id_end_in_one_row(path, store):
    async with await SqliteStore.open(path) as other:
        for number in range(20):
            results = await asyncio.gather(
                store.commit(make_write(f"device-{number}", hub="one", tracking_id=f"one-{number}")),
                other.commit(make_write(f"device-{number}", hub="two", tracking_id=f"two-{number}")),
                return_exceptions=True,
            )
            assert sorted(map(str, map(type, results))) == sorted(map(str, (type(None), VersionConflict)))
            winner = ("one", "two")[results.index(None)]
            for each in (store, other):
                assert (await each.get_registration(f"device-{number}")).hub == winner
    assert len(await store.list_audit(limit=100)) == 20
    assert (await store.verify_audit()).problem is None


async def test_a_database_that_another_process_keeps_locked_is_unavailable_and_then_not(path):
    async with await SqliteStore.open(path, busy_timeout_s=0.05) as store, await SqliteStore.open(path) as other:
        await _writer(other).call(lambda connection: connection.execute("BEGIN IMMEDIATE"))
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.commit(make_write())
        await _writer(other).call(lambda connection: connection.execute("ROLLBACK"))
        await store.commit(make_write())


def _writer(store):
    return store._writes._start.args[0]


# --- facts -----------------------------------------------------------------------------------------------------------


async def test_facts_of_an_unknown_id_are_empty(store):
    facts = await store.facts(FactsQuery(registration_key="nobody"))
    assert (facts.individual, facts.groups, facts.registration) == (None, (), None)


async def test_facts_have_the_individual_enrollment_and_the_registration(store):
    await store.create_enrollment(make_enrollment(), make_audit())
    write = make_write()
    await store.commit(write)
    facts = await store.facts(FactsQuery(registration_key="device-1"))
    assert (facts.individual, facts.registration) == (make_enrollment(), write.registration)


async def test_a_change_is_seen_by_the_next_question(store):
    query = FactsQuery(registration_key="device-1", symmetric_key_groups=True)
    await store.create_enrollment(make_enrollment(), make_audit())
    await store.create_enrollment(make_group("g"), make_audit())
    assert len((await store.facts(query)).groups) == 1
    await store.update_enrollment(make_enrollment(etag='"2"'), if_match='"1"', audit=make_audit())
    await store.update_enrollment(make_group("g", etag='"2"'), if_match='"1"', audit=make_audit())
    facts = await store.facts(query)
    assert [facts.individual.etag, facts.groups[0].etag] == ['"2"', '"2"']
    await store.delete_enrollment(GROUP, "g", if_match=None, audit=make_audit())
    assert (await store.facts(query)).groups == ()


async def test_a_change_by_another_process_is_seen_by_the_next_question(path, store):
    query = FactsQuery(registration_key="device-1", symmetric_key_groups=True, tpm_groups=True)
    assert (await store.facts(query)).groups == ()
    async with await SqliteStore.open(path) as operator:
        await operator.create_enrollment(make_group("keys"), make_audit())
        await operator.create_enrollment(make_group("tpms", attestation=TpmMaterial()), make_audit())
        await operator.create_enrollment(make_enrollment(), make_audit())
    facts = await store.facts(query)
    assert [group.id for group in facts.groups] == ["keys", "tpms"]
    assert facts.individual is not None


async def test_groups_are_given_only_to_those_who_asked_for_their_kind(store):
    await store.create_enrollment(make_group("keys"), make_audit())
    await store.create_enrollment(make_group("tpms", attestation=TpmMaterial()), make_audit())
    keys, tpms, none = await asyncio.gather(
        store.facts(FactsQuery(registration_key="a", symmetric_key_groups=True)),
        store.facts(FactsQuery(registration_key="b", tpm_groups=True)),
        store.facts(FactsQuery(registration_key="c")),
    )
    assert [[group.id for group in facts.groups] for facts in (keys, tpms, none)] == [["keys"], ["tpms"], []]


async def test_the_group_of_a_registration_is_given_to_those_who_ask_as_it_is_now(store):
    query = FactsQuery(registration_key="device-1", registered_group=True)
    await store.create_enrollment(make_group("g"), make_audit())
    await store.create_enrollment(make_group("another"), make_audit())
    await store.commit(make_write(enrollment_kind=GROUP, enrollment_id="G"))
    group, unasked = (
        facts.registered_group
        for facts in await asyncio.gather(store.facts(query), store.facts(FactsQuery(registration_key="device-1")))
    )
    assert (group.id, unasked) == ("g", None)
    await store.update_enrollment(make_group("g", etag='"2"'), if_match='"1"', audit=make_audit())
    assert (await store.facts(query)).registered_group.etag == '"2"'
    await store.delete_enrollment(GROUP, "g", if_match=None, audit=make_audit())
    assert (await store.facts(query)).registered_group is None


async def test_64_questions_at_once_share_few_statements_and_each_gets_its_own_answer(store):
    for number in range(8):
        await store.create_enrollment(make_enrollment(f"device-{number}"), make_audit())
    before = store.statistics.read_groups
    answers = await asyncio.gather(
        *(store.facts(FactsQuery(registration_key=f"device-{number}")) for number in range(64))
    )
    assert store.statistics.read_groups - before <= 2
    assert [facts.individual and facts.individual.id for facts in answers[:9]] == [
        *(f"device-{number}" for number in range(8)),
        None,
    ]


# --- enrollments -----------------------------------------------------------------------------------------------------


async def test_an_id_exists_once_without_regard_to_case_but_once_for_each_kind(store):
    await store.create_enrollment(make_enrollment("Device-1"), make_audit("a"))
    with pytest.raises(AlreadyExists, match="individual enrollment 'device-1' exists"):
        await store.create_enrollment(make_enrollment("DEVICE-1"), make_audit("b"))
    await store.create_enrollment(make_group("Device-1"), make_audit("c"))
    assert [record.tracking_id for _, record in await store.list_audit(limit=9)] == ["a", "c"]


async def test_an_update_needs_the_etag_that_is_stored(store):
    await store.create_enrollment(make_enrollment(), make_audit("a"))
    with pytest.raises(EtagMismatch):
        await store.update_enrollment(make_enrollment(etag='"3"'), if_match='"2"', audit=make_audit("b"))
    assert await store.get_audit("b") is None
    for if_match, etag in (('"1"', '"3"'), ("*", '"4"'), (None, '"5"')):
        await store.update_enrollment(make_enrollment(etag=etag), if_match=if_match, audit=make_audit())
        assert (await store.get_enrollment(INDIVIDUAL, "device-1")).etag == etag


async def test_of_two_updates_with_the_same_etag_in_one_group_one_wins(store):
    await store.create_enrollment(make_enrollment(), make_audit())
    results = await asyncio.gather(
        *(
            store.update_enrollment(make_enrollment(etag=f'"{number}"'), if_match='"1"', audit=make_audit())
            for number in (2, 3)
        ),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), EtagMismatch]


async def test_what_is_not_there_can_be_neither_changed_nor_removed(store):
    with pytest.raises(RecordNotFound):
        await store.update_enrollment(make_enrollment(), if_match=None, audit=make_audit())
    with pytest.raises(RecordNotFound):
        await store.delete_enrollment(GROUP, "g", if_match=None, audit=make_audit())
    with pytest.raises(RecordNotFound):
        await store.delete_registration("device-1", if_match=None, audit=make_audit())
    assert await store.list_audit(limit=9) == []


async def test_a_deletion_needs_the_etag_that_is_stored(store):
    await store.create_enrollment(make_enrollment(), make_audit())
    await store.commit(make_write())
    with pytest.raises(EtagMismatch):
        await store.delete_enrollment(INDIVIDUAL, "device-1", if_match='"2"', audit=make_audit())
    with pytest.raises(EtagMismatch):
        await store.delete_registration("device-1", if_match='"2"', audit=make_audit())
    await store.delete_enrollment(INDIVIDUAL, "device-1", if_match='"1"', audit=make_audit())
    await store.delete_registration("device-1", if_match='"1"', audit=make_audit())
    assert await store.get_enrollment(INDIVIDUAL, "device-1") is None
    assert await store.get_registration("device-1") is None


async def test_a_group_whose_certificate_is_none_is_refused(store):
    with pytest.raises(InvalidArgument, match="cannot be parsed"):
        await store.create_enrollment(make_group("g", ca_der=b"no certificate"), make_audit())


async def test_pages_of_enrollments_follow_each_other_in_key_order(store):
    for name in "CaBed":
        await store.create_enrollment(make_enrollment(name), make_audit())
        await store.create_enrollment(make_group(f"g{name}"), make_audit())
    first = await store.list_enrollments(INDIVIDUAL, limit=2)
    rest = await store.list_enrollments(INDIVIDUAL, after_key=first[-1].key, limit=9)
    assert [enrollment.id for enrollment in (*first, *rest)] == list("aBCde")
    assert [group.id for group in await store.list_enrollments(GROUP, limit=9)] == ["ga", "gB", "gC", "gd", "ge"]


# --- registrations ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def fleet(store):
    """Six registrations: two hubs, two groups, one that is itself a group's namesake."""
    in_group = {"enrollment_kind": GROUP, "enrollment_id": "Line-4"}
    for write in (
        make_write("a", hub="one", **in_group),
        make_write("b", hub="two", **in_group),
        make_write("c", hub="two", status=RegistrationStatus.ASSIGNING, enrollment_kind=GROUP, enrollment_id="Line-5"),
        make_write("d", hub=None, status=RegistrationStatus.FAILED),
        make_write("line-4", hub="one"),
        make_write("z", hub="one", **in_group),
    ):
        await store.commit(write)
    return store


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["a", "b", "c", "d", "line-4", "z"]),
        ({"status": RegistrationStatus.ASSIGNED}, ["a", "b", "line-4", "z"]),
        ({"status": RegistrationStatus.ASSIGNING}, ["c"]),
        ({"hub": "two"}, ["b", "c"]),
        ({"enrollment_id": "LINE-4"}, ["a", "b", "line-4", "z"]),
        ({"enrollment_id": "line-4", "hub": "one"}, ["a", "line-4", "z"]),
        ({"enrollment_id": "line-4", "after_key": "b"}, ["line-4", "z"]),
        ({"after_key": "c", "limit": 2}, ["d", "line-4"]),
        ({"enrollment_id": "nobody"}, []),
    ],
)
async def test_registrations_are_listed_by_what_they_are(fleet, filters, expected):
    found = await fleet.list_registrations(**{"limit": 10, **filters})
    assert [registration.registration_id for registration in found] == expected


async def test_registrations_are_counted_as_they_come_move_and_go(fleet):
    assert await fleet.count_registrations() == {"assigned": 4, "assigning": 1, "failed": 1}
    assert await fleet.count_assigned_by_hub() == {"one": 3, "two": 2}
    await fleet.commit(make_write("d", version=2, hub="two"))
    await fleet.commit(make_write("b", version=2, hub="one"))
    await fleet.delete_registration("a", if_match=None, audit=make_audit())
    assert await fleet.count_registrations() == {"assigned": 4, "assigning": 1}
    assert await fleet.count_assigned_by_hub() == {"one": 3, "two": 2}
    assert await fleet.check() == ()


# --- audit and challenges --------------------------------------------------------------------------------------------


async def test_audit_rows_are_listed_oldest_first_and_by_registration(store):
    for number in range(4):
        await store.commit(Write(audit=make_audit(f"t-{number}", f"Device-{number % 2}")))
    assert [seq for seq, _ in await store.list_audit(limit=2)] == [1, 2]
    found = await store.list_audit(after=1, limit=9, registration_key="device-1")
    assert [(seq, record.tracking_id) for seq, record in found] == [(2, "t-1"), (4, "t-3")]


async def test_a_challenge_is_taken_once(store):
    await store.put_challenge(key="device-1", challenge=b'{"nonce":"1"}', expires_at=AT)
    taken = await asyncio.gather(*(store.take_challenge("device-1") for _ in range(5)))
    assert [each for each in taken if each] == [StoredChallenge(challenge=b'{"nonce":"1"}', expires_at=AT)]


async def test_a_newer_challenge_replaces_the_older_one(store):
    await store.put_challenge(key="device-1", challenge=b"1", expires_at=AT)
    await store.put_challenge(key="device-1", challenge=b"2", expires_at=AT)
    assert (await store.take_challenge("device-1")).challenge == b"2"


async def test_challenges_that_have_expired_are_purged_and_those_that_are_left_counted(store):
    for key, seconds in (("long-expired", 0), ("just-expired", 90), ("open", 120)):
        await store.put_challenge(key=key, challenge=b"1", expires_at=AT + timedelta(seconds=seconds))
    assert await store.purge_challenges(AT + timedelta(seconds=100)) == 1
    assert await store.take_challenge("long-expired") is None
    assert await store.take_challenge("just-expired") is not None
    assert await store.take_challenge("open") is not None


# --- opening and closing ---------------------------------------------------------------------------------------------


async def test_a_new_database_is_its_owners_alone(tmp_path):
    path = tmp_path / "state" / "provisiond.db"
    async with await SqliteStore.open(path) as store:
        await store.commit(make_write())
        assert {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_database_that_everybody_may_read_is_refused(path):
    async with await SqliteStore.open(path):
        pass
    path.chmod(0o604)
    with pytest.raises(StoreUnavailable, match="chmod o="):
        await SqliteStore.open(path)


async def test_a_database_that_is_not_there_is_made_only_when_it_may_be(path):
    with pytest.raises(StoreUnavailable, match="No such file"):
        await SqliteStore.open(path, create=False)
    assert not path.exists()


async def test_a_path_with_a_question_mark_and_spaces_is_only_a_path(tmp_path):
    path = tmp_path / "a b?mode=memory#%41.db"
    async with await SqliteStore.open(path) as store:
        await store.commit(make_write())
    assert path.stat().st_size > 0


async def test_what_was_stored_is_there_after_opening_again(path):
    async with await SqliteStore.open(path) as store:
        await store.commit(make_write())
        await store.create_enrollment(make_enrollment(), make_audit())
    async with await SqliteStore.open(path, quick_check=True) as store:
        assert await store.get_registration("device-1") == make_registration()
        assert await store.get_enrollment(INDIVIDUAL, "device-1") == make_enrollment()


async def test_a_store_for_reading_reads_what_another_writes_and_writes_nothing(path, store):
    async with await SqliteStore.open(path, read_only=True) as reader:
        await store.commit(make_write())
        assert await reader.get_registration("device-1") is not None
        assert (await reader.facts(FactsQuery(registration_key="device-1"))).registration is not None
        with pytest.raises(StoreUnavailable, match="for reading only"):
            await reader.commit(make_write(version=2))
        with pytest.raises(StoreUnavailable, match="for reading only"):
            await reader.create_enrollment(make_enrollment(), make_audit())


async def test_a_stopped_database_can_be_opened_for_reading(path):
    async with await SqliteStore.open(path) as store:
        await store.commit(make_write())
    async with await SqliteStore.open(path, read_only=True) as store:
        assert await store.get_registration("device-1") is not None


async def test_several_processes_may_make_the_database_at_once(path):
    stores = await asyncio.gather(*(SqliteStore.open(path) for _ in range(6)))
    await asyncio.gather(*(store.commit(make_write(f"device-{n}")) for n, store in enumerate(stores)))
    assert await stores[0].count_registrations() == {"assigned": 6}
    for store in stores:
        await store.close()


async def test_closing_finishes_what_waits_and_then_refuses(path):
    store = await SqliteStore.open(path)
    tasks = [asyncio.create_task(store.commit(make_write(f"device-{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert await asyncio.gather(*tasks) == [None] * 50
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.commit(make_write())
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.facts(FactsQuery(registration_key="device-1"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.get_registration("device-1")


# --- guards and endorsement keys ---------------------------------------------------------------------------------------


async def test_a_decision_made_on_an_enrollment_that_has_changed_since_is_a_conflict(store):
    read = make_enrollment()
    await store.create_enrollment(read, make_audit("a"))
    await store.commit(Write(registration=make_registration(), audit=make_audit("b"), guard=read))
    await store.update_enrollment(make_enrollment(etag='"2"'), if_match=None, audit=make_audit("c"))
    stale = Write(registration=make_registration(version=2), expected_version=1, audit=make_audit("d"), guard=read)
    with pytest.raises(VersionConflict, match="enrollment 'device-1' has changed"):
        await store.commit(stale)
    assert [record.tracking_id for _, record in await store.list_audit(limit=9)] == ["a", "b", "c"]


async def test_a_decision_made_on_an_enrollment_that_is_gone_is_a_conflict(store):
    with pytest.raises(VersionConflict):
        await store.commit(Write(registration=make_registration(), audit=make_audit(), guard=make_group("device-1")))


async def test_the_owner_of_an_endorsement_key_is_found_whoever_asks(store):
    await store.commit(Write(registration=make_registration(endorsement_key_hash=b"e" * 32)))
    answers = await asyncio.gather(
        store.facts(FactsQuery(registration_key="other", endorsement_key_hash=b"e" * 32)),
        store.facts(FactsQuery(registration_key="device-1", endorsement_key_hash=b"e" * 32)),
        store.facts(FactsQuery(registration_key="device-1", endorsement_key_hash=b"f" * 32)),
        store.facts(FactsQuery(registration_key="device-1")),
    )
    assert [facts.endorsement_key_owner for facts in answers] == ["device-1", "device-1", None, None]


async def test_two_ids_that_claim_one_endorsement_key_at_once_do_not_both_have_it(store):
    outcomes = await asyncio.gather(
        *(
            store.commit(Write(registration=make_registration(id_, endorsement_key_hash=b"e" * 32)))
            for id_ in ("device-1", "device-2")
        ),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), VersionConflict]
    with pytest.raises(VersionConflict, match="endorsement key"):
        await store.commit(Write(registration=make_registration("device-3", endorsement_key_hash=b"e" * 32)))


async def test_a_damaged_name_in_the_schema_is_said_to_be_damage(store, path):
    await store.close()
    overwrite(path, b"CREATE TABLE enrollment (", b"CREATE TABLE enroll\xccent (")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await SqliteStore.open(path)
