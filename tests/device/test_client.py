import asyncio
import base64
import hmac
import ssl
from urllib.parse import unquote

import pytest

from provisiond import __version__
from provisiond.device.client import Patience, ProvisioningClient, Step
from provisiond.device.credentials import Credential, SymmetricKeyCredential, TpmCredential, X509Credential
from provisiond.device.errors import CannotConnect, CredentialError, Refused, TimedOut
from provisiond.device.mqtt import Endpoint
from tests.certificates import SERVER_AUTH, make_ca, make_leaf
from tests.device.service import (
    ASSIGNED,
    HANG_UP,
    SILENCE,
    Answer,
    assigned,
    assigning,
    error,
    run_service,
)
from tests.device.tpm_challenger import make_authentication_key
from tests.noticing import until
from tests.passing_time import pass_time

KEY = SymmetricKeyCredential(key=b"k" * 32)
QUICK = Patience(connect_s=60, request_s=60, total_s=120, poll_s=0, backoff_s=0, jitter=0)


def client_of(service, *, credential=KEY, endpoint=None, patience=QUICK, **options):
    endpoint = endpoint or Endpoint(host="127.0.0.1", port=service.port, plaintext=True)
    options = {"id_scope": "0neScope", "registration_id": "dev-1"} | options
    return ProvisioningClient(endpoint, credential=credential, patience=patience, **options)


async def register(service, payload=None, **options):
    async with client_of(service, **options) as client:
        return await client.register(payload)


# --- what the device says --------------------------------------------------------------------------------------------


async def test_the_connect_is_that_of_an_azure_device():
    async with run_service() as service:
        await register(service)
    (connect,) = service.connects
    assert connect.client_id == "dev-1"
    assert connect.username == (
        f"0neScope/registrations/dev-1/api-version=2019-03-31&ClientVersion=provisiond-device%2F{__version__}"
    )
    assert connect.clean_session
    assert service.filters == ["$dps/registrations/res/#"]


async def test_the_password_is_a_token_signed_with_the_device_key():
    async with run_service() as service:
        await register(service)
    kind, _, text = service.connects[0].password.partition(" ")
    fields = dict(field.split("=", 1) for field in text.split("&"))
    expected = hmac.digest(b"k" * 32, f"{fields['sr']}\n{fields['se']}".encode(), "sha256")
    assert kind == "SharedAccessSignature"
    assert unquote(fields["sr"]) == "0neScope/registrations/dev-1"
    assert base64.b64decode(unquote(fields["sig"])) == expected
    assert fields["skn"] == "registration"


async def test_a_credential_that_proves_nothing_sends_no_password():
    async with run_service() as service:
        await register(service, credential=Credential())
    assert service.connects[0].password is None


async def test_the_custom_payload_is_sent():
    async with run_service() as service:
        await register(service, {"model": "x"})
    assert service.requests[0].topic.startswith("$dps/registrations/PUT/iotdps-register/?$rid=")
    assert service.requests[0].body == {"registrationId": "dev-1", "payload": {"model": "x"}}


# --- the way to an assignment ----------------------------------------------------------------------------------------


async def test_an_immediate_assignment_is_returned():
    async with run_service(assigned(substatus="initialAssignment", payload={"a": 1})) as service:
        result = await register(service)
    assert (result.assigned_hub, result.device_id, result.substatus) == ("hub.local", "dev-1", "initialAssignment")
    assert result.payload == {"a": 1}
    assert result.polls == 0
    assert result.register_s > 0
    assert result.connect_s > 0


async def test_a_pending_operation_is_polled_by_its_id():
    async with run_service(assigning(operation_id="4.a/b?c"), assigning(operation_id="4.a/b?c"), ASSIGNED) as service:
        result = await register(service)
    assert result.polls == 2
    assert [request.operation_id for request in service.requests[1:]] == ["4.a/b?c"] * 2
    assert len({request.rid for request in service.requests}) == 3


async def test_every_step_is_told_once_and_in_order():
    steps = []
    async with run_service(assigning(), assigning(), ASSIGNED) as service:
        await register(service, on_step=lambda step, detail: steps.append((step, detail)))
    assert steps == [
        (Step.CONNECTED, f"127.0.0.1:{service.port}"),
        (Step.ASSIGNING, "op-1"),
        (Step.ASSIGNED, "hub.local, dev-1"),
    ]


async def test_replies_to_other_requests_are_passed_over():
    stranger = Answer(401, {"errorCode": 401002}, rid="somebody-else")
    async with run_service([stranger, ASSIGNED]) as service:
        assert (await register(service)).assigned_hub == "hub.local"


async def test_a_refused_subscription_does_not_matter_when_replies_come():
    async with run_service(suback=0x80) as service:
        await register(service)


