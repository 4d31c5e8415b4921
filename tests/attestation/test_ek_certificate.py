import contextlib
import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisiond.attestation.ek_certificate import EkDenyList, verify_ek_certificate
from provisiond.attestation.ek_certificate_reader import read_stored_certificate
from provisiond.attestation.ek_deny_list import parse_deny_list
from provisiond.attestation.tpm import endorsement_key_hash, parse_endorsement_key
from provisiond.attestation.tpm_structures import parse_public
from provisiond.errors import AttestationError
from provisiond.model import Trace
from tests.attestation.der import with_serial_number
from tests.attestation.ek_certificate_factory import EkAuthority, software_endorsement_key
from tests.attestation.test_roca import vulnerable_modulus
from tests.attestation.test_tpm import with_modulus
from tests.attestation.tpm_vectors import load, octets, public_named, section

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FINDINGS = {
    "no path to an enrolled TPM CA": "ek-certificate-path",
    "trailing octets after the certificate": "certificate-encoding",
    "key mismatch": "ek-certificate-key",
    "extendedKeyUsage lacks tcg-kp-EKCertificate": "ek-certificate-purpose",
    "EK certificate is a CA certificate": "ek-certificate-ca",
    "EK certificate may sign": "ek-certificate-key-usage",
    "ECC EK certificate without keyAgreement": "ek-certificate-key-usage",
    "EK certificate has no keyUsage": "ek-certificate-key-usage",
    "SAN lacks TPM manufacturer/model/version": "ek-certificate-subject",
    "empty subject requires a critical SAN": "ek-certificate-subject",
    "unknown critical extension ['1.3.6.1.4.1.99999.1']": "certificate-critical-extension",
}
OWN_FINDINGS = {
    "own/expired": "certificate-expired",
    "own/not-yet-valid": "certificate-not-yet-valid",
    "own/ek-as-issuer": "ek-anchors-missing",  # the only anchor is no CA
}
GOOD = next(vector for vector in load()["ek_certificate"] if vector["id"] == "own/good-ecc")


def verify(vector, **changes):
    arguments = {
        "endorsement_key": parse_endorsement_key(octets(vector, "ek_tpm2b_public")),
        "unverified_chain": tuple(map(bytes.fromhex, [vector["leaf_der"], *vector["intermediates_der"]])),
        "anchors": tuple(map(bytes.fromhex, vector["anchors_der"])),
        "now": datetime.fromisoformat(vector["at"]),
        "trace": Trace(),
    }
    return verify_ek_certificate(**(arguments | changes))


def finding_of(vector=GOOD, **changes):
    trace = changes.setdefault("trace", Trace())
    with pytest.raises(AttestationError) as caught:
        verify(vector, **changes)
    assert not trace.snapshot()[-1].passed
    return caught.value.finding


# --- vectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", section("ek_certificate"))
def test_a_certificate_is_taken_or_refused_as_the_vector_says(vector):
    if vector["expect"] == "ok":
        trace = Trace()
        certificate = verify(vector, trace=trace)
        assert certificate.manufacturer.startswith("id:")
        assert certificate.model
        assert certificate.version
        assert all(check.passed for check in trace.snapshot())
        return
    assert finding_of(vector) == OWN_FINDINGS.get(vector["id"], FINDINGS[vector["reason"]])


def test_the_swtpms_certificate_says_who_made_it():
    vector = next(v for v in load()["ek_certificate"] if v["id"] == "swtpm/ek-rsa2048.crt/root")
    certificate = verify(vector)
    assert (certificate.manufacturer, certificate.model, certificate.version) == ("id:00001014", "swtpm", "id:20191023")
    assert certificate.serial_number > 0
    assert certificate.not_after.year == 9999
    assert certificate.certificate_sha256 == hashlib.sha256(octets(vector, "leaf_der")).digest()
    assert certificate.anchor_sha256 == hashlib.sha256(bytes.fromhex(vector["anchors_der"][0])).digest()


# --- around the certificate ------------------------------------------------------------------------------------------


def test_no_certificate_is_refused():
    assert finding_of(unverified_chain=()) == "ek-certificate-missing"


