"""`provisiond init`: a directory with everything that the daemon needs, made whole or not at all.

DIR/provisiond.toml   DIR/ca/root.crt   DIR/ca/root.key   DIR/tls/server.crt   DIR/tls/server.key   DIR/state/

For a daemon that runs as a user of its own, the state is that user's, and its group may read the TLS key. The CA is
then with the state, for the daemon signs the revocation list every day; DIR/ca/root.crt is a copy for devices.
"""

import os
import pwd
import re
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from provisiond.cli.enrolled_records import Yes
from provisiond.cli.output import Output, OutputFormat, confirm, note, print_record, resolve_format, suggest
from provisiond.cli.session import start_command
from provisiond.errors import AlreadyExists, InvalidArgument
from provisiond.local_ca import Credentials, create_file, issue_server, make_root
from provisiond.settings.addresses import check_host
from provisiond.settings.example import to_toml
from provisiond.settings.sources import FIRST_LINE, LAST_LINE
from provisiond.system import SystemClock

EXAMPLE: Final = "Example: provisiond init --dir gateway --host gateway.local --host 192.168.1.10"

CONFIG_NAME: Final = "provisiond.toml"
# Every server certificate is good for trying things out on the gateway itself.
_LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_ID_SCOPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

_CONFIGURATION: Final = """\
{first_line}
# Every setting, with its default and its reason: provisiond config example

config_version = 1

[service]
id_scope = {id_scope}
state_dir = {state_dir}

[ca]
dir = {ca_dir}

# For programs on this machine.
[[broker.listeners]]
name = "local"
bind = "127.0.0.1:1883"

# For devices on the network.
[[broker.listeners]]
name = "devices"
bind = "0.0.0.0:8883"
tls = true
cert_file = "tls/server.crt"
key_file = "tls/server.key"
client_certs = "optional"

# The hub that devices are assigned to: what they are told to connect to next.
[[hubs]]
name = "local"
type = "embedded"
host = {hub_host}

[log]
level = "info"

{last_line}
"""


