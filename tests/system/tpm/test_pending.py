"""A TPM that nobody enrolled waits for an operator, who compares six words; then it is assigned."""

import hmac

import pytest

from provisiond.admin import approval
from provisiond.admin.fingerprint import six_words
from provisiond.device import Refused, TpmCredential
from provisiond.errors import InvalidArgument
from provisiond.model import AttestationType, TpmMaterial
from provisiond.store.pending_devices import PendingDevices
from tests.running_service import run_site

pytestmark = pytest.mark.swtpm

PENDING = {"registration": {"reply": "immediate", "retry_after": "1s", "unknown": "pending"}}


async def test_an_unknown_tpm_waits_is_accepted_by_its_words_and_then_assigned(tmp_path, make_tpm):
    device, other = await make_tpm(), await make_tpm()
    async with run_site(tmp_path, **PENDING) as site:
        with pytest.raises(Refused) as raised:
            await site.register("pump-1", TpmCredential(device=device))
        assert raised.value.status == 401
        queue = PendingDevices(site.store)
        (waiting,) = await queue.list()
        key = await device.endorsement_key()
        assert (waiting.attestation_type, waiting.evidence) == (AttestationType.TPM, key)
        assert not waiting.proved  # anybody may present an endorsement key; nobody was challenged yet
        assert (await site.audited("pump-1"))[-1].outcome == "pending"

        with pytest.raises(InvalidArgument, match="compare them again"):
            await approval.accept(site.admin, queue, "pump-1", fingerprint=six_words(await other.endorsement_key()))
        enrollment = await approval.accept(site.admin, queue, "pump-1", fingerprint=six_words(key))
        assert enrollment.attestation == TpmMaterial(endorsement_key=key)
        assert await queue.list() == []

        result, _ = await site.register("pump-1", TpmCredential(device=device))
        assert result.assigned_hub == "gateway.local"
        record = await site.admin.get_registration("pump-1")
        assert await device.hmac(b"x") == hmac.digest(record.hub_key, b"x", "sha256")
        with pytest.raises(Refused):  # the other TPM is not the one that was accepted
            await site.register("pump-1", TpmCredential(device=other))
