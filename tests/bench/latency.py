"""How long the unmodified Azure Python SDK takes from register() to assigned, in wall time.

The SDK's own share is in it; Azure's poll flow takes more than 2 s, for the SDK waits that long before it asks again.
"""

import argparse
import base64
import secrets
import statistics
from pathlib import Path
from typing import Any

from tests.certificates import make_ca, make_leaf
from tests.system import sdk
from tests.system.daemon import ID_SCOPE, Service, reserve_sdk_port, run_daemon

DEVICES = 12


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print a line for each kind of device."""
    del options
    with reserve_sdk_port() as port:
        service = Service(directory / "provisiond")
        service.configure(tls_port=port)
        with run_daemon(service, quiet=True):
            _print("X.509", service, _enroll_x509(service, directory))
            _print("symmetric key", service, _enroll_keys(service, directory))


def _enroll_x509(service: Service, directory: Path) -> list[dict[str, Any]]:
    root = make_ca("Bench Root")
    (directory / "root.pem").write_bytes(root.pem)
    service.enroll_group("bench", certificate_path=directory / "root.pem")
    devices = []
    for number in range(DEVICES):
        name = f"latency-x509-{number}"
        make_leaf(name, root).write(directory, name)
        devices.append(
            {
                "registration_id": name,
                "certificate_file": directory / f"{name}.crt",
                "certificate_key_file": directory / f"{name}.key",
            }
        )
    return devices


def _enroll_keys(service: Service, directory: Path) -> list[dict[str, Any]]:
    devices = []
    for number in range(DEVICES):
        name = f"latency-key-{number}"
        path = directory / f"{name}.key"
        path.touch(mode=0o600)
        path.write_text(base64.b64encode(secrets.token_bytes(64)).decode())
        service.enroll(name, primary_key_file=path)
        devices.append({"registration_id": name, "key_file": path})
    return devices


def _print(kind: str, service: Service, devices: list[dict[str, Any]]) -> None:
    times_ms = []
    for device in devices:
        outcome = sdk.register_with_python(
            client="sync", host="localhost", id_scope=ID_SCOPE, ca_file=service.ca_file, **device
        )
        if outcome.get("status") != "assigned":
            raise RuntimeError(f"not assigned: {outcome}")
        times_ms.append(1e3 * outcome["elapsed_s"])
    print(
        f"Python SDK, {kind}: register() to assigned in {statistics.median(times_ms):.0f} ms"
        f" ({min(times_ms):.0f} to {max(times_ms):.0f}, {len(times_ms)} devices)"
    )
