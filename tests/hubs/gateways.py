"""A gateway whose devices go to hubs of others: the real daemon, set up and asked as an operator would."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager

from provisiond.device.client import Patience, ProvisioningClient
from provisiond.device.credentials import SymmetricKeyCredential
from provisiond.device.mqtt import Endpoint
from tests.system.daemon import ID_SCOPE, Daemon, Service

PATIENCE = Patience(connect_s=60, request_s=60, total_s=120, poll_s=0.2, jitter=0)


class Gateway:
    """A service directory, and coroutines for what blocks."""

    def __init__(self, directory, hubs):
        self.service = Service(directory / "gateway")
        self.directory = self.service.directory
        self.service.configure(hubs=hubs, retry_after="1s")

    async def command(self, *arguments, expect=0):
        return await asyncio.to_thread(self.service.command, *arguments, "-o", "json", expect=expect)

    async def enroll(self, registration_id, key, **options):
        file = self.directory / f"{registration_id}.key"
        file.touch(mode=0o600)
        file.write_text(base64.b64encode(key).decode())
        await asyncio.to_thread(self.service.enroll, registration_id, primary_key_file=file, **options)

    async def registration(self, registration_id):
        return await self.command("registration", "show", registration_id)

    async def until_assigned(self, registration_id):
        return await self.until_status(registration_id, "assigned")

    async def until_status(self, registration_id, status):
        async with asyncio.timeout(120):
            while True:
                found = await self.registration(registration_id)
                if found["status"] == status:
                    return found
                await asyncio.sleep(0.2)  # another process writes it: nobody tells

    @asynccontextmanager
    async def running(self):
        """The daemon, ready; killed at the end if it still runs."""
        daemon = await asyncio.to_thread(Daemon(self.service).__enter__)
        try:
            yield daemon
        finally:
            await asyncio.to_thread(daemon.kill)


async def register(daemon, registration_id, key, *, patience=PATIENCE):
    endpoint = Endpoint(host="127.0.0.1", port=daemon.port(tls=False), plaintext=True)
    async with ProvisioningClient(
        endpoint,
        id_scope=ID_SCOPE,
        registration_id=registration_id,
        credential=SymmetricKeyCredential(key=key),
        patience=patience,
    ) as client:
        return await client.register()


def write_secret(directory, name, text):
    file = directory / name
    file.touch(mode=0o600)
    file.write_text(text)
    return name


def events(daemon):
    """The daemon's log so far, parsed."""
    return [json.loads(line) for line in daemon.log if line.startswith("{")]
