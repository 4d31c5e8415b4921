"""What `doctor` says of the user that the daemon runs as, when that is somebody else than who asks."""

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final

from pydantic import BaseModel

from provisiond.cli.finding import Finding
from provisiond.settings import Settings

SUBJECT: Final = "service user"


@dataclass(frozen=True, slots=True, kw_only=True)
class _User:
    name: str
    uid: int
    gid: int
    groups: frozenset[int]

    def may(self, wanted: int, status: os.stat_result) -> bool:
        """Whether the mode lets the user; `wanted` is of the mode of others, as S_IROTH."""
        if self.uid == 0:
            return True
        if status.st_uid == self.uid:
            return bool(status.st_mode & (wanted << 6))
        if status.st_gid in self.groups:
            return bool(status.st_mode & (wanted << 3))
        return bool(status.st_mode & wanted)


def examine_service_user(settings: Settings, config_file: Path | None) -> Iterator[Finding]:
    """Look whether the owner of the state directory may do what the daemon has to.

    Args:
        settings: the configuration.
        config_file: where it was read from.
    """
    try:
        user = _owner(settings.service.state_dir)
        if user is None:
            return
        findings = [*_unreadable(user, settings, config_file), *_not_theirs(user, settings.service.state_dir)]
    except OSError:
        return  # who asks may not look: told by the checks of the files
    yield from findings
    if not findings:
        yield Finding(
            level="ok", subject=SUBJECT, text=f"{user.name} may read what the daemon needs, and owns its state"
        )


def _owner(directory: Path) -> _User | None:
    """Whose the state directory is; None when it is not there, or of who asks."""
    if not directory.is_dir() or directory.stat().st_uid == os.geteuid():
        return None
    uid = directory.stat().st_uid
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return _User(name=str(uid), uid=uid, gid=directory.stat().st_gid, groups=frozenset())
    groups = frozenset(os.getgrouplist(found.pw_name, found.pw_gid))
    return _User(name=found.pw_name, uid=uid, gid=found.pw_gid, groups=groups)


def _unreadable(user: _User, settings: Settings, config_file: Path | None) -> Iterator[Finding]:
    told: set[Path] = set()
    for file in [*([config_file] if config_file else []), *named_files(settings)]:
        closed = [path for path in reversed(file.parents) if not user.may(stat.S_IXOTH, path.stat())]
        if closed:
            path, mend = closed[0], f"chgrp {user.gid} {quote(str(closed[0]))} && chmod g+rx {quote(str(closed[0]))}"
        elif file.exists() and not user.may(stat.S_IROTH, file.stat()):
            path, mend = file, f"chgrp {user.gid} {quote(str(file))} && chmod 0640 {quote(str(file))}"
        else:
            continue
        if path not in told:
            told.add(path)
            text = f"{user.name}, whose the state directory is, may not read {path}"
            yield Finding(level="FAIL", subject=SUBJECT, text=text, mend=mend)


def _not_theirs(user: _User, directory: Path) -> Iterator[Finding]:
    strangers = sorted(path for path in directory.rglob("*") if path.lstat().st_uid != user.uid)
    if strangers:
        text = f"{strangers[0]} is not {user.name}'s; the daemon may not be able to open it"
        mend = f"chown -hR {user.uid}:{user.gid} {quote(str(directory))}"
        yield Finding(level="FAIL", subject=SUBJECT, text=text, mend=mend)


def named_files(settings: Settings) -> Iterator[Path]:
    """Every file that the configuration names: fields and options that end in `_file` or `_files`."""
    yield from _files_of(settings)
    for hub in settings.hubs:
        yield from hub.option_files()


def _files_of(section: BaseModel) -> Iterator[Path]:
    for name in type(section).model_fields:
        value: Any = getattr(section, name)
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, BaseModel):
                yield from _files_of(one)
            elif isinstance(one, Path) and name.endswith(("_file", "_files")):
                yield one
