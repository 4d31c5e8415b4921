"""`provisiond hub`, as an operator types it."""

import os

import pytest

from provisiond.model import RegistrationStatus, Retirement
from tests.cli.conftest import invoke
from tests.fakes_decision import NOW
from tests.store.records import make_registration

MOSQUITTO = ("m", "--type", "mosquitto", "--host", "m.example")


@pytest.fixture
def two_hubs(gateway):
    gateway("hub", "add", "other", "--host", "other.example", "--weight", "3")
    return gateway


def names(gateway):
    return [hub["name"] for hub in gateway("hub", "list", "-o", "json").json]


def test_hubs_are_listed_with_their_shares(two_hubs):
    hubs = {hub["name"]: hub for hub in two_hubs("hub", "list", "-o", "json").json}
    assert (hubs["local"]["share"], hubs["other"]["share"]) == ("25.0%", "75.0%")
    assert hubs["local"]["health"] == "up"


def test_devices_are_counted_by_hub_and_state(two_hubs):
    two_hubs.store(
        make_registration("one", hub="other"),
        make_registration("two", hub="other", status=RegistrationStatus.ASSIGNING),
    )
    hub = two_hubs("hub", "show", "other", "-o", "json").json
    assert (hub["assigned"], hub["assigning"]) == (1, 1)


def test_a_hub_is_found_by_its_host_as_well(two_hubs):
    assert two_hubs("hub", "show", "OTHER.example", "-o", "json").json["name"] == "other"


def test_an_unknown_hub_is_not_found(gateway):
    assert "there are: local" in gateway("hub", "show", "nowhere", expect=3).stderr


def test_adding_a_hub_keeps_the_files_comments_and_its_last_line(gateway):
    before = gateway.config.read_text()
    gateway("hub", "add", "other", "--host", "other.example")
    after = gateway.config.read_text()
    assert [line for line in before.splitlines() if line not in after.splitlines()] == []
    assert after.splitlines()[-1] == before.splitlines()[-1]
    gateway("config", "check")


def test_adding_and_removing_leaves_the_configuration_as_it_was(gateway):
    before = gateway.config.read_text().split()
    mode = gateway.config.stat().st_mode
    previous = os.umask(0o077)
    try:
        gateway("hub", "add", "other", "--host", "other.example")
        gateway("hub", "remove", "other", "--yes")
    finally:
        os.umask(previous)
    assert gateway.config.read_text().split() == before
    assert gateway.config.stat().st_mode == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_the_daemons_user_can_still_read_the_configuration_where_a_link_leads(gateway):
    named = gateway.directory / "named.toml"
    os.chown(gateway.config, 65533, 65534)
    gateway.config.chmod(0o640)
    named.symlink_to(gateway.config.name)
    invoke("-c", named, "hub", "add", "other", "--host", "other.example")
    status = gateway.config.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65533, 65534, 0o640)
    assert named.is_symlink()
    assert "other.example" in gateway.config.read_text()


def test_a_separator_in_a_comment_is_no_end_of_a_line(gateway):
    text = "# a\u2028b\n" + gateway.config.read_text()
    gateway.config.write_text(text)
    gateway("hub", "add", "other", "--host", "other.example")
    assert gateway.config.read_text().startswith("# a\u2028b\n")


def test_options_are_given_one_by_one(gateway):
    gateway("hub", "add", "m", "--type", "mosquitto", "--host", "m.example", "--option", "bind_client_id=false")
    assert "bind_client_id = false" in gateway.config.read_text()
    assert gateway("hub", "show", "m", "-o", "json").json["health"] == "unknown"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("local", "--host", "x.example"), 4, "there is a hub local"),
        (("x", "--host", "x.example", "--type", "nonsense"), 2, "there are: embedded, mosquitto, webhook"),
        (("x", "--host", "localhost"), 78, "each needs its own"),
        (("x", "--host", "x.example", "--option", "novalue"), 2, "KEY=VALUE"),
        (("x y", "--host", "x.example"), 78, "name"),
        ((*MOSQUITTO, "--option", "nonsense=1"), 78, '[[hubs]] "m": nonsense'),
        ((*MOSQUITTO, "--option", "password_file=gone"), 78, "gateway/gone: No such file or directory"),
    ],
)
def test_a_hub_that_cannot_be_added_changes_nothing(gateway, arguments, code, message):
    before = gateway.config.read_text()
    assert message in gateway("hub", "add", *arguments, expect=code).stderr
    assert gateway.config.read_text() == before
    assert list(gateway.directory.glob(".*part")) == []


