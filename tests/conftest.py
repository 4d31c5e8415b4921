"""What holds for every test."""

import os
import signal
import tempfile
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

# A shared machine is slow at times; that says nothing about the code. In CI every run tries the same examples, so that
# a failure there is one that can be had again.
settings.register_profile(
    "provisiond",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("provisiond")


# Nothing that somebody has set for his own terminal, files or network is to change what the tests see.
PERSONAL = {"COLUMNS", "LINES", "TERMINAL_WIDTH", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "GITHUB_ACTIONS", "SUDO_USER"}
for name in [name for name in os.environ if name in PERSONAL or name.lower().endswith("_proxy")]:
    del os.environ[name]
os.umask(0o022)

# A shell ignores Ctrl-C for what it runs in the background, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _fresh_log():
    """What one test configures of the log must not reach the next."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def socket_directory():
    """Where the path of a socket is as short as the kernel wants it, wherever the other files of the tests are."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


class NoSkips:
    """In CI a skipped test is a failure: what did not run proved nothing."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    pytest_runtest_logreport = note
    pytest_collectreport = note

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped, which CI does not allow", red=True)
            terminalreporter.write("".join(f"{name}\n" for name in self.skipped))


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(NoSkips(), "no-skips")
