"""What may be enrolled."""

import pytest

from provisiond.admin.rules import ALLOWED_IDS_MAX, ca_identities, check_enrollment
from provisiond.errors import InvalidArgument
from provisiond.model import AllocationPolicy, InitialTwin, SymmetricKeyMaterial, TpmMaterial
from tests.admin.conftest import HUBS
from tests.attestation import tpm_vectors
from tests.certificates import DAY, NOW, make_ca, make_leaf
from tests.enrollment_factory import certificates, group, individual


def check(enrollment):
    check_enrollment(enrollment, hubs=HUBS, now=NOW)


def refusal(enrollment):
    with pytest.raises(InvalidArgument) as caught:
        check(enrollment)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a", "A-._:9", "x" * 128])
def test_an_id_has_the_syntax_of_a_registration_id(name):
    check(individual(name))
    check(group(name))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "+", "#", "../x", "a.", "x" * 129, "ä", "a\n"])
def test_any_other_id_is_refused(name):
    assert refusal(individual(name)).startswith("registration id ")
    assert refusal(group(name)).startswith("enrollment group id ")


@pytest.mark.parametrize("device_id", ["pump", "pump@site-4", "a=b,(c)!'*:._-", "x" * 128])
def test_a_device_id_may_differ_from_the_registration_id(device_id):
    check(individual("a", device_id=device_id))


@pytest.mark.parametrize("device_id", ["", "a/b", "a+", "#", "$a", "a?b", "a b", "x" * 129, "a%2Fb", "a\x00"])
def test_a_device_id_means_nothing_in_a_topic_or_a_url(device_id):
    assert "device id" in refusal(individual("a", device_id=device_id))


def test_a_group_has_no_device_id():
    assert "each of its devices has its own" in refusal(group("g", device_id="x"))


@pytest.mark.parametrize("size_bytes", [16, 32, 64])
def test_a_key_has_16_to_64_bytes(size_bytes):
    check(individual("a", SymmetricKeyMaterial(primary_key=b"x" * size_bytes, secondary_key=b"y" * size_bytes)))


@pytest.mark.parametrize("size_bytes", [0, 15, 65])
def test_a_shorter_or_longer_key_is_refused(size_bytes):
    assert "secondary key" in refusal(
        individual("a", SymmetricKeyMaterial(primary_key=b"x" * 16, secondary_key=b"y" * size_bytes))
    )


def test_an_individual_pins_a_device_certificate_of_its_name():
    check(individual("sensor-7", certificates(make_leaf("sensor-7"), make_leaf("Sensor-7", make_ca("Root")))))
    assert "primary certificate" in refusal(individual("sensor-7", certificates(make_leaf("sensor-8"))))
    assert "primary certificate" in refusal(individual("Root", certificates(make_ca("Root"))))


def test_a_group_has_a_ca_certificate():
    check(group("g", certificates(make_ca("Root"), make_ca("Root 2"))))
    assert "secondary certificate" in refusal(group("g", certificates(make_ca("Root"), make_leaf("x"))))


def test_an_expired_certificate_is_refused():
    expired = make_leaf("a", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    assert "issue a new one" in refusal(individual("a", certificates(expired)))


@pytest.mark.parametrize("label", ["east", "EAST", "east.example"])
def test_a_hub_is_named_or_its_host_is(label):
    check(individual("a", iot_hubs=(label,)))


def test_a_hub_must_be_in_the_configuration():
    assert refusal(individual("a", iot_hubs=("north",))) == (
        "hub 'north' is not in the configuration; there are: east, west"
    )


def test_static_allocation_needs_exactly_one_hub():
    check(individual("a", allocation_policy=AllocationPolicy.STATIC, iot_hubs=("east",)))
    for hubs in ((), ("east", "west")):
        assert "exactly one hub" in refusal(individual("a", allocation_policy=AllocationPolicy.STATIC, iot_hubs=hubs))


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (None, "needs a webhook"),
        ({"webhookUrl": ""}, "needs a webhook"),
        ({"webhookUrl": "http://allocate.example/"}, "not encrypted"),
        ({"webhookUrl": "https://user:password@allocate.example/"}, "would end up in logs"),
        ({"webhookUrl": "allocate"}, "not a URL"),
    ],
)
def test_custom_allocation_needs_a_webhook_that_may_be_told_about_devices(definition, message):
    custom = individual("a", allocation_policy=AllocationPolicy.CUSTOM, custom_allocation=definition)
    assert message in refusal(custom)


