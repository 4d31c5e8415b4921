"""Shared access signatures: `SharedAccessSignature sr=...&sig=...&se=...[&skn=...]`, written and verified.

    mac      = HMAC-SHA256(key, <sr exactly as sent> LF <se>)
    resource = {idScope}/registrations/{registrationId}  to provision,  {host}/devices/{deviceId}  at a hub

Producers differ in how they percent-encode `sr` and in the order of fields, so what is verified is the text that was
sent, and only then is it decoded and looked at.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote, unquote

from provisiond.attestation.examination import examine
from provisiond.errors import AttestationError
from provisiond.model import Trace

SAS_MAX_LENGTH: Final = (
    2048  # 128 percent-encoded characters of id, a 255-character host and all fields are under 1 KiB
)
EXPIRY_MAX_S: Final = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that a datetime can hold
_PREFIX: Final = "SharedAccessSignature "
_PRINTABLE: Final = re.compile(r"[!-~]+", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNATURE_SIZE_BYTES: Final = 32
_KEY_MIN_SIZE_BYTES: Final = 16  # no enrollment has a shorter one; an empty one would let everybody in
_CLAUSE: Final = "Azure IoT SAS token structure"


@dataclass(frozen=True, slots=True, kw_only=True)
class SasToken:
    """A parsed token; nothing in it is verified.

    Args:
        resource_literal: `sr` as sent, percent-encoded or not; printable ASCII.
        signature: `sig`, 32 bytes.
        expiry_literal: `se` as sent, for it is signed as text.
        expiry_s: `se`, seconds since 1970; 0 to the end of the year 9999.
        key_name: `skn`; empty when present without a value, None when absent.
    """

    resource_literal: str
    signature: bytes = field(repr=False)
    expiry_literal: str
    expiry_s: int
    key_name: str | None = None


def parse_sas_token(text: str) -> SasToken:
    """Parse a token with its fields in any order.

    Raises:
        AttestationError: finding `sas-malformed`: longer than 2,048 characters, not printable ASCII, without the
            prefix, a field missing, unknown or twice, `sig` not the base64 of 32 bytes, `se` not 1 to 12 digits or
            beyond the year 9999.
    """
    if len(text) > SAS_MAX_LENGTH or not text.startswith(_PREFIX):
        raise _malformed(f"it has {len(text)} characters, or does not start with {_PREFIX!r}")
    body = text.removeprefix(_PREFIX)
    if _PRINTABLE.fullmatch(body) is None:
        raise _malformed("it has characters other than printable ASCII")
    fields: dict[str, str] = {}
    for part in body.split("&"):
        name, separator, value = part.partition("=")
        if not separator or name not in ("sr", "sig", "se", "skn") or name in fields:
            raise _malformed("its fields must be sr, sig, se and optionally skn, each once")
        fields[name] = value
    if not fields.keys() >= {"sr", "sig", "se"} or not fields["sr"]:
        raise _malformed("sr, sig or se is missing")
    return SasToken(
        resource_literal=fields["sr"],
        signature=_parse_signature(fields["sig"]),
        expiry_literal=fields["se"],
        expiry_s=_parse_expiry(fields["se"]),
        key_name=_unquote(fields["skn"]) if "skn" in fields else None,
    )


def generate_sas_token(*, resource: str, key: bytes, expiry: datetime | int, key_name: str | None = None) -> str:
    """Write a token as the Azure Python SDK does: `sr` fully percent-encoded, fields in the order sr, sig, se, skn.

    Args:
        resource: `{idScope}/registrations/{registrationId}` or `{host}/devices/{deviceId}`, not encoded.
        key: the device's key.
        expiry: aware datetime, or whole seconds since 1970.
        key_name: `skn`, left out when None.
    """
    expiry_s = expiry if isinstance(expiry, int) else int(expiry.timestamp())
    encoded = quote(resource, safe="")
    signature = quote(base64.b64encode(_sign(key, encoded, str(expiry_s))), safe="")
    suffix = "" if key_name is None else f"&skn={quote(key_name, safe='')}"
    return f"{_PREFIX}sr={encoded}&sig={signature}&se={expiry_s}{suffix}"


def check_sas(
    token: SasToken,
    *,
    keys: Sequence[bytes],
    names_resource: Callable[[str], bool],
    key_names: Collection[str],
    now: datetime,
    clock_skew_s: float,
    trace: Trace,
) -> int:
    """Verify a token: its signature by one of the keys, then its resource, key name and expiry; each check is traced.

    Every key is tried over both readings of `sr` without an early exit, so that the time does not tell which matched.

    Args:
        token: from `parse_sas_token`.
        keys: candidates, one or more; one of under 16 bytes never matches.
        names_resource: whether the decoded `sr` is what the token must be for; given ASCII text only.
        key_names: values of `skn` that are right; empty or absent always is.
        now: aware UTC.
        clock_skew_s: how long after its expiry a token is still taken, seconds.
        trace: hears of every check.

    Returns:
        Index of the key that signed it; the first, if several did.

    Raises:
        AttestationError: findings `sas-signature`, `sas-resource`, `sas-key-name`, `sas-expired`, `sas-malformed`.
    """
    index = _find_key(token, keys)
    examine(trace, "sas-signature", lambda: _check_signature(index), "HMAC-SHA256 over sr and se")
    examine(trace, "sas-resource", lambda: _check_resource(token, names_resource), _CLAUSE)
    examine(trace, "sas-key-name", lambda: _check_key_name(token, key_names), _CLAUSE)
    examine(trace, "sas-expiry", lambda: _check_expiry(token, now, clock_skew_s), _CLAUSE)
    return index


def names_device(resource: str, device_id: str) -> bool:
    """Whether the decoded resource of a token is `{host}/devices/{deviceId}`; any host, for it may be an alias."""
    host, separator, named = resource.partition("/devices/")
    return bool(host and separator) and "/" not in host and named.lower() == device_id.lower()


def _find_key(token: SasToken, keys: Sequence[bytes]) -> int:
    """Index of the first key that signed the token, -1 for none; in the same time either way."""
    # One C client signs the decoded resource and sends it encoded.
    readings = (token.resource_literal, unquote(token.resource_literal, errors="replace"))
    found = -1
    for index in reversed(range(len(keys))):
        for reading in readings:
            expected = _sign(keys[index], reading, token.expiry_literal)
            is_signed = hmac.compare_digest(expected, token.signature) and len(keys[index]) >= _KEY_MIN_SIZE_BYTES
            found = index if is_signed else found
    return found


def _check_signature(index: int) -> str:
    if index < 0:
        raise AttestationError("the token is not signed with an enrolled key", finding="sas-signature")
    return "signed with an enrolled key"


def _check_resource(token: SasToken, names_resource: Callable[[str], bool]) -> str:
    resource = _unquote(token.resource_literal)
    if not names_resource(resource):
        raise AttestationError(f"the token is for {resource!r}", finding="sas-resource", clause=_CLAUSE)
    return f"for {resource}"


def _check_key_name(token: SasToken, key_names: Collection[str]) -> str:
    if token.key_name and token.key_name not in key_names:
        raise AttestationError(f"the token's key name is {token.key_name!r}", finding="sas-key-name", clause=_CLAUSE)
    return f"key name {token.key_name!r}" if token.key_name else "no key name"


def _check_expiry(token: SasToken, now: datetime, clock_skew_s: float) -> str:
    late_s = now.timestamp() - token.expiry_s
    if late_s > clock_skew_s:
        raise AttestationError(
            f"the token expired {late_s:.0f} s ago, more than the clock skew of {clock_skew_s:g} s",
            finding="sas-expired",
            clause=_CLAUSE,
        )
    return f"expires in {-late_s:.0f} s" if late_s < 0 else f"expired {late_s:.0f} s ago, within the clock skew"


def _sign(key: bytes, resource: str, expiry: str) -> bytes:
    return hmac.digest(key, f"{resource}\n{expiry}".encode(), "sha256")


def _parse_signature(text: str) -> bytes:
    try:
        signature = base64.b64decode(_unquote(text), validate=True)
    except binascii.Error as error:
        raise _malformed("sig is not base64") from error
    if len(signature) != _SIGNATURE_SIZE_BYTES:
        raise _malformed(f"sig has {len(signature)} bytes, not {_SIGNATURE_SIZE_BYTES}")
    return signature


def _parse_expiry(text: str) -> int:
    if _SECONDS.fullmatch(text) is None or int(text) > EXPIRY_MAX_S:
        raise _malformed("se is not a time in whole seconds since 1970, up to the year 9999")
    return int(text)


def _unquote(text: str) -> str:
    """Percent-decode once; what is not ASCII then is refused, so that nothing looks like something else."""
    decoded = unquote(text, errors="replace")
    if not decoded.isascii():
        raise _malformed("a field holds percent-encoded characters outside ASCII")
    return decoded


def _malformed(reason: str) -> AttestationError:
    return AttestationError(f"not a SAS token: {reason}", finding="sas-malformed", clause=_CLAUSE)
