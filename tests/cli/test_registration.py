"""`provisiond registration`."""

from provisiond.model import EnrollmentKind, RegistrationStatus
from tests.store.records import make_registration


def test_registrations_are_listed_shown_and_deleted(gateway):
    gateway.store(
        make_registration("Device-1", enrollment_kind=EnrollmentKind.GROUP, enrollment_id="line-4"),
        make_registration("Device-2", status=RegistrationStatus.FAILED, hub=None, assigned_host=None),
    )

    def ids(*arguments):
        return [one["registrationId"] for one in gateway("registration", "list", *arguments).json]

    assert ids() == ["Device-1", "Device-2"]
    assert ids("--enrollment-id", "LINE-4") == ["Device-1"]
    assert ids("--status", "failed") == ["Device-2"]
    assert ids("--hub", "local") == ids("--hub", "LOCAL") == ids("--hub", "localhost") == ["Device-1"]
    assert ids("--after", "device-1") == ["Device-2"]
    assert "add --after Device-1" in gateway("registration", "list", "--top", "1").stderr
    assert gateway("registration", "show", "device-1").json["assignedHub"] == "gateway.local"
    gateway("registration", "delete", "--registration-id", "device-1", "--etag", "another", expect=4)
    gateway("registration", "delete", "device-1", "--yes")
    assert ids() == ["Device-2"]


def test_a_device_that_never_registered_is_not_found(gateway):
    assert "no device has registered as a" in gateway("registration", "show", "a", expect=3).stderr
    gateway("registration", "delete", "a", expect=3)
    gateway("registration", "show", "a/b", expect=2)


def test_a_table_has_a_line_a_device(gateway):
    gateway.store(make_registration("Device-1"))
    lines = gateway("registration", "list", "-o", "table").stdout.splitlines()
    assert lines[0].split() == ["ID", "STATUS", "SUBSTATUS", "HUB", "DEVICE", "UPDATED", "ERROR"]
    assert lines[1].startswith("Device-1  assigned  initialAssignment  gateway.local")
