"""Keys of software that ask to be taken for a TPM's."""

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec

from provisiond.attestation.tpm_algorithms import ObjectAttributes
from provisiond.attestation.tpm_credential import make_credential
from provisiond.attestation.tpm_duplication import duplicate
from provisiond.attestation.tpm_public import TpmPublic
from provisiond.attestation.tpm_structures import encode_public, parse_public, parse_template
from provisiond.device import tpm_templates
from provisiond.device.errors import TpmError
from provisiond.device.tpm_device import STORAGE_ROOT_KEY_HANDLE
from provisiond.device.tpm_wire import tpm2b
from provisiond.system import SystemEntropy

STORAGE_TEMPLATE = tpm_templates.SRK_P256
ENDORSEMENT_TEMPLATE = tpm_templates.EK_P256
ATTESTATION_TEMPLATE = tpm_templates.AK_P256

_RESTRICTED_DECRYPT = ObjectAttributes.RESTRICTED | ObjectAttributes.DECRYPT


@dataclass(frozen=True)
class SoftwareKey:
    """A P-256 key whose private half lies in memory."""

    private: ec.EllipticCurvePrivateKey
    public: TpmPublic
    sensitive: bytes

    @property
    def tpm2b(self):
        return self.public.tpm2b


def make_software_key(template_octets, *, attributes=None, symmetric_key_bits=None):
    """A key of a P-256 template, with other attributes or another cipher for its children if they are given."""
    template = parse_template(template_octets[: template_octets.rindex(bytes.fromhex("00030010")) + 4])
    if attributes is not None:
        template = replace(template, attributes=ObjectAttributes(attributes))
    if symmetric_key_bits is not None:
        template = replace(template, symmetric_key_bits=symmetric_key_bits)
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    public = parse_public(encode_public(template, (numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big"))))
    secret = private.private_numbers().private_value.to_bytes(32, "big")
    seed = bytes(32) if template.attributes & _RESTRICTED_DECRYPT == _RESTRICTED_DECRYPT else b""
    return SoftwareKey(private, public, bytes.fromhex("00230000") + tpm2b(seed) + tpm2b(secret))


async def load_into_null_hierarchy(tpm, key):
    """What TPM2_LoadExternal allows anybody."""
    return await tpm.load_external(key.sensitive, key.tpm2b)


async def import_below(device, key):
    """Import a software key below the storage root key, which TPM2_Import allows anybody, and load it."""
    parent = parse_public(await device.storage_root_key())
    sealed = duplicate(
        parent=parent, public=key.public, sensitive=key.sensitive, inner_key=None, entropy=SystemEntropy()
    )
    private = await device.tpm.import_key(
        STORAGE_ROOT_KEY_HANDLE, public=key.tpm2b, duplicate=sealed.private, seed=sealed.encrypted_seed
    )
    return await device.tpm.load(STORAGE_ROOT_KEY_HANDLE, private, key.tpm2b)


async def activates(device, loaded, name):
    """Whether the TPM takes a credential that was made for its endorsement key and this object."""
    endorsement_key = parse_public(await device.endorsement_key())
    credential = make_credential(endorsement_key, name, b"secret" * 5, entropy=SystemEntropy())
    try:
        secret = await device.activate_credential(loaded.handle, credential.id_object, credential.encrypted_secret)
    except TpmError:
        return False
    return secret == b"secret" * 5
