"""Why a device was refused, or what would become of it: shown, and nothing written."""

import asyncio
import base64
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest

from provisiond.attestation.sas_token import generate_sas_token
from provisiond.attestation.symmetric_key import derive_device_key
from provisiond.attestation.tpm import derive_registration_id
from provisiond.model import AuditRecord, Check, EnrollmentKind
from provisiond.ports import Write
from provisiond.store import SqliteStore
from tests import certificates
from tests.attestation import tpm_vectors
from tests.attestation.ek_certificate_factory import EkAuthority, software_endorsement_key
from tests.certificates import DAY, make_ca, make_leaf
from tests.fakes_decision import NOW
from tests.store.records import make_registration

KEY = base64.b64encode(b"k" * 32).decode()
ACTIVATION = tpm_vectors.load()["azure_activation"][0]
ENDORSEMENT_KEY = tpm_vectors.octets(ACTIVATION, "ek_tpm2b_public")


def token(registration_id, key=b"k" * 32, *, scope="0ne0TEST001", lifetime_s=600):
    expiry = NOW + timedelta(seconds=lifetime_s)
    return generate_sas_token(
        resource=f"{scope}/registrations/{registration_id}", key=key, expiry=expiry, key_name="registration"
    )


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "device.key"
    path.write_text(KEY)
    return path


@pytest.fixture
def enrolled(gateway, key_file):
    """A gateway with one symmetric-key device, and a certificate device of a group."""
    gateway("enrollment", "create", "pump-1", "--primary-key-file", key_file)
    return gateway


def failed(body):
    return [check["check"] for check in body["trace"] if not check["passed"]]


def test_a_device_with_a_good_token_would_be_assigned(enrolled, tmp_path):
    (tmp_path / "token").write_text(token("pump-1") + "\n")
    body = enrolled("explain", "--registration-id", "pump-1", "--sas", f"@{tmp_path / 'token'}").json
    assert body["wouldBeAssigned"] and body["outcome"] == "assigned"
    assert (body["hub"], body["deviceId"], body["enrollmentId"]) == ("local", "pump-1", "pump-1")
    assert body["enrollments"] == [
        {
            "kind": "individual",
            "id": "pump-1",
            "attestationType": "symmetricKey",
            "provisioningStatus": "enabled",
            "origin": "operator",
        }
    ]
    assert body["hubs"][0]["score"] > 0
    assert not failed(body)
    assert {check["check"] for check in body["trace"]} >= {"enrollment", "sas-signature", "authorisation", "allocation"}


@pytest.mark.parametrize("form", ["a file", "stdin", "literal"])
def test_a_token_is_given_in_a_file_on_stdin_or_as_it_is(enrolled, tmp_path, form):
    text = token("pump-1")
    (tmp_path / "token").write_text(text)
    argument = {"a file": tmp_path / "token", "stdin": "-", "literal": text}[form]
    shown = enrolled("explain", "--registration-id", "pump-1", "--sas", argument, stdin=text)
    assert shown.json["wouldBeAssigned"]
    assert ("can be seen" in shown.stderr) == (form == "literal")
    assert "sig=" not in shown.stdout


@pytest.mark.parametrize(
    ("sas", "finding"),
    [
        (token("pump-1", b"x" * 32), "sas-signature"),
        (token("pump-1", lifetime_s=-600), "sas-expired"),
        (token("pump-2"), "sas-resource"),
        ("SharedAccessSignature nonsense", "sas-malformed"),
    ],
)
def test_a_bad_token_would_be_refused_with_its_finding_and_what_mends_it(enrolled, sas, finding):
    body = enrolled("explain", "--registration-id", "pump-1", "--sas", sas, expect=5).json
    assert (body["outcome"], body["code"], body["deviceHears"]) == ("refused", 401002, "Unauthorized")
    assert finding in failed(body)
    assert body["reason"] and body["advice"]["mending"]


def test_without_evidence_the_device_is_taken_to_have_what_is_enrolled(enrolled):
    body = enrolled("explain", "--registration-id", "PUMP-1").json
    assert body["wouldBeAssigned"] and body["assumptions"] == ["the device holds the enrolled primary key"]


