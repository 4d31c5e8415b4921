"""`provisiond audit`: what was decided and changed, by whom, and the proof that nobody altered it."""

import asyncio
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from provisiond.cli.audit_records import audit_to_json
from provisiond.cli.exit_codes import ExitCode
from provisiond.cli.follow import follow
from provisiond.cli.output import Output, note, print_record, print_records, print_stream, suggest
from provisiond.cli.secret_files import read_bytes
from provisiond.cli.session import Config, command, has_database, load, open_store
from provisiond.cli.times import parse_time
from provisiond.cli.written_files import writing
from provisiond.errors import InvalidArgument, RecordNotFound, StoreUnavailable
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from provisiond.store.audit import AuditVerdict
from provisiond.store.audit_export import LINE_LIMIT_BYTES, verify_export, write_export
from provisiond.store.audit_trail import AuditQuery, AuditTrail, read_head_file
from provisiond.store.checkpoints import Checkpoint, CheckpointSigner, CheckpointVerifier
from provisiond.system import SystemClock

app = typer.Typer(no_args_is_help=True, epilog="Example: provisiond audit list --since 1d")

_COLUMNS: Final = {
    "seq": "seq",
    "at": "at",
    "event": "event",
    "id": "registrationId",
    "enrollment": "enrollmentId",
    "outcome": "outcome",
    "code": "code",
    "hub": "hub",
    "actor": "actor",
    "reason": "reason",
    "tracking id": "trackingId",
}
_PUBLIC_KEY_SIZE_BYTES: Final = 32
_UNSIGNED: Final = "no checkpoint is in it: nothing shows that it is of the site with this key"

RegistrationId = Annotated[
    str | None, typer.Option("--registration-id", "--rid", metavar="ID", help="Only of this device.")
]


