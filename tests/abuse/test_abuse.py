"""Every case of the table, with small numbers and short deadlines; `scripts/abuse` has the large ones."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.abuse import run
from tests.abuse.site import CASES, Site, enroll, set_up
from tests.system.daemon import run_daemon

CONNECT_S, HANDSHAKE_S = 3.0, 4.0
MEMORY_MAX_MIB = 50


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One daemon for all: each case finds it as the others have left it."""
    directory = tmp_path_factory.mktemp("abuse")
    service = set_up(directory, large=False, connect_s=CONNECT_S, handshake_s=HANDSHAKE_S)
    with run_daemon(service, quiet=True) as daemon:
        made = Site(
            service=service,
            daemon=daemon,
            directory=directory,
            large=False,
            connect_s=CONNECT_S,
            handshake_s=HANDSHAKE_S,
            **enroll(service, directory),
        )
        made.notes["memory_mib"] = made.memory_mib
        yield made
        assert made.memory_mib - made.notes["memory_mib"] < MEMORY_MAX_MIB


def test_the_table_has_forty_cases() -> None:
    assert sorted(CASES) == list(range(1, 41))


@pytest.mark.parametrize("number", sorted(CASES), ids=lambda number: CASES[number][0])
def test_abuse_is_answered_as_promised(site: Site, number: int) -> None:
    assert asyncio.run(CASES[number][1](site))
    assert site.daemon.process.poll() is None


def test_a_device_that_behaves_is_served_beside_it(site: Site) -> None:
    _, outcomes = asyncio.run(run.run_cases(site, [2, 6, 13, 27]))
    assert [outcome.number for outcome in outcomes if not outcome.passed] == []
