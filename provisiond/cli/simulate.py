"""`provisiond simulate`: devices that speak the real protocol, one or a fleet.

Standard output of `device` is its story in the words of the Azure samples (`connected`, `challenge`, `assigning`,
`assigned (hub, device id)`), or with `-o json` the assignment; the error JSON when the service refuses. Exit codes: 0
assigned, 5 refused, 69 no connection, 75 no answer in time, 2 usage, 1 anything else.
"""

import asyncio
import base64
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from provisiond.cli.output import Output, OutputFormat, note, print_record
from provisiond.cli.simulate_credential import (
    DeviceFlags,
    FleetFlags,
    check_registration_id,
    make_fleet,
    open_device,
    open_device_tpm,
)
from provisiond.cli.simulate_output import Story, fleet_exit_code, fleet_figures, print_failure
from provisiond.device.client import Patience
from provisiond.device.credentials import read_password
from provisiond.device.dialect import find_dialect
from provisiond.device.errors import DeviceError
from provisiond.device.mqtt import Endpoint
from provisiond.device.simulator import FleetReport, Service, run_device, run_fleet
from provisiond.device.tpm_device import KeyAlgorithm
from provisiond.errors import MalformedRequest
from provisiond.model import AttestationType, JSONValue
from provisiond.protocols.json_body import parse_json
from provisiond.protocols.native import PAYLOAD_MAX_SIZE_BYTES
from provisiond.settings import load_settings
from provisiond.settings.sources import find_file

app = typer.Typer(
    help="Simulated devices that speak the real protocol.",
    no_args_is_help=True,
    epilog="Example: provisiond simulate fleet --count 100 --group-key-file line-4.key --ca-file ca/root.crt",
)

_TLS_PORT: Final = 8883
_PLAINTEXT_PORT: Final = 1883
_HUB_MESSAGE: Final = b'{"message":"hello"}'

Attestation = Annotated[
    AttestationType,
    typer.Option(
        "--attestation", metavar="x509|symmetricKey|tpm", case_sensitive=False, help="How a device proves itself."
    ),
]


def _or_configured(context: typer.Context, value: str | None) -> str | None:
    """For who tries things out on the gateway; a device elsewhere has no configuration of the service."""
    config = (context.find_root().obj or {}).get("config")
    if value is not None or find_file(config, os.environ) is None:
        return value
    return load_settings(config, environment=os.environ).settings.service.id_scope