def test_more_certificates_than_a_path_are_refused():
    assert finding_of(unverified_chain=(octets(GOOD, "leaf_der"),) * 6) == "ek-chain-too-long"


def test_a_certificate_larger_than_any_tpms_is_refused():
    assert finding_of(unverified_chain=(octets(GOOD, "leaf_der") + bytes(8192),)) == "certificate-encoding"


def test_without_anchors_nothing_is_trusted():
    assert finding_of(anchors=()) == "ek-anchors-missing"


def test_an_anchor_that_cannot_be_read_is_passed_over_and_noted():
    trace = Trace()
    verify(GOOD, anchors=(b"junk", bytes.fromhex(GOOD["anchors_der"][0])), trace=trace)
    assert [check.name for check in trace.snapshot() if not check.passed] == ["ek-anchor"]
    assert finding_of(anchors=(b"junk",)) == "ek-anchors-missing"


def test_an_endorsement_key_certificate_is_no_anchor():
    assert finding_of(anchors=(octets(GOOD, "leaf_der"),)) == "ek-anchors-missing"


def test_the_stored_headers_size_must_be_the_certificates():
    leaf = octets(GOOD, "leaf_der")
    verify(GOOD, unverified_chain=(b"\x10\x01\x00" + len(leaf).to_bytes(2, "big") + leaf + b"\xff" * 9,))
    wrong = b"\x10\x01\x00" + (len(leaf) - 1).to_bytes(2, "big") + leaf
    assert finding_of(unverified_chain=(wrong,)) == "certificate-encoding"


@pytest.mark.parametrize("serial", ["80", "ff7f", "0001", "00", "00" + "ff" * 20])
def test_a_negative_a_padded_or_a_long_serial_number_does_not_make_a_tpm_another(serial):
    authority, key = EkAuthority(), software_endorsement_key()
    leaf = with_serial_number(authority.issue(key), bytes.fromhex(serial), authority.key)
    certified = {"endorsement_key": key, "unverified_chain": (leaf,), "anchors": (authority.der,), "now": NOW}
    certificate = verify(GOOD, **certified)
    line = f"{hashlib.sha256(certificate.issuer).hexdigest()} {certificate.serial_number:x}"
    assert finding_of(**certified, deny=parse_deny_list(line)) == "ek-denied"


@pytest.mark.parametrize("serial", ["", "11" * 22])
def test_a_serial_number_of_no_octet_or_far_too_many_is_refused(serial):
    authority, key = EkAuthority(), software_endorsement_key()
    leaf = with_serial_number(authority.issue(key), bytes.fromhex(serial), authority.key)
    found = finding_of(endorsement_key=key, unverified_chain=(leaf,), anchors=(authority.der,), now=NOW)
    assert found == "certificate-encoding"


@pytest.mark.parametrize(("moved", "finding"), [(-1, "certificate-not-yet-valid"), (1, "certificate-expired")])
def test_the_validity_period_includes_its_ends(moved, finding):
    leaf = read_stored_certificate(octets(GOOD, "leaf_der"))
    end = leaf.not_before if moved < 0 else leaf.not_after
    assert finding_of(now=end + timedelta(seconds=moved)) == finding
    with contextlib.suppress(AttestationError):  # the anchor's own period does not matter, the leaf's end does
        assert verify(GOOD, now=end)


# --- what the operator denies ----------------------------------------------------------------------------------------


def test_a_denied_endorsement_key_is_refused():
    deny = EkDenyList(endorsement_key_hashes=frozenset({endorsement_key_hash(octets(GOOD, "ek_tpm2b_public"))}))
    assert finding_of(deny=deny) == "ek-denied"


def test_denied_firmware_is_refused():
    certificate = verify(GOOD)
    deny = EkDenyList(firmware=frozenset({(certificate.manufacturer.lower(), certificate.version.lower())}))
    assert finding_of(deny=deny) == "ek-denied"