async def test_one_client_registers_again_and_again():
    async with run_service() as service, client_of(service) as client:
        first = await client.register()
        second = await client.register()
    assert first.body == second.body
    assert len(service.connects) == 1


# --- refusals --------------------------------------------------------------------------------------------------------


async def test_an_error_reply_is_a_refusal_with_its_body_and_tracking_id():
    async with run_service(error(401002)) as service:
        with pytest.raises(Refused, match=r"refused the registration \(401\): Unauthorized") as raised:
            await register(service)
    assert raised.value.status == 401
    assert raised.value.tracking_id == "11111111-2222"
    assert raised.value.body["errorCode"] == 401002


@pytest.mark.parametrize("status", ["failed", "disabled", "unassigned", ""])
async def test_a_final_status_other_than_assigned_is_a_refusal(status):
    reply = Answer(200, {"operationId": "", "status": status, "registrationState": {"errorMessage": "no"}})
    async with run_service(reply) as service:
        with pytest.raises(Refused) as raised:
            await register(service)
    assert raised.value.status == 200
    assert raised.value.body["status"] == status


async def test_an_assignment_without_a_hub_is_a_refusal():
    async with run_service(assigned(assignedHub=None)) as service:
        with pytest.raises(Refused, match="no hub"):
            await register(service)


async def test_nonsense_is_a_refusal():
    async with run_service(Answer(200, payload=b"<html>")) as service:
        with pytest.raises(Refused, match="nonsense"):
            await register(service)


async def test_a_progress_report_without_operation_is_a_refusal():
    async with run_service(Answer(202, {"status": "assigning"})) as service:
        with pytest.raises(Refused):
            await register(service)


@pytest.mark.parametrize("return_code", [2, 4, 5])
async def test_a_connect_that_is_refused_for_its_identity_is_a_refusal(return_code):
    async with run_service(connack=return_code) as service:
        with pytest.raises(Refused) as raised:
            await register(service)
    assert raised.value.body["connackReturnCode"] == return_code


async def test_a_device_without_tpm_does_not_answer_a_challenge():
    challenge = Answer(401, {"authenticationKey": base64.b64encode(b"blob").decode()})
    async with run_service(challenge) as service:
        with pytest.raises(CredentialError, match="asks for a TPM"):
            await register(service)


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [409203, 429001, 500000, 503000])
async def test_a_busy_service_is_asked_again(code):
    async with run_service(error(code, retry_after=0), error(code), ASSIGNED) as service:
        await register(service)
    assert len({request.rid for request in service.requests}) == 3


async def test_a_busy_service_is_asked_again_about_a_pending_operation():
    async with run_service(assigning(), error(429001, retry_after=0), ASSIGNED) as service:
        await register(service)
    assert [request.operation_id for request in service.requests[1:]] == ["op-1", "op-1"]


async def test_a_connection_lost_before_the_answer_is_made_again():
    async with run_service(HANG_UP, assigning(), HANG_UP, ASSIGNED) as service:
        result = await register(service)
    assert result.assigned_hub == "hub.local"
    assert len(service.connects) == 3


async def test_a_request_without_answer_is_asked_again_on_a_new_connection():
    async with run_service(SILENCE, ASSIGNED) as service:
        await register(service, patience=Patience(request_s=3, backoff_s=0, jitter=0))
    assert len(service.connects) == 2


async def test_an_operation_the_service_has_forgotten_is_begun_anew():
    async with run_service(assigning(), error(404202, "Operation not found"), ASSIGNED) as service:
        await register(service)
    assert [request.topic.split("/")[2] for request in service.requests] == ["PUT", "GET", "PUT"]


async def test_a_service_that_stays_busy_ends_in_a_timeout_that_says_so():
    async with run_service(error(429001, "Too many requests")) as service:
        registering = asyncio.create_task(register(service, patience=Patience(total_s=1000, backoff_s=0.01)))
        await until(lambda: len(service.requests) > 1)
        pass_time(1000)
        with pytest.raises(TimedOut, match=r"within 1000 s: the service kept answering 429 Too many requests"):
            await registering


async def test_a_service_that_never_comes_back_ends_as_a_lost_connection():
    async with run_service(HANG_UP) as service:
        registering = asyncio.create_task(register(service, patience=Patience(total_s=1000, backoff_s=0.01)))
        await until(lambda: len(service.connects) > 2)
        pass_time(1000)
        with pytest.raises(CannotConnect, match="connection was lost"):
            await registering


async def test_nobody_listening_is_cannot_connect():
    async with run_service() as service:
        pass
    with pytest.raises(CannotConnect, match=r"cannot connect to 127\.0\.0\.1"):
        await register(service)


async def test_a_name_that_does_not_resolve_is_cannot_connect():
    endpoint = Endpoint(host="nowhere.invalid")
    with pytest.raises(CannotConnect):
        await register(None, endpoint=endpoint, patience=Patience(connect_s=10))


