"""One running daemon for a module of tests, and the devices that are enrolled with it."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import make_ca, make_leaf
from tests.system.daemon import Daemon, Service, reserve_sdk_port, run_daemon


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Enrolled devices, by the arguments that a driver needs to register as one of them."""

    keyed: dict[str, Any]
    keyed_of_group: dict[str, Any]
    keyed_wrongly: dict[str, Any]
    keyed_disabled: dict[str, Any]
    certified: dict[str, Any]
    certified_of_group: dict[str, Any]
    certified_by_stranger: dict[str, Any]
    unknown: dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Waiting for the port that only one module at a time may have is not the test's own time."""
    for item in items:
        if "sdk_port" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(func_only=True))


@pytest.fixture(scope="module")
def sdk_port() -> Iterator[int]:
    """The port of the Python SDK; nobody else on this machine tests on it meanwhile."""
    with reserve_sdk_port() as port:
        yield port


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sdk_port: int) -> Service:
    """A service on the SDKs' port that answers as the module's REPLY says (`auto` by default)."""
    made = Service(tmp_path_factory.mktemp("service") / "provisiond")
    made.configure(tls_port=sdk_port, reply=getattr(request.module, "REPLY", "auto"), retry_after="1s")
    return made


@pytest.fixture(scope="module")
def daemon(service: Service) -> Iterator[Daemon]:
    """The service, running; it must end cleanly."""
    with run_daemon(service) as running:
        yield running


@pytest.fixture(scope="module")
def fleet(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Devices of every kind, enrolled while the daemon runs."""
    directory, service = tmp_path_factory.mktemp("fleet"), daemon.service
    root = make_ca("Fleet Root")
    line = make_ca("Line 4", root)
    stranger = make_ca("Fleet Root")  # the same name, another key
    pinned = make_leaf("certified")
    group_key = secrets.token_bytes(64)

    def keep(name: str, data: bytes) -> Path:
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        return path

    def keyed(registration_id: str, key: bytes) -> dict[str, Any]:
        path = keep(f"{registration_id}-{secrets.token_hex(4)}.key", base64.b64encode(key))
        return {"registration_id": registration_id, "key_file": path}

    def certified(registration_id: str, issued: Any) -> dict[str, Any]:
        certificate, key = issued.write(directory, f"{registration_id}-{secrets.token_hex(4)}")
        return {"registration_id": registration_id, "certificate_file": certificate, "certificate_key_file": key}

    devices = Fleet(
        keyed=keyed("keyed", secrets.token_bytes(32)),
        keyed_of_group=keyed("Keyed-07", hmac.digest(group_key, b"Keyed-07", hashlib.sha256)),
        keyed_wrongly=keyed("keyed", secrets.token_bytes(32)),
        keyed_disabled=keyed("disabled", secrets.token_bytes(32)),
        certified=certified("certified", pinned),
        certified_of_group=certified("certified-07", make_leaf("certified-07", line)),
        certified_by_stranger=certified("certified-08", make_leaf("certified-08", stranger)),
        unknown=keyed("unknown", secrets.token_bytes(32)),
    )
    group_key_file = keep("group.key", base64.b64encode(group_key))
    service.enroll("keyed", primary_key_file=devices.keyed["key_file"])
    service.enroll("disabled", primary_key_file=devices.keyed_disabled["key_file"], provisioning_status="disabled")
    service.enroll("certified", certificate_path=keep("pinned.pem", pinned.pem))
    service.enroll_group("keyed-group", primary_key_file=group_key_file)
    service.enroll_group("certified-group", certificate_path=keep("root.pem", root.pem))
    return devices
