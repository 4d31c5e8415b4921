"""Configuration as code: plan, apply, start and SIGHUP."""

import asyncio
import base64
import re

import pytest
import structlog.testing

from provisiond.daemon import Daemon
from provisiond.declaring import plan_hubs, record_hubs
from provisiond.errors import ConfigurationError
from provisiond.model import EnrollmentKind
from provisiond.settings import load_settings
from provisiond.store import SqliteStore
from tests.certificates import make_ca, make_leaf
from tests.running_service import site_settings

ROOT = make_ca("Acme Root")


@pytest.fixture
def declared(gateway):
    """A gateway whose configuration is written anew with the given tables at its end."""
    plain = gateway.config.read_text()
    (gateway.directory / "line.pem").write_bytes(ROOT.pem)
    (gateway.directory / "sensor.pem").write_bytes(make_leaf("sensor-7").pem)
    (gateway.directory / "pump.key").write_text(base64.b64encode(b"k" * 32).decode())

    def write(*tables):
        marker = "# end of configuration"
        body = "\n".join(tables) + "\n"
        text = plain.replace(marker, body + marker) if marker in plain else plain + "\n" + body
        gateway.config.write_text(text)
        return gateway

    return write


SENSOR = '[[enrollments]]\nregistration_id = "sensor-7"\nattestation_type = "x509"\ncertificate_file = "sensor.pem"\n'
PUMP = '[[enrollments]]\nregistration_id = "pump-1"\nattestation_type = "symmetricKey"\nprimary_key_file = "pump.key"\n'
LINE = '[[enrollment_groups]]\ngroup_id = "line-4"\nattestation_type = "x509"\ncertificate_file = "line.pem"\n'


def steps(ended):
    return [(step["action"], step["id"]) for step in ended.json]


def test_a_plan_shows_what_would_change_and_changes_nothing(declared):
    gateway = declared(SENSOR, PUMP, LINE)
    ended = gateway("plan")
    assert steps(ended) == [("create", "sensor-7"), ("create", "pump-1"), ("create", "line-4")]
    assert "apply" in ended.stderr
    assert gateway("enrollment", "list").json == []
    assert "+ enrollment-group line-4 (x509)" in gateway("plan", "-o", "table").stdout


def test_applying_makes_it_so_and_marks_it(declared):
    gateway = declared(SENSOR, PUMP, LINE)
    assert len(gateway("apply", "--yes").json) == 3
    listed = gateway("enrollment", "list").json
    assert {one["registrationId"]: one["origin"] for one in listed} == {"pump-1": "config", "sensor-7": "config"}
    assert gateway("enrollment-group", "list").json[0]["origin"] == "config"
    ended = gateway("plan")
    assert ended.json == []
    assert {record.event for record in gateway.audit()} == {"enrollment.create", "enrollment-group.create"}


def test_what_changes_is_updated_and_what_is_taken_out_goes(declared):
    gateway = declared(SENSOR, PUMP)
    gateway("apply", "--yes")
    keys = gateway("enrollment", "show", "pump-1", "--show-keys").json["attestation"]
    declared(PUMP + 'device_id = "d-1"\ninitial_twin_tags = { line = 4 }\n')
    table = gateway("plan", "-o", "table").stdout
    assert 'initialTwin: nothing -> {"tags": {"line": 4}' in table
    assert "~ enrollment pump-1" in table and "deviceId: nothing -> d-1" in table and "- enrollment sensor-7" in table
    assert steps(gateway("apply", "--yes")) == [("update", "pump-1"), ("delete", "sensor-7")]
    shown = gateway("enrollment", "show", "pump-1", "--show-keys").json
    assert shown["deviceId"] == "d-1"
    assert shown["attestation"] == keys, "keys that were generated are kept"


def test_what_was_enrolled_by_hand_stays(declared):
    gateway = declared(PUMP)
    gateway("enrollment", "create", "by-hand", "--attestation-type", "symmetricKey")
    gateway("apply", "--yes")
    declared()
    assert steps(gateway("apply", "--yes")) == [("delete", "pump-1")]
    assert [one["registrationId"] for one in gateway("enrollment", "list").json] == ["by-hand"]


