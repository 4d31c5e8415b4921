"""Fixtures of the attestation tests."""

import pytest

from provisiond.model import Trace


@pytest.fixture
def trace():
    return Trace()
