"""The device's side: a client library, a simulator, a TPM.

    from provisiond.device import Endpoint, NativeDialect, ProvisioningClient, SymmetricKeyCredential

    endpoint = Endpoint(host="gateway.local", ca_file=Path("root.crt"))
    credential = SymmetricKeyCredential.from_file(Path("device.key"))
    async with ProvisioningClient(
        endpoint,
        id_scope="0ne0LOCAL01",
        registration_id="press-7",
        credential=credential,
        dialect=NativeDialect(),
    ) as client:
        result = await client.register({"firmware": "1.4.2"})
    print(result.assigned_hub, result.device_id)

`docs/device-library.md` tells the rest. What is listed here is the library; the modules beneath it may change.
"""

from provisiond.device.client import Patience, ProvisioningClient, RegistrationResult, Step
from provisiond.device.credentials import Credential, SymmetricKeyCredential, TpmCredential, X509Credential
from provisiond.device.dialect import Dialect, DpsDialect, NativeDialect
from provisiond.device.errors import (
    CannotConnect,
    ConnectionLost,
    CredentialError,
    DeviceError,
    EmulatorError,
    Refused,
    TimedOut,
    TpmError,
)
from provisiond.device.hub import HubConnection, connect_hub
from provisiond.device.mqtt import Endpoint
from provisiond.device.simulator import FleetOutcome, FleetReport, Service, SimulatedDevice, run_device, run_fleet
from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import KeyAlgorithm, TpmDevice, open_tpm

__all__ = [
    "CannotConnect",
    "ConnectionLost",
    "Credential",
    "CredentialError",
    "DeviceError",
    "Dialect",
    "DpsDialect",
    "EmulatorError",
    "Endpoint",
    "FleetOutcome",
    "FleetReport",
    "HubConnection",
    "KeyAlgorithm",
    "NativeDialect",
    "Patience",
    "ProvisioningClient",
    "Refused",
    "RegistrationResult",
    "Service",
    "SimulatedDevice",
    "Step",
    "SymmetricKeyCredential",
    "TimedOut",
    "TpmCredential",
    "TpmDevice",
    "TpmError",
    "X509Credential",
    "connect_hub",
    "open_tpm",
    "run_device",
    "run_emulator",
    "run_fleet",
]