async def test_an_unavailable_server_is_cannot_connect():
    async with run_service(connack=3) as service:
        with pytest.raises(CannotConnect, match="does not take connections now"):
            await register(service)


async def test_a_connect_without_acknowledgement_times_out_and_lets_the_socket_go():
    async with run_service(connack=SILENCE) as service:
        with pytest.raises(CannotConnect, match="no answer within"):
            await register(service, patience=Patience(connect_s=1))
        await asyncio.wait_for(service.closed.wait(), 60)


async def test_a_server_that_hangs_up_at_the_connect_is_cannot_connect():
    async with run_service(connack=HANG_UP) as service:
        with pytest.raises(CannotConnect):
            await register(service, patience=Patience(connect_s=60))


async def test_leaving_the_client_disconnects():
    async with run_service() as service:
        async with client_of(service):
            pass
        await asyncio.wait_for(service.closed.wait(), 60)


async def test_a_cancelled_registration_disconnects():
    async with run_service(SILENCE) as service:
        registering = asyncio.create_task(register(service))
        await until(lambda: service.requests)
        registering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await registering
        await asyncio.wait_for(service.closed.wait(), 60)


@pytest.mark.parametrize(("said", "expected"), [(None, 2.0), (0, 0.0), (7, 7.0), (9999, 300.0)])
def test_the_service_says_when_to_ask_again_within_limits(said, expected):
    assert Patience(jitter=0).before_poll(said) == expected


def test_pauses_after_trouble_grow_up_to_a_limit():
    patience = Patience(jitter=0)
    assert [patience.before_retry(attempt) for attempt in (0, 1, 2, 20, 10_000)] == [0.5, 1.0, 2.0, 30.0, 30.0]


def test_jitter_only_ever_waits_longer():
    pauses = [Patience(jitter=0.2).before_poll(10) for _ in range(100)]
    assert all(10 <= pause <= 12 for pause in pauses)
    assert len(set(pauses)) > 1


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root():
    return make_ca("Root")


@pytest.fixture
def ca_file(root, tmp_path):
    path = tmp_path / "root.crt"
    path.write_bytes(root.pem)
    return path


def server_context(root, tmp_path, *, name="localhost", device_root=None):
    server = make_leaf(name, root, dns_names=(name,), usages=(SERVER_AUTH,))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server.write(tmp_path, "server"))
    if device_root is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=device_root.pem.decode())
    return context


async def test_a_certificate_and_its_chain_are_presented(root, ca_file, tmp_path):
    devices = make_ca("Devices")
    line = make_ca("Line", devices)
    leaf = make_leaf("dev-1", line)
    credential = X509Credential.from_files(*leaf.write(tmp_path, "device"))
    context = server_context(root, tmp_path, device_root=devices)
    async with run_service(tls=context) as service:
        endpoint = Endpoint(host="localhost", port=service.port, ca_file=ca_file)
        await register(service, credential=credential, endpoint=endpoint)
    assert service.connects[0].certificate == leaf.der
    assert service.connects[0].password is None


async def test_nagle_is_off(root, ca_file, tmp_path):
    import socket

    async with run_service(tls=server_context(root, tmp_path)) as service:
        endpoint = Endpoint(host="localhost", port=service.port, ca_file=ca_file)
        async with client_of(service, endpoint=endpoint) as client:
            sock = client._session._client._client.socket()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.version() == "TLSv1.3"


async def test_a_server_of_another_authority_is_not_trusted(ca_file, tmp_path):
    async with run_service(tls=server_context(make_ca("Other"), tmp_path)) as service:
        endpoint = Endpoint(host="localhost", port=service.port, ca_file=ca_file)
        with pytest.raises(CannotConnect, match="--ca-file"):
            await register(service, endpoint=endpoint)
    assert not service.connects


async def test_a_server_of_another_name_is_not_trusted(root, ca_file, tmp_path):
    async with run_service(tls=server_context(root, tmp_path, name="other.local")) as service:
        endpoint = Endpoint(host="localhost", port=service.port, ca_file=ca_file)
        with pytest.raises(CannotConnect, match="Hostname mismatch"):
            await register(service, endpoint=endpoint)


async def test_a_server_without_tls_is_cannot_connect(ca_file):
    async with run_service() as service:
        endpoint = Endpoint(host="localhost", port=service.port, ca_file=ca_file)
        with pytest.raises(CannotConnect):
            await register(service, endpoint=endpoint, patience=Patience(connect_s=1))


