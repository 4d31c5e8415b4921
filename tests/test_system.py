import socket

from provisiond.system import SystemClock, SystemEntropy, notify_service_manager


def test_the_clock_knows_utc_and_never_goes_back():
    clock = SystemClock()
    assert clock.now().utcoffset().total_seconds() == 0
    assert clock.monotonic() <= clock.monotonic()


def test_two_drawings_of_entropy_differ():
    entropy = SystemEntropy()
    assert entropy.token_bytes(32) != entropy.token_bytes(32)
    assert len(entropy.token_bytes(48)) == 48


def test_the_service_manager_is_told_by_datagram(tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify_service_manager("READY=1")
        assert manager.recv(64) == b"READY=1"


def test_without_a_service_manager_nobody_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify_service_manager("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify_service_manager("READY=1")
