"""`provisiond ca`: the local certification authority that `provisiond init` made."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from provisiond.cli.ca_renew import EXAMPLE, renew
from provisiond.cli.output import Output, note, print_record, print_text, suggest
from provisiond.cli.session import Config, command, load, open_store
from provisiond.errors import AlreadyExists
from provisiond.local_ca import (
    DEVICE_LIFETIME,
    create_file,
    format_fingerprint,
    issue_device,
    load_root,
    load_root_certificate,
)
from provisiond.protocols.service_api import certificate_info
from provisiond.protocols.timestamps import format_timestamp
from provisiond.revocation_list import next_update, read_revocation_list, write_revocation_list
from provisiond.system import SystemClock

app = typer.Typer(no_args_is_help=True, epilog="Example: provisiond ca show")
app.command("renew", epilog=EXAMPLE)(renew)


@app.command("show", epilog="Example: provisiond ca show -o json")
def show(output: Output = None, config: Config = None) -> None:
    """Show the root certificate and where its files are."""
    directory = load(config).settings.ca_dir
    certificate_der = load_root_certificate(directory).public_bytes(Encoding.DER)
    body = {
        "certificateFile": str(directory / "root.crt"),
        "keyFile": str(directory / "root.key"),
        "fingerprint": format_fingerprint(certificate_der),
        **certificate_info(certificate_der),
    }
    print_record(body, output)


@app.command("fingerprint", epilog="Example: provisiond ca fingerprint")
def fingerprint(output: Output = None, config: Config = None) -> None:
    """Print the SHA-256 fingerprint of the root certificate, to compare with what a device trusts."""
    certificate = load_root_certificate(load(config).settings.ca_dir)
    print_text(format_fingerprint(certificate.public_bytes(Encoding.DER)), output)


@app.command("crl", epilog="Example: provisiond ca crl")
def crl(output: Output = None, config: Config = None) -> None:
    """Write the revocation list anew, for the hubs that take devices by certificate, and print where it is."""
    settings = load(config).settings

    async def write() -> Path:
        async with await open_store(settings) as store:
            return await write_revocation_list(settings, store, now=SystemClock().now())

    file = asyncio.run(write())
    crl = read_revocation_list(file)
    body = {"revocationListFile": str(file), "revokedCertificates": 0 if crl is None else len(crl)}
    print_record(body | ({} if crl is None else {"goodUntil": format_timestamp(next_update(crl))}), output)


@app.command("issue", epilog="Example: provisiond ca issue sensor-7 --out devices")
def issue(
    registration_id: Annotated[str, typer.Argument(metavar="ID", help="Registration id: the common name.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write ID.crt and ID.key.")] = Path(),
    days: Annotated[
        int, typer.Option("--days", min=1, max=36500, help="Days until it expires.")
    ] = DEVICE_LIFETIME.days,
    output: Output = None,
    config: Config = None,
) -> None:
    """Issue a device certificate for trying things out; a device's key should be made on the device."""
    root = load_root(load(config).settings.ca_dir)
    device = issue_device(root, registration_id, now=SystemClock().now(), lifetime=timedelta(days=days))
    out.mkdir(parents=True, exist_ok=True)
    certificate_file, key_file = out / f"{registration_id}.crt", out / f"{registration_id}.key"
    if certificate_file.exists():
        raise AlreadyExists(f"{certificate_file} exists and was left as it is")
    create_file(key_file, device.key_pem, mode=0o600)
    create_file(certificate_file, device.certificate_pem)
    print_record({"certificateFile": str(certificate_file), "keyFile": str(key_file)}, output)
    note(f"valid until {device.certificate.not_valid_after_utc:%Y-%m-%d}")
    suggest(f"{command(config)} enrollment create {registration_id} --certificate-path {certificate_file}")
