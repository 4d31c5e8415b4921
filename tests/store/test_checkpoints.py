"""Signed checkpoints hold against whoever can rewrite the database, and retention leaves a chain that verifies."""

import asyncio
import base64
import json
import sqlite3
import stat
from contextlib import closing
from datetime import timedelta

import pytest

from provisiond.errors import CorruptRecord, InvalidArgument, StoreUnavailable
from provisiond.ports import Write
from provisiond.store import SqliteStore
from provisiond.store.audit import chain_hash
from provisiond.store.audit_export import verify_export, write_export
from provisiond.store.audit_keeper import ROWS_BETWEEN_CHECKPOINTS, AuditKeeper
from provisiond.store.audit_trail import AuditQuery, AuditTrail, read_head_file
from provisiond.store.checkpoints import KEY_FILE_NAME, Checkpoint, CheckpointSigner, CheckpointVerifier
from tests.fakes_decision import FakeClock
from tests.store.damage import execute
from tests.store.records import AT, make_audit, make_enrollment

UNLOCK = ("DROP TRIGGER audit_is_append_only", "DROP TRIGGER audit_is_kept")


@pytest.fixture
def signer(tmp_path):
    return CheckpointSigner.load(tmp_path)


@pytest.fixture
async def trail(store):
    """Ten records, an hour from each to the next."""
    for number in range(1, 11):
        record = make_audit(
            f"t-{number}", f"Device-{number % 3}", at=AT + timedelta(hours=number), code=401002 if number % 2 else None
        )
        await store.commit(Write(audit=record))
    return AuditTrail(store)