def test_an_enrollment_by_hand_is_in_the_way_unless_it_is_adopted(declared):
    gateway = declared(PUMP)
    gateway("enrollment", "create", "pump-1", "--attestation-type", "symmetricKey", "--device-id", "old")
    ended = gateway("plan", expect=78)
    assert "enrolled by hand" in ended.stderr and f"{gateway.config}:" in ended.stderr
    gateway("apply", "--adopt", "--yes")
    shown = gateway("enrollment", "list").json[0]
    assert (shown["origin"], shown.get("deviceId")) == ("config", None)


def test_a_device_that_an_operator_disabled_stays_disabled_unless_the_file_says_otherwise(declared):
    gateway = declared(PUMP)
    gateway("apply", "--yes")
    gateway("enrollment", "disable", "pump-1")
    assert gateway("plan").json == []
    declared(PUMP + 'provisioning_status = "enabled"\n')
    assert steps(gateway("plan")) == [("update", "pump-1")]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (SENSOR.replace("sensor.pem", "gone.pem"), "gone.pem cannot be read"),
        (SENSOR.replace("sensor.pem", "pump.key"), "pump.key"),
        (SENSOR.replace("sensor-7", "sensor-8"), "common name is sensor-7"),
        (SENSOR.replace('attestation_type = "x509"', 'attestation_type = "tpm"'), "certificate_file is for x509"),
        (SENSOR.replace("certificate_file", "certifcate_file"), 'did you mean "certificate_file"'),
        (SENSOR + SENSOR.replace("sensor-7", "SENSOR-7"), "declared twice"),
        (SENSOR + 'iot_hubs = ["nowhere"]\n', "'nowhere' is not in the configuration"),
        (PUMP.replace("pump.key", "sensor.pem"), "not base64"),
        (LINE + LINE.replace("line-4", "line-5"), "has the CA of line-5 already"),
        ('[[enrollments]]\nattestation_type = "x509"\n', "registration_id is missing"),
    ],
)
def test_a_mistake_is_named_with_file_and_line_and_nothing_is_applied(declared, table, said):
    gateway = declared(PUMP, table)
    ended = gateway("apply", "--yes", expect=78)
    assert said in ended.stderr
    line = int(ended.stderr.split(f"{gateway.config}:")[1].split(":")[0])
    lines = gateway.config.read_text().splitlines()
    tables = [number for number, text in enumerate(lines, start=1) if text.startswith("[[enrollment")]
    assert line >= tables[1]
    declared()
    assert gateway("enrollment", "list").json == []


def test_every_mistake_is_named_and_a_check_finds_what_an_apply_would(declared):
    gateway = declared(
        PUMP,
        SENSOR.replace("sensor-7", "sensor-8"),
        LINE,
        LINE.replace("line-4", "line-5"),
        PUMP.replace("pump-1", "a b"),
    )
    for words in (["config", "check"], ["plan"], ["apply"]):
        said = gateway(*words, expect=78).stderr
        assert "common name is sensor-7" in said and "registration id 'a b' is not" in said
        assert len(re.findall(re.escape(f"{gateway.config}:") + r"\d+: ", said)) >= 2
    declared(SENSOR.replace("sensor.pem", "gone-1.pem"), LINE.replace("line-4", "a").replace("line.pem", "gone-2.pem"))
    assert gateway("config", "check", expect=78).stderr.count("cannot be read") >= 1


# --- the daemon ------------------------------------------------------------------------------------------------------


def site_with(tmp_path, *devices):
    tables = [{"registration_id": device, "attestation_type": "symmetricKey"} for device in devices]
    return site_settings(tmp_path, enrollments=tables)


async def enrolled(daemon):
    found = await daemon._store.list_enrollments(EnrollmentKind.INDIVIDUAL, limit=100)
    return [enrollment.id for enrollment in found]


async def test_a_start_applies_what_is_declared(tmp_path):
    async with Daemon(site_with(tmp_path, "a", "b")) as daemon:
        assert await enrolled(daemon) == ["a", "b"]
    async with Daemon(site_with(tmp_path, "b")) as daemon:
        assert await enrolled(daemon) == ["b"]