IdScope = Annotated[
    str | None,
    typer.Option(
        "--id-scope",
        help="Id scope of the service; left out, that of the configuration, when there is one here.",
        callback=_or_configured,
        show_default=False,
    ),
]
Host = Annotated[str, typer.Option("--host", help="Where the service listens; its certificate must carry this name.")]
Port = Annotated[int | None, typer.Option("--port", min=1, max=65535, help="8883, or 1883 with --plaintext.")]
CaFile = Annotated[Path | None, typer.Option("--ca-file", help="PEM roots of the server; the system's by default.")]
Plaintext = Annotated[bool, typer.Option("--plaintext", help="No TLS; for a service on this machine only.")]
ProtocolName = Annotated[str, typer.Option("--protocol", metavar="dps|native", help="Wire protocol.")]
UserName = Annotated[
    str | None,
    typer.Option("--user-name", help="native: user name at the site's broker; the registration id with a password."),
]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="native: file with the password at the site's broker.")
]
Payload = Annotated[str | None, typer.Option("--payload", metavar="JSON", help="Custom payload of the registration.")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds for a whole registration.")]
GroupKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--group-key-file", help="symmetricKey: base64 key of the group, `-` for stdin; derives the device's."
    ),
]
CertificatePath = Annotated[
    Path | None,
    typer.Option("--certificate-path", help="x509: PEM chain, leaf first. tpm: issuers of its certificate."),
]
KeyPath = Annotated[Path | None, typer.Option("--key-path", help="x509: PEM private key.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="symmetricKey: base64 key of the device; `-` for stdin.")
]
Tpm = Annotated[str, typer.Option("--tpm", metavar="swtpm|socket:PATH|device:PATH", help="tpm: which.")]
TpmAlgorithm = Annotated[
    KeyAlgorithm, typer.Option("--tpm-algorithm", help="tpm: of the keys made where the TPM has none.")
]
StateDir = Annotated[
    Path | None,
    typer.Option("--dir", metavar="STATE", help="Keeps what is made (keys, swtpm's state) between runs."),
]
PrintEndorsementKey = Annotated[
    bool, typer.Option("--print-endorsement-key", help="tpm: print the base64 to enroll, and exit.")
]
ConnectHub = Annotated[bool, typer.Option("--connect-hub", help="Go on to the assigned hub and send one message.")]


@app.command(
    "device",
    epilog="Example: provisiond simulate device pump-1 --attestation symmetricKey --key-file pump-1.key "
    "--ca-file ca/root.crt",
)
def simulate_device(
    registration_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Registration id; a TPM may leave it to its endorsement key.")
    ] = None,
    *,
    attestation: Attestation,
    host: Host = "localhost",
    port: Port = None,
    ca_file: CaFile = None,
    id_scope: IdScope = None,
    protocol: ProtocolName = "dps",
    plaintext: Plaintext = False,
    user_name: UserName = None,
    password_file: PasswordFile = None,
    certificate_path: CertificatePath = None,
    key_path: KeyPath = None,
    key_file: KeyFile = None,
    group_key_file: GroupKeyFile = None,
    tpm: Tpm = "swtpm",
    tpm_algorithm: TpmAlgorithm = KeyAlgorithm.RSA,
    state_dir: StateDir = None,
    print_endorsement_key: PrintEndorsementKey = False,
    payload: Payload = None,
    connect_hub: ConnectHub = False,
    timeout: Timeout = 120,
    output: Annotated[
        OutputFormat | None, typer.Option("--output", "-o", help="Form of a record instead of the story.")
    ] = None,
) -> None:
    """Provision one device; exits 0 when it is assigned, 5 when it is refused, 69 when there is no connection."""
    flags = DeviceFlags(
        registration_id=None if registration_id is None else check_registration_id(registration_id),
        attestation=attestation,
        certificate_path=certificate_path,
        key_path=key_path,
        key_file=key_file,
        group_key_file=group_key_file,
        tpm=tpm,
        tpm_algorithm=tpm_algorithm,
        state_dir=state_dir,
    )
    if print_endorsement_key:
        _run(_print_endorsement_key(flags))
        return
    service = _make_service(host, port, ca_file, id_scope, plaintext, protocol, timeout, user_name, password_file)
    hub_message = _HUB_MESSAGE if connect_hub else None
    _run(_simulate_device(flags, service, _parse_payload(payload), hub_message, Story(output)))


@app.command(
    "fleet",
    epilog="Example: provisiond simulate fleet --count 100 --group-key-file line-4.key --ca-file ca/root.crt",
)
def simulate_fleet(
    *,
    count: Annotated[int, typer.Option("--count", min=1, help="How many devices.")],
    attestation: Attestation = AttestationType.SYMMETRIC_KEY,
    host: Host = "localhost",
    port: Port = None,
    ca_file: CaFile = None,
    id_scope: IdScope = None,
    protocol: ProtocolName = "dps",
    plaintext: Plaintext = False,
    user_name: UserName = None,
    password_file: PasswordFile = None,
    group_key_file: GroupKeyFile = None,
    ca_certificate_path: Annotated[
        Path | None, typer.Option("--ca-certificate-path", help="x509: PEM CA that issues each device's certificate.")
    ] = None,
    ca_key_path: Annotated[Path | None, typer.Option("--ca-key-path", help="x509: PEM private key of the CA.")] = None,
    id_prefix: Annotated[
        str, typer.Option("--id-prefix", help="Registration ids are PREFIX000000 and so on.")
    ] = "sim-",
    first: Annotated[int, typer.Option("--first", min=0, help="Number of the first device.")] = 0,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=10_000, help="Devices under way at once.")
    ] = 100,
    payload: Payload = None,
    timeout: Timeout = 120,
    output: Output = None,
) -> None:
    """Provision many devices of one enrollment group; exits 0 only when all are assigned."""
    flags = FleetFlags(
        attestation=attestation,
        group_key_file=group_key_file,
        ca_certificate_path=ca_certificate_path,
        ca_key_path=ca_key_path,
        id_prefix=id_prefix,
        first=first,
    )
    check_registration_id(f"{id_prefix}{first + count - 1:06d}")
    service = _make_service(host, port, ca_file, id_scope, plaintext, protocol, timeout, user_name, password_file)
    report = _run(_simulate_fleet(flags, service, count, concurrency, _parse_payload(payload)))
    print_record(fleet_figures(report), output)
    raise typer.Exit(fleet_exit_code(report))


