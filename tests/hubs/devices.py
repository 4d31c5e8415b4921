"""Devices of a mosquitto, as they really connect."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import aiomqtt

from provisiond.protocols.hub_password import derive_hub_password


@asynccontextmanager
async def password_device(broker, identity, *, client_id=None, hub_host="localhost"):
    password = derive_hub_password(identity.key, hub_host=hub_host, device_id=identity.device_id)
    async with aiomqtt.Client(
        "127.0.0.1",
        broker.port,
        identifier=client_id or identity.device_id,
        username=identity.device_id,
        password=password,
        timeout=60,
    ) as client:
        yield client


@asynccontextmanager
async def certificate_device(broker, leaf, *, timeout_s=60):
    certificate_path, key_path = leaf.write(broker.directory, leaf.certificate.subject.rfc4514_string())
    context = ssl.create_default_context(cafile=broker.directory / "ca.crt")
    context.load_cert_chain(certificate_path, key_path)
    async with aiomqtt.Client("localhost", broker.tls_port, tls_context=context, timeout=timeout_s) as client:
        yield client


@asynccontextmanager
async def consumer(broker, password):
    """Hears every device's messages: the administrator, given that right by its own role."""
    async with aiomqtt.Client("127.0.0.1", broker.port, username="admin", password=password, timeout=60) as client:
        await client.subscribe("devices/#", qos=1)
        yield client


async def next_message(client, within_s=60):
    async with asyncio.timeout(within_s):
        message = await anext(client.messages)
    return str(message.topic), message.payload


async def is_cut(client, within_s=60):
    """Whether the broker ends this connection."""
    try:
        async with asyncio.timeout(within_s):
            async for _ in client.messages:
                pass
    except aiomqtt.MqttError:
        return True
    except TimeoutError:
        return False
    return True
