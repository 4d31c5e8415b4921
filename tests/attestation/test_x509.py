"""X.509 attestation: pinned certificates and groups of devices."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives import hashes

from provisiond.attestation import x509
from provisiond.errors import AttestationError
from provisiond.model import RegistrationId, SymmetricKeyMaterial, Trace, X509Material
from tests.attestation.der import as_version_1, padding_twin, with_subject
from tests.certificates import (
    CLIENT_AUTH,
    DAY,
    NOW,
    SERVER_AUTH,
    make_ca,
    make_crl,
    make_key,
    make_key_usage,
    make_leaf,
    make_name,
)
from tests.enrollment_factory import certificates, group, individual

ANY = library.ObjectIdentifier("2.5.29.37.0")
ROOT = make_ca("Acme Root")
LINE = make_ca("Line 4", ROOT)
CELL = make_ca("Cell 7", LINE)


def verify_group(chain, *groups, claimed_id="sensor", now=NOW, trace=None, **options):
    return x509.verify_group(
        groups=groups,
        claimed_id=RegistrationId.parse(claimed_id),
        unverified_chain=tuple(chain),
        now=now,
        trace=trace or Trace(),
        **options,
    )


def verify_individual(chain, enrollment, *, claimed_id="sensor", now=NOW, trace=None, **options):
    return x509.verify_individual(
        enrollment=enrollment,
        claimed_id=RegistrationId.parse(claimed_id),
        unverified_chain=tuple(chain),
        now=now,
        trace=trace or Trace(),
        **options,
    )


def refusal(verify, *args, **options):
    """The finding of a refusal; its reason must also be the last line of the trace."""
    trace = Trace()
    with pytest.raises(AttestationError) as caught:
        verify(*args, trace=trace, **options)
    failed = [check for check in trace.snapshot() if not check.passed]
    assert failed and failed[-1].finding == str(caught.value)
    return caught.value.finding


def root_group(**options):
    return group("root-group", certificates(ROOT), **options)


def line_group(**options):
    return group("line-group", certificates(LINE), **options)


class TestIndividual:
    def test_a_pinned_self_signed_certificate_proves_its_device(self, trace):
        leaf = make_leaf("sensor")
        verified = verify_individual(leaf.chain, individual("sensor", certificates(leaf)), trace=trace)
        assert (verified.credential, verified.certificate_der) == ("primary certificate", leaf.der)
        assert all(check.passed for check in trace.snapshot())

    def test_the_secondary_certificate_proves_it_too(self):
        old, new = make_leaf("sensor"), make_leaf("sensor")
        verified = verify_individual(new.chain, individual("sensor", certificates(old, new)))
        assert verified.credential == "secondary certificate"

    def test_a_pinned_certificate_that_a_ca_issued_needs_no_chain(self):
        leaf = make_leaf("sensor", LINE)
        for chain in ([leaf.der], leaf.chain, leaf.full_chain):
            assert verify_individual(chain, individual("sensor", certificates(leaf))).certificate_der == leaf.der

    def test_another_certificate_of_the_same_key_and_name_is_refused(self):
        key = make_key()
        pinned, other = make_leaf("sensor", key=key), make_leaf("sensor", key=key)
        assert refusal(verify_individual, other.chain, individual("sensor", certificates(pinned))) == (
            "certificate-pinned"
        )

    def test_the_common_name_is_compared_without_case(self):
        leaf = make_leaf("Sensor")
        verified = verify_individual(leaf.chain, individual("sensor", certificates(leaf)), claimed_id="SENSOR")
        assert verified.registration_id.text == "SENSOR"

    def test_a_disabled_enrollment_is_verified_and_returned_for_the_caller_to_turn_down(self):
        leaf = make_leaf("sensor")
        verified = verify_individual(leaf.chain, individual("sensor", certificates(leaf), enabled=False))
        assert not verified.enrollment.enabled

    def test_a_device_without_a_certificate_is_refused(self):
        assert refusal(verify_individual, (), individual("sensor", certificates(make_leaf("sensor")))) == (
            "certificate-missing"
        )

    def test_an_enrollment_of_another_mechanism_refuses_a_certificate(self):
        assert refusal(verify_individual, make_leaf("sensor").chain, individual("sensor")) == "attestation-type"

    def test_a_serial_on_a_crl_of_the_issuers_name_is_refused(self):
        leaf = make_leaf("sensor", LINE)
        enrollment = individual("sensor", certificates(leaf))
        assert refusal(verify_individual, [leaf.der], enrollment, crls=[make_crl(LINE, [leaf])]) == (
            "certificate-revoked"
        )
        assert verify_individual([leaf.der], enrollment, crls=[make_crl(LINE)])


BAD_LEAVES = {
    "expired": ({"not_before": NOW - 10 * DAY, "not_after": NOW - DAY}, "certificate-expired"),
    "not yet valid": ({"not_before": NOW + DAY}, "certificate-not-yet-valid"),
    "for servers only": ({"usages": (SERVER_AUTH,)}, "certificate-extended-key-usage"),
    "for any use": ({"usages": (ANY,)}, "certificate-extended-key-usage"),
    "RSA of 1024 bits": ({"key": make_key("rsa1024")}, "certificate-key"),
    "secp256k1": ({"key": make_key("secp256k1")}, "certificate-key"),
    "Ed448": ({"key": make_key("ed448")}, "certificate-key"),
    "DSA": ({"key": make_key("dsa2048")}, "certificate-key"),
    "a CA": (
        {"extensions": [(library.BasicConstraints(ca=True, path_length=None), True)]},
        "certificate-is-ca",
    ),
    "keyCertSign": (
        {"extensions": [(make_key_usage("digital_signature", "key_cert_sign"), True)]},
        "certificate-key-usage",
    ),
    "cRLSign": ({"extensions": [(make_key_usage("digital_signature", "crl_sign"), True)]}, "certificate-key-usage"),
    "no digitalSignature": ({"extensions": [(make_key_usage("key_encipherment"), True)]}, "certificate-key-usage"),
    "an unknown critical extension": (
        {
            "extensions": [
                (library.UnrecognizedExtension(library.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0"), True)
            ]
        },
        "certificate-extension",
    ),
    "two common names": ({"subject": make_name("sensor", "other")}, "common-name-count"),
    "the same common name twice": ({"subject": make_name("sensor", "sensor")}, "common-name-count"),
    "no common name": ({"subject": make_name(organization="sensor")}, "common-name-count"),
    "another common name": ({"subject": make_name("sensor2")}, "common-name-mismatch"),
    "a look-alike letter": ({"subject": make_name("sen\u017for")}, "common-name-malformed"),
    **{
        f"a common name with {character!r}": (
            {"subject": make_name(f"sensor{character}a")},
            "common-name-malformed",
        )
        for character in "+#/\0 \n*é"
    },
    "a common name of 129 characters": ({"subject": make_name("s" * 129)}, "common-name-malformed"),
}

GOOD_LEAVES = {
    "as devices have it": {},
    "without any extension but basicConstraints": {"usages": (), "without": [library.KeyUsage]},
    "with subject alternative names": {"dns_names": ["sensor.example"]},
    "with a critical extended key usage": {"extensions": [(library.ExtendedKeyUsage([CLIENT_AUTH]), True)]},
    "for clients and servers": {"usages": (SERVER_AUTH, CLIENT_AUTH)},
    "until the end of time": {"not_after": NOW.replace(year=9999, month=12, day=31, hour=23, minute=59, second=59)},
    "with more than a common name": {"subject": make_name("sensor", organization="Acme")},
    "RSA of 2048 bits": {"key": make_key("rsa2048")},
    "P-384": {"key": make_key("p384")},
    "P-521": {"key": make_key("p521")},
    "Ed25519": {"key": make_key("ed25519")},
}


class TestDeviceCertificate:
    def test_a_self_signed_certificate_may_call_itself_a_ca_when_it_is_pinned(self):
        # What plain `openssl req -x509` makes: CA:TRUE, and no keyUsage.
        claims = [(library.BasicConstraints(ca=True, path_length=None), True)]
        leaf = make_leaf("sensor", extensions=claims, without=(library.KeyUsage, library.ExtendedKeyUsage))
        assert verify_individual(leaf.chain, individual("sensor", certificates(leaf)))

    def test_a_certificate_that_may_sign_others_is_a_ca_even_when_it_is_pinned(self):
        ca = make_ca("sensor")
        assert refusal(verify_individual, [ca.der], individual("sensor", certificates(ca))) == "certificate-key-usage"

    def test_a_certificate_that_a_ca_issued_as_a_ca_is_not_a_devices_even_when_it_is_pinned(self):
        claims = [(library.BasicConstraints(ca=True, path_length=None), True)]
        leaf = make_leaf("sensor", LINE, extensions=claims)
        assert refusal(verify_individual, leaf.chain, individual("sensor", certificates(leaf))) == "certificate-is-ca"

    @pytest.mark.parametrize("name", [name for name in BAD_LEAVES if name != "a CA"])
    def test_a_bad_certificate_is_refused_when_pinned(self, name):
        options, finding = BAD_LEAVES[name]
        leaf = make_leaf("sensor", **options)
        assert refusal(verify_individual, leaf.chain, individual("sensor", certificates(leaf))) == finding

    @pytest.mark.parametrize("name", BAD_LEAVES)
    def test_a_bad_certificate_is_refused_in_a_group(self, name):
        options, finding = BAD_LEAVES[name]
        assert refusal(verify_group, make_leaf("sensor", LINE, **options).chain, root_group()) == finding

    @pytest.mark.parametrize("name", GOOD_LEAVES)
    def test_a_good_certificate_is_taken_pinned_and_in_a_group(self, name):
        pinned, issued = make_leaf("sensor", **GOOD_LEAVES[name]), make_leaf("sensor", LINE, **GOOD_LEAVES[name])
        assert verify_individual(pinned.chain, individual("sensor", certificates(pinned)))
        assert verify_group(issued.chain, root_group())

    def test_the_validity_period_includes_both_of_its_ends(self):
        leaf = make_leaf("sensor", ROOT, not_before=NOW, not_after=NOW + DAY)
        assert verify_group(leaf.chain, root_group(), now=NOW)
        assert verify_group(leaf.chain, root_group(), now=NOW + DAY)
        assert verify_group(leaf.chain, root_group(), now=NOW + DAY + timedelta(milliseconds=999))

    def test_a_version_1_certificate_is_refused(self):
        leaf, key = make_leaf("sensor"), make_key()
        version_1 = as_version_1(leaf.der, leaf.key)
        enrollment = individual("sensor", X509Material(primary_der=version_1))
        assert refusal(verify_individual, [version_1], enrollment) == "certificate-version"
        issued = as_version_1(make_leaf("sensor", ROOT, key=key).der, ROOT.key)
        assert refusal(verify_group, [issued], root_group()) == "certificate-version"

    @pytest.mark.parametrize("tag", [0x05, 0x1C, 0x1E])
    def test_a_common_name_in_a_string_type_that_spells_no_id_is_refused(self, tag):
        name = bytes.fromhex("3011310f300d0603550403") + bytes([tag, 6]) + b"sensor"
        odd = with_subject(make_leaf("sensor", ROOT).der, name, ROOT.key)
        assert refusal(verify_group, [odd], root_group()) in ("certificate-malformed", "common-name-malformed")

    def test_a_common_name_of_up_to_128_characters_is_taken_without_a_warning(self):
        name = "s" * 128
        assert verify_group(make_leaf(name, ROOT).chain, root_group(), claimed_id=name)

    def test_octets_that_are_no_certificate_are_refused(self):
        for junk in (b"", b"\x30", b"\x30\x03\x02\x01\x01", make_leaf("sensor").der + b"\0"):
            assert refusal(verify_group, [junk], root_group()) == "certificate-malformed"


class TestGroupPath:
    @pytest.mark.parametrize("intermediates", range(4))
    def test_none_to_three_intermediates_in_any_order_lead_to_the_root(self, intermediates):
        authority = ROOT
        for level in range(intermediates):
            authority = make_ca(f"Level {level}", authority)
        leaf = make_leaf("sensor", authority)
        for rest in (leaf.chain[1:], leaf.chain[:0:-1], leaf.full_chain[:0:-1]):
            verified = verify_group([leaf.der, *rest], root_group())
            assert (verified.enrollment.id, verified.credential) == ("root-group", "primary certificate")

    def test_unrelated_certificates_and_repeated_ones_do_not_matter(self):
        stranger = make_ca("Stranger")
        leaf = make_leaf("sensor", LINE)
        assert verify_group([leaf.der, stranger.der, LINE.der, LINE.der, make_leaf("x").der], root_group())

    def test_a_presented_certificate_that_cannot_be_read_is_left_out_and_traced(self, trace):
        leaf = make_leaf("sensor", ROOT)
        assert verify_group([leaf.der, b"\x30\x00"], root_group(), trace=trace)
        assert [check.name for check in trace.snapshot() if not check.passed] == ["presented-certificate"]

    def test_an_intermediate_is_an_anchor_of_its_own(self):
        leaf = make_leaf("sensor", CELL)
        assert verify_group(leaf.chain, line_group()).enrollment.id == "line-group"

    def test_the_secondary_ca_certificate_vouches_too(self):
        other = make_ca("Other Root")
        both = group("both", certificates(other, ROOT))
        assert verify_group(make_leaf("sensor", ROOT).chain, both).credential == "secondary certificate"

    def test_the_same_ca_certificate_may_be_primary_and_secondary(self):
        both = group("both", certificates(ROOT, ROOT))
        assert verify_group(make_leaf("sensor", LINE).chain, both).credential == "primary certificate"

    def test_a_chain_of_another_ca_is_refused(self):
        leaf = make_leaf("sensor", make_ca("Stranger"))
        assert refusal(verify_group, leaf.full_chain, root_group()) == "path-invalid"
        assert refusal(verify_group, leaf.chain, root_group()) == "issuer-missing"

    def test_a_ca_of_the_same_name_and_another_key_is_refused(self):
        lookalike = make_ca("Acme Root")
        assert refusal(verify_group, make_leaf("sensor", lookalike).chain, root_group()) == "issuer-lookalike"
        below = make_leaf("sensor", make_ca("Line", lookalike))
        assert refusal(verify_group, below.full_chain, root_group()) == "issuer-lookalike"

    def test_an_intermediate_that_was_not_presented_is_named(self):
        trace = Trace()
        assert refusal(verify_group, [make_leaf("sensor", CELL).der], root_group()) == "issuer-missing"
        with pytest.raises(AttestationError, match="CN=Cell 7"):
            verify_group([make_leaf("sensor", CELL).der], root_group(), trace=trace)

    def test_a_self_signed_certificate_proves_nothing_to_a_group(self):
        assert refusal(verify_group, make_leaf("sensor").chain, root_group()) == "issuer-missing"
        leaf = make_leaf("sensor")
        enrolled = group("odd", certificates(leaf))
        assert refusal(verify_group, leaf.chain, enrolled) == "issuer-unusable"

    def test_a_ca_cannot_pose_as_its_own_device(self):
        ca = make_ca("sensor")
        assert refusal(verify_group, [ca.der], group("g", certificates(ca))) == "certificate-is-ca"

    def test_a_device_certificate_cannot_issue_another(self):
        device = make_leaf("gateway", ROOT)
        forged = make_leaf("sensor", device)
        assert refusal(verify_group, [forged.der, device.der], root_group()) == "issuer-unusable"

    def test_the_path_length_of_a_ca_is_kept(self):
        short = make_ca("Short", path_length=0)
        leaf = make_leaf("sensor", make_ca("Below", short))
        assert refusal(verify_group, leaf.chain, group("g", certificates(short))) == "path-invalid"

    @pytest.mark.parametrize(
        ("options", "finding"),
        [
            ({"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}, "issuer-unusable"),
            ({"not_before": NOW + DAY}, "issuer-unusable"),
            ({"without": [library.BasicConstraints]}, "issuer-unusable"),
            ({"extensions": [(library.BasicConstraints(ca=False, path_length=None), True)]}, "issuer-unusable"),
            ({"extensions": [(make_key_usage("crl_sign"), True)]}, "issuer-unusable"),
            ({"extensions": [(library.ExtendedKeyUsage([SERVER_AUTH]), False)]}, "issuer-unusable"),
            ({"key": make_key("ed25519")}, "issuer-unusable"),
            ({"key": make_key("rsa1024")}, "issuer-unusable"),
        ],
        ids=["expired", "future", "no BC", "not a CA", "no keyCertSign", "serverAuth only", "Ed25519", "RSA-1024"],
    )
    def test_a_bad_ca_is_refused_as_anchor_and_as_intermediate(self, options, finding):
        anchor = make_ca("Bad", **options)
        assert refusal(verify_group, make_leaf("sensor", anchor).chain, group("g", certificates(anchor))) == finding
        between = make_ca("Bad", ROOT, **options)
        assert refusal(verify_group, make_leaf("sensor", between).chain, root_group()) in (finding, "issuer-missing")

    @pytest.mark.parametrize(
        "options",
        [
            {"without": [library.KeyUsage]},
            {"without": [library.SubjectKeyIdentifier]},
            {"extensions": [(library.BasicConstraints(ca=True, path_length=None), False)]},
            {"extensions": [(library.ExtendedKeyUsage([CLIENT_AUTH]), True)]},
            {"extensions": [(library.ExtendedKeyUsage([ANY]), False)]},
            {"key": make_key("rsa2048", "ca")},
            {"key": make_key("p384")},
            {"key": make_key("p521"), "hash_algorithm": hashes.SHA512()},
        ],
        ids=["no KU", "no SKI", "BC not critical", "critical EKU", "any EKU", "RSA", "P-384", "P-521"],
    )
    def test_an_old_fashioned_root_still_vouches(self, options):
        root = make_ca("Old", **options)
        assert verify_group(make_leaf("sensor", root).chain, group("g", certificates(root)))

    @pytest.mark.parametrize("critical", [True, False])
    def test_directory_name_constraints_are_refused_whether_critical_or_not(self, critical):
        constraints = library.NameConstraints([library.DirectoryName(make_name("elsewhere"))], None)
        ca = make_ca("Constrained", extensions=[(constraints, critical)])
        finding = refusal(verify_group, make_leaf("sensor", ca).chain, group("g", certificates(ca)))
        assert finding in ("name-constraints-unsupported", "issuer-unusable")

    def test_an_ed25519_ca_is_named_as_not_supported(self):
        ca = make_ca("Edwards", key=make_key("ed25519"))
        with pytest.raises(AttestationError, match="Ed25519"):
            verify_group(make_leaf("sensor", ca).chain, group("g", certificates(ca)))

    def test_no_group_at_all_is_refused(self):
        assert refusal(verify_group, make_leaf("sensor", ROOT).chain) == "ca-not-enrolled"
        keys = group("keys", SymmetricKeyMaterial(primary_key=bytes(32), secondary_key=bytes(32)))
        assert refusal(verify_group, make_leaf("sensor", ROOT).chain, keys) == "ca-not-enrolled"

    def test_a_group_whose_certificate_cannot_be_read_does_not_stop_the_others(self):
        broken = group("broken", X509Material(primary_der=b"\x30\x00"))
        assert verify_group(make_leaf("sensor", ROOT).chain, broken, root_group()).enrollment.id == "root-group"


class TestNearestGroup:
    @pytest.mark.parametrize("reverse", [False, True])
    def test_the_group_nearest_to_the_device_decides(self, reverse):
        leaf = make_leaf("sensor", CELL)
        groups = [root_group(), line_group()]
        assert verify_group(leaf.full_chain, *sorted(groups, key=lambda g: g.id, reverse=reverse)).enrollment.id == (
            "line-group"
        )

    def test_a_nearer_group_is_found_behind_a_cross_certificate_that_the_library_prefers(self):
        key, root_key = make_key(), make_key()
        root = make_ca("R", key=root_key)
        enrolled = make_ca("L", root, key=key, extensions=[(library.SubjectKeyIdentifier(b"other"), False)])
        presented = make_ca("L", root, key=key)
        leaf = make_leaf("sensor", presented)
        groups = [group("far", certificates(root)), group("near", certificates(enrolled))]
        assert verify_group(leaf.chain, *groups).enrollment.id == "near"

    def test_a_disabled_nearer_group_blocks_an_enabled_root(self):
        verified = verify_group(make_leaf("sensor", LINE).chain, root_group(), line_group(enabled=False))
        assert (verified.enrollment.id, verified.enrollment.enabled) == ("line-group", False)

    def test_a_disabled_root_does_not_block_an_enabled_nearer_group(self):
        verified = verify_group(make_leaf("sensor", LINE).full_chain, root_group(enabled=False), line_group())
        assert verified.enrollment.id == "line-group"

    def test_a_disabled_group_blocks_also_when_its_ca_certificate_was_issued_anew(self):
        key = make_key()
        old = make_ca("Line 5", ROOT, key=key, not_before=NOW - 10 * DAY, not_after=NOW - DAY)
        new = make_ca("Line 5", ROOT, key=key)
        blocked = group("line-5", certificates(old), enabled=False)
        verified = verify_group(make_leaf("sensor", new).chain, root_group(), blocked)
        assert verified.enrollment.id == "line-5"

    def test_a_disabled_group_blocks_behind_an_intermediate(self):
        key = make_key()
        old, new = make_ca("Line 5", ROOT, key=key), make_ca("Line 5", ROOT, key=key)
        leaf = make_leaf("sensor", make_ca("Cell", new))
        verified = verify_group(leaf.chain, root_group(), group("line-5", certificates(old), enabled=False))
        assert not verified.enrollment.enabled

    def test_a_disabled_group_of_the_same_name_and_another_key_does_not_block(self):
        lookalike = group("lookalike", certificates(make_ca("Line 4")), enabled=False)
        assert verify_group(make_leaf("sensor", LINE).chain, root_group(), lookalike).enrollment.id == "root-group"

    def test_a_disabled_group_with_the_same_ca_certificate_blocks(self):
        twin = group("a-twin", certificates(ROOT))
        off = group("z-twin", certificates(ROOT), enabled=False)
        assert verify_group(make_leaf("sensor", ROOT).chain, twin, off).enrollment.id == "z-twin"

    def test_a_disabled_group_at_the_same_distance_over_a_cross_certificate_blocks(self):
        key = make_key()
        on, off = make_ca("On"), make_ca("Off")
        below_on, below_off = make_ca("Shared", on, key=key), make_ca("Shared", off, key=key)
        leaf = make_leaf("sensor", below_on)
        groups = [group("on", certificates(on)), group("off", certificates(off), enabled=False)]
        for rest in ([below_on.der, below_off.der], [below_off.der, below_on.der]):
            assert verify_group([leaf.der, *rest], *groups).enrollment.id == "off"

    def test_a_certificate_of_one_group_is_not_taken_for_another(self):
        other = group("other", certificates(make_ca("Other Root")))
        assert refusal(verify_group, make_leaf("sensor", LINE).chain, other) == "issuer-missing"


class TestLimits:
    def test_more_certificates_than_the_limit_are_refused(self):
        leaf = make_leaf("sensor", ROOT)
        assert refusal(verify_group, [leaf.der] * 7, root_group()) == "chain-limits"
        assert verify_group([leaf.der] * 6, root_group())

    def test_a_large_chain_is_refused(self):
        assert refusal(verify_group, [make_leaf("sensor", ROOT).der, b"\x30" * 17_000], root_group()) == "chain-limits"

    def test_a_path_longer_than_the_limit_is_refused(self):
        leaf = make_leaf("sensor", CELL)
        assert verify_group(leaf.chain, root_group(), limits=x509.X509Limits(max_chain=3))
        assert refusal(verify_group, leaf.chain, root_group(), limits=x509.X509Limits(max_chain=2)) == "path-invalid"

    def test_authorities_that_certify_each_other_in_circles_end_in_a_refusal(self):
        key = make_key()
        seed = make_ca("Circle", key=key)
        circle = [make_ca("Circle", seed, key=key).der for _ in range(5)]
        leaf = make_leaf("sensor", seed)
        assert refusal(verify_group, [leaf.der, *circle], root_group()) == "issuer-missing"


class TestIdentity:
    def test_groups_are_found_under_the_subject_of_their_certificate(self):
        leaf = make_leaf("sensor", CELL)
        assert x509.subject_hash(LINE.der) in x509.issuer_hashes(leaf.chain)
        assert x509.subject_hash(ROOT.der) in x509.issuer_hashes(leaf.chain)
        assert x509.subject_hash(make_ca("Stranger").der) not in x509.issuer_hashes(leaf.chain)

    def test_hashes_skip_what_cannot_be_read_and_stop_at_the_limit(self):
        leaf = make_leaf("sensor", ROOT)
        assert x509.issuer_hashes((b"", leaf.der)) == x509.issuer_hashes((leaf.der,))
        assert x509.issuer_hashes((leaf.der,) * 6 + (make_leaf("x").der,)) == x509.issuer_hashes((leaf.der,))
        assert x509.issuer_hashes(()) == frozenset()

    def test_a_padding_twin_has_the_identity_of_its_original_and_stays_revoked(self):
        leaf = next(leaf for leaf in (make_leaf("sensor", ROOT) for _ in range(64)) if leaf.der[-1] & 1 == 0)
        twin = padding_twin(leaf.der)
        assert twin != leaf.der
        identity = x509.certificate_identity(leaf.der)
        assert x509.certificate_identity(twin) == identity
        assert refusal(verify_group, [twin], root_group(), revoked=frozenset([identity])) == "certificate-revoked"
        assert refusal(verify_group, [twin], root_group(), crls=[make_crl(ROOT, [leaf])]) == "certificate-revoked"

    def test_a_padding_twin_of_a_disabled_groups_certificate_is_still_that_group(self):
        line = next(ca for ca in (make_ca("Line 6", ROOT) for _ in range(64)) if ca.der[-1] & 1 == 0)
        leaf = make_leaf("sensor", line)
        blocked = group("line-6", certificates(line), enabled=False)
        verified = verify_group([leaf.der, padding_twin(line.der)], root_group(), blocked)
        assert not verified.enrollment.enabled

    def test_identities_differ_by_issuer_and_by_serial(self):
        leaves = [make_leaf("a", ROOT, serial=1), make_leaf("a", ROOT, serial=256), make_leaf("a", LINE, serial=1)]
        assert len({x509.certificate_identity(leaf.der) for leaf in leaves}) == 3


def test_the_trace_tells_an_operator_everything_that_was_looked_at(trace):
    verify_group(make_leaf("sensor", CELL).chain, root_group(), trace=trace)
    assert [check.name for check in trace.snapshot()] == [
        "chain-limits",
        "certificate-readable",
        "certificate-common-name",
        "certificate-validity",
        "certificate-key",
        "certificate-extensions",
        "certification-path",
        "revocation",
        "revocation",
        "revocation",
        "enrollment-group",
    ]
    assert "CN=sensor < CN=Cell 7 < CN=Line 4 < CN=Acme Root" in [check.finding for check in trace.snapshot()]


def test_limits_are_values():
    assert replace(x509.DEFAULT_LIMITS, max_chain=3) != x509.DEFAULT_LIMITS
