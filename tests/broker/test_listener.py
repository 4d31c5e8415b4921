"""Listeners: what may be bound, who is let in, and how certificates are replaced."""

import asyncio
import errno
import resource
import socket
import ssl

import pytest

from provisiond.broker.embedded import EmbeddedBroker
from provisiond.broker.limits import BrokerLimits
from provisiond.broker.listener import ListenerSpec, _address_key
from provisiond.broker.offences import Reason
from provisiond.errors import AddressUnavailable, ConfigurationError, binding_error
from tests.broker import wire
from tests.certificates import SERVER_AUTH, make_leaf
from tests.fakes import EchoGatekeeper


def plain(**changes):
    return ListenerSpec(**{"name": "local", "host": "127.0.0.1", "port": 0, "tls": False} | changes)


def make_broker(*listeners, **limits):
    return EmbeddedBroker(gatekeeper=EchoGatekeeper(), listeners=listeners, limits=BrokerLimits(**limits))


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.local", "", "127.0.0.1.example"])
def test_plaintext_is_refused_where_it_is_not_loopback(host):
    with pytest.raises(ConfigurationError, match=f"listener local: plaintext on {host} is not allowed"):
        plain(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_plaintext_is_allowed_on_loopback(host):
    assert plain(host=host).host == host


def test_tls_needs_its_files():
    with pytest.raises(ConfigurationError, match="listener devices: tls needs cert_file and key_file"):
        ListenerSpec(name="devices", host="0.0.0.0", port=8883)


def test_a_certificate_cannot_be_demanded_in_plaintext():
    with pytest.raises(ConfigurationError, match="client_certs = required needs tls"):
        plain(client_certificates="required")


async def test_names_must_be_unique_and_there_must_be_one():
    with pytest.raises(ConfigurationError):
        make_broker()
    with pytest.raises(ConfigurationError):
        make_broker(plain(), plain())


@pytest.mark.parametrize("field", ["connect_timeout_s", "inflight", "max_connections"])
def test_a_limit_of_nothing_is_refused(field):
    with pytest.raises(ConfigurationError, match=field):
        BrokerLimits(**{field: 0})


# --- binding ----------------------------------------------------------------------------------------------------------


async def test_an_address_in_use_is_named_and_nothing_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = make_broker(plain(name="first"), plain(name="second", port=port))
        with pytest.raises(AddressUnavailable, match=rf"listener second: cannot bind 127\.0\.0\.1:{port}: "):
            await broker.start()
    assert broker.addresses == {}


def test_only_what_time_may_mend_is_for_another_try():
    assert isinstance(binding_error("x", OSError(errno.EADDRNOTAVAIL, "not yet")), AddressUnavailable)
    assert not isinstance(binding_error("x", PermissionError(errno.EACCES, "a port below 1024")), AddressUnavailable)


async def test_a_name_is_bound_on_all_its_addresses():
    broker = make_broker(plain(host="localhost"))
    await broker.start()
    try:
        for family, *_, address in await asyncio.get_running_loop().getaddrinfo(
            "localhost", broker.addresses["local"][1], type=socket.SOCK_STREAM
        ):
            async with wire.open_client(address) as client:
                assert await client.connect() == 0, family
    finally:
        await broker.stop(1)


async def test_the_port_is_free_again_after_stop():
    broker = make_broker(plain())
    await broker.start()
    host, port = broker.addresses["local"]
    await broker.stop(1)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


# --- who is let in ----------------------------------------------------------------------------------------------------


async def is_turned_away(edge):
    """Whether a further connection is reset before anything is said."""
    try:
        async with edge.client() as client:
            return await client.closed() == []
    except ConnectionResetError:
        return True


async def test_an_address_gets_its_share_and_a_fresh_one_still_connects(make_edge):
    async with make_edge(max_connections_per_address=3) as edge:
        async with edge.client() as one, edge.client() as two, edge.client() as three:
            assert [await client.connect() for client in (one, two, three)] == [0, 0, 0]
            assert await is_turned_away(edge)
            assert edge.broker.statistics.refused[Reason.ADDRESS_LIMIT] == 1
            host, port = edge.broker.addresses["local"]
            reader, writer = await asyncio.open_connection(host, port, local_addr=("127.0.0.2", 0))
            assert await wire.RawClient(reader, writer).connect() == 0
            writer.close()
            await edge.gatekeeper.until(lambda: edge.gatekeeper.ended)
        await edge.gatekeeper.until(lambda: len(edge.gatekeeper.ended) == 4)
        async with edge.client() as again:
            assert await again.connect() == 0, "places are given back"


async def test_all_connections_together_have_a_limit(make_edge):
    async with make_edge(max_connections=1) as edge, edge.client() as one:
        assert await one.connect() == 0
        assert await is_turned_away(edge)
        assert edge.broker.statistics.refused[Reason.CONNECTION_LIMIT] == 1


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002"),
        ("2001:db8:1:2::9", "20010db800010002"),
        ("fe80::1%eth0", "fe80000000000000"),
    ],
)
def test_one_address_is_an_ipv4_address_or_an_ipv6_64(address, key):
    assert _address_key(address) == key