@app.command("list", epilog="Example: provisiond audit list --registration-id sensor-7 --since 2d")
def list_(
    registration_id: RegistrationId = None,
    code: Annotated[int | None, typer.Option("--code", metavar="CODE", help="Only refusals with this code.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="2026-05-01T12:30 (UTC), or 2h for two hours ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="As --since.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=1_000_000, help="Records at most, the newest.")] = 100,
    before: Annotated[
        int | None, typer.Option("--before", metavar="SEQ", help="Only older ones: the first of the page before.")
    ] = None,
    after: Annotated[
        int | None, typer.Option("--after", metavar="SEQ", help="Only newer ones, the oldest of them first.")
    ] = None,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """List what was decided and changed; the newest records, oldest first."""
    now = SystemClock().now()
    query = AuditQuery(
        registration_id=registration_id,
        code=code,
        since=parse_time(since, "--since", now=now) if since else None,
        until=parse_time(until, "--until", now=now) if until else None,
        before=before,
        after=after or 0,
        newest=after is None,
        limit=top,
    )
    asyncio.run(_list(config, query, output, go_on=follow_))


@app.command("verify", epilog="Example: provisiond audit verify --file audit.ndjson --public-key site.pub")
def verify(
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE|-", help="An export, instead of the database.")
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="FILE", help="Of the site, from elsewhere; base64, see `audit key`."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="One that was kept elsewhere, see `audit checkpoint`."),
    ] = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Check that no record was altered, removed or moved; exits 1 when one was."""
    key = _read_public_key(public_key) if public_key else None
    if file is not None:
        if checkpoint is not None:
            raise InvalidArgument("--checkpoint is for the database; an export brings its own")
        body = _verify_file(file, key)
    else:
        kept = Checkpoint.from_json(_read_json(checkpoint)) if checkpoint else None
        body = asyncio.run(_verify_database(config, key, kept))
    print_record(body, output)
    if not body["ok"]:
        if body["problem"] == _UNSIGNED:
            suggest("on the site, `provisiond audit checkpoint`, then `provisiond audit export` again")
        else:
            suggest(f"{command(config)} db check; keep the file for whoever looks into it")
        raise typer.Exit(ExitCode.FAILED)


@app.command("export", epilog="Example: provisiond audit export audit.ndjson")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="Where to; - for stdout.")] = Path("-"),
    config: Config = None,
) -> None:
    """Write the whole trail, with its hashes and signatures, as NDJSON that `audit verify --file` can check."""
    settings = _require_database(load(config).settings)
    with writing(file) as stream:
        count = asyncio.run(_export(settings, stream))
    note(f"{count} records" + ("" if str(file) == "-" else f" in {file}"))
    suggest(f"provisiond audit verify --file {file}")


@app.command("checkpoint", epilog="Example: provisiond audit checkpoint > /mnt/usb/audit-checkpoint.json")
def checkpoint(config: Config = None) -> None:
    """Sign the newest record now, and print the signature: kept elsewhere, it holds against who has this machine."""
    settings = _require_database(load(config).settings)

    async def sign() -> Checkpoint | None:
        async with await open_store(settings) as store:
            signer = CheckpointSigner.load(settings.service.state_dir)
            return await AuditTrail(store).sign_head(signer, SystemClock().now())

    signed = asyncio.run(sign())
    if signed is None:
        raise RecordNotFound("there is nothing in the audit trail yet")
    print(json.dumps(signed.to_json(), indent=2))
    suggest(f"keep it elsewhere; later: {command(config)} audit verify --checkpoint FILE")


@app.command("key", epilog="Example: provisiond audit key > /mnt/usb/site.pub")
def key(config: Config = None) -> None:
    """Print the public key of the checkpoints, base64: what an export is to be checked with elsewhere."""
    signer = CheckpointSigner.load(load(config).settings.service.state_dir)
    print(b64encode(signer.verifier.public_key).decode("ascii"))
    note(f"key id {signer.verifier.key_id}")


async def _list(config: Path | None, query: AuditQuery, output: Any, *, go_on: bool) -> None:
    settings = _require_database(load(config).settings)
    async with await SqliteStore.open(settings.database_file, read_only=True) as store:
        trail = AuditTrail(store)
        found = await trail.find(query)
        bodies = [{"seq": seq} | audit_to_json(record) for seq, record in found]
        if not go_on:
            print_records(bodies, _COLUMNS, output)
            _say_more(query, found[0][0] if found else 0, found[-1][0] if found else 0, len(found), command(config))
            return
        stream = print_stream(_COLUMNS, output)
        for body in bodies:
            stream(body)
        last = found[-1][0] if found else (await trail.head()).seq
        async for seq, record in follow(trail, query, after=last):
            stream({"seq": seq} | audit_to_json(record))


def _say_more(query: AuditQuery, first: int, last: int, count: int, name: str) -> None:
    if count == query.limit:
        way = f"--before {first}" if query.newest else f"--after {last}"
        note(f"there may be more: {name} audit list {way}")


async def _verify_database(config: Path | None, key: bytes | None, kept: Checkpoint | None) -> dict[str, Any]:
    settings = _require_database(load(config).settings)
    verifier, origin = _verifier(settings, key)
    elsewhere = [kept] if kept else []
    beside = read_head_file(settings.database_file.parent)
    if beside is not None:
        elsewhere.append(beside[1])
    async with await SqliteStore.open(settings.database_file, read_only=True) as store:
        trail = AuditTrail(store)
        verdict = await trail.verify(verifier, elsewhere)
        newest = await trail.newest_checkpoint()
    if verdict.problem is None and verifier is not None:
        _note_unsigned(max((checkpoint.seq for checkpoint in (newest, *elsewhere) if checkpoint), default=0), verdict)
    return {
        "ok": verdict.problem is None,
        "problem": verdict.problem,
        "records": verdict.count,
        "lastSeq": verdict.last_seq,
        "lastCheckpoint": newest.to_json() if newest else None,
        "keyId": verifier.key_id if verifier else None,
        "keyFrom": origin,
    }


def _verify_file(file: Path, key: bytes | None) -> dict[str, Any]:
    if str(file) == "-":
        verdict = verify_export(_lines(sys.stdin.buffer), public_key=key)
    else:
        with file.open("rb") as stream:
            verdict = verify_export(_lines(stream), public_key=key)
    if key is None:
        note("note: checked with the key that the export brings; --public-key shows that it is the site's")
    problem = verdict.chain.problem
    if problem is None and key is not None and verdict.chain.count and not verdict.checkpoints:
        problem = _UNSIGNED
    elif problem is None:
        _note_unsigned(verdict.signed_up_to, verdict.chain)
    return {
        "ok": problem is None,
        "problem": problem,
        "records": verdict.chain.count,
        "lastSeq": verdict.chain.last_seq,
        "checkpoints": verdict.checkpoints,
        "signedUpTo": verdict.signed_up_to,
        "keyId": verdict.key_id,
        "keyFrom": "the export" if key is None else "--public-key",
    }


def _note_unsigned(signed_up_to: int, verdict: AuditVerdict) -> None:
    """What no signature covers yet, whoever can write the database could have changed."""
    if signed_up_to < verdict.last_seq:
        note(
            f"note: not signed yet are the newest {verdict.last_seq - signed_up_to}; a running daemon signs "
            "every 1,000, daily and at its stop, `provisiond audit checkpoint` now"
        )


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines in bounded memory: one that is too long comes as pieces, none of which is a record."""
    while line := stream.readline(LINE_LIMIT_BYTES + 1):
        yield line


async def _export(settings: Settings, stream: IO[str]) -> int:
    verifier, _ = _verifier(settings, None)
    public_key = verifier.public_key if verifier else None
    failures: list[OSError] = []

    def write(line: str) -> None:
        try:
            stream.write(line)
        except OSError as error:
            failures.append(error)
            raise

    try:
        async with await SqliteStore.open(settings.database_file, read_only=True) as store:
            return await store.read_aside(partial(write_export, write=write, public_key=public_key))
    except StoreUnavailable:
        if failures:  # not the database's
            raise failures[0] from None
        raise


def _verifier(settings: Settings, key: bytes | None) -> tuple[CheckpointVerifier | None, str]:
    if key is not None:
        return CheckpointVerifier(key), "--public-key"
    try:
        return CheckpointSigner.load(settings.service.state_dir, create=False).verifier, "the state directory"
    except StoreUnavailable:
        note("note: there is no audit key yet, so only the hashes are checked; `provisiond run` makes one")
        return None, ""


def _read_public_key(path: Path) -> bytes:
    try:
        key = b64decode(read_bytes(path).strip(), validate=True)
    except ValueError as error:
        raise InvalidArgument(f"{path}: not base64; `provisiond audit key` prints the key") from error
    if len(key) != _PUBLIC_KEY_SIZE_BYTES:
        raise InvalidArgument(f"{path}: {len(key)} bytes; an Ed25519 public key has {_PUBLIC_KEY_SIZE_BYTES}")
    return key


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        body = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{path}: not JSON") from error
    return body if isinstance(body, dict) else {}


def _require_database(settings: Settings) -> Settings:
    if not has_database(settings):
        raise RecordNotFound(f"{settings.database_file}: there is no database yet; `provisiond run` makes it")
    return settings