def rewrite(path):
    """What somebody with the database file can do: another record, and every hash after it made anew."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in UNLOCK:
            connection.execute(statement)
        head = bytes(32)
        for seq, record in connection.execute("SELECT seq, record FROM audit ORDER BY seq").fetchall():
            forged = record.replace("192.0.2.7", "192.0.2.8") if seq == 2 else record
            head = chain_hash(head, seq, forged.encode())
            connection.execute("UPDATE audit SET record = ?, hash = ? WHERE seq = ?", (forged, head, seq))
        connection.execute("UPDATE audit_chain SET head_hash = ?", (head,))


def test_the_key_is_made_once_and_is_nobody_elses(tmp_path):
    first = CheckpointSigner.load(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE_NAME).stat().st_mode) == 0o600
    assert CheckpointSigner.load(tmp_path).verifier.key_id == first.verifier.key_id
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE_NAME]


def test_a_key_that_is_none_stops_with_the_reason(tmp_path):
    (tmp_path / KEY_FILE_NAME).write_text("nonsense")
    with pytest.raises(StoreUnavailable, match="no unencrypted private key"):
        CheckpointSigner.load(tmp_path)
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        CheckpointSigner.load(tmp_path / "nowhere", create=False)


async def test_a_signed_chain_is_whole(trail, signer):
    checkpoint = await trail.sign_head(signer, AT)
    assert checkpoint.seq == 10
    verdict = await trail.verify(signer.verifier)
    assert (verdict.count, verdict.problem) == (10, None)
    assert Checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json()))) == checkpoint


async def test_a_chain_that_was_made_anew_does_not_fit_its_checkpoint(trail, signer, store, path):
    await trail.sign_head(signer, AT)
    await store.close()
    rewrite(path)
    async with await SqliteStore.open(path) as store:
        assert (await store.verify_audit()).problem is None
        assert "row 10 is not the one that was signed" in (await AuditTrail(store).verify(signer.verifier)).problem


async def test_a_checkpoint_that_was_kept_elsewhere_holds_when_those_in_the_database_are_gone(
    trail, signer, store, path
):
    await trail.sign_head(signer, AT)
    kept = read_head_file(path.parent)[1]
    await store.close()
    rewrite(path)
    execute(path, "DELETE FROM audit_checkpoint")
    async with await SqliteStore.open(path) as store:
        assert (await AuditTrail(store).verify(signer.verifier)).problem is None
        assert "row 10" in (await AuditTrail(store).verify(signer.verifier, [kept])).problem


async def test_a_checkpoint_of_another_key_or_with_another_time_is_not_taken(trail, signer, tmp_path, store, path):
    (tmp_path / "other").mkdir()
    other = CheckpointSigner.load(tmp_path / "other")
    await trail.sign_head(signer, AT)
    assert "another key" in (await trail.verify(other.verifier)).problem
    await store.close()
    execute(path, "UPDATE audit_checkpoint SET at_s = at_s + 1")
    async with await SqliteStore.open(path) as store:
        assert "signature" in (await AuditTrail(store).verify(signer.verifier)).problem


async def test_retention_leaves_a_chain_that_verifies_and_a_cut_chain_does_not(trail, signer, store, path):
    removed = await trail.remove_older(AT + timedelta(hours=5), signer=signer, now=AT)
    assert removed == 4
    assert [seq for seq, _ in await trail.find(AuditQuery())] == [5, 6, 7, 8, 9, 10]
    verdict = await trail.verify(signer.verifier)
    assert (verdict.count, verdict.last_seq, verdict.problem) == (6, 10, None)
    await store.close()
    execute(
        path,
        "UPDATE audit_chain SET base_seq = 6, base_hash = (SELECT hash FROM audit WHERE seq = 6)",
        "DELETE FROM audit WHERE seq <= 6",
        "DELETE FROM audit_checkpoint",
    )
    async with await SqliteStore.open(path) as store:
        assert "no checkpoint says" in (await AuditTrail(store).verify(signer.verifier)).problem


async def test_a_chain_that_somebody_else_cut_where_it_was_signed_does_not_verify(trail, signer, store, path):
    await trail.sign_head(signer, AT)
    await store.commit(Write(audit=make_audit("t-11", at=AT + timedelta(hours=11))))
    await store.close()
    execute(
        path,
        "UPDATE audit_chain SET base_seq = 10, base_hash = (SELECT hash FROM audit WHERE seq = 10)",
        "DELETE FROM audit WHERE seq <= 10",
    )
    async with await SqliteStore.open(path) as store:
        assert "not as its beginning" in (await AuditTrail(store).verify(signer.verifier)).problem


@pytest.mark.parametrize(
    "harm", ["UPDATE audit SET at_s = 0 WHERE seq = 1", "UPDATE audit SET record = replace(record, '192.0.2.7', 'x')"]
)
async def test_retention_neither_believes_a_column_nor_removes_what_was_altered(signer, trail, store, path, harm):
    await store.close()
    execute(path, *UNLOCK, harm)
    async with await SqliteStore.open(path) as store:
        assert "removed" not in await removal(AuditTrail(store), AT + timedelta(minutes=1), signer)
        assert (await AuditTrail(store).head()).base_seq == 0


async def removal(trail, cutoff, signer):
    try:
        return "removed" if await trail.remove_older(cutoff, signer=signer, now=AT) else "nothing"
    except CorruptRecord as error:
        return str(error)


async def test_everything_may_be_too_old_and_the_chain_goes_on(trail, signer, store):
    assert await trail.remove_older(AT + timedelta(days=2), signer=signer, now=AT) == 10
    assert await trail.sign_head(signer, AT) is None  # the cut is signed already, as what it is
    assert (await trail.verify(signer.verifier)).problem is None
    await store.commit(Write(audit=make_audit("t-11", at=AT + timedelta(days=2))))
    await trail.sign_head(signer, AT)
    assert (await trail.verify(signer.verifier)).problem is None


async def test_a_trail_in_the_place_of_the_one_that_was_signed_is_not_signed_on(trail, signer, store, path):
    await trail.sign_head(signer, AT)
    await store.close()
    rewrite(path)
    execute(path, "DELETE FROM audit_checkpoint")
    async with await SqliteStore.open(path) as store:
        trail = AuditTrail(store)
        with pytest.raises(StoreUnavailable, match="row 10 is not the one that was signed"):
            await trail.sign_head(signer, AT)
        assert await trail.newest_checkpoint() is None
        assert await trail.sign_head(signer, AT, is_restored=True)


async def test_a_bit_in_any_column_is_noticed(trail, signer, store, path):
    await trail.remove_older(AT + timedelta(hours=3), signer=signer, now=AT)
    await trail.sign_head(signer, AT)
    await store.close()
    whole = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        columns = [
            (table, column)
            for table in ("audit", "audit_chain", "audit_checkpoint")
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")
        ]
    for table, column in columns:
        if (table, column) == ("audit_chain", "id"):
            continue  # there is one row, and the schema checks its id
        path.write_bytes(whole)
        flip(path, table, column)
        async with await SqliteStore.open(path) as store:
            assert (await AuditTrail(store).verify(signer.verifier)).problem, (table, column)


def flip(path, table, column):
    """The lowest bit of the last octet, in the last row."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for trigger in ("audit_is_append_only", "audit_is_kept"):
            connection.execute(f"DROP TRIGGER {trigger}")
        row_id, value = connection.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid DESC").fetchone()
        match value:
            case None:
                changed = 1
            case int():
                changed = value ^ 1
            case bytes():
                changed = value[:-1] + bytes([value[-1] ^ 1])
            case _:
                changed = value[:-1] + chr(ord(value[-1]) ^ 1)
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row_id))


