"""What a running service logs of registrations: one INFO record each, and no secret."""

import base64
import io
import json
import logging

import pytest
import structlog

from provisiond.device import Refused
from provisiond.device.credentials import SymmetricKeyCredential, X509Credential
from provisiond.logs import configure_logs
from tests.certificates import make_leaf
from tests.enrollment_factory import PRIMARY_KEY, certificates, individual
from tests.running_service import run_site

LEAF = make_leaf("sensor-7")


@pytest.fixture(params=["info"])
def records(request):
    """What a service logs, at its default level unless a test has another; a callable."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logs(level=request.param, output_format="json", stream=stream, environment={})
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def of(records, name):
    return [(one["level"], one["event"]) for one in records() if one.get("registration_id") == name]


@pytest.mark.parametrize("reply", ["immediate", "poll"])
async def test_a_finished_registration_is_one_info_record_however_it_is_answered(tmp_path, records, reply):
    async with run_site(tmp_path, reply=reply) as site:
        await site.admin.create_enrollment(individual("pump-1"))
        await site.admin.create_enrollment(individual("sensor-7", certificates(LEAF)))
        await site.register("pump-1", SymmetricKeyCredential(key=PRIMARY_KEY))
        await site.register("sensor-7", X509Credential.from_pem(LEAF.chain_pem, LEAF.key_pem))
        with pytest.raises(Refused):
            await site.register("pump-1", SymmetricKeyCredential(key=b"x" * 32))
    assert of(records, "pump-1") == [("info", "register assigned"), ("info", "register refused")]
    assert of(records, "sensor-7") == [("info", "register assigned")]
    assigned = next(one for one in records() if one["event"] == "register assigned")
    assert {"registration_id", "remote", "enrollment", "hub", "tracking_id", "ms"} <= assigned.keys()


@pytest.mark.parametrize("records", ["debug"], indirect=True)
async def test_no_record_has_a_key_or_a_token(tmp_path, records):
    async with run_site(tmp_path) as site:
        await site.admin.create_enrollment(individual("pump-1"))
        await site.register("pump-1", SymmetricKeyCredential(key=PRIMARY_KEY))
    text = json.dumps(records())
    assert "register assigned" in text
    assert base64.b64encode(PRIMARY_KEY).decode() not in text
    assert "sig=" not in text.replace("sig=[redacted]", "") and PRIMARY_KEY.decode() not in text
