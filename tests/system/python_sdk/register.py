"""Register one device with the unmodified Azure Python device SDK and print one JSON line.

Runs in an environment of its own (the SDK needs paho-mqtt 1.x). Exit code 0 whether or not the service assigned the
device: the line says which.
"""

import argparse
import asyncio
import importlib
import json
import os
import sys
import time
from pathlib import Path

from azure.iot.device import X509


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="host name; the SDK always uses port 8883")
    parser.add_argument("--id-scope", required=True)
    parser.add_argument("--registration-id", required=True)
    parser.add_argument("--ca-file", required=True, type=Path)
    parser.add_argument("--certificate-file", type=Path, help="PEM chain, leaf first")
    parser.add_argument("--certificate-key-file", type=Path)
    parser.add_argument("--key-file", type=Path, help="base64 of the device's symmetric key")
    parser.add_argument("--payload", help="JSON")
    parser.add_argument("--client", choices=("sync", "aio"), default="sync")
    return parser.parse_args()


def make_client(arguments):
    module = "azure.iot.device.aio" if arguments.client == "aio" else "azure.iot.device"
    client_class = importlib.import_module(module).ProvisioningDeviceClient
    common = {
        "provisioning_host": arguments.host,
        "registration_id": arguments.registration_id,
        "id_scope": arguments.id_scope,
        "server_verification_cert": arguments.ca_file.read_text(),
    }
    if arguments.key_file is not None:
        return client_class.create_from_symmetric_key(symmetric_key=arguments.key_file.read_text().strip(), **common)
    x509 = X509(cert_file=str(arguments.certificate_file), key_file=str(arguments.certificate_key_file))
    return client_class.create_from_x509_certificate(x509=x509, **common)


def register(client):
    outcome = client.register()
    return asyncio.run(outcome) if asyncio.iscoroutine(outcome) else outcome


def describe_result(result):
    state = result.registration_state
    return {
        "status": result.status,
        "operationId": result.operation_id,
        "deviceId": state.device_id,
        "assignedHub": state.assigned_hub,
        "substatus": state.sub_status,
        "createdDateTimeUtc": state.created_date_time,
        "lastUpdatedDateTimeUtc": state.last_update_date_time,
        "etag": state.etag,
        "payload": state.response_payload,
    }


def describe_error(error):
    return {"error": type(error).__name__, "message": str(error), "cause": repr(error.__cause__)}


def main():
    arguments = parse_arguments()
    client = make_client(arguments)
    if arguments.payload is not None:
        client.provisioning_payload = json.loads(arguments.payload)
    started = time.monotonic()
    try:
        line = describe_result(register(client))
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises is the result that the test looks at
        line = describe_error(error)
    line["elapsed_s"] = round(time.monotonic() - started, 4)
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    os._exit(0)  # after a refusal the SDK keeps its connection, and its threads, for the life of the process


if __name__ == "__main__":
    main()