async def test_a_handshake_that_stalls_times_out(ca_file):
    let_go = asyncio.Event()

    async def stall(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()
        let_go.set()

    async with await asyncio.start_server(stall, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint(host="localhost", port=port, ca_file=ca_file)
        with pytest.raises(CannotConnect):
            await register(None, endpoint=endpoint, patience=Patience(connect_s=0.2))
        await asyncio.wait_for(let_go.wait(), 60)


@pytest.mark.parametrize("content", [b"", b"junk", None])
async def test_a_ca_file_that_is_none_is_a_credential_error(content, tmp_path):
    path = tmp_path / "root.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialError, match="cannot use the CA file"):
        await register(None, endpoint=Endpoint(host="localhost", ca_file=path))


@pytest.mark.parametrize("host", ["gateway.local", "192.0.2.1", "localhost.example"])
def test_plaintext_to_another_machine_is_refused(host):
    with pytest.raises(CredentialError, match="without TLS"):
        Endpoint(host=host, plaintext=True)


# --- TPM -------------------------------------------------------------------------------------------------------------


def b64(octets):
    return base64.b64encode(octets).decode()


@pytest.mark.swtpm
async def test_a_tpm_answers_the_challenge_and_keeps_the_hub_key(device):
    endorsement, storage = await device.endorsement_key(), await device.storage_root_key()
    challenge_key, hub_key = b"c" * 32, b"h" * 32
    challenge = Answer(
        401,
        {
            "message": "Authorization required",
            "authenticationKey": b64(make_authentication_key(endorsement, storage, challenge_key)),
            "keyName": "registration",
        },
    )
    final = assigned(tpm={"authenticationKey": b64(make_authentication_key(endorsement, storage, hub_key))})
    steps = []
    async with run_service(challenge, assigning(), final) as service:
        result = await register(
            service, credential=TpmCredential(device=device), on_step=lambda step, _: steps.append(step)
        )
    assert result.challenged
    assert steps == [Step.CONNECTED, Step.CHALLENGE, Step.ASSIGNING, Step.ASSIGNED]
    assert service.connects[0].password is None
    asked, answered = service.requests[0].body, service.requests[1].body
    assert asked == {
        "registrationId": "dev-1",
        "tpm": {"endorsementKey": b64(endorsement), "storageRootKey": b64(storage)},
    }
    token = answered.pop("authorization")
    assert answered == asked
    fields = dict(field.split("=", 1) for field in token.removeprefix("SharedAccessSignature ").split("&"))
    expected = hmac.digest(challenge_key, f"{fields['sr']}\n{fields['se']}".encode(), "sha256")
    assert base64.b64decode(unquote(fields["sig"])) == expected
    assert fields["sr"] == "0neScope%2Fregistrations%2Fdev-1"
    assert fields["skn"] == "registration"
    assert await device.hmac(b"data") == hmac.digest(hub_key, b"data", "sha256")


@pytest.mark.swtpm
async def test_a_challenge_for_another_tpm_is_a_credential_error(ecc_device):
    endorsement, storage = await ecc_device.endorsement_key(), await ecc_device.storage_root_key()
    blob = bytearray(make_authentication_key(endorsement, storage, b"c" * 32))
    blob[10] ^= 1
    async with run_service(Answer(401, {"authenticationKey": b64(bytes(blob))})) as service:
        with pytest.raises(CredentialError, match="TPM_RC_INTEGRITY"):
            await register(service, credential=TpmCredential(device=ecc_device))


@pytest.mark.swtpm
async def test_challenges_without_end_are_a_refusal(ecc_device):
    endorsement, storage = await ecc_device.endorsement_key(), await ecc_device.storage_root_key()
    challenge = Answer(401, {"authenticationKey": b64(make_authentication_key(endorsement, storage, b"c" * 32))})
    async with run_service(challenge) as service:
        with pytest.raises(Refused):
            await register(service, credential=TpmCredential(device=ecc_device))
    assert len(service.requests) == 4  # the first may have gone stale; the next one tells


@pytest.mark.swtpm
async def test_a_challenge_cut_short_is_asked_for_again(ecc_device):
    endorsement, storage = await ecc_device.endorsement_key(), await ecc_device.storage_root_key()
    challenge = Answer(401, {"authenticationKey": b64(make_authentication_key(endorsement, storage, b"c" * 32))})
    final = assigned(tpm={"authenticationKey": b64(make_authentication_key(endorsement, storage, b"h" * 32))})
    async with run_service(challenge, HANG_UP, challenge, final) as service:
        await register(service, credential=TpmCredential(device=ecc_device))
    assert ["authorization" in request.body for request in service.requests] == [False, True, False, True]


@pytest.mark.swtpm
async def test_an_assignment_without_hub_key_is_a_credential_error(ecc_device):
    async with run_service(assigned()) as service:
        with pytest.raises(CredentialError, match="no hub key"):
            await register(service, credential=TpmCredential(device=ecc_device))
