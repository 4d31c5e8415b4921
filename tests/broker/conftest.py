"""A broker with an echoing service behind it, on real sockets."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from provisiond.broker.embedded import EmbeddedBroker
from provisiond.broker.limits import BrokerLimits
from provisiond.broker.listener import ListenerSpec
from tests.broker.wire import open_client
from tests.certificates import SERVER_AUTH, make_ca, make_leaf
from tests.fakes import EchoGatekeeper


@dataclass
class Edge:
    """A running broker and its gatekeeper."""

    broker: EmbeddedBroker
    gatekeeper: EchoGatekeeper = field(repr=False)

    def client(self, tls=None, listener=None):
        """A raw client of the plaintext listener, or of the TLS one when it has a TLS context."""
        return open_client(self.broker.addresses[listener or ("local" if tls is None else "devices")], tls)

    @property
    def is_clean(self) -> bool:
        """Whether nothing of any client is left."""
        broker = self.broker
        return not (
            broker.statistics.connections
            or broker._sessions
            or broker._holders
            or len(broker._siblings)
            or broker._tasks
            or broker._door.clients
            or broker._door._by_address
        )


@pytest.fixture(scope="session")
def server_ca(tmp_path_factory):
    ca = make_ca("Broker test root")
    path = tmp_path_factory.mktemp("ca") / "root.crt"
    path.write_bytes(ca.pem)
    return ca, path


@pytest.fixture(scope="session")
def server_files(server_ca, tmp_path_factory):
    leaf = make_leaf(
        "localhost", server_ca[0], dns_names=("localhost",), ip_addresses=("127.0.0.1",), usages=(SERVER_AUTH,)
    )
    return leaf.write(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture
def make_edge(server_files):
    """Makes edges: `async with make_edge(connect_timeout_s=0.2) as edge`."""

    @asynccontextmanager
    async def make(client_certificates="optional", **limits):
        certificate_path, key_path = server_files
        gatekeeper = EchoGatekeeper()
        broker = EmbeddedBroker(
            gatekeeper=gatekeeper,
            listeners=[
                ListenerSpec(name="local", host="127.0.0.1", port=0, tls=False),
                ListenerSpec(
                    name="devices",
                    host="127.0.0.1",
                    port=0,
                    certificate_path=certificate_path,
                    key_path=key_path,
                    client_certificates=client_certificates,
                ),
            ],
            limits=BrokerLimits(**limits),
        )
        await broker.start()
        edge = Edge(broker, gatekeeper)
        try:
            yield edge
        finally:
            await broker.stop(grace_s=1)
        assert edge.is_clean
        assert len(gatekeeper.ended) == len(gatekeeper.admitted), "closed() is called once for each admitted connection"

    return make


@pytest.fixture
async def edge(make_edge):
    async with make_edge() as running:
        yield running
