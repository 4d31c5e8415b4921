"""`provisiond plan`: what the enrollments and the hubs in the configuration would change."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.admin.declared import Planned, PlannedAction, apply
from provisiond.admin.declared_hubs import HubStep
from provisiond.cli.output import Output, OutputFormat, note, plain, print_records, resolve_format, suggest
from provisiond.cli.session import Config, actor, command, load, open_store
from provisiond.declaring import plan_declared, plan_hubs
from provisiond.model import Enrollment, EnrollmentKind
from provisiond.protocols.service_api import enrollment_to_json
from provisiond.store.declared import DeclaredTables

EXAMPLE: Final = "Example: provisiond -c /etc/provisiond/provisiond.toml plan"

Adopt = Annotated[bool, typer.Option("--adopt", help="Take over enrollments of the same id that were made by hand.")]

_SIGNS: Final = {PlannedAction.CREATE: "+", PlannedAction.UPDATE: "~", PlannedAction.DELETE: "-"}
_NOUNS: Final = {EnrollmentKind.INDIVIDUAL: "enrollment", EnrollmentKind.GROUP: "enrollment-group"}
_COLUMNS: Final = {"action": "action", "kind": "kind", "id": "id", "changes": "differences"}
_HIDDEN: Final = ("etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc")


def plan(adopt: Adopt = False, output: Output = None, config: Config = None) -> None:
    """Show what `apply`, a start or SIGHUP would change in the enrollments, and in the hubs; nothing is changed."""
    steps, hubs = asyncio.run(_plan(config, adopt=adopt, carry_out=False))
    show(steps, hubs, output)
    if steps:
        suggest(f"{command(config)} apply{' --adopt' if adopt else ''}")


Plan = tuple[Sequence[Planned], Sequence[HubStep]]


async def _plan(config: Path | None, *, adopt: bool, carry_out: bool) -> Plan:
    settings = load(config).settings
    async with await open_store(settings) as store:
        steps = await plan_declared(settings, store, actor=actor(), adopt=adopt)
        if carry_out:
            await apply(DeclaredTables(store), steps)
        return steps, await plan_hubs(settings, store)


async def carry_out(config: Path | None, *, adopt: bool) -> Plan:
    """Make a plan and carry out what it has of enrollments; a daemon takes the hubs over.

    Raises:
        ConfigurationError: it cannot be had.
        EtagMismatch, AlreadyExists, RecordNotFound: something was changed meanwhile; nothing was stored.
        StoreError: the store failed.
    """
    return await _plan(config, adopt=adopt, carry_out=True)


def show(steps: Sequence[Planned], hubs: Sequence[HubStep], output: OutputFormat | None) -> None:
    """Print a plan, as a diff on a terminal."""
    if hubs:
        count = "1 hub changes" if len(hubs) == 1 else f"{len(hubs)} hubs change"
        note(f"{count} when the daemon reads the configuration: systemctl reload provisiond, or SIGHUP")
    if resolve_format(output) is not OutputFormat.TABLE:
        print_records([*map(_body, steps), *map(_hub_body, hubs)], _COLUMNS, output)
        return
    _print_enrollments(steps)
    for hub in hubs:
        print(plain(f"{_SIGNS[hub.action]} hub {hub.name} ({hub.after.get('type', hub.before.get('type'))})"))
        for name in hub.differences if hub.action is PlannedAction.UPDATE else ():
            change = "changed" if name == "options" else f"{hub.before.get(name)} -> {hub.after.get(name)}"
            print(plain(f"    {name}: {change}"))
    if not steps and not hubs:
        note("nothing to change: the enrollments and hubs are what the configuration declares")


def _print_enrollments(steps: Sequence[Planned]) -> None:
    for step in steps:
        subject = step.subject
        print(plain(f"{_SIGNS[step.action]} {_NOUNS[subject.kind]} {subject.id} ({subject.attestation_type})"))
        if step.action is PlannedAction.UPDATE:
            before, after = _flat(step.before), _flat(step.after)
            for name in sorted(before.keys() | after.keys()):
                if before.get(name) != after.get(name):
                    print(plain(f"    {name}: {before.get(name, 'nothing')} -> {after.get(name, 'nothing')}"))
            if "attestation" in step.differences:
                print("    attestation: other keys or certificates")


def _hub_body(step: HubStep) -> dict[str, Any]:
    body: dict[str, Any] = {
        "action": step.action.value,
        "kind": "hub",
        "id": step.name,
        "differences": list(step.differences) if step.action is PlannedAction.UPDATE else [],
    }
    return body | {name: dict(hub) for name, hub in (("before", step.before), ("after", step.after)) if hub}


def _body(step: Planned) -> dict[str, Any]:
    subject = step.subject
    body: dict[str, Any] = {
        "action": step.action.value,
        "kind": subject.kind.value,
        "id": subject.id,
        "differences": list(step.differences),
    }
    for name, enrollment in (("before", step.before), ("after", step.after)):
        if enrollment is not None:
            shown = enrollment_to_json(enrollment)
            body[name] = {key: value for key, value in shown.items() if key not in _HIDDEN}
    return body


def _flat(enrollment: Enrollment | None) -> dict[str, str]:
    if enrollment is None:
        return {}
    shown = enrollment_to_json(enrollment) | {"origin": enrollment.origin}
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in shown.items()
        if key not in (*_HIDDEN, "attestation")
    }
