"""`provisiond demo`: the main job, once for each kind of attestation, in a temporary directory on loopback."""

import asyncio
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from provisiond import local_ca
from provisiond.admin import Admin
from provisiond.attestation.tpm import derive_registration_id
from provisiond.cli.output import Output, note, print_records
from provisiond.cli.session import open_store
from provisiond.daemon import Daemon
from provisiond.device.client import Patience
from provisiond.device.credentials import Credential, SymmetricKeyCredential, TpmCredential, X509Credential
from provisiond.device.errors import DeviceError
from provisiond.device.mqtt import Endpoint
from provisiond.device.simulator import Service, SimulatedDevice, run_device
from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import open_tpm
from provisiond.logs import configure_logs
from provisiond.model import (
    AttestationMaterial,
    Enrollment,
    EnrollmentKind,
    SymmetricKeyMaterial,
    TpmMaterial,
    X509Material,
)
from provisiond.settings import Settings
from provisiond.system import SystemClock, SystemEntropy

EXAMPLE: Final = "Example: provisiond demo"

_ID_SCOPE: Final = "0ne0000DEMO"
_HUB_MESSAGE: Final = b'{"message":"hello from the demo"}'
_COLUMNS: Final = {
    "device": "registrationId",
    "attestation": "attestation",
    "enrollment": "enrollment",
    "result": "result",
    "hub": "assignedHub",
    "connect ms": "connectMs",
    "register ms": "registerMs",
    "hub ms": "hubMs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A device, and the enrollment that shall let it in."""

    device: SimulatedDevice
    kind: EnrollmentKind
    enrollment_id: str
    material: AttestationMaterial

    @property
    def attestation(self) -> str:
        return {X509Material: "x509", SymmetricKeyMaterial: "symmetricKey", TpmMaterial: "tpm"}[type(self.material)]


def demo(
    *,
    keep: bool = typer.Option(False, "--keep", help="Keep the directory, and say where it is."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show the daemon's log on stderr."),
    output: Output = None,
) -> None:
    """Enroll one device of each attestation kind, start the daemon, and let each device be assigned to its hub.

    Everything happens in a temporary directory and on loopback; exits 0 only if every device was assigned.
    """
    configure_logs(level="info" if verbose else "error", output_format="auto")
    directory = Path(tempfile.mkdtemp(prefix="provisiond-demo-"))
    try:
        rows = asyncio.run(_run(directory))
    finally:
        if keep:
            note(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print_records(rows, _COLUMNS, output)
    assigned = sum(row["result"] == "assigned" for row in rows)
    note(f"{assigned} of {len(rows)} devices were assigned")
    if assigned != len(rows):
        raise typer.Exit(1)


async def _run(directory: Path) -> list[Mapping[str, Any]]:
    settings = _make_service(directory)
    async with _candidates() as candidates:
        await _enroll(settings, candidates)
        async with Daemon(settings) as daemon:
            host, port = daemon.addresses["devices"]
            note(f"listening on {host}:{port} (TLS), id scope {_ID_SCOPE}")
            endpoint = Endpoint(host="localhost", port=port, ca_file=directory / "root.crt")
            service = Service(endpoint=endpoint, id_scope=_ID_SCOPE, patience=Patience(total_s=60.0))
            return [await _provision(candidate, service) for candidate in candidates]


def _make_service(directory: Path) -> Settings:
    now = SystemClock().now()
    root = local_ca.make_root("provisiond demo root", now=now)
    server = local_ca.issue_server(root, ["localhost", "127.0.0.1"], now=now)
    local_ca.create_file(directory / "root.crt", root.certificate_pem)
    local_ca.create_file(directory / "server.crt", server.certificate_pem)
    local_ca.create_file(directory / "server.key", server.key_pem, mode=0o600)
    port = _free_port()
    listener = {
        "name": "devices",
        "bind": f"127.0.0.1:{port}",
        "tls": True,
        "cert_file": str(directory / "server.crt"),
        "key_file": str(directory / "server.key"),
    }
    return Settings.model_validate(
        {
            "config_version": 1,
            "service": {"id_scope": _ID_SCOPE, "state_dir": str(directory / "state")},
            "broker": {"listeners": [listener]},
            "hubs": [{"name": "local", "host": f"localhost:{port}"}],
            "metrics": {"enabled": False},
        }
    )


@asynccontextmanager
async def _candidates() -> AsyncIterator[list[_Candidate]]:
    candidates = [*_x509_candidates(), *_symmetric_key_candidates()]
    if shutil.which("swtpm") is None:
        note("no TPM device: swtpm is not installed (apt-get install swtpm)")
        yield candidates
        return
    async with run_emulator() as socket_path, open_tpm(f"socket:{socket_path}") as tpm:
        endorsement_key = await tpm.endorsement_key()
        registration_id = derive_registration_id(endorsement_key)
        candidates.append(
            _candidate(
                registration_id,
                TpmCredential(device=tpm),
                EnrollmentKind.INDIVIDUAL,
                registration_id,
                TpmMaterial(endorsement_key=endorsement_key),
            )
        )
        yield candidates


def _x509_candidates() -> list[_Candidate]:
    now = SystemClock().now()
    factory = local_ca.make_root("demo factory", now=now)
    single, member = (local_ca.issue_device(factory, name, now=now) for name in ("x509-single", "x509-member"))
    return [
        _candidate(
            "x509-single",
            X509Credential.from_pem(single.certificate_pem, single.key_pem),
            EnrollmentKind.INDIVIDUAL,
            "x509-single",
            X509Material(primary_der=single.certificate_der),
        ),
        _candidate(
            "x509-member",
            X509Credential.from_pem(member.certificate_pem, member.key_pem),
            EnrollmentKind.GROUP,
            "x509-factory",
            X509Material(primary_der=factory.certificate_der),
        ),
    ]


def _symmetric_key_candidates() -> list[_Candidate]:
    material = SymmetricKeyMaterial(primary_key=secrets.token_bytes(64), secondary_key=secrets.token_bytes(64))
    return [
        _candidate(
            "key-single",
            SymmetricKeyCredential(key=material.primary_key),
            EnrollmentKind.INDIVIDUAL,
            "key-single",
            material,
        ),
        _candidate(
            "key-member",
            SymmetricKeyCredential.from_group_key(material.primary_key, "key-member"),
            EnrollmentKind.GROUP,
            "key-factory",
            material,
        ),
    ]


def _candidate(
    registration_id: str,
    credential: Credential,
    kind: EnrollmentKind,
    enrollment_id: str,
    material: AttestationMaterial,
) -> _Candidate:
    device = SimulatedDevice(registration_id=registration_id, credential=credential)
    return _Candidate(device=device, kind=kind, enrollment_id=enrollment_id, material=material)


async def _enroll(settings: Settings, candidates: list[_Candidate]) -> None:
    clock = SystemClock()
    async with await open_store(settings) as store:
        admin = Admin(store=store, clock=clock, entropy=SystemEntropy(), hubs=settings.linked_hubs(), actor="demo")
        for candidate in candidates:
            await admin.create_enrollment(
                Enrollment(
                    kind=candidate.kind,
                    id=candidate.enrollment_id,
                    attestation=candidate.material,
                    created_at=clock.now(),
                    updated_at=clock.now(),
                )
            )


async def _provision(candidate: _Candidate, service: Service) -> Mapping[str, Any]:
    row: dict[str, Any] = {
        "registrationId": candidate.device.registration_id,
        "attestation": candidate.attestation,
        "enrollment": candidate.kind.value,
    }
    started = time.perf_counter()
    try:
        result = await run_device(candidate.device, service, hub_message=_HUB_MESSAGE)
    except DeviceError as error:
        print(f"{candidate.device.registration_id}: {error}", file=sys.stderr)
        return {**row, "result": "failed", "error": str(error)}
    elapsed_s = time.perf_counter() - started
    return {
        **row,
        "result": "assigned",
        "assignedHub": result.assigned_hub,
        "deviceId": result.device_id,
        "connectMs": round(result.connect_s * 1000, 1),
        "registerMs": round(result.register_s * 1000, 1),
        "hubMs": round((elapsed_s - result.connect_s - result.register_s) * 1000, 1),
    }


def _free_port() -> int:
    """A port that was free a moment ago; the hub's name has to carry it before the listener is bound."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
