"""`registration watch`, and what doctor and status see in the database."""

import asyncio
import json
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from provisiond.cli import follow
from provisiond.ports import Write
from provisiond.store import SqliteStore
from tests.certificates import make_ca, make_leaf
from tests.cli.conftest import invoke
from tests.fakes_decision import NOW
from tests.store.records import make_audit, make_registration


def commit(gateway, *records):
    async def write():
        async with await SqliteStore.open(gateway.directory / "state/provisiond.db") as store:
            for record in records:
                await store.commit(Write(audit=record))

    asyncio.run(write())


def found(gateway, expect=0):
    return {one["subject"]: one for one in gateway("doctor", expect=expect).json}


@pytest.fixture
def ended_after_one_more(gateway, monkeypatch):
    """Following ends as by Ctrl-C after one more device, and one operator, have done something."""
    looks = []

    async def look(_seconds):
        looks.append(1)
        if len(looks) > 1:
            raise KeyboardInterrupt
        more = (make_audit("t-3", "new", at=NOW), make_audit("t-4", at=NOW, event="enrollment.create"))
        thread = threading.Thread(target=commit, args=(gateway, *more))
        thread.start()
        thread.join()

    monkeypatch.setattr(follow.asyncio, "sleep", look)
    return gateway


def test_watching_shows_the_last_registrations_and_each_new_one(ended_after_one_more):
    gateway = ended_after_one_more
    commit(gateway, make_audit("t-1", "old"), make_audit("t-2", "old", outcome="refused", code=401002))
    ended = gateway("registration", "watch", "-o", "ndjson", expect=130)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["trackingId"] for line in lines] == ["t-1", "t-2", "t-3"]
    assert "trace" not in lines[0]


def test_watching_may_be_for_one_device_or_for_refusals(ended_after_one_more):
    gateway = ended_after_one_more
    commit(gateway, make_audit("t-1", "old"), make_audit("t-2", "old", outcome="refused", code=401002))
    ended = gateway("registration", "watch", "--rid", "OLD", "--refused", "-o", "tsv", expect=130)
    lines = ended.stdout.splitlines()
    assert len(lines) == 1 and lines[0].split("\t")[2] == "refused"


def test_watching_begins_before_the_first_run(ended_after_one_more):
    ended = ended_after_one_more("registration", "watch", "-o", "ndjson", expect=130)
    assert [json.loads(line)["registrationId"] for line in ended.stdout.splitlines()] == ["new"]


def test_status_tells_of_hubs_and_of_the_audit_trail(gateway):
    gateway.store(make_registration("a"))
    commit(gateway, make_audit("t-1"))
    body = invoke("-c", gateway.config, "status").json
    assert body["hubs"] == {"local": {"type": "embedded", "host": "localhost", "healthy": True}}
    assert body["audit"] == {"records": 1, "newest": 1, "signedUpTo": None}


def test_doctor_looks_into_the_database(gateway):
    commit(gateway, make_audit("t-1", at=NOW))
    gateway("audit", "checkpoint")
    seen = found(gateway)
    for subject in ("schema", "audit", "hub local", "key permissions", "certificate devices"):
        assert seen[subject]["level"] == "ok", seen[subject]
    assert seen["metrics"]["level"] in ("ok", "warn")


def test_doctor_says_that_the_clock_went_back(gateway):
    commit(gateway, make_audit("t-1", at=NOW + timedelta(days=400)))
    seen = found(gateway, expect=1)
    assert seen["clock went back"]["level"] == "FAIL" and "timedatectl" in seen["clock went back"]["mend"]


def test_doctor_says_that_the_audit_trail_was_altered(gateway):
    commit(gateway, make_audit("t-1", at=NOW), make_audit("t-2", at=NOW))
    with closing(sqlite3.connect(gateway.directory / "state/provisiond.db")) as connection:
        connection.execute("DROP TRIGGER audit_is_append_only")
        connection.execute("UPDATE audit SET record = replace(record, 'assigned', 'refused') WHERE seq = 1")
        connection.commit()
    assert found(gateway, expect=1)["audit"]["text"] == "row 1 is not what was written"


