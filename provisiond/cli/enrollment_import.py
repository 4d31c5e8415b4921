"""`provisiond enrollment import`: many enrollments from a file of one's own, or of another service."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import IO, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from provisiond.admin.bulk import Action, Importer, ImportOptions, ImportResult, OnConflict, Verdict
from provisiond.cli.exit_codes import ExitCode
from provisiond.cli.import_report import ImportReport
from provisiond.cli.output import Output, OutputFormat, note, plain, print_record, suggest
from provisiond.cli.session import Config, command, load, make_admin, open_store
from provisiond.errors import AdminError, InvalidArgument
from provisiond.protocols.bulk import BulkFormat, Row, read_bulk
from provisiond.store.staging import BulkTables, ImportStaging

EXAMPLE: Final = "Example: provisiond enrollment import devices.csv --dry-run"

_PIECE_LIMIT_BYTES: Final = 64 * 1024
"""Most lines are far below; one that is not comes in pieces, so that it takes no memory."""
_FLUSH_ROWS: Final = 500


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="What to import; - for stdin.")],
    form: Annotated[
        BulkFormat,
        typer.Option("--format", help="Form of the file; told by its beginning when left out.", case_sensitive=False),
    ] = BulkFormat.AUTO,
    on_conflict: Annotated[
        OnConflict, typer.Option("--on-conflict", help="When an id is enrolled already, and differently.")
    ] = OnConflict.FAIL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge every row and store nothing.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Store what can be, instead of all or nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --keep-going: go on where the report of an earlier run ends.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="A verdict for each row, NDJSON; else FILE.report.ndjson."),
    ] = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Enroll many devices, and groups, from CSV, NDJSON, a JSON array, or the files of other services.

    All rows are stored, or none; a row that is enrolled already just so is left as it is, so that importing a file
    again is safe. Symmetric keys that a row lacks are generated: `enrollment export --show-keys` shows them.
    """
    if resume and not keep_going:
        raise InvalidArgument("--resume is for --keep-going: without it, an import that was interrupted stored nothing")
    where = report or _report_beside(file)
    options = ImportOptions(on_conflict=on_conflict, dry_run=dry_run, keep_going=keep_going)
    with _opened(file) as stream, ImportReport(where, resume=resume) as written:
        try:
            result = asyncio.run(_import(config, stream, form, options, written))
        except AdminError:  # this is no file of enrollments
            if report is None and where is not None and not where.stat().st_size:
                where.unlink()
            raise
    _finish(file, result, options, written, output, command(config), form)
    if report is None and where is not None and not _is_told(result, written):
        where.unlink()
    if result.counts[Action.REFUSE]:
        only_conflicts = result.conflicts == result.counts[Action.REFUSE]
        raise typer.Exit(ExitCode.CONFLICT if only_conflicts else ExitCode.FAILED)


def _report_beside(file: Path) -> Path | None:
    if str(file) == "-":
        return None
    if file.is_dir():
        raise InvalidArgument(f"{file} is a directory; name a file")
    return file.with_name(f"{file.name}.report.ndjson")


async def _import(
    config: Path | None, stream: IO[bytes], form: BulkFormat, options: ImportOptions, report: ImportReport
) -> ImportResult:
    settings = load(config).settings
    async with await open_store(settings) as store:
        at_end = "reading" if options.dry_run or options.keep_going else "storing"
        with ImportStaging(store) as staging, _progress(stream, at_end=at_end) as (advance, watched):
            importer = Importer(
                admin=make_admin(settings, store),
                store=BulkTables(store),
                staging=staging,
                options=options,
                report=_reporting(report, advance),
            )
            linked = {label.lower() for hub in settings.linked_hubs() for label in (hub.name, hub.host)}
            rows = read_bulk(watched, form, linked_hubs=linked)
            try:
                return await importer.run(_unsettled(rows, report))
            except (asyncio.CancelledError, KeyboardInterrupt):
                report.flush()
                note(_how_far(options, is_applied=staging.is_applied))
                raise


def _how_far(options: ImportOptions, *, is_applied: bool) -> str:
    if options.dry_run:
        return "interrupted; a dry run stores nothing"
    if options.keep_going:
        return "interrupted; go on with --resume"
    return "interrupted too late; everything is stored" if is_applied else "interrupted; nothing was stored"


