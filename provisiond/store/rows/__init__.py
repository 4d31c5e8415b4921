"""Records to rows and back: JSON documents, and the digest that notices a flipped bit.

Encoding needs no database, so a record that cannot be stored is found out before it meets others in a group.
"""

from provisiond.store.rows.audit import AuditRow, audit_columns, audit_record, audit_row
from provisiond.store.rows.digest import ENROLLMENT, REGISTRATION, RowDigest, corrupt, read_digest_key
from provisiond.store.rows.document import decode, encode, storable
from provisiond.store.rows.enrollments import (
    EnrollmentGuard,
    EnrollmentRow,
    enrollment,
    enrollment_guard,
    enrollment_row,
)
from provisiond.store.rows.registrations import RegistrationRow, registration, registration_row

__all__ = [
    "ENROLLMENT",
    "REGISTRATION",
    "AuditRow",
    "EnrollmentGuard",
    "EnrollmentRow",
    "RegistrationRow",
    "RowDigest",
    "audit_columns",
    "audit_record",
    "audit_row",
    "corrupt",
    "decode",
    "encode",
    "enrollment",
    "enrollment_guard",
    "enrollment_row",
    "read_digest_key",
    "registration",
    "registration_row",
    "storable",
]
