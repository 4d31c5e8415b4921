"""The revocation list of the local certification authority: its file, kept fresh, and served to hubs over HTTP.

| path            | what                                   | content type             |
|-----------------|----------------------------------------|--------------------------|
| `/crl/root.crl` | DER, as RFC 2585 3 wants it            | `application/pkix-crl`   |
| `/crl/root.pem` | PEM, as mosquitto's `crlfile` wants it | `application/x-pem-file` |

The file `root.crl` beside the root certificate is the list (PEM). The commands that revoke replace it, the daemon signs
it anew every day, and what is served is what is in it at that moment.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provisiond.errors import AdminError, StoreError
from provisiond.http_server import Application
from provisiond.local_ca import Credentials, load_root, make_revocation_list
from provisiond.ports import Clock
from provisiond.private_files import hand_over
from provisiond.settings import Settings
from provisiond.store.sqlite import SqliteStore

FILE_NAME: Final = "root.crl"
"""Beside the root certificate; PEM, replaced whole."""

DER_PATH: Final = "/crl/root.crl"
PEM_PATH: Final = "/crl/root.pem"

_LOOK_S: Final = 60.0
_FRESH: Final = timedelta(days=1)
"""A list that is younger is fresh; one that lasts for less than two days is signed anew at half of its time."""


async def write_revocation_list(
    settings: Settings, store: SqliteStore, *, now: datetime, released: Collection[int] = ()
) -> Path:
    """Make the list anew from what is revoked, and put it in the place of the old one.

    What is on that one stays on it, although the database should have lost it: nothing is let in again by accident.

    Args:
        settings: where the authority is, and how long a list is good.
        store: what is revoked.
        now: aware UTC.
        released: serial numbers that are to be on it no longer.

    Raises:
        RecordNotFound, InvalidArgument: there is no local authority here with its key, or its files are something else.
    """
    root = load_root(settings.ca_dir)
    file = settings.ca_dir / FILE_NAME
    revoked = _listed(read_revocation_list(file), root) | dict(await store.revoked_certificates(root.name_hash))
    for serial in released:
        revoked.pop(serial, None)
    lifetime = timedelta(seconds=settings.crl.lifetime_s)
    content = await asyncio.to_thread(make_revocation_list, root, revoked, now=now, lifetime=lifetime)
    part = file.with_name(f".{FILE_NAME}.{os.getpid()}.part")
    with part.open("wb") as stream:
        hand_over(stream.fileno(), settings.ca_dir)
        stream.write(content)
    part.replace(file)
    return file


def read_revocation_list(file: Path) -> x509.CertificateRevocationList | None:
    """The list in a file; None when there is none that can be read."""
    try:
        return x509.load_pem_x509_crl(file.read_bytes())
    except (OSError, ValueError):
        return None


def _is_signed_by(crl: x509.CertificateRevocationList, root: Credentials) -> bool:
    return crl.issuer == root.certificate.subject and crl.is_signature_valid(root.key.public_key())


def _listed(crl: x509.CertificateRevocationList | None, root: Credentials) -> dict[int, datetime]:
    """Serial numbers of the authority's own list, and since when; a list of another is none."""
    if crl is None or not _is_signed_by(crl, root):
        return {}
    return {entry.serial_number: entry.revocation_date_utc for entry in crl}


def next_update(crl: x509.CertificateRevocationList) -> datetime:
    """When a list expires; one that does not say so has."""
    return crl.next_update_utc or datetime.min.replace(tzinfo=UTC)


class RevocationListKeeper:
    """Has the daemon's authority sign its list at the start, when somebody else has revoked, and every day.

    Where the authority's key is not on this machine, nothing is done: the list is made where the key is.

    Args:
        settings: the present ones; called each time.
        report: hears why the list could not be made.
    """

    def __init__(
        self, *, store: SqliteStore, clock: Clock, settings: Callable[[], Settings], report: Callable[[str], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._report = report
        self._reported = ""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> bool:
        """Make the list, if it is time; whether it was made."""
        settings = self._settings()
        if not (settings.ca_dir / "root.key").exists():
            return False
        try:
            if not await self._is_due(settings):
                return False
            await write_revocation_list(settings, self._store, now=self._clock.now())
        except (AdminError, StoreError, OSError) as error:
            if str(error) != self._reported:  # once, not every minute
                self._report(str(error))
            self._reported = str(error)
            return False
        self._reported = ""
        return True

    async def _is_due(self, settings: Settings) -> bool:
        crl = await asyncio.to_thread(read_revocation_list, settings.ca_dir / FILE_NAME)
        root = load_root(settings.ca_dir)
        if crl is None or not _is_signed_by(crl, root):
            return True
        lifetime = timedelta(seconds=settings.crl.lifetime_s)
        good_until = min(self._clock.now() + lifetime, root.certificate.not_valid_after_utc)
        if next_update(crl) < good_until - min(_FRESH, lifetime / 2):
            return True
        return not set(await self._store.revoked_certificates(root.name_hash)) <= set(_listed(crl, root))


@dataclass(frozen=True, slots=True)
class _Content:
    stamp: tuple[int, int, int]
    der: bytes
    pem: bytes
    modified_at: datetime


class RevocationListFile:
    """WSGI applications that serve a list as its file has it now: GET and HEAD, with ETag and Last-Modified."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._content: _Content | None = None

    @property
    def paths(self) -> dict[str, Application]:
        """What is served where."""
        return {
            DER_PATH: self._serve("application/pkix-crl", lambda content: content.der),
            PEM_PATH: self._serve("application/x-pem-file", lambda content: content.pem),
        }

    def _serve(self, content_type: str, body_of: Callable[[_Content], bytes]) -> Application:
        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            method = environ["REQUEST_METHOD"]
            if method not in ("GET", "HEAD"):
                start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
                return []
            content = self._read()
            if content is None:
                start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
                return []
            body = body_of(content)
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            headers = [
                ("ETag", etag),
                ("Last-Modified", format_datetime(content.modified_at, usegmt=True)),
                ("Cache-Control", "no-cache"),  # whoever keeps it asks whether it is still the newest
            ]
            if _has_it_already(environ, etag, content.modified_at):
                start_response("304 Not Modified", headers)
                return []
            start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers])
            return [body] if method == "GET" else []

        return application

    def _read(self) -> _Content | None:
        try:
            seen = self._file.stat()
            stamp = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
            if self._content is None or self._content.stamp != stamp:
                pem = self._file.read_bytes()
                der = x509.load_pem_x509_crl(pem).public_bytes(Encoding.DER)
                modified_at = datetime.fromtimestamp(int(seen.st_mtime), UTC)
                self._content = _Content(stamp, der, pem, modified_at)
        except (OSError, ValueError):
            return None
        return self._content


def _has_it_already(environ: dict[str, Any], etag: str, modified_at: datetime) -> bool:
    """RFC 9110 13.2.2: an entity tag goes before a date."""
    known = environ.get("HTTP_IF_NONE_MATCH")
    if known is not None:
        return any(one.strip().removeprefix("W/") in (etag, "*") for one in known.split(","))
    try:
        since = parsedate_to_datetime(environ.get("HTTP_IF_MODIFIED_SINCE", ""))
    except (ValueError, TypeError, IndexError):
        return False
    return since.tzinfo is not None and modified_at <= since