def test_nobody_knows_a_stranger(enrolled):
    body = enrolled("explain", "--registration-id", "stranger", expect=5).json
    assert body["enrollments"] == [] and failed(body) == ["enrollment-unknown"]
    assert "enrollment create" in body["advice"]["mending"]
    body = enrolled("explain", "--registration-id", "stranger", "--sas", token("stranger"), expect=5).json
    assert "enrollment-unknown" in failed(body)


def test_a_disabled_enrollment_says_so(enrolled):
    enrolled("enrollment", "disable", "pump-1")
    body = enrolled("explain", "--registration-id", "pump-1", expect=5).json
    assert enrolled("explain", "--registration-id", "pump-1", "-o", "table", expect=5).stdout.startswith(
        "pump-1 would be disabled\n"
    )
    assert body["outcome"] == "disabled" and "authorisation" in failed(body)
    assert "enable" in body["advice"]["mending"]


def test_a_chain_of_a_group_is_judged_as_if_the_device_held_its_key(gateway, tmp_path):
    root = make_ca("Acme Root")
    leaf = make_leaf("sensor-7", root)
    (tmp_path / "root.pem").write_bytes(root.pem)
    (tmp_path / "leaf.der").write_bytes(leaf.der)
    arguments = ("explain", "--registration-id", "sensor-7", "--certificate-path", tmp_path / "leaf.der")
    assert "ca-not-enrolled" in failed(gateway(*arguments, expect=5).json)
    gateway("enrollment-group", "create", "acme", "--certificate-path", tmp_path / "root.pem")
    body = gateway(*arguments).json
    assert body["assumptions"] == ["the device holds the private key of the certificate"]
    assert (body["enrollmentKind"], body["enrollmentId"]) == ("group", "acme")
    clauses = [check["clause"] for check in body["trace"]]
    assert any(clause.startswith("RFC 5280") for clause in clauses)
    body = gateway(
        "explain", "--registration-id", "sensor-8", "--certificate-path", tmp_path / "leaf.der", expect=5
    ).json
    assert "common-name-mismatch" in failed(body)


def test_a_person_reads_a_failed_check_once(gateway, tmp_path):
    ca = make_ca("Line")
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    gateway("enrollment-group", "create", "line", "--certificate-path", tmp_path / "ca.pem")
    expired = make_leaf("pump-1", ca, not_before=certificates.NOW - 9 * DAY, not_after=certificates.NOW - DAY)
    (tmp_path / "pump-1.pem").write_bytes(expired.pem)
    words = ("--registration-id", "pump-1", "--certificate-path", tmp_path / "pump-1.pem")
    story = gateway("explain", *words, "-o", "table", expect=5).stdout
    assert [line.split(":")[0] for line in story.splitlines() if "FAIL" in line] == ["  FAIL  certificate-expired"]


def test_an_endorsement_key_is_enough_for_a_tpm(gateway):
    text = base64.b64encode(ENDORSEMENT_KEY).decode()
    registration_id = derive_registration_id(ENDORSEMENT_KEY)
    gateway("enrollment", "create", "--endorsement-key", text)
    body = gateway("explain", "--registration-id", registration_id, "--endorsement-key", text).json
    assert body["wouldBeAssigned"] and len(body["assumptions"]) == 2
    assert gateway("explain", "--registration-id", registration_id).json["wouldBeAssigned"]
    gateway("enrollment", "create", "pump-9", "--attestation-type", "symmetricKey")
    body = gateway("explain", "--registration-id", "pump-9", "--endorsement-key", text, expect=5).json
    assert body["outcome"] == "refused"


def test_a_group_key_device_is_judged_by_its_derived_key(gateway, key_file):
    gateway("enrollment-group", "create", "line-4", "--primary-key-file", key_file)
    derived = derive_device_key(b"k" * 32, "pump-3")
    body = gateway("explain", "--registration-id", "pump-3", "--sas", token("pump-3", derived)).json
    assert body["enrollmentId"] == "line-4"
    body = gateway("explain", "--registration-id", "pump-3", "--sas", token("pump-3"), expect=5).json
    assert "compute-device-key" in body["advice"]["mending"]


