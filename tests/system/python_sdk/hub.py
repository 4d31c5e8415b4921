"""Be one device at its hub with the unmodified Azure Python device SDK; one JSON line for everything that happens.

Connects, sends one event with properties, reads its twin and reports a property, then waits for a cloud-to-device
message, a change of desired properties and a call of method `reboot`, and answers that. Exit code 0 in any case: the
lines say what happened. Ends when stdin is closed.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from threading import Lock

from azure.iot.device import X509, IoTHubDeviceClient, Message, MethodResponse

_lock = Lock()


def say(event, **details):
    with _lock:
        sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
        sys.stdout.flush()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="host name; the SDK always uses port 8883")
    parser.add_argument("--device-id", required=True)
    parser.add_argument("--ca-file", required=True, type=Path)
    parser.add_argument("--certificate-file", type=Path, help="PEM chain, leaf first")
    parser.add_argument("--certificate-key-file", type=Path)
    parser.add_argument("--key-file", type=Path, help="base64 of the device's symmetric key")
    parser.add_argument("--token-lifetime-s", type=int, default=3600, help="the SDK renews it 120 s before its end")
    return parser.parse_args()


def make_client(arguments):
    common = {
        "hostname": arguments.host,
        "device_id": arguments.device_id,
        "server_verification_cert": arguments.ca_file.read_text(),
        "connection_retry": False,
        "auto_connect": False,
    }
    if arguments.key_file is not None:
        return IoTHubDeviceClient.create_from_symmetric_key(
            symmetric_key=arguments.key_file.read_text().strip(), sastoken_ttl=arguments.token_lifetime_s, **common
        )
    x509 = X509(cert_file=str(arguments.certificate_file), key_file=str(arguments.certificate_key_file))
    return IoTHubDeviceClient.create_from_x509_certificate(x509=x509, **common)


def listen(client):
    def on_message(message):
        say(
            "message",
            payload=message.data.decode(),
            properties=message.custom_properties,
            messageId=message.message_id,
            contentType=message.content_type,
        )

    def on_method(request):
        say("method", name=request.name, payload=request.payload)
        client.send_method_response(MethodResponse.create_from_method_request(request, 200, {"rebooting": True}))

    client.on_message_received = on_message
    client.on_method_request_received = on_method
    client.on_twin_desired_properties_patch_received = lambda patch: say("desired", patch=patch)
    client.on_connection_state_change = lambda: say("connected" if client.connected else "disconnected")


def live(client):
    client.connect()
    listen(client)
    message = Message('{"t":21.5}')
    message.message_id = "m-1"
    message.content_type = "application/json"
    message.content_encoding = "utf-8"
    message.custom_properties["line"] = "4 & 5/6"
    client.send_message(message)
    say("twin", twin=client.get_twin())
    client.patch_twin_reported_properties({"rpm": 900, "old": None})
    say("ready")


def main():
    client = make_client(parse_arguments())
    try:
        live(client)
        sys.stdin.read()
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises is the result that the test looks at
        say("error", error=type(error).__name__, message=str(error), cause=repr(error.__cause__))
    os._exit(0)


if __name__ == "__main__":
    main()
