"""Unmodified Azure device SDKs against a service that answers as Azure does: 202 first, then 200 on the poll."""

import pytest

from tests.system import sdk
from tests.system.conftest import Fleet
from tests.system.daemon import ID_SCOPE, Daemon

pytestmark = pytest.mark.sdk

REPLY = "poll"


@pytest.mark.parametrize(("client", "kind"), [("sync", "keyed"), ("aio", "certified_of_group")])
def test_a_python_device_is_assigned_on_its_poll(daemon: Daemon, fleet: Fleet, client: str, kind: str) -> None:
    outcome = sdk.register_with_python(
        client=client, host="localhost", id_scope=ID_SCOPE, ca_file=daemon.service.ca_file, **getattr(fleet, kind)
    )
    assert outcome.get("status") == "assigned", outcome
    assert outcome["elapsed_s"] >= 2  # it always waits 2 s before its first poll


@pytest.mark.parametrize("kind", ["keyed_of_group", "certified"])
def test_a_node_device_is_assigned_on_its_poll(daemon: Daemon, fleet: Fleet, kind: str) -> None:
    outcome = sdk.register_with_node(
        host="localhost", id_scope=ID_SCOPE, ca_file=daemon.service.ca_file, **getattr(fleet, kind)
    )
    assert outcome.get("status") == "assigned", outcome
    assert outcome["elapsed_s"] >= 1  # the configured retry-after
