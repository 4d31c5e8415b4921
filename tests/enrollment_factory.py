"""Enrollments for tests, with everything but the point of the test filled in."""

from provisiond.model import (
    Enrollment,
    EnrollmentKind,
    ProvisioningStatus,
    SymmetricKeyMaterial,
    X509Material,
)
from tests.fakes_decision import NOW

PRIMARY_KEY = b"p" * 64
SECONDARY_KEY = b"s" * 64


def individual(registration_id, attestation=None, *, enabled=True, **options):
    return _enrollment(EnrollmentKind.INDIVIDUAL, registration_id, attestation, enabled, options)


def group(group_id, attestation=None, *, enabled=True, **options):
    return _enrollment(EnrollmentKind.GROUP, group_id, attestation, enabled, options)


def certificates(primary, secondary=None):
    return X509Material(primary_der=primary.der, secondary_der=secondary.der if secondary else None)


def _enrollment(kind, name, attestation, enabled, options):
    return Enrollment(
        kind=kind,
        id=name,
        attestation=attestation or SymmetricKeyMaterial(primary_key=PRIMARY_KEY, secondary_key=SECONDARY_KEY),
        provisioning_status=ProvisioningStatus.ENABLED if enabled else ProvisioningStatus.DISABLED,
        etag="e1",
        created_at=NOW,
        updated_at=NOW,
        **options,
    )
