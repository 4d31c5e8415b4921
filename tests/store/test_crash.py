"""What the store promises when the process, the disk or the file fails."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from provisiond.errors import StoreUnavailable
from provisiond.ports import FactsQuery
from provisiond.store import SqliteStore
from tests.store.records import make_write

PROJECT = Path(__file__).parents[2]

WRITE_FOR_EVER = """
import asyncio, sys
from provisiond.errors import StoreUnavailable
from provisiond.store import SqliteStore
from tests.store.records import make_write

async def main():
    store = await SqliteStore.open(sys.argv[1])
    async def write(worker):
        for number in range(100_000):
            await store.commit(make_write(f"w{worker}-{number}"))
            sys.stdout.write(f"w{worker}-{number}\\n")
            sys.stdout.flush()
    results = await asyncio.gather(*(write(worker) for worker in range(40)), return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results), results
    assert store.fatal.is_set() and store.fatal_reason
    try:
        await store.commit(make_write("late"))
    except StoreUnavailable as error:
        assert "nothing is written any more" in str(error), error
    await store.close()
    print("refused")

asyncio.run(main())
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def assert_all_there(path, acknowledged):
    async with await SqliteStore.open(path, quick_check=True) as store:
        for key in acknowledged:
            assert await store.get_registration(key) is not None, key
            assert await store.get_audit(f"{key}-1") is not None, key
        assert await store.check() == ()


async def test_kill_9_loses_nothing_that_was_acknowledged(path):
    for _ in range(3):
        process = start(WRITE_FOR_EVER, path)
        lines = [process.stdout.readline() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        acknowledged = [line.strip() for line in (*lines, *rest.splitlines(keepends=True)) if line.endswith("\n")]
        assert len(acknowledged) >= 300
        await assert_all_there(path, acknowledged)
        path.unlink()


async def test_a_disk_that_fails_refuses_everybody_loses_nothing_and_is_fatal(path):
    async with await SqliteStore.open(path):
        pass
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n{WRITE_FOR_EVER}"
    process = start(limited, path)
    out, err = process.communicate(timeout=240)
    *acknowledged, last = out.split()
    assert last == "refused", err
    assert acknowledged
    await assert_all_there(path, acknowledged)


def _writer(store):
    return store._writes._start.args[0]


async def test_a_full_disk_refuses_everybody_and_serves_again_when_there_is_room(store):
    await store.commit(make_write("first"))
    await _writer(store).call(lambda connection: connection.execute("PRAGMA max_page_count=1"))
    results = await asyncio.gather(
        *(store.commit(make_write(f"device-{number}", payload="x" * 4000)) for number in range(80)),
        return_exceptions=True,
    )
    assert all(isinstance(result, StoreUnavailable) and "full" in str(result) for result in results)
    assert not store.fatal.is_set()
    assert (await store.facts(FactsQuery(registration_key="first"))).registration is not None
    assert await store.count_registrations() == {"assigned": 1}
    await _writer(store).call(lambda connection: connection.execute("PRAGMA max_page_count=1000000"))
    await store.commit(make_write("device-0"))
    assert await store.check() == ()


async def test_a_database_that_has_become_read_only_refuses_and_says_so(store):
    await _writer(store).call(lambda connection: connection.execute("PRAGMA query_only=ON"))
    with pytest.raises(StoreUnavailable, match="read-only"):
        await store.commit(make_write())
    await _writer(store).call(lambda connection: connection.execute("PRAGMA query_only=OFF"))
    await store.commit(make_write())


OPEN_WITHOUT_RIGHTS = """
import asyncio, os, sys
from provisiond.errors import StoreUnavailable
from provisiond.store import SqliteStore

async def main():
    try:
        await SqliteStore.open(sys.argv[1])
    except StoreUnavailable as error:
        print("refused:", error)

loop = asyncio.new_event_loop()
"".encode("idna")
if os.geteuid() == 0:
    os.setuid(65534)
loop.run_until_complete(main())
loop.close()
"""


def test_a_read_only_file_is_noticed_at_opening():
    directory = Path(tempfile.mkdtemp())
    try:
        path = directory / "provisiond.db"
        asyncio.run(_make(path))
        if os.geteuid() == 0:  # root may write everything: become nobody
            os.chown(path, 65534, -1)
            os.chown(directory, 65534, -1)
        path.chmod(0o400)
        directory.chmod(0o500)
        process = start(OPEN_WITHOUT_RIGHTS, path)
        out, err = process.communicate(timeout=240)
        assert out.startswith("refused:"), err
    finally:
        directory.chmod(0o700)
        shutil.rmtree(directory)


async def _make(path):
    async with await SqliteStore.open(path):
        pass


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 0.5, 0.9, 0.999])
async def test_a_truncated_file_is_refused_and_left_as_it_is(path, share):
    async with await SqliteStore.open(path) as store:
        await asyncio.gather(*(store.commit(make_write(f"device-{number}")) for number in range(50)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(path)
    assert path.read_bytes() == before


async def test_damage_under_a_running_store_is_fatal(path):
    async with await SqliteStore.open(path) as store:
        await asyncio.gather(*(store.commit(make_write(f"device-{number}")) for number in range(50)))
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    try:
        store = await SqliteStore.open(path)
    except StoreUnavailable:
        return  # noticed at once, which is as good
    async with store:
        with pytest.raises(StoreUnavailable):
            await store.facts(FactsQuery(registration_key="device-1"))
        assert store.fatal.is_set()
        with pytest.raises(StoreUnavailable, match="nothing is written any more"):
            await store.commit(make_write("late"))


async def test_opening_with_little_to_do_is_quick(path):
    await _make(path)
    took_s = []
    while not took_s or (min(took_s) >= 2 and len(took_s) < 10):  # a busy machine is slow now and then
        began = time.monotonic()
        await _make(path)
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 2