async def test_a_start_with_a_mistake_says_where_and_does_not_start(tmp_path):
    async with Daemon(site_with(tmp_path, "a")):
        pass
    with pytest.raises(ConfigurationError, match=r"enrollments\[1\]"):
        async with Daemon(site_with(tmp_path, "b", "not an id")):
            pass
    async with Daemon(site_with(tmp_path, "a")) as daemon:
        assert await enrolled(daemon) == ["a"]


async def reloaded(daemon):
    """Reload, and wait for the end of the work that it began."""
    daemon.reload()
    await asyncio.gather(*daemon._background._tasks)


async def test_a_reload_applies_all_or_keeps_the_old_set(tmp_path):
    wanted = [site_with(tmp_path, "b", "c")]
    async with Daemon(site_with(tmp_path, "a"), reload=lambda: wanted[0]) as daemon:
        await reloaded(daemon)
        assert await enrolled(daemon) == ["b", "c"]
        wanted[0] = site_with(tmp_path, "d", "not an id")
        with structlog.testing.capture_logs() as logs:
            await reloaded(daemon)
        assert await enrolled(daemon) == ["b", "c"]
        assert daemon._settings.enrollments[0].registration_id == "b"
    failed = [entry for entry in logs if "reload failed" in entry["event"]]
    assert "enrollments[1]" in failed[0]["reason"]


def test_a_plan_shows_what_becomes_of_hubs_that_a_daemon_has_taken_over(gateway):
    settings = load_settings(gateway.config, environment={}).settings
    plain = gateway.config.read_text()
    line_2 = '\n[[hubs]]\nname = "line-2"\nhost = "10.0.0.7"\n'
    assert gateway("plan").json == []

    async def take_over():
        async with await SqliteStore.open(settings.database_file) as store:
            await record_hubs(load_settings(gateway.config, environment={}).settings, store)

    asyncio.run(take_over())
    assert gateway("plan").json == []
    gateway.config.write_text(plain + line_2)
    ended = gateway("plan")
    assert [(step["action"], step["kind"], step["id"]) for step in ended.json] == [("create", "hub", "line-2")]
    assert "SIGHUP" in ended.stderr
    asyncio.run(take_over())
    changed = line_2.replace("line-2", "line-3") + "weight = 3\n"
    gateway.config.write_text(plain.replace('host = "localhost"', 'host = "gateway.local"') + changed)
    table = gateway("plan", "-o", "table").stdout
    assert "~ hub local (embedded)\n    host: localhost -> gateway.local\n" in table
    assert "+ hub line-3 (embedded)" in table and "- hub line-2 (embedded)" in table


async def test_a_daemon_remembers_the_hubs_that_it_has_taken_over(tmp_path):
    more = site_settings(tmp_path, hubs=[{"name": "other", "host": "other.local"}])
    async with Daemon(site_settings(tmp_path), reload=lambda: more) as daemon:
        assert [step.name for step in await plan_hubs(more, daemon._store)] == ["other", "local"]
        await reloaded(daemon)
        assert await plan_hubs(more, daemon._store) == []


def test_lines_are_those_of_the_file(declared):
    gateway = declared(PUMP, SENSOR)
    settings = load_settings(gateway.config, environment={}).settings
    lines = gateway.config.read_text().splitlines()
    for one in settings.enrollments:
        number = int(one.place.rsplit(":", 1)[1])
        assert one.registration_id in "".join(lines[number - 1 : number + 1])


def test_a_change_by_hand_of_what_is_declared_is_said_not_to_last(declared):
    gateway = declared(SENSOR, LINE)
    gateway("apply", "--yes")
    changed = gateway("enrollment", "update", "SENSOR-7", "--device-id", "d-1").stderr
    assert f"{gateway.config}:" in changed and "declares SENSOR-7" in changed and "undoes this" in changed
    assert "enrolls it again" in gateway("enrollment", "delete", "sensor-7", "--yes").stderr
    assert "enrolls it again" in gateway("enrollment-group", "delete", "line-4", "--yes").stderr
    assert steps(gateway("plan")) == [("create", "sensor-7"), ("create", "line-4")]
    gateway("enrollment", "create", "other", "--attestation-type", "symmetricKey")
    assert "declares" not in gateway("enrollment", "delete", "other", "--yes").stderr
