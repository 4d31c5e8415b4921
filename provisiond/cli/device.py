"""`provisiond device`: the devices explorer; what devices are at which hub, and what can be done to them."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from provisiond.admin.devices import STILL_OPEN, DeviceRecord, Revocation
from provisiond.cli.audit_records import audit_to_json
from provisiond.cli.enrolled_records import PAGE, After, Top, Yes, collect
from provisiond.cli.exit_codes import ExitCode, print_error
from provisiond.cli.operator_link import DaemonUnreachable, open_link
from provisiond.cli.output import Output, OutputFormat, confirm, note, print_record, print_records, suggest
from provisiond.cli.revocation_list import release_certificates
from provisiond.cli.revoking import open_devices, prove
from provisiond.cli.secret_files import read_object
from provisiond.cli.session import Config, command, load, start_command
from provisiond.errors import InvalidArgument, MalformedRequest
from provisiond.model import AuditRecord, JSONValue
from provisiond.protocols.device_api import device_to_json
from provisiond.protocols.json_body import parse_json
from provisiond.protocols.operator import (
    MESSAGE_LIFETIME_S,
    METHOD_TIMEOUT_S,
    GetTwin,
    InvokeMethod,
    OperatorRequest,
    SendMessage,
    TwinProperties,
    UpdateTwin,
)
from provisiond.settings import Settings

app = typer.Typer(no_args_is_help=True, epilog="Example: provisiond device list")
twin_app = typer.Typer(
    no_args_is_help=True,
    help="Tags, desired and reported properties.",
    epilog="Example: provisiond device twin show sensor-7",
)
app.add_typer(twin_app, name="twin")

_COLUMNS: Final = {
    "device": "deviceId",
    "hub": "hub",
    "status": "status",
    "connection": "connectionState",
    "last seen": "lastActivityTime",
    "attestation": "attestation",
    "group": "enrollmentGroupId",
}

Id = Annotated[str, typer.Argument(metavar="ID", help="Device id.", show_default=False)]


# --- looking ---------------------------------------------------------------------------------------------------------


@app.command("list", epilog="Example: provisiond device list --hub local")
def list_(
    hub: Annotated[str | None, typer.Option("--hub", metavar="NAME", help="Only those at this hub.")] = None,
    connected: Annotated[bool, typer.Option("--connected", help="Only those that are connected now.")] = False,
    top: Top = PAGE,
    after: After = "",
    output: Output = None,
    config: Config = None,
) -> None:
    """List devices: where they are, whether they may connect, are connected, and were last seen."""
    asyncio.run(_list(config, hub=hub, connected=connected, top=top, after=after, output=output))


@app.command("show", epilog="Example: provisiond device show sensor-7")
def show(device_id: Id, output: Output = None, config: Config = None) -> None:
    """Show one device."""

    async def read() -> dict[str, Any]:
        settings = load(config).settings
        async with open_devices(settings) as (devices, _):
            return _to_json(await devices.get_device(device_id), settings, running=await _is_running(settings, config))

    print_record(asyncio.run(read()), output)


# --- access ----------------------------------------------------------------------------------------------------------


@app.command("disable", epilog="Example: provisiond device disable sensor-7")
def disable(device_id: Id, output: Output = None, config: Config = None) -> None:
    """Take a device's access away, cut its session, try to connect as it would, and print the receipt."""
    receipt = asyncio.run(_revoke(config, device_id, delete=False))
    _conclude(receipt, output)
    suggest(f"{command(config)} device enable {device_id} undoes it")


@app.command("delete", epilog="Example: provisiond device delete sensor-7 --yes")
def delete(device_id: Id, yes: Yes = False, output: Output = None, config: Config = None) -> None:
    """Take a device out, with its registration and twin, and print the receipt; proved as `disable` is."""
    confirm(f"Delete device {device_id}, its registration and its twin?", yes=yes)
    _conclude(asyncio.run(_revoke(config, device_id, delete=True)), output)


