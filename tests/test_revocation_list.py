"""The revocation list: signed when it has to be, and served as it is in its file."""

import os
import socket
import time
from datetime import timedelta
from email.utils import format_datetime

import httpx
import pytest
from cryptography import x509

from provisiond.errors import ConfigurationError
from provisiond.http_server import HttpServer, not_found, route
from provisiond.local_ca import issue_device, load_root, make_revocation_list, make_root
from provisiond.revocation_list import (
    DER_PATH,
    PEM_PATH,
    RevocationListFile,
    RevocationListKeeper,
    next_update,
    read_revocation_list,
    write_revocation_list,
)
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from tests.fakes_decision import NOW, FakeClock


def make_settings(directory, **crl):
    return Settings.model_validate(
        {"config_version": 1, "service": {"state_dir": directory}, "ca": {"dir": directory / "ca"}, "crl": crl}
    )


@pytest.fixture
def root(tmp_path):
    made = make_root("Site root", now=NOW)
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca/root.crt").write_bytes(made.certificate_pem)
    (tmp_path / "ca/root.key").write_bytes(made.key_pem)
    return made


@pytest.fixture
async def store(tmp_path):
    async with await SqliteStore.open(tmp_path / "provisiond.db") as store:
        yield store


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def reports():
    return []


@pytest.fixture
def make_keeper(tmp_path, store, clock, reports):
    def make(**crl):
        settings = make_settings(tmp_path, **crl)
        return RevocationListKeeper(store=store, clock=clock, settings=lambda: settings, report=reports.append)

    return make


def listed(directory):
    crl = read_revocation_list(directory / "ca/root.crl")
    return {entry.serial_number for entry in crl}, next_update(crl)


# --- keeping it fresh


async def test_the_first_look_signs_a_list_and_the_next_does_not(tmp_path, root, make_keeper):
    keeper = make_keeper()
    assert await keeper.look()
    assert listed(tmp_path) == (set(), NOW + timedelta(days=30))
    assert not await keeper.look()


async def test_a_list_is_signed_anew_every_day(tmp_path, root, make_keeper, clock):
    keeper = make_keeper()
    await keeper.look()
    clock.advance(86_399)
    assert not await keeper.look()
    clock.advance(2)
    assert await keeper.look()
    assert listed(tmp_path)[1] == clock.now() + timedelta(days=30)


async def test_a_list_that_lasts_for_a_day_is_signed_anew_at_half_of_it(tmp_path, root, make_keeper, clock):
    keeper = make_keeper(lifetime="1d")
    await keeper.look()
    clock.advance(43_201)
    assert await keeper.look()


async def test_what_somebody_else_has_revoked_is_on_the_next_list(tmp_path, root, make_keeper, store):
    keeper = make_keeper()
    await keeper.look()
    await store.revoke_certificate(root.name_hash, 0x1234, NOW)
    assert await keeper.look()
    assert listed(tmp_path)[0] == {0x1234}


async def test_what_is_on_the_list_stays_on_it_although_the_database_has_lost_it(tmp_path, root, make_keeper, store):
    (tmp_path / "ca/root.crl").write_bytes(make_revocation_list(root, {7: NOW, 8: NOW}, now=NOW))
    keeper = make_keeper()
    assert not await keeper.look()
    await store.revoke_certificate(root.name_hash, 9, NOW)
    assert await keeper.look()
    assert listed(tmp_path)[0] == {7, 8, 9}
    await write_revocation_list(make_settings(tmp_path), store, now=NOW, released={8})
    assert listed(tmp_path)[0] == {7, 9}


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
async def test_a_list_that_is_none_or_another_authoritys_is_replaced(tmp_path, root, make_keeper, content):
    other = make_revocation_list(make_root("Site root", now=NOW), {7: NOW}, now=NOW)
    (tmp_path / "ca/root.crl").write_bytes(other if content is None else content)
    assert await make_keeper().look()
    assert listed(tmp_path)[0] == set()


async def test_no_list_outlives_its_root(tmp_path, root, make_keeper, clock):
    clock.advance(3650 * 86_400)
    keeper = make_keeper()
    await keeper.look()
    assert listed(tmp_path)[1] == root.certificate.not_valid_after_utc
    assert not await keeper.look()


async def test_without_the_authoritys_key_the_list_is_somebody_elses_to_make(tmp_path, root, make_keeper, reports):
    (tmp_path / "ca/root.key").unlink()
    assert not await make_keeper().look()
    assert reports == []


async def test_why_there_is_no_list_is_said_once(tmp_path, root, make_keeper, reports):
    (tmp_path / "ca/root.key").write_bytes(b"nonsense")
    keeper = make_keeper()
    assert not await keeper.look()
    assert not await keeper.look()
    assert len(reports) == 1
    assert "root.key" in reports[0]


