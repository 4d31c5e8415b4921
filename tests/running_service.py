"""A daemon in this process, over TLS on a free port of loopback, with its operator and its audit log."""

from contextlib import asynccontextmanager

from provisiond.admin.use_cases import Admin
from provisiond.daemon import Daemon
from provisiond.device import Endpoint, Patience, ProvisioningClient
from provisiond.device.simulator import Service
from provisiond.settings import Settings
from provisiond.system import SystemClock, SystemEntropy
from tests.certificates import SERVER_AUTH, make_ca, make_leaf

ID_SCOPE = "0ne0TEST001"


class Site:
    """A running daemon, its operator, and where devices find it."""

    def __init__(self, daemon, endpoint):
        self.daemon = daemon
        self.store = daemon._store
        self.admin = Admin(store=self.store, clock=SystemClock(), entropy=SystemEntropy(), hubs=(), actor="the tests")
        self.service = Service(endpoint=endpoint, id_scope=ID_SCOPE, patience=Patience(jitter=0))

    async def register(self, registration_id, credential, *, id_scope=ID_SCOPE):
        """Register as the device's own client does; the result, and the steps on the way."""
        steps = []
        async with ProvisioningClient(
            self.service.endpoint,
            id_scope=id_scope,
            registration_id=registration_id,
            credential=credential,
            patience=self.service.patience,
            dialect=self.service.dialect,
            on_step=lambda step, _: steps.append(step),
        ) as client:
            return await client.register(), steps

    async def audited(self, registration_id):
        """The audit records of a registration id, oldest first."""
        rows = await self.store.list_audit(limit=1000, registration_key=registration_id.lower())
        return [record for _, record in rows]


def site_settings(directory, *, reply="immediate", **sections):
    """Settings of a service in a directory, with a certificate of a new authority; `sections` are added to them."""
    if not (directory / "server.crt").exists():
        root = make_ca("Root")
        make_leaf("localhost", root, dns_names=("localhost",), usages=(SERVER_AUTH,)).write(directory, "server")
        (directory / "root.crt").write_bytes(root.pem)
    listener = {"name": "devices", "bind": "127.0.0.1:0", "tls": True}
    paths = {"cert_file": str(directory / "server.crt"), "key_file": str(directory / "server.key")}
    return Settings.model_validate(
        {
            "service": {"id_scope": ID_SCOPE, "state_dir": str(directory / "state")},
            "store": {"url": f"sqlite:///{directory}/state/provisiond.db"},
            "broker": {"listeners": [listener | paths]},
            "hubs": [{"name": "local", "type": "embedded", "host": "gateway.local"}],
            "metrics": {"enabled": False},
            "registration": {"reply": reply, "retry_after": "1s"},
        }
        | sections
    )


@asynccontextmanager
async def run_site(directory, **options):
    """A site that lasts as long as the block; options as `site_settings`."""
    settings = site_settings(directory, **options)
    async with Daemon(settings, reload=lambda: site_settings(directory, **options)) as daemon:
        _, port = daemon.addresses["devices"]
        yield Site(daemon, Endpoint(host="localhost", port=port, ca_file=directory / "root.crt"))