def _unsettled(rows: Iterable[Row], report: ImportReport) -> Iterator[Row]:
    """The rows that no earlier run has settled."""
    for row in rows:
        if row.number > report.settled:
            yield row
        else:
            body = row.body or {"registrationId": row.id}
            found = body.get("enrollmentGroupId", body.get("registrationId"))
            report.require_same(row.number, found if isinstance(found, str) else "")


def _reporting(report: ImportReport, advance: Callable[[int], None]) -> Callable[[Verdict], None]:
    def add(verdict: Verdict) -> None:
        report.add(verdict)
        if verdict.row.number % _FLUSH_ROWS == 0:
            report.flush()
            advance(verdict.row.number)

    return add


def _is_told(result: ImportResult, report: ImportReport) -> bool:
    """Whether the report says more than that every row was fine."""
    return bool(result.counts[Action.REFUSE] or report.settled or report.notes)


def _finish(
    file: Path,
    result: ImportResult,
    options: ImportOptions,
    report: ImportReport,
    output: OutputFormat | None,
    name: str,
    form: BulkFormat,
) -> None:
    refused = result.counts[Action.REFUSE]
    body: dict[str, Any] = {
        "rows": result.rows,
        **{action.value: result.counts[action] for action in Action},
        "resumedAfter": report.settled,
        "dryRun": options.dry_run,
        "stored": result.applied,
        "report": str(report.path) if report.path and _is_told(result, report) else None,
    }
    print_record(body, output)
    for text, count in report.notes.items():
        note(plain(f"{count} {'row' if count == 1 else 'rows'}: {text}"))
    if refused and not result.applied:
        note(f"{refused} of {result.rows} rows cannot be enrolled; nothing was stored")
        suggest("mend them and import again, or --keep-going to store the others")
    elif options.dry_run:
        suggest(f"{name} enrollment import {quote(str(file))}{_flags(form, options)}")
    elif result.applied:
        suggest(f"{name} enrollment list")


def _flags(form: BulkFormat, options: ImportOptions) -> str:
    """The flags of a dry run that the import wants as well."""
    return (
        (f" --format {form}" if form is not BulkFormat.AUTO else "")
        + (f" --on-conflict {options.on_conflict}" if options.on_conflict is not OnConflict.FAIL else "")
        + (" --keep-going" if options.keep_going else "")
    )


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    with file.open("rb") as stream:
        yield stream


@contextmanager
def _progress(stream: IO[bytes], *, at_end: str) -> Iterator[tuple[Callable[[int], None], Iterator[bytes]]]:
    """A bar on a terminal: by size where it is known, with the rate and what is left; else nothing.

    Args:
        stream: what is read.
        at_end: what is done when all of it was.
    """
    size_bytes = _size(stream)
    columns = (
        TextColumn("{task.fields[what]}"),
        BarColumn(),
        TextColumn("{task.fields[rows]} rows, {task.fields[rate]:.0f}/s"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("importing", total=size_bytes, what="reading", rows=0, rate=0.0)
        consumed = 0

        def pieces() -> Iterator[bytes]:
            nonlocal consumed
            while piece := read_line():
                consumed += len(piece)
                yield piece
            bar.update(task, what=at_end)

        def advance(rows: int) -> None:
            elapsed_s = bar.tasks[task].elapsed or 0.0
            bar.update(task, completed=consumed, rows=rows, rate=rows / elapsed_s if elapsed_s else 0.0)

        with _interruptible(partial(stream.readline, _PIECE_LIMIT_BYTES)) as read_line:
            yield advance, pieces()


@contextmanager
def _interruptible(read: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
    """`read`, which Ctrl-C ends at once: asyncio only cancels the task, and a pipe may stay silent for ever."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield read
        return
    is_reading = is_interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        is_interrupted = True
        if is_reading:
            raise KeyboardInterrupt
        previous(number, frame)

    def read_watched() -> bytes:
        nonlocal is_reading
        is_reading = True
        try:
            if is_interrupted:  # before the read, which the cancelled task would wait for
                raise KeyboardInterrupt
            return read()
        finally:
            is_reading = False

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield read_watched
    finally:
        signal.signal(signal.SIGINT, previous)


def _size(stream: IO[bytes]) -> int | None:
    try:
        return Path(stream.name).stat().st_size
    except (AttributeError, TypeError, OSError):
        return None
