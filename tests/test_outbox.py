"""The work on hubs across a reload."""

import pytest

from provisiond.hub_observers import HubObservers
from provisiond.hubs.directory import ConfiguredHubs
from provisiond.outbox import HubWork
from provisiond.settings import HubSettings, Settings
from provisiond.store import SqliteStore


@pytest.fixture
async def store(tmp_path):
    async with await SqliteStore.open(tmp_path / "provisiond.db") as store:
        yield store


def settings(tmp_path):
    options = {"admin_url": "mqtt://127.0.0.1:9", "password_file": str(tmp_path / "password")}
    hub = HubSettings(name="line-2", type="mosquitto", host="line-2.example", options=options)
    return Settings(service={"id_scope": "0ne0TEST001", "state_dir": tmp_path}, hubs=[hub])


async def test_a_reload_connects_anew_with_a_password_that_was_changed_and_only_then(tmp_path, store):
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("old")
    configured = settings(tmp_path)
    work = HubWork(configured, store=store, hubs=ConfiguredHubs(configured.linked_hubs()), observer=HubObservers())
    adopted = []
    work.assigner.adopt = adopted.append
    async with work:
        work.reload(settings(tmp_path))
        work.reload(settings(tmp_path))
        changed = tmp_path / "changed"
        changed.touch(mode=0o600)
        changed.write_text("new")
        changed.replace(password)
        work.reload(settings(tmp_path))
    first, second, third = (connectors["line-2"] for connectors in adopted)
    assert first is second
    assert third is not first
    await third.aclose()
