"""The audit table is append-only, and its chain tells what was done to it."""

import pytest

from provisiond.ports import Write
from provisiond.store import SqliteStore
from provisiond.store.audit_trail import AuditTrail
from tests.store.damage import execute
from tests.store.records import make_audit, make_enrollment, make_write

UNLOCK = "DROP TRIGGER audit_is_append_only", "DROP TRIGGER audit_is_kept"


@pytest.fixture
async def closed(path):
    """A closed database with five audit rows, of several transactions and kinds."""
    async with await SqliteStore.open(path) as store:
        await store.create_enrollment(make_enrollment(), make_audit("t-1", event="enrollment.create"))
        await store.commit(make_write(tracking_id="t-2"))
        for number in (3, 4, 5):
            await store.commit(Write(audit=make_audit(f"t-{number}", outcome="refused")))
    return path


async def verdict_of(path):
    async with await SqliteStore.open(path) as store:
        return await store.verify_audit()


async def test_an_empty_chain_is_whole(store):
    verdict = await store.verify_audit()
    assert (verdict.count, verdict.last_seq, verdict.problem) == (0, 0, None)


async def test_a_chain_is_whole_across_transactions_and_openings(closed):
    async with await SqliteStore.open(closed) as store:
        await store.commit(Write(audit=make_audit("t-6")))
    verdict = await verdict_of(closed)
    assert (verdict.count, verdict.last_seq, verdict.problem) == (6, 6, None)


@pytest.mark.parametrize(
    ("statement", "count", "problem"),
    [
        ("UPDATE audit SET record = replace(record, 'refused', 'assigned') WHERE seq = 4", 3, "row 4 is not what"),
        ("DELETE FROM audit WHERE seq = 3", 2, "row 3 is missing"),
        ("DELETE FROM audit WHERE seq = 1", 0, "row 1 is missing"),
        ("DELETE FROM audit WHERE seq >= 4", 3, "rows 4 to 5 are missing at the end"),
        ("UPDATE audit SET seq = 6 WHERE seq = 5", 4, "row 5 is missing"),
        ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 2", 1, "row 2 is not what"),
        ("UPDATE audit SET at_s = at_s - 1 WHERE seq = 2", 1, "row 2: what it is found by"),
        ("UPDATE audit SET tracking_id = 't-9' WHERE seq = 2", 1, "row 2: what it is found by"),
        ("UPDATE audit SET registration_key = 'other' WHERE seq = 2", 1, "row 2: what it is found by"),
        ("UPDATE audit SET code = 401002 WHERE seq = 2", 1, "row 2: what it is found by"),
        ("UPDATE audit_chain SET head_hash = zeroblob(32)", 5, "says that it ends otherwise"),
        ("UPDATE audit_chain SET base_seq = 1", 0, "row 2 is missing"),
        ("UPDATE audit_chain SET base_hash = randomblob(32)", 0, "row 1 is not what"),
    ],
)
async def test_tampering_is_found_where_it_was_done(closed, statement, count, problem):
    execute(closed, *UNLOCK, statement)
    verdict = await verdict_of(closed)
    assert verdict.count == count
    assert problem in verdict.problem


@pytest.mark.parametrize(
    ("statement", "count", "problem"),
    [
        ("SELECT 1", 2, None),
        ("UPDATE audit SET record = replace(record, 'refused', 'assigned') WHERE seq = 5", 1, "row 5 is not what"),
        ("UPDATE audit SET record = replace(record, 'refused', 'assigned') WHERE seq = 3", 2, None),
        ("DELETE FROM audit WHERE seq = 3", 0, "row 3 is missing"),
        ("DELETE FROM audit WHERE seq = 4", 0, "row 4 is missing"),
        ("DELETE FROM audit WHERE seq = 5", 1, "rows 5 to 5 are missing"),
    ],
)
async def test_the_newest_rows_alone_can_be_walked_along(closed, statement, count, problem):
    execute(closed, *UNLOCK, statement)
    async with await SqliteStore.open(closed, read_only=True) as store:
        verdict = await AuditTrail(store).verify(None, newest=2)
    assert verdict.count == count
    assert verdict.problem is None if problem is None else problem in verdict.problem


async def test_two_rows_that_have_changed_places_are_found(closed):
    execute(
        closed,
        *UNLOCK,
        "UPDATE audit SET seq = 9 WHERE seq = 3",
        "UPDATE audit SET seq = 3 WHERE seq = 4",
        "UPDATE audit SET seq = 4 WHERE seq = 9",
    )
    assert "row 3 is not what" in (await verdict_of(closed)).problem


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET code = 1", "DELETE FROM audit", "DELETE FROM audit WHERE seq = 1"]
)
def test_the_table_refuses_changes(closed, statement):
    with pytest.raises(Exception, match="audit rows are"):
        execute(closed, statement)


async def test_what_retention_removes_leaves_a_chain_that_can_be_verified(closed):
    execute(
        closed,
        "UPDATE audit_chain SET base_seq = 2, base_hash = (SELECT hash FROM audit WHERE seq = 2)",
        "DELETE FROM audit WHERE seq <= 2",
    )
    verdict = await verdict_of(closed)
    assert (verdict.count, verdict.last_seq, verdict.problem) == (3, 5, None)
