"""`provisiond hub`: the hubs that devices are assigned to; how they are, and what moves when one goes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.admin.hubs import HubRecord, Hubs, is_current
from provisiond.cli.enrolled_records import Yes
from provisiond.cli.exit_codes import ExitCode, print_error
from provisiond.cli.output import Output, OutputFormat, confirm, note, print_record, print_records, suggest
from provisiond.cli.session import Config, actor, command, load, open_store
from provisiond.errors import ConfigurationError, HubFault, InvalidArgument
from provisiond.hubs.registry import hub_types
from provisiond.model import RegistrationStatus
from provisiond.protocols.timestamps import format_timestamp
from provisiond.registration.drain import Fate, Move
from provisiond.settings import Settings
from provisiond.settings.editing import add_hub, remove_hub
from provisiond.system import SystemClock, SystemEntropy

app = typer.Typer(no_args_is_help=True, epilog="Example: provisiond hub list")

_COLUMNS: Final = {
    "name": "name",
    "type": "type",
    "host": "host",
    "health": "health",
    "weight": "weight",
    "share": "share",
    "assigned": "assigned",
    "assigning": "assigning",
    "latency ms": "latencyMs",
    "missing": "drift.missing",
    "error": "error",
}
_MOVE_COLUMNS: Final = {"device": "deviceId", "registration": "registrationId", "fate": "fate", "to": "target"}
_PROBE_S: Final = 10.0
_MOVES_SHOWN_MAX: Final = 10_000

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name or host of the hub.", show_default=False)]
Plan = Annotated[bool, typer.Option("--plan", help="Only show which devices would move where.")]


@app.command("list", epilog="Example: provisiond hub list")
def list_(output: Output = None, config: Config = None) -> None:
    """List the hubs: health, weight, share of new devices, devices, latency, drift."""

    async def read() -> Sequence[HubRecord]:
        async with _open_hubs(load(config).settings) as hubs:
            return await hubs.list_hubs()

    print_records([_to_json(record) for record in asyncio.run(read())], _COLUMNS, output)


@app.command("show", epilog="Example: provisiond hub show line-2 --probe")
def show(
    name: Name,
    probe: Annotated[bool, typer.Option("--probe", help="Ask the hub now, with the configured credentials.")] = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Show one hub; with --probe whether it answers this machine now."""
    settings = load(config).settings

    async def read() -> dict[str, Any]:
        async with _open_hubs(settings) as hubs:
            record = await hubs.get_hub(name)
        body = _to_json(record)
        return {**body, "probe": await _probe(settings, record.hub.name)} if probe else body

    body = asyncio.run(read())
    print_record(body, output)
    if body.get("probe", {}).get("error"):
        raise typer.Exit(ExitCode.UNAVAILABLE)


@app.command(
    "add", epilog="Example: provisiond hub add line-2 --type mosquitto --host mqtt.local --option username=admin"
)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Unique name.", show_default=False)],
    host: Annotated[str, typer.Option("--host", help="What devices are told to connect to.")],
    type_: Annotated[str, typer.Option("--type", help="Such as embedded, mosquitto, webhook.")] = "embedded",
    weight: Annotated[int, typer.Option("--weight", min=1, max=1000, help="Share of new devices.")] = 1,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="KEY=VALUE", help="An option of the type; may be repeated. No secrets: files."
        ),
    ] = None,
    output: Output = None,
    config: Config = None,
) -> None:
    """Add a hub to the configuration file; its comments stay, and it is checked before it is changed."""
    file = _configuration_file(config)
    hub = {"name": name, "type": type_, "host": host, "weight": weight, "options": dict(map(_option, options or ()))}
    if type_ not in hub_types():
        raise InvalidArgument(f"there is no hub type {type_}; there are: {', '.join(hub_types())}")

    def check(settings: Settings) -> None:
        new = next(one for one in settings.hubs if one.name == name)
        if not new.is_embedded:
            asyncio.run(new.to_connector().aclose())

    settings = add_hub(file, hub, check)
    added = next(one for one in settings.hubs if one.name == name)
    print_record(added.model_dump(mode="json"), output)
    note(f"{file} has it; a running daemon takes it up at SIGHUP")
    suggest("systemctl reload provisiond" if added.is_embedded else f"{command(config)} hub show {name} --probe")