def test_paths_of_a_hubs_options_begin_where_the_configuration_is_named_not_where_a_link_leads(gateway, tmp_path):
    (tmp_path / "provisiond.toml").symlink_to(gateway.config)
    (tmp_path / "admin.password").touch(mode=0o600)
    (tmp_path / "admin.password").write_text("secret")
    option = ("--option", "password_file=admin.password")
    gateway("hub", "add", *MOSQUITTO, *option, expect=78)
    assert invoke("-c", tmp_path / "provisiond.toml", "hub", "add", *MOSQUITTO, *option).exit_code == 0


def test_a_hub_that_does_not_answer_is_said_so(gateway):
    gateway("hub", "add", "m", "--type", "mosquitto", "--host", "m", "--option", "admin_url=mqtt://127.0.0.1:9")
    shown = gateway("hub", "show", "m", "--probe", "-o", "json", expect=69).json
    assert "127.0.0.1:9" in shown["probe"]["error"]


def test_options_that_cannot_be_used_are_found_by_checking_the_configuration(gateway):
    gateway("hub", "add", *MOSQUITTO, "--option", "bind_client_id=false")
    gateway.config.write_text(gateway.config.read_text().replace("bind_client_id", "nonsense"))
    assert '[[hubs]] "m": nonsense' in gateway("config", "check", expect=78).stderr


def test_the_last_hub_cannot_be_removed(gateway):
    assert "at least one hub" in gateway("hub", "remove", "local", "--yes", expect=78).stderr
    assert names(gateway) == ["local"]


def test_a_hub_that_drains_has_no_share_until_that_is_undone(two_hubs):
    drained = two_hubs("hub", "drain", "other", "-o", "json").json
    assert (drained["share"], drained["health"]) == ("0.0%", "up draining")
    assert two_hubs("hub", "drain", "other", "--undo", "-o", "json").json["share"] == "75.0%"
    events = [row["event"] for row in two_hubs("audit", "list", "-o", "json").json]
    assert events[-2:] == ["hub.drain", "hub.undrain"]


def test_the_plan_says_which_devices_would_move_where_and_moves_none(two_hubs):
    two_hubs("enrollment", "create", "moves", "--attestation-type", "symmetricKey")
    two_hubs("enrollment", "create", "stays", "--attestation-type", "symmetricKey", "--reprovision-policy", "never")
    two_hubs.store(*(make_registration(id_, hub="other") for id_ in ("moves", "stays", "gone")))
    ended = two_hubs("hub", "remove", "other", "--plan", "-o", "json")
    fates = {row["deviceId"]: (row["fate"], row["target"]) for row in ended.json}
    assert fates == {"moves": ("moves", "local"), "stays": ("stays", None), "gone": ("unenrolled", None)}
    assert "1 would move to local" in ended.stderr
    assert names(two_hubs) == ["local", "other"]
    assert two_hubs("hub", "show", "other", "-o", "json").json["assigned"] == 3


def test_a_hub_with_devices_is_removed_by_force_only(two_hubs):
    two_hubs.store(make_registration("one", hub="other"))
    assert "1 devices are on other" in two_hubs("hub", "remove", "other", "--yes", expect=4).stderr
    two_hubs("hub", "remove", "other", "--yes", "--force")
    assert names(two_hubs) == ["local"]


def test_a_hub_that_devices_have_left_something_at_is_removed_by_force_only(two_hubs):
    left = Retirement(hub="other", device_id="one", registration_id="one", due_at=NOW, grace_s=60)
    two_hubs.store(make_registration("one", hub="local"), retire=left)
    assert two_hubs("hub", "show", "other", "-o", "json").json["leaving"] == 1
    assert "1 devices have left other" in two_hubs("hub", "remove", "other", "--yes", expect=4).stderr
    two_hubs("hub", "remove", "other", "--yes", "--force")
    assert names(two_hubs) == ["local"]


@pytest.mark.parametrize(
    ("hubs", "said"), [("line-2", True), ("MQTT.local", True), ("line-2 other", False), (None, False)]
)
def test_who_cannot_be_told_a_password_is_said_when_it_is_enrolled(two_hubs, tmp_path, hubs, said):
    two_hubs("hub", "add", "line-2", "--type", "mosquitto", "--host", "mqtt.local", "--option", "x509=password")
    two_hubs("ca", "issue", "pump", "--out", tmp_path)
    words = [] if hubs is None else ["--iot-hubs", hubs]
    created = two_hubs("enrollment", "create", "pump", "--certificate-path", tmp_path / "pump.crt", *words)
    assert ("devices have passwords there" in created.stderr) is said
