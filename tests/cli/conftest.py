"""The command line in this process: arguments in, exit code, stdout and stderr out."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provisiond.cli.main import app
from provisiond.ports import Write
from provisiond.store import SqliteStore


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def invoke(*arguments, stdin=None):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, prog_name="provisiond")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True)
class Gateway:
    """A directory that `provisiond init` made, and commands on it."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "provisiond.toml"

    def __call__(self, *arguments, expect=0, stdin=None) -> Ended:
        ended = invoke("-c", self.config, *arguments, stdin=stdin)
        assert expect is None or ended.exit_code == expect, ended
        assert "Traceback" not in ended.stderr
        return ended

    def store(self, *registrations, retire=None) -> None:
        """Put registration records into the database, as the daemon would, and what one of them has left behind."""

        async def commit():
            async with await SqliteStore.open(self.directory / "state/provisiond.db") as store:
                for registration in registrations:
                    await store.commit(Write(registration=registration, expected_version=registration.version - 1))
                if retire is not None:
                    await store.put_retirement(retire)

        asyncio.run(commit())

    def audit(self):
        """Every audit record."""

        async def read():
            async with await SqliteStore.open(self.directory / "state/provisiond.db") as store:
                return [record for _, record in await store.list_audit(limit=1000)]

        return asyncio.run(read())


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("PROVISIOND_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gateway(tmp_path):
    made = invoke("init", "--dir", tmp_path / "gateway", "--id-scope", "0ne0TEST001", "--yes")
    assert made.exit_code == 0, made
    return Gateway(tmp_path / "gateway")