def test_a_device_of_a_group_is_taken_to_hold_the_key_that_is_derived_for_it(gateway, key_file):
    gateway("enrollment-group", "create", "line-4", "--primary-key-file", key_file)
    refused = gateway("explain", "--registration-id", "pump-3", expect=5).json
    assert "--sas" in refused["reason"]  # nobody knows yet which kind of device it will be
    gateway.store(make_registration("pump-3", enrollment_kind=EnrollmentKind.GROUP, enrollment_id="line-4"))
    body = gateway("explain", "--registration-id", "pump-3").json
    assert body["assumptions"] == ["the device holds the key that is derived from the primary key of group line-4"]
    gateway("enrollment-group", "disable", "line-4")
    assert gateway("explain", "--registration-id", "pump-3", expect=5).json["outcome"] == "disabled"


@pytest.mark.parametrize("intermediates", [0, 1])
def test_a_device_of_a_ca_is_taken_to_present_what_it_registered_with(gateway, tmp_path, intermediates):
    root = make_ca("Acme Root")
    issuer = make_ca("Acme Line 4", root) if intermediates else root
    (tmp_path / "root.pem").write_bytes(root.pem)
    leaf = make_leaf("sensor-7", issuer)
    gateway("enrollment-group", "create", "acme", "--certificate-path", tmp_path / "root.pem")
    registration = make_registration("sensor-7", enrollment_kind=EnrollmentKind.GROUP, enrollment_id="acme")
    gateway.store(replace(registration, certificate_der=leaf.der))
    shown = gateway("explain", "--registration-id", "sensor-7", expect=5 if intermediates else 0)
    assert shown.json["wouldBeAssigned"] is not bool(intermediates)
    text = gateway("explain", "--registration-id", "sensor-7", "-o", "table", expect=shown.exit_code).stdout
    assert text.startswith("whether sensor-7 would be assigned cannot be told") is bool(intermediates)
    if intermediates:  # what a device sends besides its certificate is not kept
        assert "group acme has let it in" in shown.json["reason"] and "--certificate-path" in shown.json["reason"]


def test_what_an_operator_did_is_told_under_its_tracking_id_too(enrolled):
    enrolled("enrollment-group", "create", "line-4")
    record = enrolled.audit()[-1]
    text = enrolled("explain", "--tracking-id", record.tracking_id, "-o", "table").stdout
    assert text.startswith("line-4: enrollment-group.create\n")
    assert "enrollment   group line-4" in text and "checks" not in text


def test_a_tpm_of_a_group_is_judged_by_its_makers_certificate(gateway, tmp_path):
    maker, public = EkAuthority(), software_endorsement_key()
    roots = tmp_path / "roots"
    roots.mkdir()
    (tmp_path / "ek.der").write_bytes(maker.issue(public))
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace("[log]", f'[attestation.tpm]\nek_roots_dir = "{roots}"\n\n[log]'))
    gateway("enrollment-group", "create", "tpms", "--attestation-type", "tpm")
    key = base64.b64encode(public.tpm2b).decode()
    words = ("explain", "--registration-id", derive_registration_id(public.tpm2b), "--endorsement-key", key)
    assert "ek-certificate-missing" in failed(gateway(*words, expect=5).json)
    words = (*words, "--ek-certificate", tmp_path / "ek.der")
    assert "ek-anchors-missing" in failed(gateway(*words, expect=5).json)
    (roots / "maker.der").write_bytes(maker.der)
    body = gateway(*words).json
    assert (body["outcome"], body["enrollmentId"], body["hub"]) == ("assigned", "tpms", "local")
    assert not failed(body)
    words = ("explain", "--registration-id", "pump-1", *words[3:])
    assert "registration-id-not-derived" in failed(gateway(*words, expect=5).json)


def test_a_device_that_no_hub_can_take_would_fail(enrolled):
    enrolled("hub", "drain", "local")
    shown = enrolled("explain", "--registration-id", "pump-1", "-o", "table", expect=5)
    assert shown.stdout.startswith("pump-1 would fail with 400208\n") and "--iot-hubs" in shown.stdout


def test_an_unknown_device_would_wait(gateway, tmp_path):
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace("[log]", '[registration]\nunknown = "pending"\n\n[log]'))
    (tmp_path / "leaf.der").write_bytes(make_leaf("sensor-7").der)
    words = ("explain", "--registration-id", "sensor-7", "--certificate-path", tmp_path / "leaf.der")
    assert gateway(*words, "-o", "table", expect=5).stdout.startswith("sensor-7 would wait for an operator")