async def test_without_files_left_the_broker_waits_and_then_accepts_again(edge, monkeypatch, caplog):
    monkeypatch.setattr("provisiond.broker.listener._PAUSE_S", 0.05)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(edge.broker.addresses["local"]) as waiting:
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
        try:
            await wire.until(lambda: edge.broker.statistics.refused[Reason.FILE_LIMIT])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "Too many open files" in caplog.text
        waiting.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(waiting, wire.connect())
        async with asyncio.timeout(wire.DEADLINE_S):
            assert await loop.sock_recv(waiting, 4) == b"\x20\x02\x00\x00"


async def test_reset_storms_leave_nothing_behind(edge):
    for data in (b"", b"\x10", wire.connect(), wire.connect() + wire.publish()):
        for name in ("local", "devices"):
            for _ in range(20):
                reset = socket.create_connection(edge.broker.addresses[name])
                reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                reset.send(data)
                reset.close()
    async with edge.client() as client:
        assert await client.connect() == 0


async def test_a_half_closed_client_is_answered_and_let_go(edge):
    async with edge.client() as client:
        client.send(wire.connect(), wire.publish())
        client.writer.write_eof()
        assert [packet.kind for packet in await client.closed()] == [wire.CONNACK, wire.PUBACK, wire.PUBLISH]
    async with edge.client() as silent:
        silent.writer.write_eof()
        assert await silent.closed() == []


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_files(tmp_path, server_files):
    """The server's files, at paths that a test may overwrite."""
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    certificate.write_bytes(server_files[0].read_bytes())
    key.write_bytes(server_files[1].read_bytes())
    return certificate, key


async def test_reloaded_certificates_serve_new_handshakes_and_old_connections_stay(own_files, tmp_path, server_ca):
    certificate, key = own_files
    spec = ListenerSpec(name="devices", host="127.0.0.1", port=0, certificate_path=certificate, key_path=key)
    broker = make_broker(spec)
    await broker.start()
    try:
        before = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        async with wire.open_client(broker.addresses["devices"], wire.client_tls()) as old:
            assert await old.connect() == 0
            renewed = make_leaf("localhost", server_ca[0], usages=(SERVER_AUTH,))
            renewed.write(tmp_path, "server")
            broker.reload_certificates()
            assert await shown(broker) == renewed.der != before
            old.send(wire.PINGREQ)
            assert (await old.receive()).kind == wire.PINGRESP
    finally:
        await broker.stop(1)


async def test_a_failed_reload_keeps_every_listener_as_it_was(own_files, tmp_path, server_ca, server_files):
    certificate, key = own_files
    stable = ListenerSpec(
        name="stable", host="127.0.0.1", port=0, certificate_path=server_files[0], key_path=server_files[1]
    )
    spec = ListenerSpec(name="devices", host="127.0.0.1", port=0, certificate_path=certificate, key_path=key)
    broker = make_broker(stable, spec)
    await broker.start()
    try:
        before = await shown(broker)
        key.write_bytes(key.read_bytes()[:40])
        with pytest.raises(ConfigurationError, match="listener devices: "):
            broker.reload_certificates()
        assert await shown(broker) == before
    finally:
        await broker.stop(1)


async def test_reloaded_limits_bound_new_connections_and_old_ones_stay(make_edge):
    async with make_edge(max_connections=1) as edge, edge.client() as old:
        assert await old.connect() == 0
        edge.broker.reload_limits(BrokerLimits(max_connections=2, max_connect_bytes=20))
        async with edge.client() as new:
            new.send(wire.connect(client_id="a" * 40))
            assert await new.closed() == []
        old.send(wire.PINGREQ)
        assert (await old.receive()).kind == wire.PINGRESP


async def shown(broker):
    async with wire.open_client(broker.addresses["devices"], wire.client_tls()) as client:
        assert await client.connect() == 0
        return client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
