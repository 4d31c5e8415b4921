import asyncio
import os
import signal
import socket
import urllib.request

import pytest
import structlog.testing

from provisiond.daemon import Daemon
from provisiond.errors import ConfigurationError, StoreUnavailable
from tests.ports import HAS_IPV6, free_port
from tests.running_service import site_settings


def events(logs):
    return [entry["event"] for entry in logs]


async def test_the_daemon_says_ready_with_its_listeners_and_tells_the_service_manager(
    tmp_path, socket_directory, monkeypatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(socket_directory / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(socket_directory / "notify"))
        with structlog.testing.capture_logs() as logs:
            async with Daemon(site_settings(tmp_path)) as daemon:
                assert manager.recv(64) == b"READY=1"
                host, port = daemon.addresses["devices"]
        (ready,) = [entry for entry in logs if entry["event"] == "ready"]
        assert ready["listener_devices"] == f"{host}:{port}"
        assert manager.recv(64) == b"STOPPING=1"
    assert events(logs)[-1] == "stopped"


if HAS_IPV6:  # not a skip: it takes a machine that speaks it

    async def test_an_ipv6_listener_is_written_as_in_the_configuration(tmp_path):
        broker = {"listeners": [{"name": "local", "bind": "[::1]:0"}]}
        with structlog.testing.capture_logs() as logs:
            async with Daemon(site_settings(tmp_path, broker=broker)) as daemon:
                _, port = daemon.addresses["local"]
        assert next(entry for entry in logs if entry["event"] == "ready")["listener_local"] == f"[::1]:{port}"


async def test_a_termination_signal_stops_the_daemon(tmp_path):
    async with Daemon(site_settings(tmp_path)) as daemon:
        waiting = asyncio.create_task(daemon.stopped())
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(waiting, 60)


async def test_a_store_beyond_help_ends_the_daemon_so_that_it_is_started_again(tmp_path):
    async with Daemon(site_settings(tmp_path)) as daemon:
        daemon._store.fatal_reason = "the disk failed"
        daemon._store.fatal.set()
        with pytest.raises(StoreUnavailable, match="the disk failed"):
            await asyncio.wait_for(daemon.stopped(), 60)


async def test_a_reload_takes_over_hubs_and_registration_settings(tmp_path):
    changed = site_settings(tmp_path, reply="poll", hubs=[{"name": "other", "type": "embedded", "host": "other.local"}])
    async with Daemon(site_settings(tmp_path), reload=lambda: changed) as daemon:
        daemon.reload()
        assert [hub.name for hub in daemon._hubs.snapshot()] == ["other"]
        assert daemon._pipeline.policy.reply == "poll"


async def test_a_reload_leaves_the_id_scope_as_it_is(tmp_path):
    running = site_settings(tmp_path)
    changed = running.model_copy(update={"service": running.service.model_copy(update={"id_scope": "0ne0OTHER"})})
    async with Daemon(running, reload=lambda: changed) as daemon:
        daemon.reload()
        assert daemon._pipeline.policy.id_scope == running.service.id_scope


async def test_a_reload_with_a_mistake_keeps_the_old_configuration_and_says_why(tmp_path):
    def broken():
        raise ConfigurationError("provisiond.toml:3: unknown key")

    async with Daemon(site_settings(tmp_path), reload=broken) as daemon:
        with structlog.testing.capture_logs() as logs:
            daemon.reload()
        assert [hub.name for hub in daemon._hubs.snapshot()] == ["local"]
    assert any(entry.get("reason") == "provisiond.toml:3: unknown key" for entry in logs)


async def test_an_address_in_use_is_told_with_the_listeners_name(tmp_path):
    async with Daemon(site_settings(tmp_path)) as daemon:
        _, port = daemon.addresses["devices"]
        second = site_settings(tmp_path)
        listener = second.broker.listeners[0].model_copy(update={"bind": f"127.0.0.1:{port}"})
        broker = second.broker.model_copy(update={"listeners": (listener,)})
        store = second.store.model_copy(update={"url": f"sqlite:///{tmp_path}/second.db"})
        with pytest.raises(ConfigurationError, match="devices"):
            async with Daemon(second.model_copy(update={"broker": broker, "store": store})):
                pass


async def test_prometheus_reads_the_metrics(tmp_path):
    port = free_port()
    settings = site_settings(tmp_path, metrics={"enabled": True, "bind": f"127.0.0.1:{port}"})
    async with Daemon(settings):
        url = f"http://127.0.0.1:{port}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=60).read().decode())
    assert "provisiond_connections 0.0" in text