async def test_retention_removes_nothing_that_is_young_enough(trail, signer):
    assert await trail.remove_older(AT, signer=signer, now=AT) == 0


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (AuditQuery(registration_id="DEVICE-1"), [1, 4, 7, 10]),
        (AuditQuery(code=401002), [1, 3, 5, 7, 9]),
        (AuditQuery(since=AT + timedelta(hours=9)), [9, 10]),
        (AuditQuery(until=AT + timedelta(hours=2)), [1, 2]),
        (AuditQuery(newest=True, limit=3), [8, 9, 10]),
        (AuditQuery(newest=True, limit=3, before=8), [5, 6, 7]),
        (AuditQuery(after=7, limit=2), [8, 9]),
        (AuditQuery(registration_id="device-1", code=401002, limit=1), [1]),
    ],
)
async def test_records_are_found_by_device_code_and_time(trail, query, expected):
    assert [seq for seq, _ in await trail.find(query)] == expected


# --- exports ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def export(trail, signer, store):
    """The lines of an export that begins after row 3, with a checkpoint at its end."""
    await trail.remove_older(AT + timedelta(hours=4), signer=signer, now=AT)
    await trail.sign_head(signer, AT)
    lines = []
    await store.read_aside(
        lambda connection: write_export(connection, lines.append, public_key=signer.verifier.public_key)
    )
    return [line.encode() for line in lines]


def test_an_export_verifies_without_the_database(export, signer):
    verdict = verify_export(export)
    assert (verdict.chain.count, verdict.chain.last_seq, verdict.chain.problem) == (7, 10, None)
    assert verdict.checkpoints == 2
    assert verdict.key_id == signer.verifier.key_id


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda lines: lines[:-1], "cut off after row 10"),
        (lambda lines: lines[:5], "cut off after row 6"),
        (lambda lines: [*lines[:-2], lines[-2][:40]], "line after row 10 is damaged"),
        (lambda lines: [*lines[:3], *lines[4:]], "row 5 is missing"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "row 5 is missing"),
        (lambda lines: [line.replace(b"192.0.2.7", b"192.0.2.8") for line in lines], "row 4 is not what was written"),
        (lambda lines: [*lines[:1], *lines[2:]], "no checkpoint says"),
        (lambda lines: [*lines, lines[-1]], "more after the end"),
        (lambda lines: [*lines[:-2], with_upper_hash(lines[-2]), lines[-1]], "line after row 10 is damaged"),
        (lambda lines: [*lines[:2], with_upper_hash(lines[2]), *lines[3:]], "row 4 is not what was written"),
        (lambda lines: [*lines[:-2], lines[-2].replace(b'"seq": 10', b'"seq": 9'), lines[-1]], "signature"),
    ],
)
def test_harm_to_an_export_is_found(export, harm, problem):
    assert problem in verify_export(harm(export)).chain.problem


