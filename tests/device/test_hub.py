from urllib.parse import unquote

import pytest

from provisiond import __version__
from provisiond.device.credentials import SymmetricKeyCredential
from provisiond.device.errors import CannotConnect, CredentialError, Refused
from provisiond.device.hub import connect_hub, hub_endpoint
from provisiond.device.mqtt import Endpoint
from tests.device.service import SILENCE, run_service

KEY = SymmetricKeyCredential(key=b"k" * 32)
PLAINTEXT = Endpoint(host="localhost", port=1883, plaintext=True)


async def visit(service, message=b'{"a":1}'):
    hub = f"127.0.0.1:{service.port}"
    async with connect_hub(PLAINTEXT, assigned_hub=hub, device_id="dev-1", credential=KEY) as connection:
        await connection.send(message)


async def test_the_device_connects_as_itself_and_sends_a_message():
    async with run_service(SILENCE) as service:
        await visit(service)
    (connect,), (request,) = service.connects, service.requests
    assert connect.client_id == "dev-1"
    assert connect.username == (
        f"127.0.0.1/dev-1/?api-version=2021-04-12&DeviceClientType=provisiond-device%2F{__version__}"
    )
    assert unquote(connect.password).startswith("SharedAccessSignature sr=127.0.0.1/devices/dev-1&sig=")
    assert (request.topic, request.payload) == ("devices/dev-1/messages/events/", b'{"a":1}')


async def test_a_hub_that_does_not_take_the_credential_refuses():
    async with run_service(connack=5) as service:
        with pytest.raises(Refused):
            await visit(service)


async def test_a_hub_that_is_not_there_cannot_be_connected():
    async with run_service() as service:
        pass
    with pytest.raises(CannotConnect):
        await visit(service)


@pytest.mark.parametrize(
    ("assigned", "host", "port"),
    [("hub.local", "hub.local", 8883), ("hub.local:9000", "hub.local", 9000), ("[::1]:9000", "::1", 9000)],
)
def test_the_hub_is_at_8883_or_at_the_port_of_the_assignment(assigned, host, port):
    _, endpoint = hub_endpoint(Endpoint(host="gateway"), assigned)
    assert (endpoint.host, endpoint.port, endpoint.plaintext) == (host, port, False)


def test_without_tls_the_hub_is_at_the_service_own_port():
    _, endpoint = hub_endpoint(PLAINTEXT, "localhost")
    assert (endpoint.port, endpoint.plaintext) == (1883, True)


def test_a_hub_elsewhere_is_never_connected_without_tls():
    with pytest.raises(CredentialError, match="without TLS"):
        hub_endpoint(PLAINTEXT, "hub.local")
