"""The access rules: pure, by role."""

import pytest

from provisiond.broker.access import (
    REFUSED,
    Verdict,
    delivery_qos,
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
        "$dps/registrations",
        "$dps/other/x",
    ],
)
def test_a_dps_connection_may_publish_anything_under_dps(topic):
    assert judge_publish(connection(Role.DPS), topic) is Verdict.DELIVER


@pytest.mark.parametrize(
    "topic",
    [
        "$dps",
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


@pytest.mark.parametrize(
    "topic",
    [
        "devices/Dev-1/messages/events/a=1",
        "$iothub/twin/GET/?$rid=1",
        "$iothub/twin/PATCH/properties/reported/?$rid=1",
        "$iothub/methods/res/200/?$rid=1",
    ],
)
def test_a_hub_connection_may_publish_what_a_device_says_to_its_hub(topic):
    assert judge_publish(connection(Role.IOTHUB), topic) is Verdict.DELIVER


@pytest.mark.parametrize(
    "topic",
    [
        "devices/Dev-2/messages/events/",
        "devices/Dev-1/messages/devicebound/",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/methods/POST/reboot/?$rid=1",
        "provisiond/v1/_operator/req/send/1",
        "$dps/registrations/PUT/iotdps-register/?$rid=1",
    ],
)
def test_a_hub_connection_may_publish_nowhere_else(topic):
    assert judge_publish(connection(Role.IOTHUB), topic) is Verdict.CLOSE


def test_an_operator_may_publish_only_requests():
    assert judge_publish(connection(Role.OPERATOR), "provisiond/v1/_operator/req/send/1") is Verdict.DELIVER
    for topic in ("devices/Dev-1/messages/events/", "provisiond/v1/_status", "provisiond/v1/_operator/res/send/1"):
        assert judge_publish(connection(Role.OPERATOR), topic) is Verdict.CLOSE


@pytest.mark.parametrize(
    ("role", "topic_filter"),
    [
        (Role.IOTHUB, "devices/Dev-1/messages/devicebound/#"),
        (Role.IOTHUB, "$iothub/twin/res/#"),
        (Role.IOTHUB, "$iothub/twin/PATCH/properties/desired/#"),
        (Role.IOTHUB, "$iothub/methods/POST/#"),
        (Role.OPERATOR, "devices/+/messages/events/#"),
        (Role.OPERATOR, "provisiond/v1/_events/#"),
        (Role.OPERATOR, "provisiond/v1/_status"),
        (Role.OPERATOR, "provisiond/v1/_operator/res/#"),
    ],
)
def test_hub_devices_and_operators_are_granted_their_own_filters(role, topic_filter):
    assert judge_subscribe(connection(role), topic_filter, 1) == 1
    others = set(Role) - {role}
    assert {judge_subscribe(connection(other), topic_filter, 1) for other in others} == {REFUSED}
    assert reply_filter(connection(role)) is None


def test_what_was_not_asked_for_is_not_delivered_to_hub_devices_and_operators():
    granted = {"devices/+/messages/events/#": 0, "devices/Dev-1/messages/events/#": 1}
    assert delivery_qos(connection(Role.OPERATOR), granted, "devices/Dev-1/messages/events/") == 1
    assert delivery_qos(connection(Role.OPERATOR), granted, "devices/Dev-2/messages/events/a=1") == 0
    assert delivery_qos(connection(Role.OPERATOR), granted, "provisiond/v1/_status") is None
    assert delivery_qos(connection(Role.IOTHUB), {}, "$iothub/twin/res/200/?$rid=1") is None


def test_who_provisions_hears_its_replies_in_any_case():
    assert delivery_qos(connection(Role.DPS), {}, "$dps/registrations/res/200/?$rid=1") == 0
    granted = {"$dps/registrations/res/#": 1}
    assert delivery_qos(connection(Role.DPS), granted, "$dps/registrations/res/200/?$rid=1") == 1


@pytest.mark.parametrize(("requested", "granted"), [(0, 0), (1, 1), (2, 1)])
def test_the_reply_filter_is_granted_with_qos_1_at_most(requested, granted):
    assert judge_subscribe(connection(Role.DPS), "$dps/registrations/res/#", requested) == granted
    assert judge_subscribe(connection(Role.NATIVE), "provisiond/v1/Dev-1/res/#", requested) == granted


@pytest.mark.parametrize("part", ["register/42", "register/#", "register/+", "+/42", "+/+", "#"])
def test_a_native_connection_may_subscribe_to_any_part_of_its_own_replies(part):
    assert judge_subscribe(connection(Role.NATIVE), f"provisiond/v1/Dev-1/res/{part}", 1) == 1


@pytest.mark.parametrize(
    "topic_filter",
    [
        "provisiond/v1/Dev-1/res/",
        "provisiond/v1/Dev-1/res",
        "provisiond/v1/Dev-1/res/#/42",
        "provisiond/v1/Dev-1/res/register#",
        "provisiond/v1/Dev-1/res/register/4+",
        "provisiond/v1/+/res/register/42",
        "provisiond/v1/Dev-1/+/register/42",
        "provisiond/v1/Dev-1/req/register/42",
        "provisiond/v1/Dev-2/res/register/42",
        "$share/a/provisiond/v1/Dev-1/res/register/42",
    ],
)
def test_a_native_connection_may_wait_for_nothing_that_is_not_a_reply_of_its_own(topic_filter):
    assert judge_subscribe(connection(Role.NATIVE), topic_filter, 1) == REFUSED


@pytest.mark.parametrize(
    ("granted", "qos"),
    [
        ({}, 0),
        ({"provisiond/v1/Dev-1/res/#": 1}, 1),
        ({"provisiond/v1/Dev-1/res/register/42": 1}, 1),
        ({"provisiond/v1/Dev-1/res/register/41": 1}, 0),
        ({"provisiond/v1/Dev-1/res/#": 0, "provisiond/v1/Dev-1/res/register/42": 1}, 1),
    ],
)
def test_a_native_reply_goes_out_at_the_qos_of_the_filter_that_waits_for_it(granted, qos):
    assert delivery_qos(connection(Role.NATIVE), granted, "provisiond/v1/Dev-1/res/register/42") == qos


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
    "devices/#",
    "devices/+/messages/devicebound/#",
    "devices/Dev-2/messages/devicebound/#",
    "$iothub/#",
]


@pytest.mark.parametrize("topic_filter", FOREIGN_FILTERS)
@pytest.mark.parametrize("role", Role)
def test_every_other_filter_is_refused(role, topic_filter):
    assert judge_subscribe(connection(role), topic_filter, 1) == REFUSED


def test_only_roles_that_are_authenticated_at_connect_take_connections_over():
    assert {role for role in Role if takes_over(role)} == {Role.IOTHUB, Role.OPERATOR}


def test_provisioning_roles_are_those_that_idle_out():
    assert {role for role in Role if is_provisioning(role)} == {Role.DPS, Role.NATIVE}