async def _simulate_device(
    flags: DeviceFlags, service: Service, payload: JSONValue, hub_message: bytes | None, story: Story
) -> None:
    async with open_device(flags) as device:
        result = await run_device(device, service, payload=payload, hub_message=hub_message, on_step=story.tell)
    story.end(result)


async def _print_endorsement_key(flags: DeviceFlags) -> None:
    if flags.attestation is not AttestationType.TPM:
        raise typer.BadParameter("--print-endorsement-key goes with --attestation tpm")
    async with open_device_tpm(flags) as tpm:
        print(base64.b64encode(await tpm.endorsement_key()).decode())
    if flags.tpm == "swtpm" and flags.state_dir is None:
        note("this emulated TPM is forgotten now; add --dir STATE to keep it for the registration")


async def _simulate_fleet(
    flags: FleetFlags, service: Service, count: int, concurrency: int, payload: JSONValue
) -> FleetReport:
    devices = make_fleet(flags, count)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("devices", total=count)
        return await run_fleet(
            devices, service, concurrency=concurrency, payload=payload, on_done=lambda: progress.advance(task)
        )


def _make_service(
    host: str,
    port: int | None,
    ca_file: Path | None,
    id_scope: str | None,
    plaintext: bool,
    protocol: str,
    timeout_s: float,
    user_name: str | None,
    password_file: Path | None,
) -> Service:
    if not id_scope:
        raise typer.BadParameter("--id-scope is needed; `provisiond init` printed it, and it is in the configuration")
    if protocol != "native" and (user_name is not None or password_file is not None):
        raise typer.BadParameter("--user-name and --password-file go with --protocol native; dps has its own")
    try:
        return Service(
            endpoint=Endpoint(
                host=host,
                port=port or (_PLAINTEXT_PORT if plaintext else _TLS_PORT),
                ca_file=ca_file,
                plaintext=plaintext,
                user_name=user_name,
                password=None if password_file is None else read_password(password_file),
            ),
            id_scope=id_scope,
            patience=Patience(total_s=timeout_s),
            dialect=find_dialect(protocol),
        )
    except DeviceError as error:
        raise typer.BadParameter(str(error)) from error


def _parse_payload(text: str | None) -> JSONValue:
    if text is None:
        return None
    size_bytes = len(text.encode())
    if size_bytes > PAYLOAD_MAX_SIZE_BYTES:  # the service would close the connection, and again after each reconnect
        raise typer.BadParameter(f"--payload has {size_bytes} bytes, at most {PAYLOAD_MAX_SIZE_BYTES}")
    try:
        return parse_json(text.encode())
    except MalformedRequest as error:
        raise typer.BadParameter(f"--payload is not JSON: {str(error).removeprefix('body is not JSON: ')}") from error


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; a failure is told, and becomes the exit code."""
    try:
        return asyncio.run(work)
    except DeviceError as error:
        raise typer.Exit(print_failure(error)) from error
