"""An operator at a real database."""

import pytest

from provisiond.admin import Admin
from provisiond.model import Hub
from provisiond.store import SqliteStore
from tests.fakes_decision import FakeClock, FakeEntropy

HUBS = (Hub(name="east", host="east.example"), Hub(name="west", host="west.example"))


@pytest.fixture
async def store(tmp_path):
    async with await SqliteStore.open(tmp_path / "provisiond.db") as opened:
        yield opened


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def admin(store, clock):
    return Admin(store=store, clock=clock, entropy=FakeEntropy(), hubs=HUBS, actor="ada")
