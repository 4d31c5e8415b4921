"""Unknown devices are shown, accepted and rejected, and the daemon heeds it at once."""

import asyncio
import base64

import pytest

from provisiond.admin import approval
from provisiond.device import Refused
from provisiond.device.credentials import X509Credential
from provisiond.model import AttestationType, PendingDevice
from provisiond.ports import PendingLimits
from provisiond.store import SqliteStore
from provisiond.store.pending_devices import PendingDevices
from tests.attestation import tpm_vectors
from tests.certificates import make_ca, make_leaf
from tests.fakes_decision import NOW
from tests.running_service import run_site

ENDORSEMENT_KEY = tpm_vectors.octets(tpm_vectors.load()["azure_activation"][0], "ek_tpm2b_public")
LEAF = make_leaf("sensor-7", make_ca("Nobody"))


def device(id_, evidence, kind=AttestationType.X509):
    return PendingDevice(
        registration_id=id_,
        attestation_type=kind,
        evidence=evidence,
        proved=True,
        first_seen_at=NOW,
        last_seen_at=NOW,
        remote_address="10.0.0.7",
        tracking_id="t-1",
    )


@pytest.fixture
def waiting(gateway):
    """A certificate and a TPM wait, and a second certificate that claims the first one's id."""

    async def put():
        async with await SqliteStore.open(gateway.directory / "state/provisiond.db") as store:
            for one in (device("sensor-7", LEAF.der), device("tpm-1", ENDORSEMENT_KEY, AttestationType.TPM)):
                await store.put_pending(one, limits=PendingLimits())

    asyncio.run(put())
    return gateway


def words_of(gateway, id_):
    return next(
        one["fingerprint"] for one in gateway("registration", "list", "--pending").json if one["registrationId"] == id_
    )


def test_what_waits_is_listed_with_evidence_and_words(waiting, tmp_path):
    ended = waiting("registration", "list", "--pending")
    sensor, tpm = ended.json
    assert base64.b64decode(sensor["certificate"]) == LEAF.der
    assert sensor["certificateInfo"]["subjectName"] == "CN=sensor-7"
    assert base64.b64decode(tpm["endorsementKey"]) == ENDORSEMENT_KEY
    assert (sensor["remoteAddress"], sensor["attempts"]) == ("10.0.0.7", 1)
    assert "registration accept sensor-7" in ended.stderr
    (tmp_path / "leaf.der").write_bytes(LEAF.der)
    shown = waiting("registration", "fingerprint", "--certificate-path", tmp_path / "leaf.der").stdout.strip()
    assert shown == sensor["fingerprint"] and len(shown.split("-")) == 6


def test_accepting_with_the_right_words_enrolls(waiting):
    words = words_of(waiting, "sensor-7").replace("-", " ").upper()
    body = waiting("registration", "accept", "sensor-7", "--fingerprint", words, "--device-id", "pump-3").json
    assert (body["registrationId"], body["deviceId"], body["attestation"]["type"]) == ("sensor-7", "pump-3", "x509")
    assert [one["registrationId"] for one in waiting("registration", "list", "--pending").json] == ["tpm-1"]
    assert waiting.audit()[-1].event == "enrollment.create"
    waiting("registration", "accept", "tpm-1", "--yes")
    assert waiting("enrollment", "show", "tpm-1").json["attestation"]["type"] == "tpm"


def test_other_words_are_refused(waiting):
    ended = waiting("registration", "accept", "sensor-7", "--fingerprint", words_of(waiting, "tpm-1"), expect=2)
    assert "compare them again" in ended.stderr
    assert waiting("enrollment", "list").json == []


def test_when_two_claim_one_id_the_words_decide(waiting):
    async def put():
        async with await SqliteStore.open(waiting.directory / "state/provisiond.db") as store:
            await store.put_pending(device("sensor-7", make_leaf("sensor-7").der), limits=PendingLimits())

    words = words_of(waiting, "sensor-7")
    asyncio.run(put())
    ended = waiting("registration", "accept", "sensor-7", "--yes", expect=2)
    assert "2 devices wait as sensor-7" in ended.stderr and words in ended.stderr
    waiting("registration", "accept", "sensor-7", "--fingerprint", words)


def test_a_rejected_device_is_out_of_sight(waiting):
    waiting("registration", "reject", "sensor-7", "--yes")
    assert [one["registrationId"] for one in waiting("registration", "list", "--pending").json] == ["tpm-1"]
    assert [one["registrationId"] for one in waiting("registration", "list", "--rejected").json] == ["sensor-7"]
    assert waiting.audit()[-1].event == "registration.reject"
    assert "was rejected" in waiting("registration", "accept", "sensor-7", "--yes", expect=3).stderr


def test_a_device_that_was_rejected_may_be_accepted_by_its_words(waiting):
    words = words_of(waiting, "sensor-7")
    waiting("registration", "reject", "sensor-7", "--yes")
    assert f"--fingerprint {words}" in waiting("registration", "accept", "sensor-7", "--yes", expect=3).stderr
    waiting("registration", "accept", "sensor-7", "--fingerprint", words)
    assert waiting("registration", "list", "--rejected").json == []


def test_a_full_list_says_so(waiting):
    assert "the list is full" not in waiting("registration", "list", "--pending").stderr
    text = waiting.config.read_text()
    waiting.config.write_text(text.replace("[log]", "[registration]\npending_devices = 2\n\n[log]"))
    assert "the list is full" in waiting("registration", "list", "--pending").stderr


def test_what_could_not_be_provisioned_is_not_accepted(waiting):
    async def put():
        async with await SqliteStore.open(waiting.directory / "state/provisiond.db") as store:
            await store.put_pending(device("other", LEAF.der), limits=PendingLimits())

    asyncio.run(put())
    assert "common name" in waiting("registration", "accept", "other", "--yes", expect=2).stderr


async def test_an_unknown_device_waits_is_accepted_and_its_next_request_is_assigned(tmp_path):
    """Over real TLS, to a running daemon."""
    credential = X509Credential.from_pem(LEAF.chain_pem, LEAF.key_pem)
    settings = {"registration": {"reply": "immediate", "retry_after": "1s", "unknown": "pending"}}
    async with run_site(tmp_path, **settings) as site:
        with pytest.raises(Refused) as raised:
            await site.register("sensor-7", credential)
        assert raised.value.status == 401
        queue = PendingDevices(site.store)
        (waiting,) = await queue.list()
        assert (waiting.evidence, waiting.proved, waiting.remote_address) == (LEAF.der, True, "127.0.0.1")
        assert (await site.audited("sensor-7"))[-1].outcome == "pending"
        await approval.accept(site.admin, queue, "sensor-7", fingerprint=None)
        result, _ = await site.register("sensor-7", credential)
        assert result.assigned_hub == "gateway.local"