@app.command("remove", epilog="Example: provisiond hub remove line-2 --plan")
def remove(
    name: Name,
    plan: Plan = False,
    force: Annotated[
        bool, typer.Option("--force", help="Although devices are on it, or have left something there.")
    ] = False,
    yes: Yes = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Remove a hub from the configuration file; with --plan only show which devices would move where."""
    settings = load(config).settings
    record, moves = asyncio.run(_plan(settings, name))
    if plan:
        _print_plan(record, moves, output)
        return
    if moves and not force:
        print_error(f"{len(moves)} devices are on {record.hub.name}; drain it first, or use --force")
        suggest(f"{command(config)} hub drain {record.hub.name}")
        raise typer.Exit(ExitCode.CONFLICT)
    if record.departing and not force:
        # Nobody would take them away any more, and their devices could connect there for ever.
        print_error(
            f"{record.departing} devices have left {record.hub.name}, and their identities are still to go from there; "
            "wait until that is done, or use --force"
        )
        raise typer.Exit(ExitCode.CONFLICT)
    confirm(f"Remove hub {record.hub.name} from the configuration?", yes=yes)
    file = _configuration_file(config)
    remove_hub(file, record.hub.name)
    note(f"{file} has it no longer; a running daemon lets go of it at SIGHUP")
    if moves:
        note(f"{len(moves)} devices were on it; each moves when it next registers")


@app.command("drain", epilog="Example: provisiond hub drain line-2 --plan")
def drain(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Have it take new devices again.")] = False,
    plan: Plan = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Have a hub take no new devices, from the next request on; those on it move when they next register."""
    settings = load(config).settings
    if plan:
        _print_plan(*asyncio.run(_plan(settings, name)), output)
        return

    async def change() -> HubRecord:
        async with _open_hubs(settings) as hubs:
            return await hubs.set_draining(name, not undo)

    record = asyncio.run(change())
    print_record(_to_json(record), output)
    if undo:
        note(f"{record.hub.name} takes new devices again")
        return
    note(f"{record.hub.name} takes no new devices; {record.assigned} are on it and move when they next register")
    suggest(f"{command(config)} hub remove {record.hub.name} --plan")


# --- work ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _open_hubs(settings: Settings) -> AsyncIterator[Hubs]:
    async with await open_store(settings) as store:
        yield Hubs(
            store=store,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            hubs=settings.linked_hubs(),
            default_allocation=settings.registration.default_allocation,
            default_reprovision=settings.registration.reprovision_policy,
            actor=actor(),
        )


async def _plan(settings: Settings, name: str) -> tuple[HubRecord, list[Move]]:
    async with _open_hubs(settings) as hubs:
        return await hubs.get_hub(name), [move async for move in hubs.plan(name)]


async def _probe(settings: Settings, name: str) -> dict[str, Any]:
    hub = next(one for one in settings.hubs if one.name == name)
    if hub.is_embedded:
        return {"error": "", "latencyMs": 0.0}
    connector = hub.to_connector()
    begun = SystemClock().monotonic()
    error = ""
    try:
        async with asyncio.timeout(_PROBE_S):
            await connector.probe()
    except HubFault as fault:
        error = str(fault)
    except TimeoutError:
        error = f"no answer within {_PROBE_S:g} s"
    finally:
        await connector.aclose()
    return {"error": error, "latencyMs": round((SystemClock().monotonic() - begun) * 1000, 2)}


def _print_plan(record: HubRecord, moves: Sequence[Move], output: OutputFormat | None) -> None:
    """The devices on stdout; how many go where on stderr."""
    shown = moves[:_MOVES_SHOWN_MAX]
    bodies = [
        {
            "deviceId": move.registration.device_id,
            "registrationId": move.registration.registration_id,
            "fate": move.fate.value,
            "target": move.target,
        }
        for move in shown
    ]
    print_records(bodies, _MOVE_COLUMNS, output)
    if len(shown) < len(moves):
        note(f"only the first {len(shown)} of {len(moves)} are listed")
    note(f"{record.hub.name}: {len(moves)} devices")
    totals = Counter((move.fate, move.target) for move in moves)
    for (fate, target), total in sorted(totals.items(), key=lambda item: -item[1]):
        note(f"  {total:>7} {_describe(fate, target)}")


def _describe(fate: Fate, target: str | None) -> str:
    return {
        Fate.MOVES: f"would move to {target}",
        Fate.STAYS: "would stay: their reprovisioning policy is never",
        Fate.WEBHOOK: "would go where their custom allocation says",
        Fate.STRANDED: "would find no hub (400208)",
        Fate.UNENROLLED: "are not let in any more",
    }[fate]


def _to_json(record: HubRecord) -> dict[str, Any]:
    hub, observed = record.hub, record.observed
    return {
        "name": hub.name,
        "type": hub.type,
        "host": hub.host,
        "health": _health(record),
        "weight": hub.weight,
        "share": f"{record.share:.1%}",
        "assigned": record.counts.get(RegistrationStatus.ASSIGNED, 0),
        "assigning": record.counts.get(RegistrationStatus.ASSIGNING, 0),
        "leaving": record.departing,
        "latencyMs": hub.latency_ms,
        "draining": record.draining,
        **{key: observed[key] for key in ("waiting", "ratePerS", "drift", "error", "seenAt") if key in observed},
        "checkedAt": format_timestamp(SystemClock().now()),
    }


def _health(record: HubRecord) -> str:
    """`up`, `down`, `unauthorized` or `unknown`; ` draining` behind it where that is so."""
    state = "up"
    if not record.hub.immediate:
        current = is_current(record.observed, now=SystemClock().now())
        state = str(record.observed.get("state")) if current else "unknown"
    return f"{state} draining" if record.draining else state


def _configuration_file(config: Path | None) -> Path:
    file = load(config).file
    if file is None:
        raise ConfigurationError("there is no configuration file to change; `provisiond init --dir DIR` makes one")
    return file


def _option(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`; `true`, `false` and whole numbers are what they say, anything else is text."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidArgument(f"--option {text!r}: write KEY=VALUE")
    if value in ("true", "false"):
        return key, value == "true"
    return key, int(value) if value.isdecimal() else value
