"""`provisiond enrollment export`: every enrollment in a file that can be imported again."""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from provisiond.cli.enrollment_options import ShowKeys
from provisiond.cli.output import note, suggest
from provisiond.cli.session import Config, command, open_admin
from provisiond.cli.written_files import writing
from provisiond.model import EnrollmentKind, SymmetricKeyMaterial
from provisiond.protocols.bulk_rows import BulkFormat
from provisiond.protocols.bulk_writing import BulkWriter

EXAMPLE: Final = "Example: provisiond enrollment export devices.csv --show-keys"


class ExportFormat(StrEnum):
    """Forms that are written."""

    CSV = "csv"
    NDJSON = "ndjson"
    JSON = "json"
    AZURE = "azure"


_BY_SUFFIX: Final = {".csv": ExportFormat.CSV, ".json": ExportFormat.JSON}


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="Where to; - for stdout.")] = Path("-"),
    form: Annotated[
        ExportFormat | None,
        typer.Option(
            "--format", help="Form of the file; by its name when left out, else ndjson.", case_sensitive=False
        ),
    ] = None,
    groups: Annotated[bool, typer.Option("--groups", help="Enrollment groups instead.")] = False,
    show_keys: ShowKeys = False,
    config: Config = None,
) -> None:
    """Write every enrollment, in the order of their ids, so that `enrollment import` reads them back.

    Without --show-keys, symmetric keys are left out, and an import elsewhere would generate others.
    """
    chosen = form or _BY_SUFFIX.get(file.suffix.lower(), ExportFormat.NDJSON)
    kind = EnrollmentKind.GROUP if groups else EnrollmentKind.INDIVIDUAL
    with writing(file) as stream:
        count, hidden = asyncio.run(_export(config, stream.write, BulkFormat(chosen.value), kind, show_keys=show_keys))
    note(f"{count} enrollments" + ("" if str(file) == "-" else f" in {file}"))
    if hidden:
        note(f"the keys of {hidden} of them were left out; --show-keys writes them")
    suggest(f"{command(None)} enrollment import {file} --dry-run, with the configuration of the other gateway")


async def _export(
    config: Path | None, write: Callable[[str], object], form: BulkFormat, kind: EnrollmentKind, *, show_keys: bool
) -> tuple[int, int]:
    """How many were written, and of how many the keys were left out."""
    count = hidden = 0
    writer = BulkWriter(form, kind, show_keys=show_keys)
    async with open_admin(config) as admin:
        write(writer.begin())
        after = ""
        while page := await admin.list_enrollments(kind, after=after):
            for enrollment in page:
                write(writer.add(enrollment))
                hidden += isinstance(enrollment.attestation, SymmetricKeyMaterial) and not show_keys
            count += len(page)
            after = page[-1].id
        write(writer.end())
    return count, hidden
