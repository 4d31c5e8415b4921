"""What the commands that take access away share: telling the hub, publishing the certificate, trying, the receipt."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import typer

from provisiond.admin import Admin
from provisiond.admin.devices import STILL_OPEN, Devices, Revocation
from provisiond.cli.audit_records import audit_to_json
from provisiond.cli.exit_codes import ExitCode, print_error
from provisiond.cli.operator_link import LiveProbe
from provisiond.cli.output import OutputFormat, note, print_records
from provisiond.cli.revocation_list import release_certificates, revoke_certificate
from provisiond.cli.session import actor, load, open_store
from provisiond.connectors import HubConnector
from provisiond.model import AuditRecord, Enrollment, EnrollmentKind, Registration
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from provisiond.system import SystemClock, SystemEntropy

_PAGE = 500
_RECEIPT_COLUMNS = {"device": "registrationId", "hub": "hub", "outcome": "outcome", "receipt": "trackingId"}


@asynccontextmanager
async def open_devices(settings: Settings) -> AsyncIterator[tuple[Devices, SqliteStore]]:
    """The use cases for devices, on the configured database.

    Raises:
        StoreError: it cannot be opened.
    """
    clock, entropy, hubs = SystemClock(), SystemEntropy(), settings.linked_hubs()
    async with await open_store(settings) as store:
        admin = Admin(store=store, clock=clock, entropy=entropy, hubs=hubs, actor=actor())
        devices = Devices(admin=admin, store=store, clock=clock, entropy=entropy, hubs=hubs, actor=actor())
        yield devices, store


async def prove(
    revocation: Revocation, devices: Devices, store: SqliteStore, settings: Settings, config: Path | None
) -> AuditRecord:
    """Carry a revocation out at the device's hub, publish its certificate, try to connect, and store the receipt.

    Raises:
        ConfigurationError: an option of the hub cannot be used.
        StoreUnavailable: the receipt was not stored.
    """
    registration = revocation.device.registration
    published = await revoke_certificate(settings, store, registration.certificate_der, hub=registration.hub)
    async with _connector(settings, registration.hub) as connector:
        return await devices.prove(revocation, LiveProbe(settings, config), connector=connector, published=published)


async def revoke_all(
    config: Path | None, kind: EnrollmentKind, enrollment_id: str, output: OutputFormat | None
) -> None:
    """Disable an enrollment and take access from every device that it let in; print the receipts.

    Raises:
        typer.Exit: 1, a device can still connect.
    """
    settings = load(config).settings
    async with open_devices(settings) as (devices, store):
        receipts = [
            await prove(revocation, devices, store, settings, config)
            async for revocation in devices.revoke_all(kind, enrollment_id)
        ]
    print_records([audit_to_json(receipt) for receipt in receipts], _RECEIPT_COLUMNS, output)
    note(f"{enrollment_id} is disabled; {len(receipts)} devices had been let in by it")
    if any(receipt.outcome == STILL_OPEN for receipt in receipts):
        print_error("a device can still connect")
        raise typer.Exit(ExitCode.FAILED)


async def release_all(settings: Settings, enrollment: Enrollment) -> None:
    """Have the certificates count again of every device that an enrollment lets in, now that it is enabled."""
    async with await open_store(settings) as store:
        released: list[Registration] = []
        after = ""
        while page := await store.list_registrations(after_key=after, limit=_PAGE, enrollment_id=enrollment.key):
            for registration in page:
                individual = await store.get_enrollment(EnrollmentKind.INDIVIDUAL, registration.key)
                # One that was taken out of its group by itself stays out.
                if registration.certificate_der is not None and (individual is None or individual.enabled):
                    released.append(registration)
            after = page[-1].key
        await release_certificates(settings, store, released)


@asynccontextmanager
async def _connector(settings: Settings, name: str | None) -> AsyncIterator[HubConnector | None]:
    hub = next((one for one in settings.hubs if one.name == name), None)
    if hub is None or hub.is_embedded:
        yield None
        return
    connector = hub.to_connector()
    try:
        yield connector
    finally:
        await connector.aclose()