@app.command("enable", epilog="Example: provisiond device enable sensor-7")
def enable(device_id: Id, output: Output = None, config: Config = None) -> None:
    """Give a device its access back."""

    async def change() -> dict[str, Any]:
        settings = load(config).settings
        async with open_devices(settings) as (devices, store):
            enabled = await devices.enable(device_id)
            await release_certificates(settings, store, [enabled.registration])
            return _to_json(enabled, settings, running=await _is_running(settings, config))

    print_record(asyncio.run(change()), output)


# --- speaking to devices ---------------------------------------------------------------------------------------------


@app.command("send", epilog='Example: provisiond device send sensor-7 --data "restart at noon" --property line=4')
def send(
    device_id: Id,
    data: Annotated[str, typer.Option("--data", metavar="TEXT", help="The message's payload.")] = "",
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="NAME=VALUE", help="One of its own; may be repeated."),
    ] = None,
    message_id: Annotated[str | None, typer.Option("--message-id", help="Else one is made.")] = None,
    correlation_id: Annotated[str | None, typer.Option("--correlation-id")] = None,
    content_type: Annotated[str | None, typer.Option("--content-type", help="Such as application/json.")] = None,
    content_encoding: Annotated[str | None, typer.Option("--content-encoding", help="Such as utf-8.")] = None,
    expiry_s: Annotated[
        int, typer.Option("--expiry-s", min=1, help="Seconds that it waits for the device at the most.")
    ] = MESSAGE_LIFETIME_S,
    output: Output = None,
    config: Config = None,
) -> None:
    """Send a cloud-to-device message; it waits for a device that is not connected."""
    request = _request(
        SendMessage,
        device_id=device_id,
        payload=data,
        properties=dict(_property(text) for text in properties or ()),
        message_id=message_id,
        correlation_id=correlation_id,
        content_type=content_type,
        content_encoding=content_encoding,
        expiry_s=expiry_s,
    )
    print_record(asyncio.run(_ask(config, request)), output)


@app.command("invoke-method", epilog="Example: provisiond device invoke-method sensor-7 reboot --payload '{\"in\": 5}'")
def invoke_method(
    device_id: Id,
    name: Annotated[str, typer.Argument(metavar="METHOD", help="Name of the method.")],
    payload: Annotated[str, typer.Option("--payload", metavar="JSON", help="What the method is given.")] = "null",
    timeout_s: Annotated[
        int, typer.Option("--timeout-s", min=1, max=300, help="Seconds that the device may take to answer.")
    ] = METHOD_TIMEOUT_S,
    connect_timeout_s: Annotated[
        int, typer.Option("--connect-timeout-s", min=0, max=300, help="Seconds to wait for the device to be connected.")
    ] = 0,
    output: Output = None,
    config: Config = None,
) -> None:
    """Call a direct method and print the device's answer; exits 75 when it is not connected or does not answer."""
    try:
        document = parse_json(payload.encode())
    except MalformedRequest as error:
        raise InvalidArgument(f"--payload: {error}") from error
    request = _request(
        InvokeMethod,
        device_id=device_id,
        method_name=name,
        payload=document,
        response_timeout_in_seconds=timeout_s,
        connect_timeout_in_seconds=connect_timeout_s,
    )
    answer = asyncio.run(_ask(config, request, patience_s=timeout_s + connect_timeout_s))
    print_record(answer["result"], output)


@twin_app.command("show", epilog="Example: provisiond device twin show sensor-7")
def twin_show(device_id: Id, output: Output = None, config: Config = None) -> None:
    """Show a device's twin."""
    print_record(asyncio.run(_ask(config, _request(GetTwin, device_id=device_id))), output)