def with_upper_hash(line):
    body = json.loads(line)
    return json.dumps(body | {"hash": body["hash"].upper()}).encode()


def test_an_export_that_names_another_key_than_the_sites_was_altered(export, signer):
    header = json.loads(export[0]) | {"publicKey": base64.b64encode(bytes(32)).decode()}
    altered = [json.dumps(header).encode(), *export[1:]]
    assert "names another key" in verify_export(altered, public_key=signer.verifier.public_key).chain.problem


def test_a_forged_export_does_not_fit_the_key_of_the_site(export, tmp_path):
    (tmp_path / "site").mkdir()
    site = CheckpointSigner.load(tmp_path / "site").verifier
    assert "another key" in verify_export(export, public_key=site.public_key).chain.problem


@pytest.mark.parametrize(
    "lines", [[], [b"{}"], [b"not json"], [b'{"type":"header","format":"other","version":1}'], [b"[1]"]]
)
def test_what_is_no_export_is_refused(lines):
    with pytest.raises(InvalidArgument, match="no audit export"):
        verify_export(lines)


def test_a_public_key_has_32_octets():
    with pytest.raises(InvalidArgument, match="32 octets"):
        CheckpointVerifier(b"short")


# --- the keeper ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keeper(trail, signer):
    clock = FakeClock(AT + timedelta(hours=11))
    problems = []
    keeper = AuditKeeper(trail, signer, clock=clock, keep=lambda: timedelta(days=2), report=problems.append)
    keeper.clock, keeper.problems = clock, problems
    return keeper


async def test_the_head_is_signed_at_the_start_daily_and_at_the_end(keeper, trail, store):
    await keeper.look()
    assert (await trail.newest_checkpoint()).seq == 10
    await store.commit(Write(audit=make_audit("t-11", at=keeper.clock.now())))
    await keeper.look()
    assert (await trail.newest_checkpoint()).seq == 10
    keeper.clock.advance(86400)
    await keeper.look()
    assert (await trail.newest_checkpoint()).seq == 11
    await store.commit(Write(audit=make_audit("t-12", at=keeper.clock.now())))
    await keeper.close()
    assert (await trail.newest_checkpoint()).seq == 12
    assert not keeper.problems


async def test_a_revocation_is_signed_at_the_next_look(keeper, trail, store, path):
    await keeper.look()
    await store.create_enrollment(make_enrollment(), make_audit("t-11", at=keeper.clock.now()))
    await keeper.look()
    assert (await trail.newest_checkpoint()).seq == 10
    await store.delete_enrollment(
        make_enrollment().kind, "device-1", if_match=None, audit=make_audit("t-12", at=keeper.clock.now())
    )
    await keeper.look()
    assert (await trail.newest_checkpoint()).seq == 12
    assert read_head_file(path.parent)[0] == 1


async def test_every_thousand_records_are_signed(keeper, trail, store):
    await keeper.look()
    await asyncio.gather(
        *(
            store.commit(Write(audit=make_audit(f"n-{n}", at=keeper.clock.now())))
            for n in range(ROWS_BETWEEN_CHECKPOINTS)
        )
    )
    await keeper.look()
    assert (await trail.newest_checkpoint()).seq == 10 + ROWS_BETWEEN_CHECKPOINTS


async def test_old_records_go_once_an_hour(keeper, trail):
    keeper.clock.advance(86400 * 2 - 3600 * 6)
    await keeper.look()
    assert [seq for seq, _ in await trail.find(AuditQuery(limit=1))] == [5]


async def test_a_broken_store_is_reported_and_tried_again(keeper, store):
    await store.close()
    await keeper.look()
    await keeper.close()
    assert len(keeper.problems) == 2
