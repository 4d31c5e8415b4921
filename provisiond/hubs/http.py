"""One HTTP POST to somebody else's service: with a deadline, a bound on its answer, TLS verified, no redirects."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from provisiond.errors import ConfigurationError, HubUnavailable

_CONNECTIONS_MAX: Final = 32
"""To one service at once; more wait their turn within their deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """What a service answered: its status code, and a body that is no longer than was asked for."""

    status: int
    body: bytes


class HttpClient:
    """Posts JSON; connections are kept for the next time.

    Args:
        ca_file: PEM certificates that servers must chain to; None for those the system trusts.

    Raises:
        ConfigurationError: the CA file cannot be used.
    """

    def __init__(self, *, ca_file: Path | None = None) -> None:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(f"the CA file {ca_file} cannot be used: {error}") from error
        self._client = httpx.AsyncClient(
            verify=context,
            follow_redirects=False,
            trust_env=False,  # a proxy of the environment would see what is for the service alone
            timeout=None,  # noqa: S113 - the caller's deadline is for all of it, which httpx has no word for
            limits=httpx.Limits(max_connections=_CONNECTIONS_MAX),
        )

    async def post(
        self, url: str, body: bytes, *, headers: Mapping[str, str] | None = None, answer_max_bytes: int
    ) -> HttpAnswer:
        """Post JSON and read the answer, whatever its status.

        Raises:
            HubUnavailable: no connection, TLS that cannot be verified, no HTTP, or an answer that is too long.
        """
        # Not compressed: a kilobyte of that may be a gigabyte before anybody can look at its length.
        plain = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        sent = {**plain, **(headers or {})}
        try:
            async with self._client.stream("POST", url, content=body, headers=sent) as response:
                received = bytearray()
                async for part in response.aiter_raw():
                    received += part
                    if len(received) > answer_max_bytes:
                        raise HubUnavailable(f"the answer is longer than {answer_max_bytes} bytes")
                return HttpAnswer(status=response.status_code, body=bytes(received))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise HubUnavailable(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose()
