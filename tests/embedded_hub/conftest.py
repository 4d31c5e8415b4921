"""Gateways on loopback."""

from functools import partial

import pytest

from tests.embedded_hub.gateway import make_server_files, run_gateway


@pytest.fixture(scope="session")
def gateway_files(tmp_path_factory):
    return make_server_files(tmp_path_factory.mktemp("gateway"))


@pytest.fixture
def make_gateway(gateway_files, tmp_path):
    """`async with make_gateway() as gateway`; a second one has what the first one left in the database."""
    return partial(run_gateway, tmp_path, *gateway_files)


@pytest.fixture
async def gateway(make_gateway):
    async with make_gateway() as running:
        yield running
