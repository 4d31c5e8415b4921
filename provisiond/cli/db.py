"""`provisiond db`: care for the database."""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from provisiond.cli.enrolled_records import Yes
from provisiond.cli.exit_codes import ExitCode
from provisiond.cli.output import Output, confirm, note, print_record, suggest
from provisiond.cli.session import Config, actor, command, load, open_store, start_command
from provisiond.cli.written_files import require_place
from provisiond.errors import AdminError, InvalidArgument, RecordNotFound
from provisiond.model import AuditRecord
from provisiond.ports import Write
from provisiond.private_files import make_private_directory
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from provisiond.store.audit_trail import AuditTrail
from provisiond.store.backup import back_up, restore_backup
from provisiond.store.checkpoints import CheckpointSigner
from provisiond.store.opening import not_for_this_user
from provisiond.store.revocations import undone_by
from provisiond.system import SystemClock

app = typer.Typer(no_args_is_help=True, epilog="Example: provisiond db backup provisiond.backup.db")

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


@app.command("migrate", epilog="Example: provisiond db migrate")
def migrate(config: Config = None) -> None:
    """Bring the database up to this version's schema; `run` does it as well. A copy is kept beside it."""
    file = load(config).settings.database_file

    async def open_and_close() -> None:
        async with await SqliteStore.open(file):
            pass

    asyncio.run(open_and_close())
    note(f"{file}: the schema is up to date")


@app.command("backup", epilog="Example: provisiond db backup /mnt/usb/provisiond.backup.db")
def backup(file: BackupFile, config: Config = None) -> None:
    """Write a sound copy of the database, while it is in use. It holds every key: keep it secret."""
    settings = load(config).settings
    _require(settings.database_file)
    if str(file) == "-":
        raise InvalidArgument("a backup is a database, which cannot be written to stdout; name a file")
    require_place(file)

    back_up(settings.database_file, file)
    note(f"{file}: backup of {settings.database_file}")


@app.command("restore", epilog="Example: provisiond db restore /mnt/usb/provisiond.backup.db --yes")
def restore(
    file: BackupFile,
    accept_unrevoke: Annotated[
        bool,
        typer.Option("--accept-unrevoke", help="Although devices come back that were disabled or deleted since."),
    ] = False,
    yes: Yes = False,
    config: Config = None,
) -> None:
    """Put a backup in the database's place; stop the daemon first. What was there is kept beside it.

    Refuses a backup from before devices were disabled, deleted or revoked: they would come back.
    """
    settings = load(config).settings
    target = settings.database_file
    _require(file)
    undone = undone_by(file, target)
    for line in undone:
        note(f"would come back: {line}")
    if undone and not accept_unrevoke:
        raise AdminError(
            f"{file} is from before what is named above; nothing was restored\n"
            "to restore it all the same: --accept-unrevoke, then disable them again before the daemon runs"
        )
    confirm(f"Replace {target} by {file}?", yes=yes)
    make_private_directory(target.parent)
    kept = restore_backup(file, target)
    note(f"{target}: restored from {file}" + (f"; what was there is {kept.name}" if kept else ""))
    asyncio.run(_record_restore(settings, file, undone))
    suggest(f"{command(config)} db check, then {start_command(config)}")


@app.command("check", epilog="Example: provisiond db check -o json")
def check(output: Output = None, config: Config = None) -> None:
    """Look for damage in every record; exits 1 when there is some."""
    settings = load(config).settings
    _require(settings.database_file)

    async def look() -> tuple[str, ...]:
        async with await open_store(settings) as store:
            return await store.check()

    problems = asyncio.run(look())
    print_record({"file": str(settings.database_file), "ok": not problems, "problems": list(problems)}, output)
    if problems:
        suggest(f"{command(config)} db restore FILE")
        raise typer.Exit(ExitCode.FAILED)


async def _record_restore(settings: Settings, file: Path, undone: Sequence[str]) -> None:
    """Say in the restored trail that it was restored, and sign where it goes on from."""
    clock = SystemClock()
    reason = f"restored from {file.name}; " + ("; ".join(undone) or "nothing was un-revoked")
    record = AuditRecord(
        tracking_id=str(uuid.uuid4()),
        at=clock.now(),
        event="db.restore",
        registration_id="",
        outcome="done",
        reason=reason,
        actor=actor(),
    )
    async with await SqliteStore.open(settings.database_file) as store:
        await store.commit(Write(audit=record))
        signer = CheckpointSigner.load(settings.service.state_dir)
        await AuditTrail(store).sign_head(signer, clock.now(), is_restored=True)


def _require(file: Path) -> None:
    try:
        is_there = file.exists()
    except PermissionError as error:
        raise not_for_this_user(file, error) from error
    if not is_there:
        raise RecordNotFound(f"{file}: there is no such database")
    if file.is_dir():
        raise InvalidArgument(f"{file} is a directory; name a file")
