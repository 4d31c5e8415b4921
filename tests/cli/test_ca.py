"""`provisiond ca`."""

import stat


def test_the_root_is_shown(gateway):
    shown = gateway("ca", "show").json
    assert shown["certificateFile"] == str(gateway.directory / "ca/root.crt")
    assert shown["subjectName"] == "CN=provisiond 0ne0TEST001 root"
    assert shown["fingerprint"] == gateway("ca", "fingerprint").stdout.strip()


def test_a_device_certificate_is_issued_and_can_be_enrolled(gateway, tmp_path):
    issued = gateway("ca", "issue", "sensor-7", "--out", tmp_path / "devices", "--days", "30")
    assert issued.json == {
        "certificateFile": f"{tmp_path}/devices/sensor-7.crt",
        "keyFile": f"{tmp_path}/devices/sensor-7.key",
    }
    assert stat.S_IMODE((tmp_path / "devices/sensor-7.key").stat().st_mode) == 0o600
    assert "enrollment create sensor-7 --certificate-path" in issued.stderr
    gateway("enrollment", "create", "sensor-7", "--certificate-path", tmp_path / "devices/sensor-7.crt")


def test_a_certificate_is_never_overwritten(gateway, tmp_path):
    gateway("ca", "issue", "a")
    before = (tmp_path / "a.key").read_bytes()
    gateway("ca", "issue", "a", expect=4)
    (tmp_path / "a.crt").unlink()
    gateway("ca", "issue", "a", expect=4)
    assert (tmp_path / "a.key").read_bytes() == before


def test_an_id_that_is_no_file_name_is_refused(gateway, tmp_path):
    gateway("ca", "issue", "../a", expect=2)
    gateway("ca", "issue", "a" * 65, expect=2)
    assert not (tmp_path.parent / "a.crt").exists()


def test_without_a_ca_the_way_out_is_told(gateway):
    (gateway.directory / "ca/root.crt").unlink()
    assert "`provisiond init` makes a CA" in gateway("ca", "show", expect=3).stderr
    assert "`provisiond init` makes a CA" in gateway("ca", "issue", "a", expect=3).stderr
