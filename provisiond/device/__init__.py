"""The device's side: a client library, a simulator, a TPM.

    from provisiond.device import Endpoint, ProvisioningClient, SymmetricKeyCredential

What is listed here is the library; the modules beneath it may change.
"""

from provisiond.device.client import Patience, ProvisioningClient, RegistrationResult, Step
from provisiond.device.credentials import Credential, SymmetricKeyCredential, TpmCredential, X509Credential
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
from provisiond.device.swtpm import run_emulator
from provisiond.device.tpm_device import KeyAlgorithm, TpmDevice, open_tpm

__all__ = [
    "CannotConnect",
    "ConnectionLost",
    "Credential",
    "CredentialError",
    "DeviceError",
    "EmulatorError",
    "Endpoint",
    "HubConnection",
    "KeyAlgorithm",
    "Patience",
    "ProvisioningClient",
    "Refused",
    "RegistrationResult",
    "Step",
    "SymmetricKeyCredential",
    "TimedOut",
    "TpmCredential",
    "TpmDevice",
    "TpmError",
    "X509Credential",
    "connect_hub",
    "open_tpm",
    "run_emulator",
]
