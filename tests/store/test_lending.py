"""The event loop stands still while a group of statements runs, and never for long."""

from threading import Event, Thread

import pytest

from provisiond.store.lending import Loan


@pytest.fixture
def loan():
    return Loan()


def test_the_lender_goes_on_when_the_work_is_done(loan):
    done = []
    worker = Thread(target=loan.spend, args=(done.append, "connection"))
    worker.start()
    loan.wait()
    worker.join()
    assert done == ["connection"]


def test_work_that_fails_ends_the_loan_too(loan):
    with pytest.raises(ZeroDivisionError):
        loan.spend(lambda _: 1 / 0, "connection")
    loan.wait()
    loan.end()


def test_the_lender_does_not_wait_for_work_that_takes_longer(loan):
    may_end = Event()
    worker = Thread(target=loan.spend, args=(lambda _: may_end.wait(), "connection"))
    worker.start()
    loan.wait()  # or this test never ends
    may_end.set()
    worker.join()


def test_a_loan_may_be_ended_again(loan):
    loan.end()
    loan.end()
    loan.wait()
