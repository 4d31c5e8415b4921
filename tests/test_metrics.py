"""What Prometheus hears, and the dashboard and the alerts that are made of it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import Gauge, generate_latest

from provisiond.hub_observers import HubMetrics
from provisiond.metrics import Metrics, StateMetrics
from provisiond.model import Connection, Decision, Outcome, RegistrationId, Reply, Role
from provisiond.ports import Write
from provisiond.registration.tpm_claim import IDENTITY_CONFLICTS
from provisiond.sampler import Sampler, show
from provisiond.settings import Settings
from provisiond.store import SqliteStore
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import individual
from tests.fakes_decision import HUBS, NOW, FakeClock
from tests.store.records import make_audit, make_write

CONFIG = Path(__file__).parents[1] / "config"
CONNECTION = Connection(
    connection_id="c", role=Role.DPS, claimed_id=RegistrationId.parse("a"), listener="l", remote_address="r"
)


@pytest.fixture
def metrics():
    metrics = Metrics()
    metrics.gauge("provisiond_connections", "As the daemon has it.", lambda: 3.0)
    metrics.counters("provisiond_connections_ended", "As the daemon has it.", "reason", lambda: {"tls": 2})
    StateMetrics(metrics.registry)
    HubMetrics(metrics.registry)
    return metrics


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def decided(metrics, outcome, *, event="register", guard=None):
    metrics.decided(
        CONNECTION, Decision(reply=Reply(status=200), outcome=outcome, guard=guard), event=event, elapsed_s=0.1
    )


def test_registrations_are_counted_by_outcome_and_mechanism(metrics):
    decided(metrics, Outcome.ASSIGNED, guard=individual("a"))
    decided(metrics, Outcome.ASSIGNED, guard=individual("a"), event="answer")
    decided(metrics, Outcome.REFUSED)
    decided(metrics, Outcome.CHALLENGED)
    decided(metrics, Outcome.ASSIGNED, guard=individual("a"), event="poll")
    name = "provisiond_registration_requests_total"
    assert value(metrics, name, outcome="assigned", mechanism="symmetricKey") == 2
    assert value(metrics, name, outcome="refused", mechanism="unproved") == 1
    assert value(metrics, name, outcome="challenged", mechanism="unproved") is None


def test_stages_are_timed(metrics):
    metrics.time_stage("commit", 0.004)
    assert value(metrics, "provisiond_stage_seconds_count", stage="commit") == 1
    assert value(metrics, "provisiond_stage_seconds_sum", stage="commit") == 0.004


class Directory:
    def snapshot(self):
        return (HUBS[0], HUBS[1])


def test_what_is_to_be_expected_is_there_at_zero_for_a_rate_misses_a_first_appearance(metrics):
    name = "provisiond_registration_requests_total"
    assert value(metrics, name, outcome="assigned", mechanism="tpm") == 0
    assert value(metrics, name, outcome="refused", mechanism="unproved") == 0
    assert value(metrics, "provisiond_connects_refused_total", code="5") == 0
    for finding in IDENTITY_CONFLICTS:
        assert value(metrics, "provisiond_identity_conflicts_total", finding=finding) == 0


def test_counters_of_others_are_read_when_they_are_asked_for(metrics):
    assert value(metrics, "provisiond_connections_ended_total", reason="tls") == 2


def test_what_is_gone_is_not_shown_as_it_last_was():
    gauge = Gauge("one", "For the test.", ["hub"])
    show(gauge, {"a": 1, "b": 2})
    show(gauge, {"b": 3, "c": 4})
    shown = {sample.labels["hub"]: sample.value for family in gauge.collect() for sample in family.samples}
    assert shown == {"b": 3, "c": 4}


async def test_the_sampler_looks_at_store_hubs_certificates_and_disk(tmp_path):
    root = make_ca("root")
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca/root.crt").write_bytes(root.pem)
    leaf = make_leaf("localhost", root)
    (tmp_path / "server.crt").write_bytes(leaf.pem)
    listener = {"name": "devices", "bind": "127.0.0.1:0", "tls": True, "cert_file": str(tmp_path / "server.crt")}
    settings = Settings.model_validate(
        {"config_version": 1, "service": {"state_dir": str(tmp_path)}, "broker": {"listeners": [listener]}}
    )
    metrics = Metrics()
    async with await SqliteStore.open(tmp_path / "provisiond.db") as store:
        await store.commit(make_write("a"))
        await store.commit(Write(audit=make_audit("t")))
        sampler = Sampler(
            StateMetrics(metrics.registry),
            store=store,
            hubs=Directory(),
            clock=FakeClock(NOW),
            settings=lambda: settings,
        )
        await sampler.look()
    assert value(metrics, "provisiond_registrations", status="assigned") == 1
    assert value(metrics, "provisiond_registrations", status="assigning") == 0
    assert value(metrics, "provisiond_hub_waiting", hub="local") == 0
    assert value(metrics, "provisiond_hub_assigned", hub="two") == 0
    assert value(metrics, "provisiond_hub_assigned", hub="local") == 1
    assert value(metrics, "provisiond_hub_healthy", hub="two") == 1
    assert value(metrics, "provisiond_audit_records") == value(metrics, "provisiond_audit_unsigned_records") >= 1
    assert value(metrics, "provisiond_state_free_bytes") > 0
    assert value(metrics, "provisiond_store_transactions") >= 2
    left = value(metrics, "provisiond_certificate_expiry_days", certificate="devices")
    assert 0 < left < 4000
    assert value(metrics, "provisiond_certificate_expiry_days", certificate="ca") > 0
    await sampler.look()  # with a store that is closed: the rest is looked at all the same


def known(metrics):
    text = generate_latest(metrics.registry).decode()
    names = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    samples = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    return names | samples | {f"{name}_bucket" for name in names}


def queried(expression):
    return set(re.findall(r"\bprovisiond_\w+", expression))


def test_the_dashboard_asks_for_metrics_that_exist(metrics):
    dashboard = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set().union(*map(queried, expressions))
    assert len(dashboard["panels"]) >= 12 and asked
    assert asked <= known(metrics)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_alerts_rest_on_metrics_that_exist_and_say_what_mends(metrics):
    rules = yaml.safe_load((CONFIG / "prometheus-alerts.yml").read_text())["groups"][0]["rules"]
    assert set().union(*(queried(rule["expr"]) for rule in rules)) <= known(metrics)
    for rule in rules:
        assert rule["annotations"]["summary"] and rule["annotations"]["mending"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_every_metric_is_on_the_dashboard_or_in_an_alert(metrics):
    text = (CONFIG / "grafana-dashboard.json").read_text() + (CONFIG / "prometheus-alerts.yml").read_text()
    names = {family.name for family in metrics.registry.collect()}
    assert {name for name in names if name not in text} == set()
