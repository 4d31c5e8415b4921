"""`provisiond plan`: what the enrollments in the configuration would change."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.admin.declared import Planned, PlannedAction, apply
from provisiond.cli.output import Output, OutputFormat, note, plain, print_records, resolve_format, suggest
from provisiond.cli.session import Config, actor, command, load, open_store
from provisiond.declaring import plan_declared
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
    """Show what `apply`, a start or SIGHUP would change in the enrollments; nothing is changed."""
    steps = asyncio.run(_plan(config, adopt=adopt, carry_out=False))
    show(steps, output)
    if steps:
        suggest(f"{command(config)} apply{' --adopt' if adopt else ''}")


async def _plan(config: Path | None, *, adopt: bool, carry_out: bool) -> Sequence[Planned]:
    settings = load(config).settings
    async with await open_store(settings) as store:
        steps = await plan_declared(settings, store, actor=actor(), adopt=adopt)
        if carry_out:
            await apply(DeclaredTables(store), steps)
        return steps


async def carry_out(config: Path | None, *, adopt: bool) -> Sequence[Planned]:
    """Make a plan and carry it out.

    Raises:
        ConfigurationError: it cannot be had.
        EtagMismatch, AlreadyExists, RecordNotFound: something was changed meanwhile; nothing was stored.
        StoreError: the store failed.
    """
    return await _plan(config, adopt=adopt, carry_out=True)


def show(steps: Sequence[Planned], output: OutputFormat | None) -> None:
    """Print a plan, as a diff on a terminal."""
    if resolve_format(output) is not OutputFormat.TABLE:
        print_records([_body(step) for step in steps], _COLUMNS, output)
        return
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
    if not steps:
        note("nothing to change: the enrollments are what the configuration declares")


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
    return {key: str(value) for key, value in shown.items() if key not in (*_HIDDEN, "attestation")}
