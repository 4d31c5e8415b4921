import json

from typer.testing import CliRunner

from provisiond.cli.main import app


def test_the_demo_assigns_a_device_of_every_kind_and_cleans_up(socket_directory, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(socket_directory))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = CliRunner().invoke(app, ["demo", "-o", "json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["result"] for row in rows] == ["assigned"] * len(rows)
    assert {(row["attestation"], row["enrollment"]) for row in rows} >= {
        ("x509", "individual"),
        ("x509", "group"),
        ("symmetricKey", "individual"),
        ("symmetricKey", "group"),
        ("tpm", "individual"),
    }
    assert not list(socket_directory.glob("provisiond-demo-*"))
