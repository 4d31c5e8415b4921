"""The acceptance fleet of the native protocol: one device of every kind, enrolled, and registered wherever a test says."""

from dataclasses import dataclass, replace
from typing import Any

from provisiond.device import Endpoint, Patience, ProvisioningClient, RegistrationResult, TpmCredential
from provisiond.device.credentials import Credential, SymmetricKeyCredential, X509Credential
from provisiond.device.dialect import NativeDialect
from provisiond.model import TpmMaterial
from tests.certificates import make_ca, make_leaf
from tests.enrollment_factory import PRIMARY_KEY, certificates, group, individual
from tests.running_service import ID_SCOPE

QUICK = Patience(connect_s=60, request_s=60, total_s=120, poll_s=0.1, backoff_s=0.1, jitter=0.1)
GROUP_KEY = b"g" * 64


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Devices by registration id."""

    credentials: dict[str, Credential]

    async def register(self, endpoint: Endpoint, registration_id: str, **options: Any) -> RegistrationResult:
        """Register one device; options are those of the client."""
        settings = {"patience": QUICK, "dialect": NativeDialect(), "credential": self.credentials[registration_id]}
        async with ProvisioningClient(
            endpoint, id_scope=ID_SCOPE, registration_id=registration_id, **(settings | options)
        ) as client:
            return await client.register({"firmware": "1.4.2"})

    async def register_all(self, endpoint: Endpoint, **login: str) -> dict[str, RegistrationResult]:
        """Register every device; each logs in as `login` says, where `{id}` is its own id."""
        results = {}
        for registration_id in self.credentials:
            own = {name: value.format(id=registration_id) for name, value in login.items()}
            results[registration_id] = await self.register(replace(endpoint, **own), registration_id)
        return results


async def enroll_fleet(admin: Any, tpm: Any) -> Fleet:
    """Enroll a pinned certificate, a certificate of a group, two symmetric keys, and a TPM."""
    root = make_ca("Fleet Root")
    pinned, member = make_leaf("pinned-1"), make_leaf("member-1", make_ca("Line 4", root))
    await admin.create_enrollment(individual("pinned-1", certificates(pinned)))
    await admin.create_enrollment(group("line", certificates(root)))
    await admin.create_enrollment(individual("keyed-1"))
    await admin.create_enrollment(individual("tpm-1", TpmMaterial(endorsement_key=await tpm.endorsement_key())))
    return Fleet(
        credentials={
            "pinned-1": X509Credential.from_pem(pinned.chain_pem, pinned.key_pem),
            "member-1": X509Credential.from_pem(member.chain_pem, member.key_pem),
            "keyed-1": SymmetricKeyCredential(key=PRIMARY_KEY),
            "tpm-1": TpmCredential(device=tpm),
        }
    )
