import asyncio
import base64
import json
import shutil

import pytest
from typer.testing import CliRunner

from provisiond.cli.simulate import app
from provisiond.device.tpm_wire import tpm2b
from tests.certificates import make_ca, make_leaf
from tests.cli.conftest import invoke
from tests.device.service import ASSIGNED, SILENCE, Answer, assigned, assigning, error, run_service
from tests.device.test_client import server_context
from tests.device.tpm_challenger import make_authentication_key

KEY_B64 = base64.b64encode(b"k" * 32)


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "device.key"
    path.write_bytes(KEY_B64)
    return path


async def simulate(*arguments):
    """In a thread, because the command brings its own event loop and the service runs on the test's."""
    return await asyncio.to_thread(CliRunner().invoke, app, [str(argument) for argument in arguments])


async def simulate_device(service, key_file, *arguments):
    return await simulate(
        *("device", "dev-1", "--attestation", "symmetricKey", "--key-file", key_file, "--id-scope", "0neScope"),
        *("--host", "127.0.0.1", "--port", service.port, "--plaintext", *arguments),
    )


async def test_an_assigned_device_tells_its_story_and_exits_0(key_file):
    async with run_service(assigning(), ASSIGNED) as service:
        result = await simulate_device(service, key_file, "--payload", '{"a": 1}')
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"connected (127.0.0.1:{service.port})",
        "assigning (op-1)",
        "assigned (hub.local, dev-1)",
    ]
    assert service.requests[0].body["payload"] == {"a": 1}


async def test_the_mechanism_may_be_written_in_lower_case_as_for_enrollments(key_file):
    async with run_service(ASSIGNED) as service:
        result = await simulate_device(service, key_file, "--attestation", "symmetrickey")
    assert result.exit_code == 0


async def test_json_output_is_the_assignment_and_the_story_goes_beside_it(key_file):
    async with run_service() as service:
        result = await simulate_device(service, key_file, "-o", "json")
    data = json.loads(result.stdout)
    assert (data["status"], data["assignedHub"], data["deviceId"]) == ("assigned", "hub.local", "dev-1")
    assert "connected (" in result.stderr


async def test_a_refused_device_prints_the_error_json_and_exits_5(key_file):
    async with run_service(error(401002)) as service:
        result = await simulate_device(service, key_file)
    assert result.exit_code == 5
    assert json.loads(result.stdout.splitlines()[-1])["errorCode"] == 401002
    assert "error: the service refused the registration (401): Unauthorized" in result.stderr


async def test_a_disabled_device_exits_5(key_file):
    async with run_service(Answer(200, {"operationId": "", "status": "disabled"})) as service:
        result = await simulate_device(service, key_file)
    assert result.exit_code == 5
    assert json.loads(result.stdout.splitlines()[-1])["status"] == "disabled"


async def test_a_refused_connect_exits_5(key_file):
    async with run_service(connack=5) as service:
        result = await simulate_device(service, key_file)
    assert result.exit_code == 5
    assert json.loads(result.stdout)["connackReturnCode"] == 5


async def test_nobody_listening_exits_69_without_a_traceback(key_file):
    async with run_service() as service:
        pass
    result = await simulate_device(service, key_file)
    assert result.exit_code == 69
    assert result.stdout == ""
    assert result.stderr.startswith("error: cannot connect to 127.0.0.1")
    assert len(result.stderr.splitlines()) == 1


async def test_no_answer_in_time_exits_75(key_file):
    async with run_service(error(429001)) as service:
        result = await simulate_device(service, key_file, "--timeout", "1")
    assert result.exit_code == 75


async def test_the_hub_is_connected_when_asked_for(key_file):
    async with run_service(SILENCE) as hub, run_service(assigned(assignedHub=f"127.0.0.1:{hub.port}")) as service:
        result = await simulate_device(service, key_file, "--connect-hub")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [f"hub connected (127.0.0.1:{hub.port})", "message sent (19 bytes)"]
    assert json.loads(hub.requests[0].payload) == {"message": "hello"}


