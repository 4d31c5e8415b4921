"""Which refused devices wait for an operator."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from provisiond.model import (
    AttestationType,
    Evidence,
    Facts,
    Outcome,
    Possession,
    RegisterRequest,
    RegistrationId,
    TpmEvidence,
    TpmMaterial,
)
from provisiond.registration.decide import decide_register
from tests.attestation import tpm_vectors
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import certificates, group, individual
from tests.fakes_decision import HUBS, NOW
from tests.registration.test_decide import CONTEXT, POLICY, token

WAITING = replace(POLICY, unknown_pending=True)
LEAF = make_leaf("Dev-1", make_ca("Nobody"))
ACTIVATION = tpm_vectors.load()["azure_activation"][0]
TPM = TpmEvidence(
    endorsement_key=tpm_vectors.octets(ACTIVATION, "ek_tpm2b_public"),
    storage_root_key=tpm_vectors.octets(ACTIVATION, "srk_tpm2b_public"),
)


def decide(evidence, *, enrollment=None, groups=(), policy=WAITING):
    request = RegisterRequest(claimed_id=RegistrationId.parse("Dev-1"), evidence=evidence)
    return decide_register(
        request, Facts(individual=enrollment, groups=groups, hubs=HUBS), policy=policy, context=CONTEXT
    )


def chain(leaf=LEAF):
    return Evidence(unverified_chain=leaf.chain, possession=Possession.TLS)


AS_OPENSSL_DOES = make_leaf(
    "Dev-1", usages=(), without=(x509.KeyUsage,), extensions=[(x509.BasicConstraints(ca=True, path_length=None), True)]
)


@pytest.mark.parametrize(
    "leaf", [LEAF, make_leaf("Dev-1"), AS_OPENSSL_DOES], ids=["of a CA", "self-signed", "self-signed by openssl req"]
)
def test_a_device_with_a_certificate_waits_with_what_it_has_shown(leaf):
    decision = decide(chain(leaf))
    assert decision.outcome is decision.audit.outcome is Outcome.PENDING
    assert (decision.reply.status, decision.reply.error.code) == (401, 401002)
    pending = decision.pending
    assert (pending.registration_id, pending.attestation_type) == ("Dev-1", AttestationType.X509)
    assert (pending.evidence, pending.proved) == (leaf.der, True)
    assert (pending.remote_address, pending.tracking_id, pending.first_seen_at) == ("10.0.0.1", "t-1", NOW)


@pytest.mark.parametrize(
    "groups", [(), (group("tpms", TpmMaterial()),)], ids=["no group", "a group that does not take it"]
)
def test_a_tpm_waits(groups):
    decision = decide(Evidence(tpm=TPM), groups=groups)
    assert decision.pending.attestation_type is AttestationType.TPM
    assert (decision.pending.evidence, decision.pending.proved) == (TPM.endorsement_key, False)


def test_the_device_hears_what_every_refused_device_hears():
    assert decide(chain()).reply == decide(chain(), policy=POLICY).reply


@pytest.mark.parametrize(
    ("evidence", "options"),
    [
        (chain(), {"policy": POLICY}),
        (chain(), {"enrollment": individual("Dev-1", enabled=False)}),
        (chain(), {"enrollment": individual("Dev-1", certificates(make_leaf("Dev-1")))}),
        (chain(make_leaf("Dev-2")), {}),
        (chain(make_leaf("Dev-1", not_after=NOW - timedelta(days=1), not_before=NOW - timedelta(days=9))), {}),
        (chain(make_ca("Dev-1", make_ca("Nobody"))), {}),
        (Evidence(sas_token=token()), {}),
        (Evidence(), {}),
    ],
    ids=["switched off", "disabled", "another certificate", "another id", "expired", "a CA", "token", "nothing"],
)
def test_what_an_operator_has_decided_or_an_enrollment_would_not_mend_does_not_wait(evidence, options):
    decision = decide(evidence, **options)
    assert decision.pending is None
    assert decision.outcome is not Outcome.PENDING
