"""`provisiond registration watch`: registrations as they happen."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.cli.audit_records import audit_to_json
from provisiond.cli.follow import follow
from provisiond.cli.output import Output, OutputFormat, note, print_stream
from provisiond.cli.session import Config, has_database, load, open_store
from provisiond.model import AuditRecord
from provisiond.store import SqliteStore
from provisiond.store.audit_trail import AuditQuery, AuditTrail

EXAMPLE: Final = "Example: provisiond registration watch --registration-id sensor-7"

_COLUMNS: Final = {
    "at": "at",
    "id": "registrationId",
    "outcome": "outcome",
    "hub": "hub",
    "enrollment": "enrollmentId",
    "code": "code",
    "from": "actor",
    "reason": "reason",
    "tracking id": "trackingId",
}
_LAST: Final = 10


def watch(
    registration_id: Annotated[
        str | None, typer.Option("--registration-id", "--rid", metavar="ID", help="Only of this device.")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what was not assigned.")] = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Show the last registrations, then each one as it happens, until Ctrl-C."""
    asyncio.run(_watch(config, registration_id, output, refused=refused))


async def _watch(
    config: Path | None, registration_id: str | None, output: OutputFormat | None, *, refused: bool
) -> None:
    settings = load(config).settings
    if not has_database(settings):
        async with await open_store(settings):
            pass  # made now, so that the daemon's first registration is seen
    async with await SqliteStore.open(settings.database_file, read_only=True) as store:
        trail = AuditTrail(store)
        show = print_stream(_COLUMNS, output)
        newest = await trail.find(AuditQuery(registration_id=registration_id, newest=True, limit=_LAST * 10))
        for _, record in [pair for pair in newest if _is_wanted(pair[1], refused=refused)][-_LAST:]:
            show(_body(record))
        note("watching; Ctrl-C ends it")
        last = (await trail.head()).seq if not newest or registration_id else newest[-1][0]
        async for _, record in follow(trail, AuditQuery(registration_id=registration_id), after=last):
            if _is_wanted(record, refused=refused):
                show(_body(record))


def _is_wanted(record: AuditRecord, *, refused: bool) -> bool:
    """Of devices, not of operators: those events are named `enrollment.create` and the like."""
    is_device = "." not in record.event
    return is_device and not (refused and record.outcome in ("assigned", "assigning"))


def _body(record: AuditRecord) -> dict[str, Any]:
    body = audit_to_json(record)
    del body["trace"]
    return body