async def test_a_certificate_device_over_tls(tmp_path):
    root, devices = make_ca("Root"), make_ca("Devices")
    (tmp_path / "root.crt").write_bytes(root.pem)
    certificate_path, key_path = make_leaf("dev-1", devices).write(tmp_path, "device")
    async with run_service(tls=server_context(root, tmp_path, device_root=devices)) as service:
        result = await simulate(
            *("device", "dev-1", "--attestation", "x509", "--id-scope", "0neScope", "--port", service.port),
            *("--ca-file", tmp_path / "root.crt", "--certificate-path", certificate_path, "--key-path", key_path),
        )
    assert result.exit_code == 0, result.output
    assert service.connects[0].certificate is not None


async def test_a_self_signed_certificate_is_made_and_kept(tmp_path):
    async with run_service() as service:
        result = await simulate(
            *("device", "dev-1", "--attestation", "x509", "--id-scope", "0neScope", "--plaintext"),
            *("--port", service.port, "--dir", tmp_path / "state"),
        )
    assert result.exit_code == 0
    assert "self-signed certificate to enroll" in result.stderr
    assert (tmp_path / "state" / "dev-1.crt").exists()


@pytest.mark.swtpm
async def test_the_endorsement_key_is_printed_and_kept(tmp_path):
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")
    arguments = ("device", "dev-1", "--attestation", "tpm", "--print-endorsement-key", "--tpm-algorithm", "ecc")
    first = await simulate(*arguments, "--dir", tmp_path)
    second = await simulate(*arguments, "--dir", tmp_path)
    other = await simulate(*arguments)
    assert first.exit_code == 0
    assert first.stdout == second.stdout != other.stdout
    public = base64.b64decode(first.stdout.strip(), validate=True)
    assert public == tpm2b(public[2:])
    assert "--dir STATE" in other.stderr


@pytest.mark.swtpm
async def test_a_tpm_device_goes_the_whole_way(tmp_path):
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")

    def key_for(request):
        tpm = {name: base64.b64decode(value) for name, value in request.body["tpm"].items()}
        return base64.b64encode(
            make_authentication_key(tpm["endorsementKey"], tpm["storageRootKey"], b"k" * 32)
        ).decode()

    def challenge(request):
        return Answer(401, {"authenticationKey": key_for(request), "keyName": "registration"})

    def assignment(request):
        return assigned(tpm={"authenticationKey": key_for(request)}, assignedHub=f"localhost:{hub.port}")

    async with run_service(SILENCE) as hub, run_service([challenge], [assignment]) as service:
        result = await simulate(
            *("device", "--attestation", "tpm", "--id-scope", "0neScope", "--plaintext", "--port", service.port),
            *("--dir", tmp_path, "--tpm-algorithm", "ecc", "--connect-hub"),
        )
    assert result.exit_code == 0, result.output
    words = [line.partition(" (")[0] for line in result.stdout.splitlines()]
    assert words == ["connected", "challenge", "assigning", "assigned", "hub connected", "message sent"]
    assert len(service.connects[0].client_id) == 52
    assert hub.connects[0].password.startswith("SharedAccessSignature sr=localhost%2Fdevices%2Fdev-1&")


