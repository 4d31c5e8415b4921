"""Azure's custom allocation: a webhook of the operator's chooses the hub (concepts-custom-allocation).

    → {"individualEnrollment" | "enrollmentGroup": {…}, "deviceRuntimeContext": {…}, "linkedHubs": [HOST, …]}
    ← {"iotHubHostName": one of them, "initialTwin": {"tags", "properties": {"desired"}}?, "payload": any?}

Any status but 2xx ends the registration with 400207, as Azure has it.
"""

import asyncio
import json
from base64 import b64encode
from typing import Annotated, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from provisiond.errors import HubUnavailable, InvalidArgument, MalformedRequest
from provisiond.hubs.http import HttpAnswer, HttpClient
from provisiond.model import (
    AllocationRequest,
    AttestationType,
    CustomAllocation,
    EnrollmentKind,
    InitialTwin,
    JSONValue,
)
from provisiond.protocols.service_api import certificate_info, enrollment_to_json
from provisiond.protocols.twin import check_initial
from provisiond.protocols.webhook_url import check_webhook_url, name_webhook

DEADLINE_S: Final = 5.0
"""For all of it, waiting for a turn included: Azure's own limit, and the device waits meanwhile."""
_ANSWER_MAX_BYTES: Final = 64 * 1024
"""Two twin parts of 32 KiB; the payload must fit into a message to the device, which has 96 KiB."""
_AT_ONCE: Final = 32
"""Webhooks in flight; the rest wait within their deadline, so that a hanging one costs no more than that."""

_FAILED: Final = "Custom allocation failed"


class _Properties(BaseModel):
    model_config = ConfigDict(extra="ignore")

    desired: dict[str, Any] | None = None


class _Twin(BaseModel):
    model_config = ConfigDict(extra="ignore")

    tags: dict[str, Any] | None = None
    properties: _Properties | None = None


class _Answer(BaseModel):
    """Leniently read, as Azure does: a function may say more than it must."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    host: Annotated[StrictStr, Field(alias="iotHubHostName", min_length=1, max_length=255)]
    initial_twin: Annotated[_Twin | None, Field(alias="initialTwin")] = None
    payload: JSONValue = None


class WebhookAllocator:
    """`ports.CustomAllocator`.

    Args:
        client: how to post; somebody else's to close.
        deadline_s: for one answer.
    """

    def __init__(self, client: HttpClient, *, deadline_s: float = DEADLINE_S) -> None:
        self._client = client
        self._deadline_s = deadline_s
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def allocate(self, request: AllocationRequest) -> CustomAllocation:
        """Ask the webhook of the enrollment; what goes wrong is in the answer."""
        etag = request.enrollment.etag
        url = str((request.enrollment.custom_allocation or {}).get("webhookUrl", ""))
        name = name_webhook(url)
        try:
            check_webhook_url(url)
            async with asyncio.timeout(self._deadline_s), self._turns:
                answer = await self._client.post(url, _encode(request), answer_max_bytes=_ANSWER_MAX_BYTES)
        except InvalidArgument as error:
            return _failure(etag, f"the enrollment's webhook cannot be used: {error}")
        except TimeoutError:
            return _failure(etag, f"{name} did not answer within {self._deadline_s:g} s", "no answer in time")
        except HubUnavailable as error:
            return _failure(etag, f"{name}: {error}", "no usable answer")
        return _read(etag, name, answer)


def _read(etag: str, name: str, answer: HttpAnswer) -> CustomAllocation:
    if not 200 <= answer.status < 300:
        hint = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        excerpt = answer.body[:200].decode(errors="replace")
        reason = f"{name} answered {answer.status}{hint}: {excerpt!r}"
        return CustomAllocation(
            enrollment_etag=etag, error=reason, public_error=f"{_FAILED} with status code: {answer.status}"
        )
    try:
        parsed = _Answer.model_validate_json(answer.body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the body"
        return _failure(etag, f"{name}: {where}: {problem['msg']}", "its answer cannot be read")
    try:
        twin = _initial_twin(parsed)
    except MalformedRequest as error:
        return _failure(etag, f"{name}: initialTwin: {error}", "its answer cannot be read")
    return CustomAllocation(enrollment_etag=etag, host=parsed.host, initial_twin=twin, payload=parsed.payload)


def _initial_twin(parsed: _Answer) -> InitialTwin | None:
    twin = parsed.initial_twin
    if twin is None:
        return None
    initial = InitialTwin(tags=twin.tags or {}, desired=(twin.properties and twin.properties.desired) or {})
    check_initial(initial)
    return initial


def _failure(etag: str, reason: str, public: str = "") -> CustomAllocation:
    return CustomAllocation(
        enrollment_etag=etag, error=reason, public_error=f"{_FAILED}: {public}" if public else _FAILED
    )


def _encode(request: AllocationRequest) -> bytes:
    enrollment = request.enrollment
    kind = "individualEnrollment" if enrollment.kind is EnrollmentKind.INDIVIDUAL else "enrollmentGroup"
    body = {
        kind: enrollment_to_json(enrollment),
        "deviceRuntimeContext": _runtime_context(request),
        "linkedHubs": [hub.host for hub in request.hubs],
    }
    return json.dumps(body).encode()


def _runtime_context(request: AllocationRequest) -> dict[str, JSONValue]:
    registration = request.registration
    context = {
        "registrationId": request.registration_id,
        "currentIotHubHostName": registration.assigned_host if registration else None,
        "currentDeviceId": registration.device_id if registration else None,
        request.attestation_type.value: _evidence(request),
        "payload": request.payload,
    }
    return {name: value for name, value in context.items() if value is not None}


def _evidence(request: AllocationRequest) -> dict[str, JSONValue]:
    """What the device has proved itself with, as far as it is no secret."""
    match request.attestation_type:
        case AttestationType.X509 if request.certificate_der is not None:
            certificate = x509.load_der_x509_certificate(request.certificate_der)
            pem = certificate.public_bytes(Encoding.PEM).decode("ascii")
            info = certificate_info(request.certificate_der)
            return {"clientCertificate": {"certificate": pem, "info": info}}
        case AttestationType.TPM if request.endorsement_key is not None:
            return {"endorsementKey": b64encode(request.endorsement_key).decode("ascii")}
        case _:
            return {}
