"""The access rules: pure, by role."""

import pytest

from provisiond.broker.access import (
    REFUSED,
    Verdict,
    is_provisioning,
    judge_publish,
    judge_subscribe,
    reply_filter,
    takes_over,
)
from provisiond.model import Connection, RegistrationId, Role


def connection(role, claimed_id="Dev-1"):
    return Connection(
        connection_id="1",
        role=role,
        claimed_id=RegistrationId.parse(claimed_id),
        listener="devices",
        remote_address="192.0.2.1",
    )


@pytest.mark.parametrize(
    "topic",
    [
        "$dps/registrations/PUT/iotdps-register/?$rid=1",
        "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId=o",
        "$dps/registrations/DELETE/what/?$rid=1",
        "$dps/registrations/",
        "$dps/registrations/res/200/?$rid=1",
    ],
)
def test_a_dps_connection_may_publish_anything_under_registrations(topic):
    assert judge_publish(connection(Role.DPS), topic) is Verdict.DELIVER


@pytest.mark.parametrize(
    "topic",
    [
        "$dps/registrations",
        "$dps/other/x",
        "$DPS/registrations/PUT/iotdps-register/?$rid=1",
        "dps/registrations/PUT",
        "/$dps/registrations/PUT",
        "$SYS/broker/version",
        "devices/Dev-1/messages/events/",
        "provisiond/v1/Dev-1/req/register/1",
    ],
)
def test_a_dps_connection_may_publish_nowhere_else(topic):
    assert judge_publish(connection(Role.DPS), topic) is Verdict.CLOSE


def test_a_native_connection_may_publish_its_own_requests():
    assert judge_publish(connection(Role.NATIVE), "provisiond/v1/Dev-1/req/register/42") is Verdict.DELIVER


@pytest.mark.parametrize(
    "topic",
    [
        "provisiond/v1/dev-1/req/register/42",
        "provisiond/v1/Dev-2/req/register/42",
        "provisiond/v1/Dev-1/res/register/42",
        "provisiond/v1/Dev-1/req/register",
        "provisiond/v1/Dev-1/req/register/",
        "provisiond/v1/Dev-1/req//42",
        "provisiond/v1/Dev-1/req/register/42/more",
        "provisiond/v1/Dev-1/req/",
        "provisiond/v2/Dev-1/req/register/42",
        "provisiond/v1/_status",
        "$dps/registrations/PUT/iotdps-register/?$rid=1",
    ],
)
def test_a_native_connection_may_publish_nowhere_else(topic):
    assert judge_publish(connection(Role.NATIVE), topic) is Verdict.CLOSE


@pytest.mark.parametrize("role", [Role.IOTHUB, Role.OPERATOR])
def test_roles_without_rules_are_refused_everything(role):
    assert judge_publish(connection(role), "devices/Dev-1/messages/events/") is Verdict.CLOSE
    assert judge_subscribe(connection(role), "devices/Dev-1/messages/devicebound/#", 1) == REFUSED
    assert reply_filter(connection(role)) is None


@pytest.mark.parametrize(("requested", "granted"), [(0, 0), (1, 1), (2, 1)])
def test_the_reply_filter_is_granted_with_qos_1_at_most(requested, granted):
    assert judge_subscribe(connection(Role.DPS), "$dps/registrations/res/#", requested) == granted
    assert judge_subscribe(connection(Role.NATIVE), "provisiond/v1/Dev-1/res/#", requested) == granted


FOREIGN_FILTERS = [
    "#",
    "+/#",
    "$dps/#",
    "$dps/registrations/#",
    "$dps/registrations/res/+",
    "$dps/registrations/res/200/#",
    "$dps/registrations/PUT/#",
    "$SYS/#",
    "$share/group/$dps/registrations/res/#",
    "provisiond/v1/+/res/#",
    "provisiond/v1/Dev-2/res/#",
    "provisiond/v1/dev-1/res/#",
    "provisiond/v1/Dev-1/#",
    "provisiond/v1/_events/#",
]


@pytest.mark.parametrize("topic_filter", FOREIGN_FILTERS)
@pytest.mark.parametrize("role", Role)
def test_every_other_filter_is_refused(role, topic_filter):
    assert judge_subscribe(connection(role), topic_filter, 1) == REFUSED


def test_only_roles_that_are_authenticated_at_connect_take_connections_over():
    assert {role for role in Role if takes_over(role)} == {Role.IOTHUB, Role.OPERATOR}


def test_provisioning_roles_are_those_that_idle_out():
    assert {role for role in Role if is_provisioning(role)} == {Role.DPS, Role.NATIVE}
