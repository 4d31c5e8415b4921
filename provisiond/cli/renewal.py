"""The command that renews the listeners' certificates, for who is told that they end."""

from pathlib import Path
from shlex import quote

from provisiond.cli.session import command, start_command
from provisiond.settings import Settings


def renewal(settings: Settings, config: Path | None, *, host: str = "") -> str:
    """What renews them, or adds a name: with the local authority where its key is here, else with the site's own.

    Args:
        settings: the configuration.
        config: what `--config` says.
        host: to be added.
    """
    is_served = start_command(config).startswith("systemctl ")
    if (settings.ca_dir / "root.key").exists():
        name = f" --host {quote(host)}" if host else ""
        then = " && systemctl reload provisiond" if is_served else "  # then SIGHUP to the daemon"
        return f"{command(config)} ca renew{name}{then}"
    files = ", ".join(str(listener.cert_file) for listener in settings.broker.listeners if listener.cert_file)
    return f"systemctl reload provisiond  # after your authority's new certificate has been put at {files}"
