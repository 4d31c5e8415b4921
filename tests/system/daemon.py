"""The real daemon as a process of its own, set up through the command line as an operator would."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import tomlkit

ID_SCOPE = "0ne0TEST001"
COMMAND_TIMEOUT_S = 120  # no bound on what is tested: machines that run tests may be busy
READY_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
FOLLOW_S = 0.02
_PROVISIOND = (sys.executable, "-m", "provisiond")
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIOND_")}


def run_command(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `provisiond ARGUMENTS` to its end; its exit code must be `expect`."""
    completed = subprocess.run(
        [*_PROVISIOND, *map(str, arguments)],
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert completed.returncode == expect, f"exit code {completed.returncode}\n{completed.stdout}\n{completed.stderr}"
    return completed


@contextmanager
def reserve_sdk_port() -> Iterator[int]:
    """8883, the only port that the Azure Python SDK knows, for one test module of this machine at a time."""
    with (Path(tempfile.gettempdir()) / "provisiond-port-8883.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield 8883


class Service:
    """A directory made by `provisiond init`, and the commands of its operator."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config_file = directory / "provisiond.toml"
        self.ca_file = directory / "ca" / "root.crt"
        self.init = run_command("init", "--dir", directory, "--host", "localhost", "--id-scope", ID_SCOPE, "--yes")

    def configure(self, *, tls_port: int = 0, hubs: Sequence[Mapping[str, object]] = (), **registration: str) -> None:
        """Put the listeners on loopback (port 0: any free one), and change `[registration]` and the hubs."""
        document: Any = tomlkit.parse(self.config_file.read_text())
        for listener in document["broker"]["listeners"]:
            listener["bind"] = f"127.0.0.1:{tls_port if listener.get('tls') else 0}"
        document["metrics"] = {"enabled": False}  # several daemons would want its one port
        document.setdefault("registration", {}).update(registration)
        if hubs:
            document["hubs"] = hubs
        self.config_file.write_text(tomlkit.dumps(document))

    def limit(self, **limits: object) -> None:
        """Change `[broker.limits]`."""
        document: Any = tomlkit.parse(self.config_file.read_text())
        document["broker"].setdefault("limits", {}).update(limits)
        self.config_file.write_text(tomlkit.dumps(document))

    def listener(self, *, tls: bool) -> str:
        """The name of the listener with or without TLS."""
        document: Any = tomlkit.parse(self.config_file.read_text())
        return next(row["name"] for row in document["broker"]["listeners"] if row.get("tls", False) is tls)

    def command(self, *arguments: object, expect: int = 0) -> Any:
        """What a command prints as JSON; None when it prints nothing."""
        output = run_command("-c", self.config_file, *arguments, expect=expect).stdout
        return json.loads(output) if output.strip() else None

    def enroll(self, registration_id: str, **options: object) -> Any:
        """Create an individual enrollment; `options` are those of the command."""
        return self.command("enrollment", "create", registration_id, *_enrollment_options(options))

    def enroll_group(self, group_id: str, **options: object) -> Any:
        """Create an enrollment group; `options` are those of the command."""
        return self.command("enrollment-group", "create", group_id, *_enrollment_options(options))


class Daemon:
    """`provisiond run`; `with` waits until it is ready, and kills it if it still runs at the end.

    Unless it is `quiet`, its log goes to standard error too, where a test that fails shows it. When it is, it goes to
    a file: nobody is woken up by every line.
    """

    def __init__(self, service: Service, *, quiet: bool = False, module: str = "provisiond") -> None:
        self.service = service
        self._quiet = quiet
        self.log: list[str] = []
        self._ready = threading.Event()
        self.ready_line: dict[str, Any] = {}
        self._file = (service.directory / "daemon.log").open("w+") if quiet else None
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "-c", str(service.config_file), "run"],
            env=_ENVIRONMENT | {"PROVISIOND_LOG__FORMAT": "json"},
            stdout=self._file or subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, name="daemon log", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            assert self._ready.wait(READY_TIMEOUT_S) and self.ready_line, f"the daemon is not ready:\n{self.text_log}"
        except BaseException:  # the end of the test's time too: who has its port else, has it for ever
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def port(self, *, tls: bool) -> int:
        """Where its listener with or without TLS really is."""
        address: str = self.ready_line[f"listener_{self.service.listener(tls=tls)}"]
        return int(address.rpartition(":")[2])

    def stop(self) -> int:
        """Ask it to end (SIGTERM); its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        self.process.kill()
        self._wait()

    @property
    def text_log(self) -> str:
        """Everything it has printed so far."""
        return (self.service.directory / "daemon.log").read_text() if self._quiet else "".join(self.log)

    def _wait(self) -> int:
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._reader.join()
            (self._file or self.process.stdout).close()

    def _read_log(self) -> None:
        for line in self._follow_file() if self._quiet else self.process.stdout:
            self.log.append(line)
            if not self._quiet:
                sys.stderr.write(line)
            if '"ready"' in line:
                self.ready_line = json.loads(line)
                self._ready.set()
        self._ready.set()

    def _follow_file(self) -> Iterator[str]:
        """The lines up to the one that says "ready"."""
        with (self.service.directory / "daemon.log").open() as file:
            while not self._ready.is_set() and self.process.poll() is None:
                if line := file.readline():
                    yield line
                else:
                    time.sleep(FOLLOW_S)  # a file does not say when it grows


@contextmanager
def run_daemon(service: Service, *, quiet: bool = False, module: str = "provisiond") -> Iterator[Daemon]:
    """A ready daemon, which must then end cleanly within `STOP_TIMEOUT_S` when it is told to."""
    with Daemon(service, quiet=quiet, module=module) as daemon:
        yield daemon
        assert daemon.stop() == 0, daemon.text_log
        assert "Traceback" not in daemon.text_log, daemon.text_log


def _enrollment_options(options: dict[str, object]) -> list[str]:
    kind = "x509" if "certificate_path" in options else "symmetricKey"
    given = {"attestation_type": kind} | options
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
