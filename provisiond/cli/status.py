"""`provisiond status`: whether the daemon runs, and what it has done."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import typer

from provisiond.admin.hubs import is_current
from provisiond.cli.exit_codes import ExitCode
from provisiond.cli.output import Output, print_record, suggest
from provisiond.cli.reachability import is_listening, is_open
from provisiond.cli.session import Config, has_database, load, start_command
from provisiond.settings import HubSettings, Settings
from provisiond.store import SqliteStore
from provisiond.store.audit_trail import AuditTrail
from provisiond.system import SystemClock

EXAMPLE: Final = "Example: provisiond status -o json"


def status(output: Output = None, config: Config = None) -> None:
    """Show the daemon's listeners and the registrations so far; exits 69 when nothing listens."""
    loaded = load(config)
    settings = loaded.settings
    listeners = [
        {"name": listener.name, "bind": listener.bind, "tls": listener.tls, "listening": is_listening(listener)}
        for listener in settings.broker.listeners
    ]
    is_running = any(listener["listening"] for listener in listeners) or _serves_behind_a_broker(settings)
    body = {
        "running": is_running,
        "configFile": str(loaded.file) if loaded.file else None,
        "idScope": settings.service.id_scope,
        "database": str(settings.database_file),
        "listeners": {str(listener.pop("name")): listener for listener in listeners},
        **_broker(settings),
        **asyncio.run(_counts(settings)),
    }
    print_record(body, output)
    if not is_running:
        suggest(start_command(config))
        raise typer.Exit(ExitCode.UNAVAILABLE)


async def _counts(settings: Settings) -> dict[str, Any]:
    """Registrations by status and by hub, hubs, audit; nothing is written, so that looking is always safe."""
    if not has_database(settings):
        return {"registrations": {}, "assignedByHub": {}}
    async with await SqliteStore.open(settings.database_file, read_only=True) as store:
        observed = await store.hub_observations()
        trail = AuditTrail(store)
        head, checkpoint = await trail.head(), await trail.newest_checkpoint()
        return {
            "registrations": await store.count_registrations(),
            "assignedByHub": await store.count_assigned_by_hub(),
            "hubs": {hub.name: _hub(hub, observed.get(hub.name, {})) for hub in settings.hubs},
            "audit": {
                "records": head.seq - head.base_seq,
                "newest": head.seq,
                "signedUpTo": checkpoint.seq if checkpoint else None,
            },
        }


def _serves_behind_a_broker(settings: Settings) -> bool:
    """A client of a broker of the site's listens nowhere; its metrics tell that it runs, when they are served."""
    is_client = settings.broker.mode == "external" and settings.metrics.enabled
    return is_client and is_open(settings.metrics.address)


def _broker(settings: Settings) -> dict[str, Any]:
    external = settings.broker.external
    if settings.broker.mode == "embedded":
        return {}
    return {"broker": {"url": external.url, "reachable": is_open(external.address)}}


def _hub(hub: HubSettings, observed: Mapping[str, Any]) -> dict[str, Any]:
    """`healthy` is null while nobody has looked at the hub, or nobody does any more."""
    healthy = observed["state"] == "up" if is_current(observed, now=SystemClock().now()) else None
    error = {"error": observed["error"]} if observed.get("error") else {}
    return {"type": hub.type, "host": hub.host, "healthy": True if hub.type == "embedded" else healthy, **error}
