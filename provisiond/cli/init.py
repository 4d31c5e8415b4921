"""`provisiond init`: a directory with everything that the daemon needs, made whole or not at all.

DIR/provisiond.toml   DIR/ca/root.crt   DIR/ca/root.key   DIR/tls/server.crt   DIR/tls/server.key   DIR/state/
"""

import re
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Final

import typer

from provisiond.cli.enrolled_records import Yes
from provisiond.cli.output import Output, OutputFormat, confirm, note, print_record, resolve_format, suggest
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
state_dir = "state"

[ca]
dir = "ca"

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
    _refuse_existing(directory)
    confirm(f"Make a configuration, a CA and a server certificate in {directory}?", yes=yes)
    root = _create(directory, hosts, scope, hub_host)
    _report(directory, root, scope, output)
    if not hosts:
        note("the certificate is for this machine only; for devices elsewhere use another directory and --host NAME")
    suggest(f"provisiond -c {quote(str(directory / CONFIG_NAME))} run")


def _create(directory: Path, hosts: Sequence[str], id_scope: str, hub_host: str) -> Credentials:
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
        hub_host=to_toml(hub_host),
        last_line=LAST_LINE,
    )
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    moved: list[Path] = []
    with tempfile.TemporaryDirectory(prefix=".init-", dir=directory) as staging_name:
        staging = Path(staging_name)
        for name, credentials in {"ca/root": root, "tls/server": server}.items():
            (staging / name).parent.mkdir(mode=0o755)
            create_file(staging / f"{name}.crt", credentials.certificate_pem)
            create_file(staging / f"{name}.key", credentials.key_pem, mode=0o600)
        (staging / "state").mkdir(mode=0o700)
        try:
            for name in ("ca", "tls", "state"):
                (staging / name).rename(directory / name)
                moved.append(directory / name)
            create_file(directory / CONFIG_NAME, configuration.encode())
        except BaseException:
            for path in moved:
                shutil.rmtree(path)
            raise
    return root


def _refuse_existing(directory: Path) -> None:
    for name in (CONFIG_NAME, "ca/root.crt", "ca/root.key", "tls/server.crt", "tls/server.key"):
        if (directory / name).exists():
            raise AlreadyExists(f"{directory / name} exists and was left as it is; give another --dir")
    for name in ("ca", "tls", "state"):
        if (directory / name).exists() and any((directory / name).iterdir()):
            raise AlreadyExists(f"{directory / name} exists and is not empty; give another --dir")


def _report(directory: Path, root: Credentials, id_scope: str, output: OutputFormat | None) -> None:
    body = {
        "configFile": str(directory / CONFIG_NAME),
        "rootCertificate": str(directory / "ca/root.crt"),
        "rootKey": str(directory / "ca/root.key"),
        "serverCertificate": str(directory / "tls/server.crt"),
        "serverKey": str(directory / "tls/server.key"),
        "stateDir": str(directory / "state"),
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
