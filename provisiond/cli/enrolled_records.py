"""What the verbs of `enrollment` and `enrollment-group` share: the two nouns differ in their kind, and in few flags."""

import base64
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from provisiond.admin import Admin
from provisiond.admin.rules import check_id
from provisiond.attestation.symmetric_key import derive_device_key
from provisiond.cli.enrollment_flags import EnrollmentFlags, changed_enrollment, makes_keys, new_enrollment
from provisiond.cli.output import OutputFormat, confirm, note, print_record, print_records, suggest
from provisiond.cli.revoking import release_all
from provisiond.cli.secret_files import read_key
from provisiond.cli.session import command, load, open_admin
from provisiond.errors import InvalidArgument
from provisiond.model import (
    AttestationType,
    Enrollment,
    EnrollmentKind,
    ProvisioningStatus,
    SymmetricKeyMaterial,
)
from provisiond.protocols.service_api import enrollment_to_json
from provisiond.settings import Settings, load_settings
from provisiond.system import SystemClock

Top = Annotated[int, typer.Option("--top", min=1, max=1_000_000, help="Records at most.")]
After = Annotated[str, typer.Option("--after", metavar="ID", help="Start after this id: the last of the page before.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

PAGE: Final = 100
_NOUNS: Final = {EnrollmentKind.INDIVIDUAL: "enrollment", EnrollmentKind.GROUP: "enrollment-group"}
_COLUMNS: Final = {
    "attestation": "attestation.type",
    "status": "provisioningStatus",
    "allocation": "allocationPolicy",
    "hubs": "iotHubs",
    "by": "origin",
    "updated": "lastUpdatedDateTimeUtc",
}


def choose_id(positional: str | None, option: str | None, what: str) -> str:
    """The id, which may be given as an argument or as az's option.

    Raises:
        InvalidArgument: neither, or both and different.
    """
    if positional is None and option is None:
        raise InvalidArgument(f"{what} is missing")
    if positional is not None and option is not None and positional != option:
        raise InvalidArgument(f"{what} is given twice: {positional} and {option}")
    return positional if positional is not None else option or ""


async def collect(fetch: Callable[[str, int], Awaitable[Sequence[Any]]], *, after: str, top: int) -> list[Any]:
    """Read pages until `top` records are there, and one more, which tells that there are more."""
    records: list[Any] = []
    while len(records) <= top:
        page = await fetch(after, top + 1 - len(records))
        if not page:
            break
        records += page
        after = page[-1].key
    return records


async def create(
    config: Path | None,
    kind: EnrollmentKind,
    enrollment_id: str,
    flags: EnrollmentFlags,
    *,
    show_keys: bool,
    output: OutputFormat | None,
) -> None:
    """Create, print, and say what comes next. Keys that were generated are shown this once."""
    enrollment = new_enrollment(kind, enrollment_id, flags, now=SystemClock().now())
    is_generated = enrollment.attestation_type is AttestationType.SYMMETRIC_KEY and makes_keys(flags)
    async with open_admin(config) as admin:
        created = await admin.create_enrollment(enrollment)
    print_record(enrollment_to_json(created, show_keys=show_keys or is_generated), output)
    if is_generated:
        note(
            f"generated keys are shown this once; later: {command(config)} {_NOUNS[kind]} show {created.id} --show-keys"
        )
    _note_passwords(created, load(config).settings)
    if kind is EnrollmentKind.INDIVIDUAL:
        suggest(f"start the device, then: {command(config)} registration show {created.id}")
    else:
        suggest(f"start a device, then: {command(config)} registration list --enrollment-id {created.id}")


def _note_passwords(enrollment: Enrollment, settings: Settings) -> None:
    """Say before a device does who cannot be assigned as things are."""
    allowed = {name.lower() for name in enrollment.iot_hubs}
    hubs = [hub for hub in settings.linked_hubs() if not allowed or {hub.name.lower(), hub.host.lower()} & allowed]
    if enrollment.attestation_type is AttestationType.X509 and hubs and not any(hub.knows_certificates for hub in hubs):
        note(
            f"{', '.join(hub.name for hub in hubs)}: devices have passwords there, and one with a certificate can be "
            "told its own on native topics (provisiond/v1/…) alone, with an EC or RSA key"
        )


async def show(
    config: Path | None,
    kind: EnrollmentKind,
    enrollment_id: str,
    *,
    show_keys: bool,
    output: OutputFormat | None,
) -> None:
    """Print one record, an individual's with what became of its device."""
    async with open_admin(config) as admin:
        enrollment = await admin.get_enrollment(kind, enrollment_id)
        individual = kind is EnrollmentKind.INDIVIDUAL
        registration = await admin.find_registration(enrollment.id) if individual else None
    print_record(enrollment_to_json(enrollment, show_keys=show_keys, registration=registration), output)


async def list_(
    config: Path | None, kind: EnrollmentKind, *, top: int, after: str, show_keys: bool, output: OutputFormat | None
) -> None:
    """Print a page, and how to see the next one."""
    async with open_admin(config) as admin:
        found: list[Enrollment] = await collect(
            lambda start, limit: admin.list_enrollments(kind, after=start, limit=limit), after=after, top=top
        )
    id_name = "registrationId" if kind is EnrollmentKind.INDIVIDUAL else "enrollmentGroupId"
    bodies = [
        enrollment_to_json(enrollment, show_keys=show_keys) | {"origin": enrollment.origin}
        for enrollment in found[:top]
    ]
    print_records(bodies, {"id": id_name, **_COLUMNS}, output)
    if len(found) > top:
        page = "" if top == PAGE else f" --top {top}"
        note(f"there are more: {command(config)} {_NOUNS[kind]} list{page} --after {found[top - 1].id}")


async def update(
    config: Path | None,
    kind: EnrollmentKind,
    enrollment_id: str,
    flags: EnrollmentFlags,
    *,
    etag: str | None,
    show_keys: bool,
    output: OutputFormat | None,
) -> None:
    """Change what the flags say, and print the result."""
    if flags == EnrollmentFlags():
        raise InvalidArgument("there is nothing to change; say what, see --help")
    async with open_admin(config) as admin:
        changed = await admin.change_enrollment(
            kind, enrollment_id, lambda enrollment: changed_enrollment(enrollment, flags), if_match=etag
        )
    is_generated = flags.regenerate_primary_key or flags.regenerate_secondary_key
    print_record(enrollment_to_json(changed, show_keys=show_keys or is_generated), output)
    _note_declared(config, kind, enrollment_id, "undoes this, unless it is changed there as well")


async def delete(config: Path | None, kind: EnrollmentKind, enrollment_id: str, *, etag: str | None, yes: bool) -> None:
    """Remove one record, and say what stays."""
    confirm(f"Delete {_NOUNS[kind].replace('-', ' ')} {enrollment_id}?", yes=yes)
    async with open_admin(config) as admin:
        await admin.delete_enrollment(kind, enrollment_id, if_match=etag)
    note(f"deleted {_NOUNS[kind].replace('-', ' ')} {enrollment_id}; registration records stay")
    _note_declared(config, kind, enrollment_id, "enrolls it again, unless it is taken out there as well")
    if kind is EnrollmentKind.INDIVIDUAL:
        suggest(f"{command(config)} registration delete {enrollment_id}")


def _note_declared(config: Path | None, kind: EnrollmentKind, enrollment_id: str, consequence: str) -> None:
    """Say that what was done by hand lasts only until the configuration is read again."""
    settings = load_settings(config, environment=os.environ).settings
    places = (
        {one.registration_id.lower(): one.place for one in settings.enrollments}
        if kind is EnrollmentKind.INDIVIDUAL
        else {one.group_id.lower(): one.place for one in settings.enrollment_groups}
    )
    place = places.get(enrollment_id.lower())
    if place is not None:
        note(f"note: {place} declares {enrollment_id}: the next start or reload of the daemon {consequence}")


async def set_status(
    config: Path | None,
    kind: EnrollmentKind,
    enrollment_id: str,
    status: ProvisioningStatus,
    *,
    etag: str | None,
    output: OutputFormat | None,
) -> None:
    """Enable or disable, and print the result."""
    async with open_admin(config) as admin:
        changed = await admin.set_provisioning_status(kind, enrollment_id, status, if_match=etag)
    if changed.enabled and changed.attestation_type is AttestationType.X509:
        await release_all(load(config).settings, changed)
    print_record(enrollment_to_json(changed), output)


async def compute_device_key(
    config: Path | None, *, registration_id: str, group_id: str | None, key_file: Path | None
) -> str:
    """The key of one device of a symmetric-key group, base64.

    Args:
        config: configuration file.
        registration_id: as the device will spell it; the key depends on the case.
        group_id: enrollment group whose primary key it is derived from.
        key_file: the group's key instead.

    Raises:
        InvalidArgument: not exactly one of the two, an id that is none, or the group has no keys.
        RecordNotFound: there is no such group.
    """
    if (group_id is None) == (key_file is None):
        raise InvalidArgument("give the enrollment group, or --key-file")
    check_id(EnrollmentKind.INDIVIDUAL, registration_id)
    if key_file is not None:
        group_key = read_key(key_file)
    else:
        async with open_admin(config) as admin:
            group_key = await _primary_key(admin, group_id or "")
    return base64.b64encode(derive_device_key(group_key, registration_id)).decode("ascii")


async def _primary_key(admin: Admin, group_id: str) -> bytes:
    group = await admin.get_enrollment(EnrollmentKind.GROUP, group_id)
    if not isinstance(group.attestation, SymmetricKeyMaterial):
        raise InvalidArgument(
            f"enrollment group {group.id} has no keys: its attestation type is {group.attestation_type}"
        )
    return group.attestation.primary_key
