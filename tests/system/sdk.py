"""The unmodified Azure device SDKs, each installed in an environment of its own under `.cache`.

`python -m tests.system.sdk` installs them ahead of the tests, so that no test's time limit counts a download.
"""

import fcntl
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
PYTHON_SDK = "azure-iot-device==2.14.0"  # needs paho-mqtt 1.x, which provisiond's own environment cannot have
NODE_PACKAGES = Path(__file__).parent / "node" / "package.json"
REGISTER_PYTHON = Path(__file__).parent / "python_sdk" / "register.py"
REGISTER_NODE = Path(__file__).parent / "node" / "register.js"
HUB_PYTHON = Path(__file__).parent / "python_sdk" / "hub.py"
HUB_NODE = Path(__file__).parent / "node" / "hub.js"
DRIVER_TIMEOUT_S = 120  # the SDKs give one request 30 s


def install_python_sdk() -> Path:
    """The directory of a virtual environment with the Python SDK."""
    return _install("sdk-python", PYTHON_SDK, _make_python_environment)


def install_node_sdk() -> Path:
    """The directory whose `node_modules` has the Node.js SDK."""
    return _install("sdk-node", NODE_PACKAGES.read_text(), _make_node_environment)


def register_with_python(*, client: str, host: str, ca_file: Path, **arguments: Any) -> dict[str, Any]:
    """What the Python SDK's `sync` or `aio` client makes of one registration: its result or its error."""
    python = install_python_sdk() / "bin" / "python"
    options = {"client": client, "host": host, "ca_file": ca_file, **arguments}
    return _run([python, REGISTER_PYTHON, *_options(options)], os.environ)


def register_with_node(*, host: str, ca_file: Path, **arguments: Any) -> dict[str, Any]:
    """What the Node.js SDK makes of one registration over MQTT: its result or its error."""
    environment = {"SDK_NODE_DIR": str(install_node_sdk()), "NODE_EXTRA_CA_CERTS": str(ca_file)}
    return _run(["node", REGISTER_NODE, *_options({"host": host, **arguments})], os.environ | environment)


class HubDevice:
    """A device at its hub, played by an SDK in a process of its own; `with` ends it.

    Args:
        sdk: `python` or `node`.
        arguments: host, device_id, and the credential's files.
    """

    def __init__(self, sdk: str, *, ca_file: Path, **arguments: Any) -> None:
        environment = dict(os.environ)
        if sdk == "node":
            environment |= {"SDK_NODE_DIR": str(install_node_sdk()), "NODE_EXTRA_CA_CERTS": str(ca_file)}
            command: list[Any] = ["node", HUB_NODE, *_options(arguments)]
        else:
            python = install_python_sdk() / "bin" / "python"
            command = [python, HUB_PYTHON, *_options(arguments | {"ca_file": ca_file})]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def expect(self, event: str) -> dict[str, Any]:
        """The next line about `event`; what else happens before it is passed over, but not an error."""
        while True:
            line = self._events.get(timeout=DRIVER_TIMEOUT_S)
            assert line is not None, f"it ended without {event}: {''.join(self._errors)}"
            if line["event"] == event:
                return line
            assert line["event"] != "error", line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()
        self._process.stdout.close()
        self._process.stderr.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _read_errors(self) -> None:
        self._errors.extend(self._process.stderr)


def _options(arguments: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]


def _run(command: list[Any], environment: Any) -> dict[str, Any]:
    completed = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DRIVER_TIMEOUT_S, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


def _install(name: str, wanted: str, make: Callable[[Path], None]) -> Path:
    directory, stamp = CACHE / name, CACHE / f"{name}.stamp"
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    with _locked(CACHE / f"{name}.lock"):
        if not (directory.is_dir() and stamp.is_file() and stamp.read_text() == digest):
            shutil.rmtree(directory, ignore_errors=True)
            make(directory)
            stamp.write_text(digest)
    return directory


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_python_environment(directory: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    subprocess.run(
        [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--use-pep517", PYTHON_SDK], check=True
    )


def _make_node_environment(directory: Path) -> None:
    directory.mkdir()
    shutil.copy(NODE_PACKAGES, directory)
    options = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(["npm", "install", *options], cwd=directory, check=True)


if __name__ == "__main__":
    install_python_sdk()
    install_node_sdk()
