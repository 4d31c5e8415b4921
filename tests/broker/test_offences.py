"""Offences are counted always and logged while they are few."""

import logging

import pytest

from provisiond.broker.offences import LINES_AT_ONCE, LINES_PER_S, BrokerStatistics, OffenceLog, Reason, quote


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def log(clock, caplog):
    caplog.set_level(logging.WARNING, "provisiond.broker")
    return OffenceLog(BrokerStatistics(), lambda: clock[0])


def test_an_offence_is_one_line(log, caplog):
    log.report(Reason.PROTOCOL, "192.0.2.1", "a second CONNECT")
    assert [record.getMessage() for record in caplog.records] == ["192.0.2.1: protocol: a second CONNECT"]


def test_a_flood_is_counted_whole_and_logged_in_part(log, clock, caplog):
    for _ in range(1000):
        log.report(Reason.TLS, "192.0.2.1", "x")
    assert log._statistics.refused[Reason.TLS] == 1000
    assert len(caplog.records) == LINES_AT_ONCE
    clock[0] = 1.0
    for _ in range(1000):
        log.report(Reason.TLS, "192.0.2.1", "x")
    assert len(caplog.records) == LINES_AT_ONCE + LINES_PER_S
    assert caplog.records[int(LINES_AT_ONCE)].getMessage().endswith("(950 similar lines left out before)")


def test_an_ordinary_end_is_counted_and_takes_no_line(log, caplog):
    log.report(Reason.IDLE, "192.0.2.1", "asked nothing")
    assert log._statistics.refused[Reason.IDLE] == 1
    assert not caplog.records


def test_client_text_is_escaped_and_shortened():
    assert quote("a\r\nb\x1b[31m é") == r"'a\r\nb\x1b[31m \xe9'"
    assert len(quote("x" * 10_000)) < 130