async def test_a_missing_emulator_says_how_to_get_it_and_exits_1(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    result = await simulate("device", "dev-1", "--attestation", "tpm", "--print-endorsement-key")
    assert result.exit_code == 1
    assert "apt install swtpm" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dev-1", "--attestation", "symmetricKey"], "--key-file or --group-key-file"),
        (["dev-1", "--attestation", "x509"], "--certificate-path and --key-path"),
        (["--attestation", "x509"], "a registration id is needed"),
        (["a/b", "--attestation", "tpm"], "registration id 'a/b' is not"),
        (["dev-1", "--attestation", "symmetricKey", "--print-endorsement-key"], "goes with --attestation tpm"),
        (["dev-1", "--attestation", "x509", "--protocol", "coap"], "coap"),
        (["dev-1", "--attestation", "x509", "--payload", "{"], "--payload is not JSON"),
        (["dev-1", "--attestation", "x509", "--payload", "NaN"], "--payload is not JSON: NaN is not JSON"),
        (["dev-1", "--attestation", "x509", "--payload", '"' + 65535 * "x" + '"'], "--payload has 65537 bytes"),
        (["dev-1", "--attestation", "x509", "--plaintext", "--host", "192.0.2.1"], "without TLS"),
        (["dev-1", "--attestation", "x509", "--id-scope", ""], "--id-scope is needed"),
    ],
)
async def test_flags_that_do_not_go_together_exit_2(arguments, said, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    result = await simulate("device", "--id-scope", "0neScope", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


async def test_the_id_scope_of_a_configuration_that_is_here_need_not_be_said(key_file, tmp_path):
    async with run_service() as service:
        (tmp_path / "site.toml").write_text('config_version = 1\n[service]\nid_scope = "0neScope"\n')
        flags = ("--host", "127.0.0.1", "--port", service.port, "--plaintext", "--key-file", key_file)
        arguments = ("simulate", "device", "dev-1", "--attestation", "symmetricKey", *flags)
        result = await asyncio.to_thread(invoke, "-c", tmp_path / "site.toml", *arguments)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "assigned (hub.local, dev-1)"), result


async def simulate_fleet(service, *arguments):
    return await simulate(
        *("fleet", "--id-scope", "0neScope", "--host", "127.0.0.1", "--port", service.port, "--plaintext", *arguments)
    )


async def test_a_fleet_with_a_group_key_exits_0_when_all_are_assigned(key_file):
    async with run_service() as service:
        result = await simulate_fleet(service, "--count", 12, "--concurrency", 4, "--group-key-file", key_file)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["assigned"] == figures["count"] == 12
    assert figures["p50Ms"] <= figures["p95Ms"] <= figures["p99Ms"]
    assert {connect.client_id for connect in service.connects} == {f"sim-{number:06d}" for number in range(12)}
    assert len({connect.password for connect in service.connects}) == 12


async def test_a_fleet_with_a_ca_presents_a_certificate_each(tmp_path):
    root, devices = make_ca("Root"), make_ca("Devices")
    (tmp_path / "root.crt").write_bytes(root.pem)
    certificate_path, key_path = devices.write(tmp_path, "ca")
    async with run_service(tls=server_context(root, tmp_path, device_root=devices)) as service:
        result = await simulate(
            *("fleet", "--count", 5, "--attestation", "x509", "--id-scope", "0neScope", "--port", service.port),
            *("--ca-file", tmp_path / "root.crt", "--ca-certificate-path", certificate_path, "--ca-key-path", key_path),
            *("--id-prefix", "line4-", "--first", 7),
        )
    assert result.exit_code == 0, result.output
    assert len({connect.certificate for connect in service.connects}) == 5
    assert {connect.client_id for connect in service.connects} == {f"line4-{number:06d}" for number in range(7, 12)}


async def test_a_fleet_with_a_refused_device_exits_5(key_file):
    async with run_service(error(401002), ASSIGNED) as service:
        result = await simulate_fleet(service, "--count", 3, "--group-key-file", key_file)
    assert result.exit_code == 5
    figures = json.loads(result.stdout)
    assert (figures["assigned"], figures["refused"]) == (2, 1)
    assert figures["errors"][0]["count"] == 1


async def test_a_fleet_table_shows_the_same_figures(key_file):
    async with run_service() as service:
        result = await simulate_fleet(service, "--count", 2, "--group-key-file", key_file, "-o", "table")
    assert result.exit_code == 0
    assert "assigned" in result.stdout
    assert "perSecond" in result.stdout


async def test_a_fleet_without_a_service_exits_69(key_file):
    async with run_service() as service:
        pass
    result = await simulate_fleet(service, "--count", 2, "--group-key-file", key_file)
    assert result.exit_code == 69


@pytest.mark.parametrize(
    "arguments",
    [["--attestation", "x509"], ["--attestation", "tpm"], ["--attestation", "symmetricKey"], ["--id-prefix", "/"]],
)
async def test_a_fleet_without_a_secret_exits_2(arguments):
    result = await simulate("fleet", "--count", "1", "--id-scope", "0neScope", *arguments)
    assert result.exit_code == 2
