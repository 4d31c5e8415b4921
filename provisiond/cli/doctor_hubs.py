"""What `doctor` looks at for the hubs: the revocation list that they are served."""

from collections.abc import Iterator
from datetime import datetime

from provisiond.cli.finding import Finding
from provisiond.revocation_list import FILE_NAME, PEM_PATH, next_update, read_revocation_list
from provisiond.settings import Settings

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
        yield Finding(level="warn", subject=_SUBJECT, text=text, mend=f"{command} ca crl, or {command} run")
        return
    expires_at = next_update(crl)
    served = [f"http://{bind}{PEM_PATH}" for bind in _binds(settings)]
    text = f"{len(crl)} certificates, good until {expires_at:%Y-%m-%d}, served at {', '.join(served) or 'no address'}"
    if (expires_at - now).total_seconds() > settings.crl.lifetime_s / 3:
        yield Finding(level="ok", subject=_SUBJECT, text=text)
        return
    verb = "has expired" if expires_at <= now else "expires"
    text = f"{file} {verb} on {expires_at:%Y-%m-%d %H:%M} UTC: hubs that have it refuse every certificate from then on"
    mend = f"{command} ca crl, where root.key is; then have the hubs read it"
    yield Finding(level="warn", subject=_SUBJECT, text=text, mend=mend)


def _binds(settings: Settings) -> Iterator[str]:
    if settings.crl.bind is not None:
        yield settings.crl.bind
    if settings.metrics.enabled:
        yield settings.metrics.bind