def init(
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where; it is made when it is not there.")],
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="NAME",
            help="Name or address that devices connect to; may be given again. The first is what the hub is called.",
        ),
    ] = None,
    id_scope: Annotated[
        str | None, typer.Option("--id-scope", metavar="SCOPE", help="ID scope of the devices; random when left out.")
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", metavar="DIR", help="Where the database is to be; DIR/state when left out."),
    ] = None,
    service_user: Annotated[
        str | None,
        typer.Option(
            "--service-user",
            metavar="USER",
            help="Who the daemon will run as: gets the state directory, and its group may read the TLS key. As root.",
        ),
    ] = None,
    yes: Yes = False,
    output: Output = None,
) -> None:
    """Make a configuration, a local CA and a server certificate. Nothing is ever overwritten."""
    hosts = [_check_host(name) for name in host or ()]
    hub_host = _choose_hub_host(hosts)
    scope = id_scope or f"0ne{secrets.randbelow(1 << 32):08X}"
    if _ID_SCOPE.fullmatch(scope) is None:
        raise InvalidArgument(f"id scope {scope[:80]!r} is not 1 to 64 of A-Z a-z 0-9 . _ -")
    directory = directory.absolute()
    place = _Place(directory=directory, state=(state_dir or directory / "state").absolute(), user=_find(service_user))
    _refuse_existing(place)
    confirm(f"Make a configuration, a CA and a server certificate in {directory}?", yes=yes)
    root = _create(place, hosts, scope, hub_host)
    _report(place, root, scope, output)
    if not hosts:
        note("the certificate is for this machine only; for devices elsewhere use another directory and --host NAME")
    suggest(start_command(directory / CONFIG_NAME))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where everything goes, and whose the state is; `user` None for who runs this."""

    directory: Path
    state: Path
    user: pwd.struct_passwd | None

    @property
    def has_own_state(self) -> bool:
        """Whether the state lies in the directory."""
        return self.state == self.directory / "state"

    @property
    def ca(self) -> Path:
        """Where the CA is with its key, which the daemon must be able to read and replace files beside."""
        return self.directory / "ca" if self.has_own_state and self.user is None else self.state / "ca"


def _find(user: str | None) -> pwd.struct_passwd | None:
    if user is None:
        return None
    try:
        found = pwd.getpwnam(user)
    except KeyError as error:
        raise InvalidArgument(
            f"--service-user: there is no user {user!r}; systemd-sysusers makes provisiond's"
        ) from error
    if os.geteuid() != 0:
        raise InvalidArgument(f"--service-user: only root can make files for {user}")
    return found


def _create(place: _Place, hosts: Sequence[str], id_scope: str, hub_host: str) -> Credentials:
    """Make everything beside its place, then move it there; the configuration, which makes it count, comes last.

    Raises:
        AlreadyExists: somebody else made a part of it meanwhile; nothing of theirs was touched.
        OSError: it cannot be written; nothing is left behind.
    """
    now = SystemClock().now()
    root = make_root(f"provisiond {id_scope} root", now=now)
    server = issue_server(root, [*hosts, *_LOOPBACK_HOSTS], now=now)
    configuration = _CONFIGURATION.format(
        first_line=FIRST_LINE,
        id_scope=to_toml(id_scope),
        state_dir=to_toml("state" if place.has_own_state else str(place.state)),
        ca_dir=to_toml(str(place.ca.relative_to(place.directory) if place.has_own_state else place.ca)),
        hub_host=to_toml(hub_host),
        last_line=LAST_LINE,
    )
    directory = place.directory
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    moved: list[Path] = []
    with tempfile.TemporaryDirectory(prefix=".init-", dir=directory) as staging_name:
        staging = Path(staging_name)
        _write(staging / "tls", "server", server)
        _write(staging / "ca", "root", root, with_key=place.ca == directory / "ca")
        if place.user is not None:
            os.chown(staging / "tls/server.key", -1, place.user.pw_gid)
            (staging / "tls/server.key").chmod(0o640)
        try:
            for name in ("ca", "tls"):
                (staging / name).rename(directory / name)
                moved.append(directory / name)
            moved += _make_state(place, root)
            create_file(directory / CONFIG_NAME, configuration.encode())
        except BaseException:
            for path in moved:
                shutil.rmtree(path)
            raise
    return root


def _write(directory: Path, name: str, credentials: Credentials, *, with_key: bool = True) -> None:
    directory.mkdir(mode=0o755)
    create_file(directory / f"{name}.crt", credentials.certificate_pem)
    if with_key:
        create_file(directory / f"{name}.key", credentials.key_pem, mode=0o600)


def _make_state(place: _Place, root: Credentials) -> list[Path]:
    """The state directory, unless systemd-tmpfiles has made it already, and the CA in it; what was made."""
    made = []
    if not place.state.exists():
        place.state.mkdir(mode=0o700, parents=True)
        made.append(place.state)
    if place.ca.parent == place.state:
        made.append(place.ca)
        _write(place.ca, "root", root)
    if place.user is not None:
        for path in (place.state, *place.state.rglob("*")):
            os.chown(path, place.user.pw_uid, place.user.pw_gid)
    return made[:1]


def _refuse_existing(place: _Place) -> None:
    directory = place.directory
    for name in (CONFIG_NAME, "ca/root.crt", "ca/root.key", "tls/server.crt", "tls/server.key"):
        if (directory / name).exists():
            raise AlreadyExists(f"{directory / name} exists and was left as it is; give another --dir")
    for path, option in {directory / "ca": "--dir", directory / "tls": "--dir", place.state: "--state-dir"}.items():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise AlreadyExists(f"{path} exists and is not empty; give another {option}")


def _report(place: _Place, root: Credentials, id_scope: str, output: OutputFormat | None) -> None:
    directory = place.directory
    body = {
        "configFile": str(directory / CONFIG_NAME),
        "rootCertificate": str(directory / "ca/root.crt"),
        "rootKey": str(place.ca / "root.key"),
        "serverCertificate": str(directory / "tls/server.crt"),
        "serverKey": str(directory / "tls/server.key"),
        "stateDir": str(place.state),
        "rootFingerprint": root.fingerprint,
        "idScope": id_scope,
    }
    print_record(body, resolve_format(output))


def _check_host(name: str) -> str:
    try:
        check_host(name.removeprefix("*."))
    except ValueError as error:
        raise InvalidArgument(f"--host: {error}") from error
    return name


def _choose_hub_host(hosts: Sequence[str]) -> str:
    """What devices are told to connect to: a wildcard is for the certificate only."""
    names = [host for host in hosts if not host.startswith("*.")]
    if hosts and not names:
        raise InvalidArgument(f"--host: {hosts[0]!r} is no name to connect to; give one beside it")
    return names[0] if names else "localhost"
