"""What a device hears."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from provisiond.model.challenge import Challenge
from provisiond.model.json_value import JSONValue
from provisiond.model.registration import Registration, RegistrationStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """Azure DPS error body. `message` is coarse; the operator finds the reason under `tracking_id`."""

    code: int
    message: str
    tracking_id: str
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the device hears, before a protocol encodes it. Exactly one of `error`, `challenge`, `status_text` is set.

    Args:
        status: HTTP-like: 200, 202, 400, 401, 404, 409, 429, 500.
        registration: record to show whole, as `registrationState`; None to leave it out.
        registration_id: shows a `registrationState` of only the id and the status, when there is no record to show.
        retry_after_s: whole seconds, None to leave it out.
        challenge: with status 401.
        authentication_key: blob that carries a TPM device's hub key, or None.
        sealed_credential: what the device needs at its hub, sealed to the device (`protocols.sealing`), or None.
    """

    status: int
    operation_id: str = ""
    status_text: RegistrationStatus | None = None
    registration: Registration | None = None
    registration_id: str = ""
    error: ErrorBody | None = None
    retry_after_s: int | None = None
    challenge: Challenge | None = None
    authentication_key: bytes | None = None
    sealed_credential: Mapping[str, JSONValue] | None = None
