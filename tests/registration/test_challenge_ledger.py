import pytest

from provisiond.errors import Throttled
from provisiond.registration.challenge_ledger import PER_CONNECTION_MAX, ChallengeLedger, ChallengeLimits

LIMITS = ChallengeLimits(total=100, per_address=20)


def issue(ledger, number, *, address="192.0.2.1", connection="", at=0.0, limits=LIMITS):
    ledger.check(address=address, connection_id=connection, limits=limits, now_s=at)
    ledger.issued(f"challenge-{number}", address=address, connection_id=connection, expires_at_s=at + 120)


def refusal(ledger, **options):
    with pytest.raises(Throttled) as raised:
        issue(ledger, "one-more", **options)
    return raised.value


def test_one_address_has_only_so_many_and_the_others_theirs():
    ledger = ChallengeLedger()
    for number in range(20):
        issue(ledger, number)
    refusal(ledger)
    issue(ledger, "other", address="192.0.2.2")


def test_one_connection_has_only_so_many():
    ledger = ChallengeLedger()
    for number in range(PER_CONNECTION_MAX):
        issue(ledger, number, connection="c1")
    refusal(ledger, connection="c1")
    issue(ledger, "other", connection="c2")


def test_behind_a_foreign_broker_only_the_total_counts():
    ledger = ChallengeLedger()
    for number in range(LIMITS.total):
        issue(ledger, number, address="")
    refusal(ledger, address="")


def test_what_is_answered_or_expired_makes_room():
    ledger = ChallengeLedger()
    for number in range(20):
        issue(ledger, number)
    ledger.taken("challenge-3")
    issue(ledger, 20)
    refusal(ledger, at=119.0)
    issue(ledger, 21, at=120.0)
    assert len(ledger) == 1


def test_it_says_when_the_oldest_expires_and_never_more_than_ten_seconds():
    ledger = ChallengeLedger()
    for number in range(20):
        issue(ledger, number)
    assert (refusal(ledger, at=1.0).retry_after_s, refusal(ledger, at=116.5).retry_after_s) == (10, 4)


def test_those_of_other_daemons_count_once_the_store_has_said_so():
    ledger = ChallengeLedger()
    assert ledger.is_stale(0.0)
    ledger.recount(99, 0.0)
    assert not ledger.is_stale(0.5)
    issue(ledger, 1)
    refusal(ledger)
    ledger.recount(10, 1.0)
    issue(ledger, 2, at=1.0)


def test_a_challenge_that_replaces_another_counts_once():
    ledger = ChallengeLedger()
    for _ in range(1000):
        issue(ledger, "same")
    assert len(ledger) == 1
