"""URLs that we post to: whose answers decide, and who is told secrets."""

import ipaddress
from urllib.parse import urlsplit

from provisiond.errors import InvalidArgument


def check_webhook_url(url: str) -> str:
    """Require a URL that may be told secrets: `https://…`, or `http://…` on this machine.

    Raises:
        InvalidArgument: it is another.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidArgument(f"{name_webhook(url)!r} is not a URL: {error}") from error
    if parts.username or parts.password:
        raise InvalidArgument(f"the URL of {parts.hostname} carries a user or a password; they would end up in logs")
    if not parts.hostname or parts.scheme not in ("https", "http"):
        raise InvalidArgument(f"{url.partition('?')[0][:200]!r} is not a URL such as https://allocate.example/hub")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise InvalidArgument(
            f"{name_webhook(url)!r} is not encrypted; write https://, or use an address of this machine"
        )
    return url


def name_webhook(url: str) -> str:
    """The URL as it may be logged: without its query, where the keys of Azure functions are, and without a user."""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
    except ValueError:
        return "the URL"
    return f"{parts.scheme}://{host}{parts.path}"[:200]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
