"""What `doctor` looks at in the database and around it: schema, audit trail, clock, hubs, keys, ports."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any, Final

from cryptography import x509

from provisiond.admin.hubs import is_current
from provisiond.cli.finding import Finding
from provisiond.cli.reachability import is_open
from provisiond.cli.renewal import renewal
from provisiond.cli.session import command as command_of
from provisiond.cli.session import has_database, start_command
from provisiond.errors import ProvisiondError, StoreError
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from provisiond.store.audit import AuditVerdict
from provisiond.store.audit_trail import AuditQuery, AuditTrail, read_head_file
from provisiond.store.checkpoints import KEY_FILE_NAME, CheckpointSigner
from provisiond.store.connection import connect_here
from provisiond.store.schema import current_version, migrations

_TLS_NOTICE: Final = timedelta(days=30)
_CLOCK_TOLERANCE: Final = timedelta(minutes=5)
_WHOLE_MAX_BYTES: Final = 64 * 2**20
_NEWEST_RECORDS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    verdict: AuditVerdict
    newest_at: datetime | None
    hubs: Mapping[str, Mapping[str, Any]]


def is_large(database: Path) -> bool:
    """Whether reading all of it takes longer than an operator waits for an answer: some 16,000 devices."""
    return database.stat().st_size > _WHOLE_MAX_BYTES


def examine_operations(settings: Settings, config: Path | None, now: datetime) -> Iterator[Finding]:
    """Look at what a running service rests on.

    Args:
        settings: the configuration.
        config: what `--config` says, for the mending commands.
        now: aware UTC.
    """
    command, start = command_of(config), start_command(config)
    yield from _examine_keys(settings)
    yield from _examine_server_certificates(settings, config, now)
    yield from _examine_metrics(settings, start)
    if not has_database(settings) or is_open_to_all(settings.database_file):
        return
    found = list(_examine_schema(settings, command))
    yield from found
    if any(finding.level == "FAIL" for finding in found):
        return
    try:
        seen = asyncio.run(_look(settings))
    except (ProvisiondError, OSError) as error:
        mend = mend_full_disk(settings) if "disk is full" in str(error) else f"{command} db check"
        yield Finding(level="FAIL", subject="audit", text=str(error), mend=mend)
        return
    yield from _examine_audit(seen, settings.database_file, command, now)
    yield from _examine_hubs(settings, seen, command, start, now)


async def _look(settings: Settings) -> _Seen:
    async with await SqliteStore.open(settings.database_file, read_only=True) as store:
        trail = AuditTrail(store)
        try:
            verifier = CheckpointSigner.load(settings.service.state_dir, create=False).verifier
        except StoreError:
            verifier = None
        beside = read_head_file(settings.database_file.parent)
        newest = await trail.find(AuditQuery(newest=True, limit=1))
        return _Seen(
            verdict=await trail.verify(
                verifier,
                [beside[1]] if beside else [],
                newest=_NEWEST_RECORDS if is_large(settings.database_file) else None,
            ),
            newest_at=newest[0][1].at if newest else None,
            hubs=await store.hub_observations(),
        )


def mend_full_disk(settings: Settings) -> str:
    """What shows where the room has gone."""
    return f"du -xh {quote(str(settings.service.state_dir))} | sort -h | tail  # then make room"


def is_open_to_all(file: Path) -> bool:
    """Whether others than owner and group may use a file that holds keys: nothing is done with it then."""
    return bool(stat.S_IMODE(file.stat().st_mode) & stat.S_IRWXO)


def has_other_schema(settings: Settings) -> bool:
    """Whether the database is of an older or newer version than this one."""
    return any(finding.level == "FAIL" for finding in _examine_schema(settings, ""))


def _examine_schema(settings: Settings, command: str) -> Iterator[Finding]:
    known = len(migrations())
    try:
        with closing(connect_here(settings.database_file, read_only=True)) as connection:
            version = current_version(connection)
    except (sqlite3.Error, StoreError):
        return  # told by the check of the database
    if version < known:
        text = f"the database has schema version {version}, this version needs {known}"
        yield Finding(level="FAIL", subject="schema", text=text, mend=f"{command} db migrate")
    elif version > known:
        text = f"the database has schema version {version}, this version knows {known}"
        yield Finding(
            level="FAIL",
            subject="schema",
            text=text,
            mend=f"{command} db restore FILE  # a backup of before, or upgrade provisiond",
        )
    else:
        yield Finding(level="ok", subject="schema", text=f"version {version}")


def _examine_audit(seen: _Seen, database: Path, command: str, now: datetime) -> Iterator[Finding]:
    if seen.verdict.problem is not None:
        mend = f"{command} audit verify; keep the file for whoever looks into it"
        yield Finding(level="FAIL", subject="audit", text=seen.verdict.problem, mend=mend)
    elif is_large(database):
        text = f"the last {seen.verdict.count} records, none was altered; {command} audit verify looks at all of them"
        yield Finding(level="ok", subject="audit", text=text)
    else:
        yield Finding(level="ok", subject="audit", text=f"{seen.verdict.count} records, none was altered")
    if seen.newest_at is not None and seen.newest_at > now + _CLOCK_TOLERANCE:
        text = f"it is {now:%Y-%m-%d %H:%M} UTC, but something was recorded at {seen.newest_at:%Y-%m-%d %H:%M}"
        mend = "timedatectl set-ntp true  # or set the clock"
        yield Finding(level="FAIL", subject="clock went back", text=text, mend=mend)


def _examine_hubs(settings: Settings, seen: _Seen, command: str, start: str, now: datetime) -> Iterator[Finding]:
    for hub in settings.hubs:
        subject = f"hub {hub.name}"
        observed = seen.hubs.get(hub.name)
        if hub.type == "embedded":
            yield Finding(level="ok", subject=subject, text="in this process")
        elif observed is None:
            text = "nobody has looked at it yet"
            yield Finding(level="warn", subject=subject, text=text, mend=start)
        elif observed.get("state") != "up":
            text = f"{observed.get('state')} when it was last asked, {observed.get('seenAt')}: {observed.get('error')}"
            yield Finding(level="FAIL", subject=subject, text=text, mend=f"{command} hub show {hub.name} --probe")
        elif not is_current(observed, now=now):
            text = f"it answered when it was last asked, {observed.get('seenAt')}; nobody asks it now"
            yield Finding(level="warn", subject=subject, text=text, mend=start)
        else:
            yield Finding(level="ok", subject=subject, text="it answered when it was last asked")


def _examine_keys(settings: Settings) -> Iterator[Finding]:
    """Private keys that others than their owner may read, and those that this user may not."""
    files = [settings.service.state_dir / KEY_FILE_NAME, settings.database_file]
    files += [listener.key_file for listener in settings.broker.listeners if listener.key_file is not None]
    wrong = False
    for file in files:
        for finding in _examine_key(file):
            wrong = True
            yield finding
    if not wrong:
        yield Finding(level="ok", subject="key permissions", text="nobody else may read a key")


def _examine_key(file: Path) -> Iterator[Finding]:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return  # not there: told elsewhere where it matters
    if mode & stat.S_IRWXO:
        text = f"everybody may read or change {file} (mode {mode:04o})"
        yield Finding(level="FAIL", subject="key permissions", text=text, mend=f"chmod 0600 {file}")
    elif not os.access(file, os.R_OK):
        text = f"this user may not read {file}"
        yield Finding(
            level="warn", subject="key permissions", text=text, mend=f"sudo -u {file.owner()} provisiond doctor"
        )


def _examine_server_certificates(settings: Settings, config: Path | None, now: datetime) -> Iterator[Finding]:
    for listener in settings.broker.listeners:
        if listener.cert_file is None:
            continue
        try:
            expiry = x509.load_pem_x509_certificates(listener.cert_file.read_bytes())[0].not_valid_after_utc
        except (OSError, ValueError):
            continue  # told by the check of the files
        subject, days = f"certificate {listener.name}", (expiry - now).days
        text = f"{listener.cert_file} ends on {expiry:%Y-%m-%d}, in {days} days"
        level = "FAIL" if expiry <= now else "warn" if expiry - now < _TLS_NOTICE else "ok"
        mend = "" if level == "ok" else renewal(settings, config)
        yield Finding(level=level, subject=subject, text=text, mend=mend)


def _examine_metrics(settings: Settings, start: str) -> Iterator[Finding]:
    if not settings.metrics.enabled:
        yield Finding(level="ok", subject="metrics", text="switched off")
    elif is_open(settings.metrics.address):
        yield Finding(level="ok", subject="metrics", text=f"http://{settings.metrics.bind}/metrics answers")
    else:
        text = f"nothing answers at {settings.metrics.bind}"
        yield Finding(level="warn", subject="metrics", text=text, mend=start)
