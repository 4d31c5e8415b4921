"""The password of a device at a hub that knows passwords only: both ends derive it, nobody sends it.

    base64( HMAC-SHA256( key, "provisiond-hub-password-v1" LF hub LF device id ) )

`key` is what the device signs SAS tokens with at an Azure hub: its symmetric key (of a group: the one derived for
it), or the key that its TPM has taken out of `authenticationKey`, where TPM2_HMAC computes the same. `hub` is
`assignedHub` in lower case, so that no hub learns a password that another one takes, and a device that moves has a new
one.
"""

import hmac
from base64 import b64encode
from hashlib import sha256
from typing import Final

_LABEL: Final = "provisiond-hub-password-v1"


def password_message(*, hub_host: str, device_id: str) -> bytes:
    """The octets to compute the HMAC-SHA256 over; for those whose key is in a TPM."""
    return f"{_LABEL}\n{hub_host.lower()}\n{device_id}".encode()


def derive_hub_password(key: bytes, *, hub_host: str, device_id: str) -> str:
    """The password, 44 characters of base64.

    Args:
        key: 16 to 64 octets.
        hub_host: `assignedHub`, as the device was told.
        device_id: `deviceId`, as the device was told.
    """
    return b64encode(hmac.digest(key, password_message(hub_host=hub_host, device_id=device_id), sha256)).decode("ascii")
