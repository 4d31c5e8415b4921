"""Who is put on the revocation list of the local certification authority, and what of it is told."""

from collections.abc import Collection
from typing import Final

from provisiond.cli.output import note
from provisiond.errors import AdminError
from provisiond.local_ca import load_root, revocable_by
from provisiond.model import Check, Registration
from provisiond.revocation_list import write_revocation_list
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from provisiond.system import SystemClock

_NAME: Final = "revocation-list"
_CLAUSE: Final = "RFC 5280 5"
_MOSQUITTO: Final = "mosquitto"


async def revoke_certificate(
    settings: Settings, store: SqliteStore, certificate_der: bytes | None, *, hub: str | None
) -> Check | None:
    """Put a device's certificate on the list, if it is the local authority's, and write the file.

    A list speaks for the authority alone that has signed it (RFC 5280 5), so a certificate of another one cannot be on
    ours. That matters at a mosquitto that knows devices by their certificates, which takes it for a connection for as
    long as no list names it: then the revocation is not proved.

    Args:
        settings: where the authority is, and what the hubs are.
        store: keeps what is revoked.
        certificate_der: the device's, None when it has none.
        hub: name of the hub that it is at.

    Returns:
        What became of it; None for a device without a certificate.
    """
    if certificate_der is None:
        return None
    matters = any(
        one.name == hub and one.type == _MOSQUITTO and one.to_hub().knows_certificates for one in settings.hubs
    )
    try:
        root = load_root(settings.ca_dir)
    except AdminError as error:
        return Check(_NAME, not matters, f"the certificate's authority is not here: {error}", _CLAUSE)
    issued = revocable_by(root, certificate_der)
    if issued is None:
        finding = "the certificate is not the local authority's: its own authority has to revoke it"
        return Check(_NAME, not matters, finding, _CLAUSE)
    issuer_hash, serial = issued
    now = SystemClock().now()
    await store.revoke_certificate(issuer_hash, serial, now)
    file = await write_revocation_list(settings, store, now=now)
    return Check(_NAME, True, f"{file} names the certificate, serial {serial:X}", _CLAUSE)


async def release_certificates(settings: Settings, store: SqliteStore, registrations: Collection[Registration]) -> None:
    """Take the certificates of devices that are let in again off the list; hubs hear of it as of a revocation."""
    try:
        root = load_root(settings.ca_dir)
    except AdminError:
        return  # whoever has the authority's key has its list as well
    ours = [revocable_by(root, one.certificate_der) for one in registrations if one.certificate_der is not None]
    revoked = await store.revoked_certificates(root.name_hash)
    serials = {issued[1] for issued in ours if issued is not None} & set(revoked)
    if serials:
        await store.release_certificates(root.name_hash, serials)
        file = await write_revocation_list(settings, store, now=SystemClock().now(), released=serials)
        note(f"{file} names {len(serials)} certificates less")
