"""TLS: what files are taken, what a client may present, and that nothing is ever resumed."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest

from provisiond.broker.offences import Reason
from provisiond.broker.tls import load_context
from provisiond.errors import ConfigurationError
from tests.broker import wire
from tests.certificates import make_ca, make_key, make_leaf

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authorities():
    root = make_ca("Device root")
    line = make_ca("Line", make_ca("Site", root))
    return root, line


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path, server_files):
    with pytest.raises(ConfigurationError, match=r"absent\.crt: No such file"):
        load_context(tmp_path / "absent.crt", server_files[1], "optional")
    with pytest.raises(ConfigurationError, match=r"absent\.key: No such file"):
        load_context(server_files[0], tmp_path / "absent.key", "optional")


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_not_pem_is_named(content, tmp_path, server_files):
    broken = tmp_path / "broken.pem"
    broken.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"broken\.pem is not a PEM certificate"):
        load_context(broken, server_files[1], "optional")
    with pytest.raises(ConfigurationError, match=r"broken\.pem is not a PEM private key"):
        load_context(server_files[0], broken, "optional")


def test_every_truncation_of_a_key_file_is_refused(tmp_path, server_files):
    whole = server_files[1].read_bytes()
    truncated = tmp_path / "truncated.key"
    for end in range(0, len(whole.rstrip()) - 1, 7):
        truncated.write_bytes(whole[:end])
        with pytest.raises(ConfigurationError, match=r"truncated\.key"):
            load_context(server_files[0], truncated, "optional")


def test_a_key_of_another_certificate_is_refused(tmp_path, server_files):
    _, other_key = make_leaf("other").write(tmp_path, "other")
    with pytest.raises(ConfigurationError, match="is not the key of the certificate"):
        load_context(server_files[0], other_key, "optional")


def test_an_encrypted_key_is_refused_without_a_prompt(tmp_path, server_files):
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        make_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(ConfigurationError, match="is encrypted"):
        load_context(server_files[0], encrypted, "optional")


# --- handshakes -------------------------------------------------------------------------------------------------------


async def chain_seen(edge, tls):
    """What the service is told a client presented."""
    async with edge.client(tls) as client:
        assert await client.connect() == 0
        return edge.gatekeeper.attempts[-1].unverified_chain


@pytest.mark.parametrize("maximum", VERSIONS)
async def test_a_self_signed_device_finishes_its_handshake_and_is_a_chain_of_one(maximum, edge, tmp_path):
    device = make_leaf("dev1")
    assert await chain_seen(edge, device_tls(device, tmp_path, maximum)) == (device.der,)


@pytest.mark.parametrize("maximum", VERSIONS)
async def test_a_leaf_alone_is_a_chain_of_one(maximum, edge, tmp_path, authorities):
    device = make_leaf("dev1", authorities[0])
    assert await chain_seen(edge, device_tls(device, tmp_path, maximum)) == (device.der,)


@pytest.mark.parametrize("maximum", VERSIONS)
async def test_a_leaf_with_two_intermediates_is_a_chain_of_three_leaf_first(maximum, edge, tmp_path, authorities):
    device = make_leaf("dev1", authorities[1])
    chain = await chain_seen(edge, device_tls(device, tmp_path, maximum))
    assert chain == device.chain
    assert len(chain) == 3


@pytest.mark.parametrize("maximum", VERSIONS)
async def test_a_client_without_a_certificate_is_an_empty_chain(maximum, edge):
    assert await chain_seen(edge, wire.client_tls(maximum=maximum)) == ()


@pytest.mark.parametrize("kind", ["rsa1024", "rsa2048", "p384", "p521", "ed25519"])
async def test_a_certificate_of_any_key_finishes_its_handshake(kind, edge, tmp_path):
    device = make_leaf("dev1", key=make_key(kind))
    tls = wire.client_tls()
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")  # a client that would show a weak key at all
    tls.load_cert_chain(*device.write(tmp_path, "device"))
    assert await chain_seen(edge, tls) == (device.der,)


async def test_an_expired_certificate_finishes_its_handshake(edge, tmp_path):
    from tests.certificates import DAY, NOW

    device = make_leaf("dev1", not_before=NOW - 9 * DAY, not_after=NOW - 8 * DAY)
    assert await chain_seen(edge, device_tls(device, tmp_path)) == (device.der,)


async def test_the_server_presents_the_certificate_of_its_file(edge, server_ca):
    tls = wire.client_tls(cafile=server_ca[1])
    tls.check_hostname = True
    assert await chain_seen(edge, tls) == ()


async def test_a_listener_that_wants_no_certificate_asks_for_none(make_edge, tmp_path):
    async with make_edge(client_certificates="none") as edge:
        assert await chain_seen(edge, device_tls(make_leaf("dev1"), tmp_path)) == ()


async def test_a_listener_that_demands_a_certificate_refuses_the_connect_without(make_edge, tmp_path):
    async with make_edge(client_certificates="required") as edge:
        async with edge.client(wire.client_tls()) as client:
            assert await client.connect() == 5
            assert await client.closed() == []
        assert edge.gatekeeper.attempts == []
        assert await chain_seen(edge, device_tls(make_leaf("dev1"), tmp_path))


async def test_more_certificates_than_allowed_end_the_connection(make_edge, tmp_path, authorities):
    async with make_edge(max_chain_certificates=2) as edge:
        async with edge.client(device_tls(make_leaf("dev1", authorities[1]), tmp_path)) as client:
            client.send(wire.connect())
            assert await client.closed() == []
        assert edge.gatekeeper.attempts == []
        assert edge.broker.statistics.refused[Reason.TLS] == 1


async def test_more_handshake_bytes_than_allowed_end_the_connection(make_edge, tmp_path, authorities):
    async with make_edge(max_handshake_bytes=1024) as edge:
        async with edge.client(device_tls(make_leaf("dev1", authorities[1]), tmp_path)) as client:
            client.send(wire.connect())
            assert await client.closed() == []
        assert edge.broker.statistics.refused[Reason.TLS] == 1


async def test_plain_bytes_on_the_tls_port_are_closed_with_one_line(edge, caplog):
    async with wire.open_client(edge.broker.addresses["devices"]) as client:
        client.send(wire.connect())
        await client.closed()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("127.0.0.1: tls: TLS handshake failed: ")


async def test_tls_1_1_is_refused(edge):
    tls = wire.client_tls()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with edge.client(tls):
            pass


async def test_a_client_may_send_its_connect_before_the_handshake_flight_is_processed(edge):
    """In TLS 1.3 the last flight and the first packet usually arrive in one segment."""
    async with edge.client(wire.client_tls(maximum=ssl.TLSVersion.TLSv1_3)) as client:
        client.send(wire.connect(), wire.subscribe(wire.DPS_FILTER), wire.publish(payload=b"x" * 60_000))
        kinds = [(await client.receive()).kind for _ in range(4)]
    assert kinds == [wire.CONNACK, wire.SUBACK, wire.PUBACK, wire.PUBLISH]


async def test_a_renegotiation_is_refused_at_once(edge):
    """OpenSSL refuses it by itself; nothing of ours is sent that would carry the refusal along."""
    host, port = edge.broker.addresses["devices"]
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed = b""
    async with asyncio.timeout(wire.DEADLINE_S):
        for sent, answer in ((wire.connect(), b"\x20\x02\x00\x00"), (b"R\n", b"no renegotiation")):
            process.stdin.write(sent)
            while answer not in printed:
                more = await process.stdout.read(4096)
                assert more, printed
                printed += more
        process.stdin.close()
        await process.communicate()


# --- resumption -------------------------------------------------------------------------------------------------------


async def s_client(address, *arguments):
    """Run one CONNECT through `openssl s_client`; what it printed."""
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"{address[0]}:{address[1]}", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    process.stdin.write(wire.connect())
    printed = b""
    async with asyncio.timeout(wire.DEADLINE_S):
        while b"\x20\x02\x00\x00" not in printed:
            more = await process.stdout.read(4096)
            assert more, printed
            printed += more
        process.stdin.close()
        await process.communicate()
    return printed


async def resume(address, version, files, session):
    """Connect with a certificate, then again without one but with the first connection's session, if it got any."""
    first = await s_client(address, version, "-cert", files[0], "-key", files[1], "-sess_out", session)
    assert b"New, TLS" in first
    return await s_client(address, version, *(("-sess_in", session) if session.exists() else ()))


