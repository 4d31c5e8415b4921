"""Chains that were tampered with: a verified device or an AttestationError, and never a wrong accept."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisiond.attestation import x509
from provisiond.errors import AttestationError, InvalidArgument
from provisiond.model import RegistrationId, Trace, X509Material
from tests.certificates import NOW, make_ca, make_crl, make_leaf, make_name
from tests.enrollment_factory import certificates, group, individual

ROOT = make_ca("Root")
LINE = make_ca("Line", ROOT)
LEAF = make_leaf("sensor", LINE, dns_names=["sensor.example"])
STRANGER = make_ca("Root")
FORGED = make_leaf("sensor", make_ca("Line", STRANGER))
GROUP = group("g", certificates(ROOT))
CRL = make_crl(ROOT)

CERTIFICATES = [LEAF.der, LINE.der, ROOT.der, STRANGER.der, FORGED.der, *FORGED.chain[1:]]
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "delete", "insert"]), st.integers(0, 2000), st.integers(0, 255)), max_size=3
)


def edited(der, edits):
    octets = bytearray(der)
    for kind, offset, value in edits:
        position = offset % (len(octets) or 1)
        if kind == "set" and octets:
            octets[position] = value
        elif kind == "delete":
            del octets[position : position + 1]
        elif kind == "insert":
            octets.insert(position, value)
    return bytes(octets)


MUTANT = st.builds(edited, st.sampled_from(CERTIFICATES), EDITS)
CHAINS = st.lists(MUTANT | st.binary(max_size=60), max_size=5).map(tuple)


def attempt(chain, *groups, crls=()):
    """The verified device certificate, or None when it was refused."""
    try:
        return x509.verify_group(
            groups=groups,
            claimed_id=RegistrationId.parse("sensor"),
            unverified_chain=chain,
            now=NOW,
            trace=Trace(),
            crls=crls,
        ).certificate_der
    except AttestationError:
        return None


@settings(max_examples=400, deadline=None)
@given(chain=CHAINS)
def test_a_tampered_chain_is_refused_unless_its_signed_part_is_untouched(chain):
    accepted = attempt(chain, GROUP, crls=[CRL])
    if accepted is not None:
        assert x509.certificate_identity(accepted) == x509.certificate_identity(LEAF.der)
    x509.issuer_hashes(chain)


@settings(max_examples=200, deadline=None)
@given(edits=EDITS)
def test_a_tampered_pinned_certificate_is_refused(edits):
    mutant = edited(LEAF.der, edits)
    arguments = {"claimed_id": RegistrationId.parse("sensor"), "now": NOW, "trace": Trace()}
    enrollment = individual("sensor", certificates(LEAF))
    if mutant == LEAF.der:
        assert x509.verify_individual(enrollment=enrollment, unverified_chain=(mutant,), **arguments)
        return
    with pytest.raises(AttestationError):
        x509.verify_individual(enrollment=enrollment, unverified_chain=(mutant,), **arguments)


@settings(max_examples=200, deadline=None)
@given(anchor=MUTANT)
def test_a_tampered_enrollment_certificate_is_used_or_refused_never_crashed_on(anchor):
    attempt(LEAF.chain, group("g", X509Material(primary_der=anchor)))


@settings(max_examples=200, deadline=None)
@given(crl=st.builds(edited, st.just(make_crl(LINE, [LEAF])), EDITS))
def test_a_tampered_crl_never_crashes_the_verification(crl):
    attempt(LEAF.chain, GROUP, crls=[crl])


@settings(max_examples=200, deadline=None)
@given(content=MUTANT | st.binary(max_size=200) | st.builds(edited, st.just(LEAF.chain_pem), EDITS))
def test_any_file_is_a_certificate_or_an_invalid_argument(content):
    try:
        for der in x509.load_certificates(content):
            x509.check_enrollable_client_certificate(der, NOW)
            x509.check_enrollable_ca_certificate(der, NOW)
    except InvalidArgument:
        pass


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=20))
def test_only_the_registration_id_itself_is_a_common_name_that_passes(name):
    leaf = make_leaf("", ROOT, subject=make_name(name))
    accepted = attempt(leaf.chain, GROUP)
    assert (accepted is not None) == (name.isascii() and name.lower() == "sensor")
