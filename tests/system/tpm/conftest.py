"""Real TPM emulators and a real daemon over TLS."""

from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import KeyAlgorithm, open_tpm
from tests.running_service import run_site

IDENTITY_CONFLICTS = {
    "endorsement-key-in-use",
    "endorsement-key-changed",
    "endorsement-key-mismatch",
    "storage-root-key-changed",
}


@pytest.fixture
async def site(tmp_path):
    async with run_site(tmp_path) as running:
        yield running


@pytest.fixture
def log():
    """The service's log records."""
    with capture_logs() as records:
        yield records


@pytest.fixture
async def make_tpm():
    """Starts TPMs that run until the test ends; P-256 unless it says otherwise."""
    async with AsyncExitStack() as stack:

        async def make(algorithm=KeyAlgorithm.ECC, *, state_dir=None, **options):
            path = await stack.enter_async_context(run_emulator(state_dir))
            return await stack.enter_async_context(open_tpm(f"socket:{path}", algorithm=algorithm, **options))

        yield make


@pytest.fixture
async def device(make_tpm):
    return await make_tpm()


@pytest.fixture
def refuses(site, log):
    """Checks all of a refusal: what the device hears, the one line of the log, the audit record with its trace."""

    async def check(reply, finding, *, code=401002):
        assert (reply.status, reply.body["errorCode"]) == (code // 1000, code), reply.body
        assert set(reply.body) - {"timestampUtc"} == {"errorCode", "trackingId", "message"}
        tracking_id = reply.body["trackingId"]
        (line,) = [record for record in log if record.get("tracking_id") == tracking_id]
        assert line["log_level"] == ("warning" if finding in IDENTITY_CONFLICTS else "info")
        assert "exc_info" not in line
        audited = await site.store.get_audit(tracking_id)
        assert (audited.outcome, audited.code) == ("refused", code)
        failed = [check.name for check in audited.trace if not check.passed]
        assert failed, audited
        assert failed[-1] == finding, audited.trace
        return audited

    return check
