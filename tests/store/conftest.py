"""A store on a real file."""

import pytest

from provisiond.store import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "provisiond.db"


@pytest.fixture
async def store(path):
    async with await SqliteStore.open(path) as store:
        yield store
