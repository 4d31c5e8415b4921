"""Records for the store's tests and its benchmark."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from provisiond.model import (
    AttestationType,
    AuditRecord,
    Check,
    Enrollment,
    EnrollmentKind,
    InitialTwin,
    Registration,
    RegistrationStatus,
    ReprovisionPolicy,
    Substatus,
    SymmetricKeyMaterial,
    X509Material,
)
from provisiond.ports import Write

AT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
KEYS = SymmetricKeyMaterial(primary_key=b"p" * 32, secondary_key=b"s" * 32)


def make_enrollment(id_: str = "Device-1", **changes: Any) -> Enrollment:
    return replace(
        Enrollment(
            kind=EnrollmentKind.INDIVIDUAL,
            id=id_,
            attestation=X509Material(primary_der=b"\x30\x82" + b"c" * 700),
            iot_hubs=("local",),
            reprovision_policy=ReprovisionPolicy(),
            initial_twin=InitialTwin(tags={"line": 4}, desired={"interval_s": 10}),
            etag='"1"',
            created_at=AT,
            updated_at=AT,
        ),
        **changes,
    )


def make_group(id_: str, *, ca_der: bytes | None = None, **changes: Any) -> Enrollment:
    attestation = KEYS if ca_der is None else X509Material(primary_der=ca_der)
    return make_enrollment(id_, **{"kind": EnrollmentKind.GROUP, "attestation": attestation, **changes})


def make_registration(id_: str = "Device-1", **changes: Any) -> Registration:
    return replace(
        Registration(
            registration_id=id_,
            status=RegistrationStatus.ASSIGNED,
            substatus=Substatus.INITIAL_ASSIGNMENT,
            operation_id="5.0123456789abcdef.01234567-89ab-cdef-0123-456789abcdef",
            version=1,
            hub="local",
            assigned_host="gateway.local",
            device_id=id_,
            enrollment_kind=EnrollmentKind.INDIVIDUAL,
            enrollment_id=id_,
            attestation_type=AttestationType.X509,
            etag='"1"',
            created_at=AT,
            updated_at=AT,
        ),
        **changes,
    )


def make_registration_of(enrollment: Enrollment, id_: str = "Device-1", **changes: Any) -> Registration:
    by = {
        "enrollment_kind": enrollment.kind,
        "enrollment_id": enrollment.id,
        "attestation_type": enrollment.attestation_type,
    }
    return make_registration(id_, **(by | changes))


def make_audit(tracking_id: str = "t-1", registration_id: str = "Device-1", **changes: Any) -> AuditRecord:
    return replace(
        AuditRecord(
            tracking_id=tracking_id,
            at=AT,
            event="register",
            registration_id=registration_id,
            outcome="assigned",
            enrollment_kind=EnrollmentKind.INDIVIDUAL,
            enrollment_id=registration_id,
            hub="local",
            actor="192.0.2.7:51234",
            trace=(
                Check("enrollment", True, "individual enrollment", ""),
                Check("certificate-pinned", True, "is the primary certificate", ""),
                Check("certificate-validity", True, "until 2031-01-01T00:00:00Z", "RFC 5280 6.1.3 (a)(2)"),
                Check("certificate-common-name", True, "is the registration id", "Azure DPS X.509 attestation"),
                Check("certificate-extended-key-usage", True, "clientAuth", "RFC 5280 4.2.1.12"),
                Check("allocation", True, "hashed: local 0.83", ""),
            ),
        ),
        **changes,
    )


def make_write(id_: str = "Device-1", *, version: int = 1, tracking_id: str | None = None, **changes: Any) -> Write:
    """A registration from `version - 1` to `version`, with its audit row."""
    return Write(
        registration=make_registration(id_, version=version, **changes),
        expected_version=version - 1,
        audit=make_audit(tracking_id or f"{id_}-{version}", id_),
    )
