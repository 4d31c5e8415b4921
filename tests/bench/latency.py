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

DEVICES = 8
BAR_MS = 150


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Print a line for each kind of device."""
    del options
    with reserve_sdk_port() as port:
        service = Service(directory / "provisiond")
        service.configure(tls_port=port)
        with run_daemon(service, quiet=True):
            for client in ("sync", "aio"):
                _print("X.509", client, service, _enroll_x509(service, directory, client))
                _print("symmetric key", client, service, _enroll_keys(service, directory, client))


def _enroll_x509(service: Service, directory: Path, client: str) -> list[dict[str, Any]]:
    root = make_ca(f"Bench Root {client}")
    (directory / f"{client}.pem").write_bytes(root.pem)
    service.enroll_group(f"bench-{client}", certificate_path=directory / f"{client}.pem")
    devices = []
    for number in range(DEVICES):
        name = f"latency-x509-{client}-{number}"
        make_leaf(name, root).write(directory, name)
        devices.append(
            {
                "registration_id": name,
                "certificate_file": directory / f"{name}.crt",
                "certificate_key_file": directory / f"{name}.key",
            }
        )
    return devices


def _enroll_keys(service: Service, directory: Path, client: str) -> list[dict[str, Any]]:
    devices = []
    for number in range(DEVICES):
        name = f"latency-key-{client}-{number}"
        path = directory / f"{name}.key"
        path.touch(mode=0o600)
        path.write_text(base64.b64encode(secrets.token_bytes(64)).decode())
        service.enroll(name, primary_key_file=path)
        devices.append({"registration_id": name, "key_file": path})
    return devices


def _print(kind: str, client: str, service: Service, devices: list[dict[str, Any]]) -> None:
    times_ms = []
    for device in devices:
        outcome = sdk.register_with_python(
            client=client, host="localhost", id_scope=ID_SCOPE, ca_file=service.ca_file, **device
        )
        if outcome.get("status") != "assigned":
            raise RuntimeError(f"not assigned: {outcome}")
        times_ms.append(1e3 * outcome["elapsed_s"])
    print(
        f"Python SDK ({client}), {kind}: register() to assigned in {statistics.median(times_ms):.0f} ms"
        f" (below {BAR_MS}; {min(times_ms):.0f} to {max(times_ms):.0f}, {len(times_ms)} devices)"
    )