# --- serving it


@pytest.fixture
def served(tmp_path, root):
    file = tmp_path / "root.crl"
    revoked = issue_device(root, "pump-7", now=NOW).certificate.serial_number
    file.write_bytes(make_revocation_list(root, {revoked: NOW}, now=NOW))
    server = HttpServer(route(RevocationListFile(file).paths, not_found), host="127.0.0.1", port=0, setting="crl")
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        client.file, client.revoked, client.root = file, revoked, root
        yield client
    server.close()


def test_the_list_is_served_in_both_forms(served):
    der = served.get(DER_PATH)
    assert (der.status_code, der.headers["content-type"]) == (200, "application/pkix-crl")
    crl = x509.load_der_x509_crl(der.content)
    assert crl.get_revoked_certificate_by_serial_number(served.revoked) is not None
    pem = served.get(PEM_PATH)
    assert pem.headers["content-type"] == "application/x-pem-file"
    assert pem.content == served.file.read_bytes()
    assert der.headers["etag"] != pem.headers["etag"]


def test_who_has_it_already_is_told_so_until_it_changes(served):
    first = served.get(DER_PATH)
    seen = {"If-None-Match": f'"other", W/{first.headers["etag"]}'}
    assert served.get(DER_PATH, headers=seen).status_code == 304
    dated = {"If-Modified-Since": first.headers["last-modified"]}
    assert served.get(DER_PATH, headers=dated).status_code == 304
    # A tag goes before a date: two lists may be of one second.
    assert served.get(DER_PATH, headers=dated | {"If-None-Match": '"other"'}).status_code == 200
    served.file.write_bytes(make_revocation_list(served.root, {1: NOW}, now=NOW))
    os.utime(served.file, (time.time() + 60, time.time() + 60))
    assert served.get(DER_PATH, headers=seen).status_code == 200
    assert served.get(DER_PATH, headers=dated).status_code == 200
    past = {"If-Modified-Since": format_datetime(NOW - timedelta(days=9000), usegmt=True)}
    assert served.get(DER_PATH, headers=past).status_code == 200
    for nonsense in ("", "yesterday", "Mon, 99 Foo 2026 99:99:99 GMT"):
        assert served.get(DER_PATH, headers={"If-Modified-Since": nonsense}).status_code == 200


def test_it_can_only_be_read(served):
    head = served.head(PEM_PATH)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == served.file.stat().st_size
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = served.request(method, DER_PATH, content=b"x" * 1000 if method != "OPTIONS" else None)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert served.get("/crl/../../etc/passwd").status_code == 404
    assert served.get("/").status_code == 404


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_where_there_is_no_list_none_is_served(served, content):
    served.file.unlink()
    if content is not None:
        served.file.write_bytes(content)
    assert served.get(DER_PATH).status_code == 404


def test_clients_that_only_hold_connections_do_not_keep_others_out_for_longer(served):
    holding = [socket.create_connection((served.base_url.host, served.base_url.port)) for _ in range(16)]
    until(lambda: not answers(served))
    for one in holding:
        one.close()
    until(lambda: answers(served))


def answers(client):
    try:
        return client.get(DER_PATH).status_code == 200
    except httpx.TransportError:
        return False


def until(condition):
    """Wait for what threads of the server do."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_address_that_is_taken_is_said_so(served):
    with pytest.raises(ConfigurationError, match=r"\[crl\] cannot listen"):
        HttpServer(not_found, host="127.0.0.1", port=served.base_url.port, setting="crl")


async def test_the_daemon_signs_and_serves_the_list(tmp_path, root):
    from provisiond.daemon import Daemon
    from tests.ports import free_port
    from tests.running_service import site_settings

    port, metrics_port = free_port(), free_port()
    settings = site_settings(
        tmp_path,
        ca={"dir": tmp_path / "ca"},
        crl={"bind": f"127.0.0.1:{port}"},
        metrics={"enabled": True, "bind": f"127.0.0.1:{metrics_port}"},
    )
    async with Daemon(settings), httpx.AsyncClient(timeout=60) as client:
        for number, path in ((port, DER_PATH), (metrics_port, DER_PATH)):
            crl = x509.load_der_x509_crl((await client.get(f"http://127.0.0.1:{number}{path}")).content)
            assert crl.is_signature_valid(load_root(tmp_path / "ca").key.public_key())
        assert (await client.get(f"http://127.0.0.1:{port}/metrics")).status_code == 404
        assert "provisiond_connections" in (await client.get(f"http://127.0.0.1:{metrics_port}/metrics")).text