@asynccontextmanager
async def resuming_server(server_files, trusted):
    """The control: a TLS server with OpenSSL's defaults."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=trusted.pem.decode())
    context.load_cert_chain(*server_files)
    context.verify_mode = ssl.CERT_OPTIONAL
    seen = []

    async def serve(reader, writer):
        seen.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        await reader.read(1)
        writer.write(b"\x20\x02\x00\x00")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname(), seen


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_second_connection_is_new_and_carries_no_identity(version, edge, server_files, tmp_path):
    device = make_leaf("dev1", make_ca("Device root"))
    files, session = device.write(tmp_path, "device"), tmp_path / "session"

    async with resuming_server(server_files, device.issuer) as (address, seen):
        assert b"Reused, TLS" in await resume(address, version, files, session), "the control must resume"
        assert seen == [device.der, device.der], "the control inherits an identity its peer did not show"
    session.unlink()

    assert b"New, TLS" in await resume(edge.broker.addresses["devices"], version, files, session)
    assert [attempt.unverified_chain for attempt in edge.gatekeeper.attempts] == [(device.der,), ()]


def device_tls(device, directory, maximum=None):
    return wire.client_tls(
        **dict(zip(("certificate", "key"), device.write(directory, "device"), strict=True)), maximum=maximum
    )