def test_a_webhook_is_not_asked_and_what_it_says_is_assumed(gateway):
    words = ("enrollment", "create", "pump-1", "--attestation-type", "symmetricKey", "--allocation-policy", "custom")
    gateway(*words, "--webhook-url", "https://localhost:1/nobody")
    body = gateway("explain", "--registration-id", "pump-1").json
    assert (body["outcome"], body["hub"]) == ("assigned", "local")
    assert body["assumptions"][-1].endswith("which was not asked, chooses local of local")
    assert "advice" not in body


def test_nothing_is_written(enrolled):
    file = enrolled.directory / "state/provisiond.db"
    records = len(enrolled.audit())
    before = sha256(file.read_bytes()).digest()
    enrolled("explain", "--registration-id", "pump-1")
    enrolled("explain", "--registration-id", "stranger", "--sas", token("stranger"), expect=5)
    assert sha256(file.read_bytes()).digest() == before
    assert len(enrolled.audit()) == records
    enrolled("registration", "show", "pump-1", expect=3)


def test_a_past_decision_is_found_by_its_tracking_id(enrolled):
    record = AuditRecord(
        tracking_id="track-1",
        at=NOW,
        event="register",
        registration_id="pump-1",
        outcome="refused",
        code=401002,
        reason="the token expired",
        actor="10.0.0.7",
        trace=(
            Check("enrollment", True, "individual enrollment pump-1"),
            Check("sas-expired", False, "900 s ago", "clause"),
        ),
    )

    async def commit():
        async with await SqliteStore.open(enrolled.directory / "state/provisiond.db") as store:
            await store.commit(Write(audit=record))

    asyncio.run(commit())
    body = enrolled("explain", "--tracking-id", "track-1", expect=5).json
    assert body["actor"] == "10.0.0.7" and body["trace"][1]["clause"] == "clause"
    assert "clock" in body["advice"]["causes"]
    text = enrolled("explain", "--tracking-id", "track-1", "-o", "table", expect=5).stdout
    assert "pump-1 was refused with 401002" in text and "FAIL  sas-expired: 900 s ago  [clause]" in text
    assert "tracking id" in enrolled("explain", "--tracking-id", "other", expect=3).stderr


def test_a_person_reads_a_story(enrolled):
    text = enrolled("explain", "--registration-id", "pump-1", "-o", "table").stdout
    assert text.startswith("pump-1 would be assigned to local\n")
    assert "assumed      the device holds the enrolled primary key" in text
    assert "ok    sas-signature" in text
    assert "-> local (localhost, weight 1): score" in text
    text = enrolled("explain", "--registration-id", "x", "-o", "table", expect=5).stdout
    assert "enrollments  none claims this request" in text and "mending" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --registration-id, or --tracking-id"),
        (["--registration-id", "a", "--tracking-id", "b"], "give --registration-id, or --tracking-id"),
        (["--registration-id", "a b"], "registration id 'a b' is not"),
        (["--registration-id", "a", "--sas", "SharedAccessSignature x", "--ek", "AA=="], "give one of"),
        (["--registration-id", "a", "--ek-certificate", "ek.pem"], "go with --endorsement-key"),
        (["--tracking-id", "a", "--sas", "SharedAccessSignature x"], "what was presented then"),
        (["--registration-id", "a", "--sas", "nonsense"], "begins with SharedAccessSignature"),
        (["--registration-id", "a", "--certificate-path", __file__], "test_explain.py: there is no certificate"),
    ],
)
def test_what_cannot_be_explained_is_a_usage_error(enrolled, arguments, said):
    assert said in enrolled("explain", *arguments, expect=2).stderr


def test_before_the_first_run_everybody_is_a_stranger_and_nothing_was_decided(gateway):
    assert gateway("explain", "--registration-id", "a", expect=5).json["outcome"] == "refused"
    assert "no database yet" in gateway("explain", "--tracking-id", "a", expect=3).stderr
    assert not (gateway.directory / "state/provisiond.db").exists()
