"""A real Prometheus asks a running daemon: what is scraped, every panel of the dashboard, and promtool on the alerts."""

import asyncio
import json
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from provisiond.device import Refused
from provisiond.device.credentials import SymmetricKeyCredential
from tests.enrollment_factory import PRIMARY_KEY, group, individual
from tests.hubs.services import json_answer, run_service
from tests.ports import free_port
from tests.running_service import run_site

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "config/prometheus-alerts.yml"
TOOLS_MISSING = shutil.which("promtool") is None or shutil.which("prometheus") is None
pytestmark = pytest.mark.skipif(TOOLS_MISSING, reason="prometheus is not installed")

ONCE_A_DEVICE = 40
"""More series than this many devices would add, had any series a device's name in it."""


def test_each_alert_fires_when_it_must_and_not_before():
    tests = ROOT / "tests/prometheus/alerts.yml"
    done = subprocess.run(
        ["promtool", "test", "rules", tests], check=False, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    named = {line.split("alert: ")[1] for line in ALERTS.read_text().splitlines() if "alert: " in line}
    assert {name for name in named if name not in tests.read_text()} == set()


class Prometheus:
    def __init__(self, client):
        self._client = client

    async def query(self, expression):
        answer = await self._client.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"]

    async def until(self, expression):
        """Its result, once there is one."""
        async with asyncio.timeout(120):
            while True:
                if result := await self.query(expression):
                    return result
                await asyncio.sleep(0.05)  # only by asking is it known


@asynccontextmanager
async def run_prometheus(directory, target):
    port = free_port()
    (directory / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\nrule_files: [{ALERTS}]\n"
        f"scrape_configs: [{{job_name: provisiond, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with (directory / "prometheus.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            *("prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/series"),
            f"--web.listen-address=127.0.0.1:{port}",
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            async with asyncio.timeout(120):
                while process.returncode is None:
                    try:
                        if (await client.get("/-/ready")).status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    await asyncio.sleep(0.05)
            assert process.returncode is None, (directory / "prometheus.log").read_text()
            yield Prometheus(client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def panels():
    dashboard = json.loads((ROOT / "config/grafana-dashboard.json").read_text())
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]


def of_all_jobs(expression):
    """As Grafana asks when its variable `job` is at All."""
    return expression.replace("$job", ".*")


async def test_every_panel_of_the_dashboard_shows_something(tmp_path):
    (tmp_path / "secret").write_text("s" * 32)
    (tmp_path / "secret").chmod(0o600)
    target = f"127.0.0.1:{free_port()}"
    async with run_service(lambda _: json_answer({})) as hub:
        options = {"url": hub.url, "secret_file": str(tmp_path / "secret")}
        hubs = [
            {"name": "local", "type": "embedded", "host": "gateway.local"},
            {"name": "line-2", "type": "webhook", "host": "line-2.local", "options": options},
        ]
        metrics = {"enabled": True, "bind": target}
        async with (
            run_site(tmp_path, hubs=hubs, metrics=metrics) as site,
            run_prometheus(tmp_path, target) as prometheus,
        ):
            await prometheus.until("provisiond_build_info")
            await site.admin.create_enrollment(individual("pump-1"))
            await site.admin.create_enrollment(group("line-4"))
            await site.register("pump-1", SymmetricKeyCredential(key=PRIMARY_KEY))
            before = len(await prometheus.query('{job="provisiond"}'))
            for number in range(ONCE_A_DEVICE):
                name = f"sensor-{number}"
                await site.register(name, SymmetricKeyCredential.from_group_key(PRIMARY_KEY, name))
            with pytest.raises(Refused):
                await site.register("pump-1", SymmetricKeyCredential(key=b"x" * 32))
            await prometheus.until('rate(provisiond_decisions_total{code="401002"}[5m])')
            empty = [title for title, expression in panels() if not await prometheus.query(of_all_jobs(expression))]
            series = await prometheus.query('{job="provisiond"}')
            alerts = await prometheus.query('ALERTS{alertstate="firing"}')
    assert empty == []
    assert alerts == []
    assert len(series) - before < 4 * ONCE_A_DEVICE  # histograms have a dozen series each: of hub, stage and event
    assert not any("sensor-" in value for one in series for value in one["metric"].values())