def test_doctor_says_that_the_schema_is_old_and_how_to_migrate(gateway):
    commit(gateway, make_audit("t-1", at=NOW))
    with closing(sqlite3.connect(gateway.directory / "state/provisiond.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert found(gateway, expect=1)["schema"]["mend"].endswith("db migrate")


def test_doctor_does_not_renew_a_certificate_to_mend_what_is_no_certificate(gateway, tmp_path):
    brokers = make_leaf("provisiond", not_after=datetime.now(UTC) + timedelta(days=3))
    cert_file, _ = brokers.write(tmp_path, "client")
    text = gateway.config.read_text()
    listeners = text[text.index("# For programs on this machine") : text.index("# The hub that devices")]
    external = f"""[broker]
mode = "external"
[broker.external]
url = "mqtts://[::1]:1"
ca_file = "ca/root.crt"
cert_file = "{cert_file}"

"""
    gateway.config.write_text(text.replace(listeners, external))
    files = {
        one["text"].split(":")[0]: one["mend"] for one in gateway("doctor", expect=1).json if one["subject"] == "files"
    }
    assert "hub add" in files["hubs (local)"]
    assert files["broker.external"].endswith(f"after your authority's new certificate has been put at {cert_file}")


def test_doctor_names_a_key_that_others_may_read(gateway):
    commit(gateway, make_audit("t-1", at=NOW))
    gateway("audit", "checkpoint")
    key = gateway.directory / "state/audit-signing.key"
    key.chmod(0o644)
    assert found(gateway, expect=1)["key permissions"]["mend"] == f"chmod 0600 {key}"


@pytest.mark.parametrize(("days", "level"), [(400, "ok"), (10, "warn"), (-1, "FAIL")])
def test_doctor_counts_the_days_of_the_server_certificate(gateway, days, level):
    leaf = make_leaf(
        "localhost", make_ca("root"), not_before=NOW - timedelta(days=9), not_after=NOW + timedelta(days=days, hours=1)
    )
    (gateway.directory / "tls/server.crt").write_bytes(leaf.pem)
    seen = {one["subject"]: one for one in invoke("-c", gateway.config, "doctor").json}
    assert seen["certificate devices"]["level"] == level
    assert f"in {days} days" in seen["certificate devices"]["text"]


# --- hubs that other programs run ------------------------------------------------------------------------------------

LINE_2 = '\n[[hubs]]\nname = "line-2"\ntype = "mosquitto"\nhost = "10.0.0.7"\n'


def observe(gateway, state, *, age=timedelta(0), error=""):
    gateway.config.write_text(gateway.config.read_text() + LINE_2)
    observed = {"state": state, "error": error, "latencyMs": 2.5, "seenAt": (datetime.now(UTC) - age).isoformat()}

    async def write():
        async with await SqliteStore.open(gateway.directory / "state/provisiond.db") as store:
            await store.put_hub_observation("line-2", observed)

    asyncio.run(write())


@pytest.mark.parametrize(
    ("state", "age", "level", "healthy"),
    [
        ("up", timedelta(0), "ok", True),
        ("up", timedelta(hours=1), "warn", None),
        ("down", timedelta(0), "FAIL", False),
        ("unauthorized", timedelta(0), "FAIL", False),
        ("down", timedelta(hours=1), "FAIL", None),
    ],
)
def test_doctor_and_status_tell_of_a_hub_as_it_was_last_seen(gateway, state, age, level, healthy):
    observe(gateway, state, age=age, error="" if state == "up" else "connection refused")
    ended = invoke("-c", gateway.config, "doctor").json
    finding = next(one for one in ended if one["subject"] == "hub line-2")
    assert finding["level"] == level
    assert ("connection refused" in finding["text"]) == (state != "up")
    assert invoke("-c", gateway.config, "status").json["hubs"]["line-2"]["healthy"] is healthy


def test_doctor_says_that_nobody_has_looked_at_a_hub(gateway):
    gateway.config.write_text(gateway.config.read_text() + LINE_2)
    commit(gateway, make_audit("t-1", at=NOW))
    finding = next(one for one in invoke("-c", gateway.config, "doctor").json if one["subject"] == "hub line-2")
    assert (finding["level"], finding["text"]) == ("warn", "nobody has looked at it yet")


def test_explain_knows_the_hubs_as_they_were_last_seen(gateway):
    observe(gateway, "down", error="connection refused")
    gateway("enrollment", "create", "pump-1", "--attestation-type", "symmetricKey")
    hubs = {hub["name"]: hub for hub in gateway("explain", "--registration-id", "pump-1").json["hubs"]}
    assert [(hub["healthy"], hub["score"] is None) for hub in hubs.values()] == [(True, False), (False, True)]
    assert hubs["line-2"]["latencyMs"] == 2.5
    table = gateway("explain", "--registration-id", "pump-1", "-o", "table").stdout
    assert "line-2 (10.0.0.7, weight 1, did not answer when it was last asked): not a candidate" in table