@twin_app.command("update", epilog="Example: provisiond device twin update sensor-7 --desired '{\"interval_s\": 10}'")
def twin_update(
    device_id: Id,
    desired: Annotated[
        str | None, typer.Option("--desired", metavar="JSON|@FILE", help="Patch of desired properties; null removes.")
    ] = None,
    tags: Annotated[
        str | None, typer.Option("--tags", metavar="JSON|@FILE", help="Patch of tags; null removes.")
    ] = None,
    etag: Annotated[str | None, typer.Option("--etag", help="Change nothing if the twin has another one.")] = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Patch a twin; a device that is connected hears of its desired properties at once."""
    if desired is None and tags is None:
        raise InvalidArgument("there is nothing to change: give --desired or --tags")
    request = _request(
        UpdateTwin,
        device_id=device_id,
        properties=TwinProperties(desired=None if desired is None else dict(read_object(desired, "--desired"))),
        tags=None if tags is None else dict(read_object(tags, "--tags")),
        etag=etag,
    )
    print_record(asyncio.run(_ask(config, request)), output)


# --- work ------------------------------------------------------------------------------------------------------------


async def _list(
    config: Path | None, *, hub: str | None, connected: bool, top: int, after: str, output: OutputFormat | None
) -> None:
    settings = load(config).settings
    running = await _is_running(settings, config)
    async with open_devices(settings) as (devices, _):

        async def fetch(start: str, limit: int) -> list[DeviceRecord]:
            while page := await devices.list_devices(after=start, limit=PAGE if connected else limit, hub=hub):
                wanted = [
                    one
                    for one in page
                    if not connected or _to_json(one, settings, running=running)["connectionState"] == "Connected"
                ]
                if wanted or not running:
                    return wanted
                start = page[-1].key
            return []

        found: list[DeviceRecord] = await collect(fetch, after=after, top=top)
    print_records([_to_json(device, settings, running=running) for device in found[:top]], _COLUMNS, output)
    if len(found) > top:
        note(f"there are more: add --after {found[top - 1].registration.registration_id}")


def _to_json(device: DeviceRecord, settings: Settings, *, running: bool) -> dict[str, Any]:
    elsewhere = {hub.name for hub in settings.hubs if not hub.is_embedded}
    return device_to_json(
        device.registration,
        enrollment=device.enrollment,
        presence=device.presence,
        running=running,
        watched=device.registration.hub not in elsewhere,
        departures=device.departures,
    )


async def _is_running(settings: Settings, config: Path | None) -> bool:
    """Whether there is a daemon to be connected to: one that was killed could not write down that all had gone."""
    try:
        async with open_link(settings, config):
            return True
    except DaemonUnreachable:
        note(f"the daemon does not run, so no device is connected: {start_command(config)}")
        return False


async def _revoke(config: Path | None, device_id: str, *, delete: bool) -> AuditRecord:
    settings = load(config).settings
    async with open_devices(settings) as (devices, store):
        revocation: Revocation = await (devices.delete(device_id) if delete else devices.disable(device_id))
        return await prove(revocation, devices, store, settings, config)


def _conclude(receipt: AuditRecord, output: OutputFormat | None) -> None:
    print_record(audit_to_json(receipt), output)
    for check in receipt.trace:
        note(f"{'ok  ' if check.passed else 'open'} {check.finding}")
    note(f"receipt {receipt.tracking_id}: {receipt.outcome}")
    if receipt.outcome == STILL_OPEN:
        print_error("the device can still connect")
        raise typer.Exit(ExitCode.FAILED)


async def _ask(config: Path | None, request: OperatorRequest, *, patience_s: float = 0.0) -> dict[str, JSONValue]:
    settings = load(config).settings
    async with open_link(settings, config) as link:
        return dict(await link.request(request, patience_s=patience_s))


def _request(kind: type[OperatorRequest], **members: Any) -> OperatorRequest:
    """Make a request of what a person has typed.

    Raises:
        InvalidArgument: a member cannot be.
    """
    try:
        return kind(**members)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(f"{where or 'request'}: {first['msg']}") from error


def _property(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise InvalidArgument(f"--property {text!r}: write NAME=VALUE")
    return name, value
