"""The revocation list of the local certification authority: who is on it, and its file for the hubs."""

from pathlib import Path

from provisiond.errors import AdminError
from provisiond.local_ca import load_root, make_revocation_list, revocable_by
from provisiond.model import Check
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from provisiond.system import SystemClock

FILE_NAME = "root.crl"
"""Beside the root certificate; PEM, replaced whole."""


async def revoke_certificate(settings: Settings, store: SqliteStore, certificate_der: bytes | None) -> Check | None:
    """Put a device's certificate on the list, if it is the local authority's, and write the file.

    Returns:
        What became of it; None for a device without a certificate.
    """
    if certificate_der is None:
        return None
    try:
        root = load_root(settings.ca_dir)
    except AdminError as error:
        return Check("revocation-list", True, f"the certificate's authority is not here: {error}", "RFC 5280 5")
    issued = revocable_by(root, certificate_der)
    if issued is None:
        finding = "the certificate is not the local authority's: its own authority has to revoke it"
        return Check("revocation-list", True, finding, "RFC 5280 5")
    issuer_hash, serial = issued
    await store.revoke_certificate(issuer_hash, serial, SystemClock().now())
    file = await write_revocation_list(settings, store)
    return Check("revocation-list", True, f"{file} names the certificate, serial {serial:X}", "RFC 5280 5")


async def write_revocation_list(settings: Settings, store: SqliteStore) -> Path:
    """Make the list anew from what is revoked, and put it in the place of the old one.

    Raises:
        RecordNotFound, InvalidArgument: there is no local authority, or its files are something else.
    """
    root = load_root(settings.ca_dir)
    revoked = await store.revoked_certificates(root.name_hash)
    file = settings.ca_dir / FILE_NAME
    part = file.with_name(f".{FILE_NAME}.part")
    part.write_bytes(make_revocation_list(root, revoked, now=SystemClock().now()))
    part.replace(file)
    return file
