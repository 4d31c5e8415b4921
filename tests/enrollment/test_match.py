import pytest

from provisiond.enrollment.match import match, presented_types
from provisiond.model import AttestationType, Evidence, Facts, TpmEvidence, TpmMaterial, Trace
from tests.enrollment_factory import group, individual

EVERYTHING = frozenset(AttestationType)
TOKEN = Evidence(sas_token="SharedAccessSignature …")


def test_an_individual_enrollment_is_the_claim_and_the_groups_stay_beside_it():
    claim = match(Facts(individual=individual("a"), groups=(group("g"),)), TOKEN, allowed=EVERYTHING, trace=Trace())
    assert claim.individual.id == "a"
    assert [entry.id for entry in claim.groups] == ["g"]


def test_a_group_claims_only_requests_that_bring_its_mechanisms_evidence():
    facts = Facts(groups=(group("keys"), group("tpms", TpmMaterial())))
    claim = match(facts, TOKEN, allowed=EVERYTHING, trace=Trace())
    assert [entry.id for entry in claim.groups] == ["keys"]
    assert claim.groups_of(AttestationType.TPM) == ()


def test_a_mechanism_that_is_not_allowed_claims_nothing():
    claim = match(Facts(groups=(group("keys"),)), TOKEN, allowed=frozenset({AttestationType.X509}), trace=Trace())
    assert claim.groups == ()


@pytest.mark.parametrize(
    ("facts", "passed", "finding"),
    [
        (Facts(individual=individual("a", enabled=False)), True, "individual enrollment a (symmetricKey, disabled)"),
        (Facts(groups=(group("g"),)), True, "groups that claim it: g (enabled)"),
        (Facts(), False, "no individual enrollment, and no group claims what was presented"),
    ],
)
def test_the_trace_says_what_was_looked_at(facts, passed, finding):
    trace = Trace()
    match(facts, TOKEN, allowed=EVERYTHING, trace=trace)
    (check,) = trace.snapshot()
    assert (check.name, check.passed, check.finding) == ("enrollment", passed, finding)


@pytest.mark.parametrize(
    ("evidence", "types"),
    [
        (Evidence(), set()),
        (Evidence(unverified_chain=(b"x",)), {AttestationType.X509}),
        (TOKEN, {AttestationType.SYMMETRIC_KEY}),
        (Evidence(claims_symmetric_key=True), {AttestationType.SYMMETRIC_KEY}),
        (Evidence(tpm=TpmEvidence(endorsement_key=b"e", storage_root_key=b"s")), {AttestationType.TPM}),
    ],
)
def test_what_was_presented_names_its_mechanism(evidence, types):
    assert presented_types(evidence) == types
