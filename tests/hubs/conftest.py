"""A real mosquitto with the dynamic-security plugin, on loopback, in a directory of its own."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provisiond.connectors import HubIdentity, HubOptions
from provisiond.errors import HubUnavailable
from provisiond.hubs.dynsec import DynsecClient
from provisiond.hubs.mosquitto import make_connector
from provisiond.hubs.mqtt import MqttEndpoint
from provisiond.model import AttestationType
from tests.certificates import SERVER_AUTH, make_ca, make_crl, make_leaf
from tests.mosquitto import until_listening
from tests.ports import free_port

PROGRAMS = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
PASSWORD = "an administrator's password"


def find_plugin():
    roots = [Path("/usr/lib"), Path("/usr/local/lib")]
    places = [directory for root in roots for directory in (root, *root.glob("*-linux-*"))]
    return next((file for place in places if (file := place / "mosquitto_dynamic_security.so").exists()), None)


def crl_pem(root, *revoked):
    return x509.load_der_x509_crl(make_crl(root, revoked)).public_bytes(Encoding.PEM)


@dataclass
class Mosquitto:
    """A broker that can be stopped and started again; `port` takes passwords, `tls_port` certificates."""

    directory: Path
    port: int
    tls_port: int
    process: asyncio.subprocess.Process | None = None

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            shutil.which("mosquitto", path=PROGRAMS),
            "-c",
            str(self.directory / "mosquitto.conf"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until_listening(self.process, self.tls_port)

    async def stop(self):
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            await self.process.wait()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def revoke(self, crl):
        (self.directory / "devices.crl").write_bytes(crl)
        self.process.send_signal(signal.SIGHUP)

    def options(self, **changes):
        url = f"mqtt://127.0.0.1:{self.port}"
        options = {"admin_url": url, "password_file": "admin.password", "device_url": url} | changes
        return HubOptions(name="line-2", host="localhost", options=options, base_dir=self.directory)


@pytest.fixture(scope="session")
def pki():
    """A root that signs devices and a broker, and the broker's certificate."""
    root = make_ca("Hub root")
    return root, make_leaf("localhost", root, dns_names=("localhost",), usages=(SERVER_AUTH,))


@asynccontextmanager
async def run_mosquitto(directory, pki, *lines):
    """A broker whose administrator is `admin` with `PASSWORD`, which is also in `admin.password`."""
    programs = [shutil.which(name, path=PROGRAMS) for name in ("mosquitto", "mosquitto_ctrl")]
    plugin = find_plugin()
    if plugin is None or None in programs:
        pytest.skip("mosquitto with its dynamic-security plugin is not installed")
    root, server = pki
    certificate_path, key_path = server.write(directory, "server")
    (directory / "ca.crt").write_bytes(root.pem)
    (directory / "devices.crl").write_bytes(crl_pem(root))
    (directory / "admin.password").touch(mode=0o600)
    (directory / "admin.password").write_text(PASSWORD + "\n")
    state = directory / "dynamic-security.json"
    init = [programs[1], "dynsec", "init", str(state), "admin", PASSWORD]
    await asyncio.to_thread(subprocess.run, init, check=True, capture_output=True)
    broker = Mosquitto(directory, free_port(), free_port())
    (directory / "mosquitto.conf").write_text(
        f"user root\nper_listener_settings false\nallow_anonymous false\nplugin {plugin}\n"
        f"plugin_opt_config_file {state}\nlistener {broker.port} 127.0.0.1\n"
        f"listener {broker.tls_port} 127.0.0.1\ncafile {directory}/ca.crt\ncertfile {certificate_path}\n"
        f"keyfile {key_path}\ncrlfile {directory}/devices.crl\nrequire_certificate true\n"
        "use_identity_as_username true\n" + "\n".join(lines)
    )
    try:
        await broker.start()
        await let_the_administrator_send(broker)
        yield broker
    finally:
        await broker.stop()


async def let_the_administrator_send(broker):
    """To devices, as a back end does; of itself it may only administer."""
    dynsec = DynsecClient(MqttEndpoint(url=f"mqtt://127.0.0.1:{broker.port}", username="admin", password=PASSWORD))
    right = {"command": "addRoleACL", "rolename": "admin", "acltype": "publishClientSend", "allow": True}
    with contextlib.suppress(HubUnavailable):  # whose role changes is disconnected before it is answered
        async with asyncio.timeout(60):
            await dynsec.send([right | {"topic": "devices/#"}])
    await dynsec.aclose()


@pytest.fixture
async def broker(tmp_path, pki):
    async with run_mosquitto(tmp_path, pki) as broker:
        yield broker


@pytest.fixture
async def hub(broker):
    connector = make_connector(broker.options())
    yield connector
    await connector.aclose()


def key_identity(device_id, key=b"k" * 32):
    return HubIdentity(
        device_id=device_id, registration_id=device_id, attestation_type=AttestationType.SYMMETRIC_KEY, key=key
    )


def certificate_identity(device_id, certificate_der):
    return HubIdentity(
        device_id=device_id,
        registration_id=device_id,
        attestation_type=AttestationType.X509,
        certificate_der=certificate_der,
    )
