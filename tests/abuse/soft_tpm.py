"""A TPM in memory, for devices that answer a challenge rightly when they should not be believed all the same."""

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any

from provisiond.attestation.tpm_structures import parse_public
from tests.abuse.site import token
from tests.attestation.software_tpm import activate, import_object, take
from tests.system.tpm.software_key import ENDORSEMENT_TEMPLATE, STORAGE_TEMPLATE, SoftwareKey, make_software_key


@dataclass(frozen=True)
class SoftTpm:
    """An endorsement key and a storage root key, P-256."""

    endorsement: SoftwareKey = field(default_factory=lambda: make_software_key(ENDORSEMENT_TEMPLATE))
    storage: SoftwareKey = field(default_factory=lambda: make_software_key(STORAGE_TEMPLATE))

    @property
    def endorsement_key(self) -> str:
        """In base64, as enrollments have it."""
        return b64encode(self.endorsement.tpm2b).decode()

    def body(self, **more: Any) -> dict[str, Any]:
        """A register message."""
        storage_root_key = b64encode(self.storage.tpm2b).decode()
        return {"tpm": {"endorsementKey": self.endorsement_key, "storageRootKey": storage_root_key}, **more}

    def answer(self, registration_id: str, challenge: dict[str, Any]) -> dict[str, Any]:
        """The register message that answers a challenge, rightly."""
        key = self._open(b64decode(challenge["authenticationKey"]))
        return self.body(authorization=token(registration_id, key, policy="registration"))

    def _open(self, blob: bytes) -> bytes:
        """The signing key in an `authenticationKey` (`provisiond.attestation.tpm_activation` has its fields)."""
        fields = []
        for _ in range(6):
            content, blob = take(blob)
            fields.append(len(content).to_bytes(2, "big") + content)
        id_object, encrypted_secret, private, encrypted_seed, public, _ = fields
        own, parent = self.endorsement, self.storage
        inner_key = activate(own.private, own.public, parent.public.name, id_object, encrypted_secret)
        sensitive = import_object(
            parent.private, parent.public, parse_public(public), private, encrypted_seed, inner_key
        )
        _, rest = take(sensitive[2:])  # authValue
        _, rest = take(rest)  # seedValue
        return take(rest)[0]