def test_a_denied_certificate_is_refused_wherever_it_is_in_the_path():
    certificate = verify(GOOD)
    issuer = hashlib.sha256(certificate.issuer).digest()
    assert finding_of(deny=EkDenyList(certificates=frozenset({(issuer, certificate.serial_number)}))) == "ek-denied"
    anchor = read_stored_certificate(bytes.fromhex(GOOD["anchors_der"][0]))
    denied = (hashlib.sha256(anchor.issuer).digest(), anchor.serial_number)
    assert finding_of(deny=EkDenyList(certificates=frozenset({denied}))) == "ek-denied"
    for hashed in (certificate.certificate_sha256, hashlib.sha256(anchor.octets).digest()):
        assert finding_of(deny=EkDenyList(certificate_hashes=frozenset({hashed}))) == "ek-denied"


def test_what_is_not_listed_is_not_denied():
    trace = Trace()
    deny = EkDenyList(
        endorsement_key_hashes=frozenset({bytes(32)}),
        certificates=frozenset({(bytes(32), 1)}),
        firmware=frozenset({("id:00000000", "1")}),
    )
    verify(GOOD, deny=deny, trace=trace)
    assert {"ek-deny-list", "ek-certificate-revocation"} <= {check.name for check in trace.snapshot()}


# --- a profile's details, by an authority of our own -----------------------------------------------------------------

authority = EkAuthority()
endorsement_key = software_endorsement_key()


def issued_finding(**changes):
    trace = Trace()
    chain = (authority.issue(endorsement_key, **changes),)
    with pytest.raises(AttestationError) as caught:
        verify_ek_certificate(
            endorsement_key=endorsement_key, unverified_chain=chain, anchors=(authority.der,), now=NOW, trace=trace
        )
    return caught.value.finding


def issue_and_verify(**changes):
    return verify_ek_certificate(
        endorsement_key=endorsement_key,
        unverified_chain=(authority.issue(endorsement_key, **changes),),
        anchors=(authority.der,),
        now=NOW,
        trace=Trace(),
    )


def test_a_certificate_of_the_profile_is_taken():
    certificate = issue_and_verify(manufacturer="id:49465800", model="SLB 9672", version="id:00100D00")
    assert (certificate.manufacturer, certificate.model, certificate.version) == (
        "id:49465800",
        "SLB 9672",
        "id:00100D00",
    )


@pytest.mark.parametrize("manufacturer", ["", "49465800", "id:4946580", "id:4946580G", "id:494658001"])
def test_a_manufacturer_is_a_registered_number(manufacturer):
    assert issued_finding(manufacturer=manufacturer) == "ek-certificate-subject"


def test_text_that_cannot_be_shown_counts_as_absent():
    assert issued_finding(model="a\x1b[2Jb") == "ek-certificate-subject"


def test_a_vulnerable_key_is_refused_however_well_certified():
    weak = with_modulus(public_named("ek-rsa2048-L1"), vulnerable_modulus(2048))
    public = parse_public(weak)
    with pytest.raises(AttestationError) as caught:
        verify_ek_certificate(
            endorsement_key=public,
            unverified_chain=(authority.issue(public),),
            anchors=(authority.der,),
            now=NOW,
            trace=Trace(),
        )
    assert caught.value.finding == "roca"


def test_a_symmetric_key_has_no_certificate():
    symmetric = dataclasses.replace(
        endorsement_key, point=None, template=dataclasses.replace(endorsement_key.template, curve=None)
    )
    with pytest.raises(AttestationError) as caught:
        verify_ek_certificate(
            endorsement_key=symmetric,
            unverified_chain=(authority.issue(endorsement_key),),
            anchors=(authority.der,),
            now=NOW,
            trace=Trace(),
        )
    assert caught.value.finding == "ek-certificate-key"


# --- any octets ------------------------------------------------------------------------------------------------------


@given(junk=st.binary(max_size=200))
def test_any_octets_give_the_one_error(junk):
    with pytest.raises(AttestationError):
        verify(GOOD, unverified_chain=(junk,))


@settings(max_examples=300)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7), part=st.integers(0, 1))
def test_any_flipped_bit_is_refused(position, bit, part):
    vector = next(v for v in load()["ek_certificate"] if v["id"] == "own/via-intermediate")
    chain = [bytearray.fromhex(vector["leaf_der"]), bytearray.fromhex(vector["intermediates_der"][0])]
    chain[part][position % len(chain[part])] ^= 1 << bit
    with pytest.raises(AttestationError):
        verify(vector, unverified_chain=tuple(map(bytes, chain)))
