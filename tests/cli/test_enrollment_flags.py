"""The flags are taken by name from what a command was given, so the names have to agree."""

import inspect
from dataclasses import fields

import pytest

from provisiond.cli import enrollment, enrollment_group
from provisiond.cli.enrollment_flags import EnrollmentFlags

FLAGS = {field.name for field in fields(EnrollmentFlags)}
OTHERS = {"registration_id", "group_id", "id_option", "etag", "show_keys", "output", "config"}
UPDATES_ONLY = {"remove_secondary_certificate", "regenerate_primary_key", "regenerate_secondary_key"}


@pytest.mark.parametrize(
    ("command", "without"),
    [
        (enrollment.create, {"allowed_ids"} | UPDATES_ONLY),
        (enrollment.update, {"allowed_ids"}),
        (enrollment_group.create, {"endorsement_key", "storage_root_key", "device_id"} | UPDATES_ONLY),
        (enrollment_group.update, {"endorsement_key", "storage_root_key", "device_id"}),
    ],
)
def test_every_option_of_a_command_reaches_the_record(command, without):
    assert set(inspect.signature(command).parameters) - OTHERS == FLAGS - without


def test_only_what_was_given_is_taken():
    flags = EnrollmentFlags.given({"device_id": "pump-3", "config": None, "iot_hubs": ["local"]})

    assert flags == EnrollmentFlags(device_id="pump-3", iot_hubs=["local"])
