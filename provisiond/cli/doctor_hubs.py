"""What `doctor` looks at for the hubs: their revocation list, and whether devices with certificates can connect."""

import asyncio
from collections.abc import Iterator
from datetime import datetime

from provisiond.cli.finding import Finding
from provisiond.cli.session import has_database
from provisiond.errors import StoreError
from provisiond.hubs.certificate_request import asks_for_certificate
from provisiond.hubs.mosquitto import MosquittoHub
from provisiond.revocation_list import FILE_NAME, PEM_PATH, next_update, read_revocation_list
from provisiond.settings import Settings
from provisiond.store import SqliteStore

_SUBJECT = "revocation list"


def examine_revocation_list(settings: Settings, command: str, now: datetime) -> Iterator[Finding]:
    """Look at whether hubs get a list, and for how long it is good; nothing is said where there is no local CA.

    Args:
        settings: the configuration.
        command: how a mending command begins.
        now: aware UTC.
    """
    if not (settings.ca_dir / "root.crt").exists():
        return
    file = settings.ca_dir / FILE_NAME
    crl = read_revocation_list(file)
    if crl is None:
        text = f"{file} is not there yet" if not file.exists() else f"{file} holds no revocation list"
        yield Finding(level="warn", subject=_SUBJECT, text=text, mend=f"{command} ca crl")
        return
    expires_at = next_update(crl)
    served = [f"http://{bind}{PEM_PATH}" for bind in _binds(settings)]
    text = f"{len(crl)} certificates, good until {expires_at:%Y-%m-%d}, served at {', '.join(served) or 'no address'}"
    if (expires_at - now).total_seconds() > settings.crl.lifetime_s / 3:
        yield Finding(level="ok", subject=_SUBJECT, text=text)
        return
    verb = "has expired" if expires_at <= now else "expires"
    text = f"{file} {verb} on {expires_at:%Y-%m-%d %H:%M} UTC: hubs that have it refuse every certificate from then on"
    mend = f"{command} ca crl  # where root.key is; then have the hubs read it"
    yield Finding(level="warn", subject=_SUBJECT, text=text, mend=mend)


def _has_certificates(settings: Settings) -> bool:
    if not has_database(settings):
        return False

    async def look() -> bool:
        async with await SqliteStore.open(settings.database_file, read_only=True) as store:
            query = "SELECT 1 FROM enrollment WHERE attestation_type = 'x509' LIMIT 1"
            return await store.read(lambda connection: connection.execute(query).fetchone() is not None)

    try:
        return asyncio.run(look())
    except StoreError:
        return False  # which is told elsewhere


def _binds(settings: Settings) -> Iterator[str]:
    if settings.crl.bind is not None:
        yield settings.crl.bind
    if settings.metrics.enabled:
        yield settings.metrics.bind


def examine_certificate_hubs(settings: Settings) -> Iterator[Finding]:
    """Look whether the mosquittos that know devices by their certificates ask for any, if there are such devices."""
    if not _has_certificates(settings):
        return
    for hub in settings.hubs:
        connector = None if hub.is_embedded else hub.to_connector()
        if not isinstance(connector, MosquittoHub) or not hub.to_hub().knows_certificates:
            continue
        subject = f"certificates at {hub.name}"
        url, address = connector.device_url, connector.device_address
        asked = asyncio.run(asks_for_certificate(*address)) if url.startswith("mqtts:") else False
        if asked:
            yield Finding(level="ok", subject=subject, text=f"{url} asks devices for their certificates")
        elif asked is None:
            text = f"nothing answers with TLS at {url}: whether devices can connect by their certificates is not known"
            yield Finding(level="warn", subject=subject, text=text, mend="start that broker, or mend device_url")
        else:
            text = f"{url} asks for no certificate: devices with X.509 enrollments cannot connect there"
            mend = (
                "require_certificate and use_identity_as_username in mosquitto.conf, or "
                'x509 = "password" in [hubs.options]'
            )
            yield Finding(level="warn", subject=subject, text=text, mend=mend)