@pytest.mark.parametrize(
    "url", ["https://allocate.example/hub?code=x", "http://127.0.0.1:7071/api", "http://localhost/"]
)
def test_custom_allocation_by_a_webhook_is_enrolled(url):
    definition = {"webhookUrl": url, "apiVersion": "2021-10-01"}
    check(individual("a", allocation_policy=AllocationPolicy.CUSTOM, custom_allocation=definition))


def test_an_initial_twin_has_a_limit():
    texts = ["x" * 4_000] * 7
    check(individual("a", initial_twin=InitialTwin(tags={"a": texts}, desired={"b": [1, None]})))
    assert "tags: 4" in refusal(individual("a", initial_twin=InitialTwin(tags={"a": texts + texts[:3]})))
    assert "not JSON" in refusal(individual("a", initial_twin=InitialTwin(desired={"a": float("nan")})))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"$x": 1}, "'$x' cannot be a name"),
        ({"a.b": 1}, "'a.b' cannot be a name"),
        ({"": 1}, "cannot be a name"),
        ({"a": "x" * 5_000}, "more than 4096 bytes"),
        ({"a": 2**60}, "beyond 2**52"),
    ],
)
def test_an_initial_twin_holds_what_the_twin_may(part, said):
    assert said in refusal(individual("a", initial_twin=InitialTwin(tags=part)))
    assert said in refusal(group("g", initial_twin=InitialTwin(desired=part)))
    check(individual("a", initial_twin=InitialTwin(tags={"$version": 3}, desired={"$metadata": {}, "$version": 1})))


def test_an_endorsement_key_must_follow_its_template():
    activation = tpm_vectors.load()["azure_activation"][0]
    key, storage = (tpm_vectors.octets(activation, name) for name in ("ek_tpm2b_public", "srk_tpm2b_public"))
    check(individual("a", TpmMaterial(endorsement_key=key, storage_root_key=storage)))
    assert "endorsement key" in refusal(individual("a", TpmMaterial(endorsement_key=storage)))
    assert "endorsement key" in refusal(individual("a", TpmMaterial()))
    assert "endorsement key" in refusal(individual("a", TpmMaterial(endorsement_key=b"\x00\x01\x02")))
    assert "allowed ids" in refusal(individual("a", TpmMaterial(endorsement_key=key, allowed_ids=("a",))))


def test_a_tpm_group_has_no_keys_of_its_own_and_may_list_ids():
    check(group("g", TpmMaterial()))
    check(group("g", TpmMaterial(allowed_ids=("pump-1", "pump-2"))))
    assert "makers certify" in refusal(group("g", TpmMaterial(endorsement_key=b"x")))
    assert "allowed ids: registration id 'a b'" in refusal(group("g", TpmMaterial(allowed_ids=("a b",))))
    too_many = tuple(f"pump-{number}" for number in range(ALLOWED_IDS_MAX + 1))
    assert "10001; a group may have 10000" in refusal(group("g", TpmMaterial(allowed_ids=too_many)))


def test_a_pcr_policy_is_judged_when_it_is_written():
    check(group("g", TpmMaterial(pcr_policy={"pcrs": {"sha256": {"7": ["ab" * 32]}}})))
    assert "pcrs.sha256.24" in refusal(group("g", TpmMaterial(pcr_policy={"pcrs": {"sha256": {"24": ["ab" * 32]}}})))


def test_a_ca_is_known_by_its_name_and_its_key_in_whatever_certificate():
    root = make_ca("Root")
    renewed = make_ca("Root", key=root.key)
    namesake = make_ca("Root")
    (identity,) = ca_identities(group("g", certificates(root)))
    assert ca_identities(group("g", certificates(renewed))) == {identity}
    assert identity not in ca_identities(group("g", certificates(namesake)))
    assert ca_identities(individual("a", certificates(make_leaf("a")))) == frozenset()
