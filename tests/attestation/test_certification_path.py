"""Path building, and what keeps it cheap."""

import pytest
from cryptography import x509

from provisiond.attestation.certificate import parse_certificate
from provisiond.attestation.certification_path import build_path, build_shortest_path, explain_failure, keep_bounded
from provisiond.errors import AttestationError
from tests.certificates import DAY, NOW, make_ca, make_key, make_leaf

ROOT = make_ca("Root")
LINE = make_ca("Line", ROOT)
CELL = make_ca("Cell", LINE)
LEAF = make_leaf("sensor", CELL)
CONSTRAINTS = [(x509.NameConstraints(None, [x509.DNSName("x.example")]), True)]


def parsed(*items):
    return tuple(item.certificate for item in items)


def test_a_path_goes_from_the_device_to_the_anchor():
    path = build_path(LEAF.certificate, parsed(ROOT, LINE, CELL), [ROOT.der], NOW, max_authorities=3)
    assert path == parsed(LEAF, CELL, LINE, ROOT)


def test_a_path_has_no_more_authorities_than_it_may():
    with pytest.raises(AttestationError, match="max depth"):
        build_path(LEAF.certificate, parsed(LINE, CELL), [ROOT.der], NOW, max_authorities=2)


@pytest.mark.parametrize("anchors", [[ROOT, LINE, CELL], [CELL, ROOT], [LINE, ROOT]])
def test_the_shortest_path_ends_at_the_nearest_anchor(anchors):
    path = build_shortest_path(LEAF.certificate, parsed(LINE, CELL), [ca.der for ca in anchors], NOW, max_authorities=5)
    assert path[-1] == (CELL if CELL in anchors else LINE).certificate


def test_a_chain_of_different_names_is_kept_as_it_is():
    stranger = make_ca("Stranger")
    assert keep_bounded(parsed(LINE, CELL, stranger), [ROOT.der]) == parsed(LINE, CELL, stranger)


def test_of_authorities_with_the_same_name_only_those_that_an_anchor_certified_are_kept():
    forged_root = make_ca("Root")
    forged = make_ca("Line", forged_root)
    kept = keep_bounded(parsed(forged, CELL, LINE, forged_root, ROOT), [ROOT.der])
    assert set(kept) == set(parsed(LINE, CELL, ROOT))


def test_authorities_that_certify_each_other_in_circles_are_left_out():
    key = make_key()
    seed = make_ca("Circle", key=key)
    circle = [make_ca("Circle", seed, key=key) for _ in range(5)]
    assert keep_bounded(parsed(*circle), [make_ca("Circle").der]) == ()


def test_constraints_count_only_in_a_certificate_that_an_anchor_certified():
    genuine = make_ca("Constrained", ROOT, extensions=CONSTRAINTS)
    forged = make_ca("Constrained", make_ca("Root"), extensions=CONSTRAINTS)
    assert keep_bounded(parsed(forged), [ROOT.der]) == ()
    assert keep_bounded(parsed(genuine), [ROOT.der]) == parsed(genuine)


def test_genuine_constraints_are_applied():
    constrained = make_ca("Constrained", ROOT, extensions=CONSTRAINTS)
    good = make_leaf("sensor", constrained, dns_names=["a.example"])
    bad = make_leaf("sensor", constrained, dns_names=["a.x.example"])
    assert build_path(good.certificate, parsed(constrained), [ROOT.der], NOW, max_authorities=5)
    with pytest.raises(AttestationError):
        build_path(bad.certificate, parsed(constrained), [ROOT.der], NOW, max_authorities=5)


EXPIRED = make_ca("Old", ROOT, not_before=NOW - 9 * DAY, not_after=NOW - DAY)


@pytest.mark.parametrize(
    ("leaf", "presented", "finding", "told"),
    [
        (LEAF, [], "issuer-missing", "CN=Cell"),
        (LEAF, [CELL], "issuer-missing", "CN=Line"),
        (LEAF, [make_ca("Cell", LINE), LINE], "issuer-lookalike", "CN=Cell has the name"),
        (make_leaf("sensor", EXPIRED), [EXPIRED], "issuer-unusable", "CN=Old expired"),
        (LEAF, [CELL, LINE], "path-invalid", "as the library said"),
    ],
    ids=["missing", "missing above", "lookalike", "expired", "nothing found"],
)
def test_a_failure_is_explained_to_the_operator(leaf, presented, finding, told):
    failure = AttestationError("as the library said", finding="path-invalid")
    explained = explain_failure(leaf.certificate, parsed(*presented), [ROOT.der], NOW, failure)
    assert explained.finding == finding
    assert told in str(explained)


def test_a_namesake_of_the_root_is_not_blamed_for_a_path_that_is_too_long():
    top = make_ca("Top", ROOT, path_length=0)
    below = make_ca("Below", top)
    leaf = make_leaf("sensor", below)
    anchors_der = [ROOT.der, *(make_ca("Root").der for _ in range(4))]  # whichever order they are tried in
    with pytest.raises(AttestationError) as refusal:
        build_path(leaf.certificate, parsed(below, top), anchors_der, NOW, max_authorities=5)
    assert explain_failure(leaf.certificate, parsed(below, top), anchors_der, NOW, refusal.value) is refusal.value


def test_a_signature_with_sha_1_is_called_that():
    """The library makes none any more: the algorithm of a SHA-256 one is renamed, which has the same length for RSA."""
    root = make_ca("RSA Root", key=make_key("rsa2048"))
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    leaf = parse_certificate(make_leaf("sensor", root).der.replace(sha256, sha1))
    failure = AttestationError("as the library said", finding="path-invalid")
    explained = explain_failure(leaf, [], [root.der], NOW, failure)
    assert explained.finding == "issuer-unusable"
    assert str(explained) == (
        "the CA certificate CN=RSA Root cannot be used: "
        "the signature on CN=sensor is made with SHA1; SHA-256 or a longer one is needed"
    )
