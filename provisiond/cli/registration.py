"""`provisiond registration`: what became of the devices."""

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from provisiond.cli.enrolled_records import PAGE, After, Top, Yes, choose_id, collect
from provisiond.cli.enrollment_options import Etag
from provisiond.cli.output import Output, OutputFormat, confirm, note, print_record, print_records
from provisiond.cli.registration_approval import EXAMPLE as ACCEPT_EXAMPLE
from provisiond.cli.registration_approval import (
    FINGERPRINT_EXAMPLE,
    REJECT_EXAMPLE,
    accept,
    fingerprint,
    list_pending,
    reject,
)
from provisiond.cli.registration_watch import EXAMPLE as WATCH_EXAMPLE
from provisiond.cli.registration_watch import watch
from provisiond.cli.session import Config, open_admin
from provisiond.model import Registration, RegistrationStatus
from provisiond.protocols.service_api import registration_to_json

app = typer.Typer(no_args_is_help=True, epilog="Example: provisiond registration list --status assigned")
app.command("watch", epilog=WATCH_EXAMPLE)(watch)
app.command("accept", epilog=ACCEPT_EXAMPLE)(accept)
app.command("reject", epilog=REJECT_EXAMPLE)(reject)
app.command("fingerprint", epilog=FINGERPRINT_EXAMPLE)(fingerprint)

_WHAT: Final = "the registration id"
_COLUMNS: Final = {
    "id": "registrationId",
    "status": "status",
    "substatus": "substatus",
    "hub": "assignedHub",
    "device": "deviceId",
    "updated": "lastUpdatedDateTimeUtc",
    "error": "errorMessage",
}

Id = Annotated[str | None, typer.Argument(metavar="ID", help="Registration id.", show_default=False)]
IdOption = Annotated[
    str | None, typer.Option("--registration-id", "--rid", metavar="ID", help="The same, as az has it.")
]


@app.command("list", epilog="Example: provisiond registration list --enrollment-id line-4 --status assigned")
def list_(
    enrollment_id: Annotated[
        str | None,
        typer.Option("--enrollment-id", "--eid", "--group-id", metavar="GROUP", help="Only of this enrollment group."),
    ] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Unknown devices that wait to be accepted, with their six words.")
    ] = False,
    rejected: Annotated[bool, typer.Option("--rejected", help="Those that were rejected.")] = False,
    status: Annotated[
        RegistrationStatus | None, typer.Option("--status", help="Only those.", case_sensitive=False)
    ] = None,
    hub: Annotated[str | None, typer.Option("--hub", metavar="NAME", help="Only those on this hub.")] = None,
    top: Top = PAGE,
    after: After = "",
    output: Output = None,
    config: Config = None,
) -> None:
    """List registrations in the order of their ids."""
    if pending or rejected:
        asyncio.run(list_pending(config, output, rejected=rejected))
        return

    async def read() -> list[Registration]:
        async with open_admin(config) as admin:
            return await collect(
                lambda start, limit: admin.list_registrations(
                    after=start, limit=limit, enrollment_id=enrollment_id, status=status, hub=hub
                ),
                after=after,
                top=top,
            )

    found = asyncio.run(read())
    print_records([registration_to_json(registration) for registration in found[:top]], _COLUMNS, output)
    if len(found) > top:
        note(f"there are more: add --after {found[top - 1].registration_id}")


@app.command("show", epilog="Example: provisiond registration show sensor-7")
def show(registration_id: Id = None, id_option: IdOption = None, output: Output = None, config: Config = None) -> None:
    """Show the record of one registration id."""
    asyncio.run(_show(config, choose_id(registration_id, id_option, _WHAT), output))


@app.command("delete", epilog="Example: provisiond registration delete sensor-7 --yes")
def delete(
    registration_id: Id = None, id_option: IdOption = None, etag: Etag = None, yes: Yes = False, config: Config = None
) -> None:
    """Delete a record: the device's next registration is its first. The enrollment stays."""
    chosen = choose_id(registration_id, id_option, _WHAT)
    confirm(f"Delete the registration of {chosen}?", yes=yes)
    asyncio.run(_delete(config, chosen, etag))
    note(f"deleted the registration of {chosen}; while it is enrolled it may register again")


async def _show(config: Path | None, registration_id: str, output: OutputFormat | None) -> None:
    async with open_admin(config) as admin:
        registration = await admin.get_registration(registration_id)
    print_record(registration_to_json(registration), output)


async def _delete(config: Path | None, registration_id: str, etag: str | None) -> None:
    async with open_admin(config) as admin:
        await admin.delete_registration(registration_id, if_match=etag)
