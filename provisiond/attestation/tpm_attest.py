"""TPMS_ATTEST and TPMT_SIGNATURE: what a TPM says about itself, and how it signs it.

===========  ================================================================================================
TPMS_ATTEST  FF544347, type u16, TPM2B qualifiedSigner, TPM2B extraData,
             clock u64, resetCount u32, restartCount u32, safe u8, firmwareVersion u64, body
QUOTE        TPML_PCR_SELECTION, TPM2B pcrDigest                                                     type 8018
CERTIFY      TPM2B name, TPM2B qualifiedName                                                         type 8017
CREATION     TPM2B objectName, TPM2B creationHash                                                    type 801A
selection    count u32; each: bank u16, size u8, bit map, least significant bit of the first octet is PCR 0
signature    RSASSA 0014, RSAPSS 0016: hash u16, TPM2B;  ECDSA 0018: hash u16, TPM2B r, TPM2B s;
             HMAC 0005: hash u16, digest
===========  ================================================================================================

Source: TPM 2.0 Part 2 10.12 (attestation), 10.6 and 10.9.7 (PCR), 11.3 (signatures). Nothing here is trusted until
`tpm_quote` has verified the signature.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from provisiond.attestation.tpm_algorithms import HASHES, HASHES_BY_NAME, TpmAlgorithm, TpmHash
from provisiond.attestation.tpm_octets import OctetReader, sized

ATTEST_MAX_SIZE_BYTES: Final = 1024
"""TPMS_ATTEST of a quote over four banks takes under 300."""

SIGNATURE_MAX_SIZE_BYTES: Final = 600
"""RSA-4096 takes 518."""

PCR_COUNT: Final = 24
"""PCR of a PC Client TPM."""

_MAGIC: Final = b"\xff\x54\x43\x47"
_NAME_MAX_SIZE_BYTES: Final = 2 + 64
_EXTRA_DATA_MAX_SIZE_BYTES: Final = _NAME_MAX_SIZE_BYTES  # TPM2B_DATA: a TPMT_HA
_DIGEST_MAX_SIZE_BYTES: Final = 64
_BANKS_MAX: Final = 16  # HASH_COUNT of any TPM is below
_PCR_SELECT_MAX_SIZE_BYTES: Final = 4
_RSA_MAX_SIZE_BYTES: Final = 512
_COORDINATE_MAX_SIZE_BYTES: Final = 66


class AttestType(IntEnum):
    """TPM_ST of an attestation; the other kinds are refused."""

    CERTIFY = 0x8017
    QUOTE = 0x8018
    CREATION = 0x801A


@dataclass(frozen=True, slots=True, order=True)
class PcrSlot:
    """One platform configuration register: bank by hash name (`sha256`) and index (0 to 23)."""

    bank: str
    index: int

    def __str__(self) -> str:
        return f"{self.bank}:{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteBody:
    """TPMS_QUOTE_INFO.

    Args:
        selection: the registers in the order that they were digested.
    """

    selection: tuple[PcrSlot, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyBody:
    """TPMS_CERTIFY_INFO."""

    name: bytes
    qualified_name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationBody:
    """TPMS_CREATION_INFO."""

    object_name: bytes
    creation_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmAttest:
    """An attestation as it was signed, its octets and what they say.

    Args:
        extra_data: the verifier's nonce.
        clock_ms: time that the TPM has been powered, in milliseconds.
        clock_safe: no higher clock value can have been seen before.
        reset_count, restart_count, firmware_version: obfuscated unless the signer is in the endorsement or platform
            hierarchy (TPM 2.0 Part 1 36.7).
    """

    octets: bytes
    type: AttestType
    qualified_signer: bytes
    extra_data: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    clock_safe: bool
    firmware_version: int
    body: QuoteBody | CertifyBody | CreationBody


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmSignature:
    """TPMT_SIGNATURE.

    Args:
        values: the signature or HMAC; or r and s.
    """

    algorithm: TpmAlgorithm
    hash: TpmHash
    values: tuple[bytes, ...]


def parse_attest(octets: bytes) -> TpmAttest:
    """Read a TPMS_ATTEST (without the size of a TPM2B_ATTEST).

    Raises:
        TpmStructureError: anything but one quote, certification or creation attestation, exactly.
    """
    reader = OctetReader(octets, "TPMS_ATTEST")
    if len(octets) > ATTEST_MAX_SIZE_BYTES:
        raise reader.refuse(f"{len(octets)} octets, at most {ATTEST_MAX_SIZE_BYTES}")
    if reader.take(4) != _MAGIC:
        raise reader.refuse("not made by a TPM: wrong magic")
    number = reader.unsigned(2)
    if number not in frozenset(AttestType):
        raise reader.refuse(f"unknown attestation type {number:#06x}")
    kind = AttestType(number)
    attest = TpmAttest(
        octets=octets,
        type=kind,
        qualified_signer=reader.sized(_NAME_MAX_SIZE_BYTES),
        extra_data=reader.sized(_EXTRA_DATA_MAX_SIZE_BYTES),
        clock_ms=reader.unsigned(8),
        reset_count=reader.unsigned(4),
        restart_count=reader.unsigned(4),
        clock_safe=_read_yes_no(reader),
        firmware_version=reader.unsigned(8),
        body=_read_body(reader, kind),
    )
    reader.end()
    return attest


def parse_signature(octets: bytes) -> TpmSignature:
    """Read a TPMT_SIGNATURE.

    Raises:
        TpmStructureError: anything but one RSASSA, RSAPSS, ECDSA or HMAC signature, exactly.
    """
    reader = OctetReader(octets, "TPMT_SIGNATURE")
    if len(octets) > SIGNATURE_MAX_SIZE_BYTES:
        raise reader.refuse(f"{len(octets)} octets, at most {SIGNATURE_MAX_SIZE_BYTES}")
    algorithm = reader.unsigned(2)
    hash_number = reader.unsigned(2)
    if (signature_hash := HASHES.get(hash_number)) is None:
        raise reader.refuse(f"unknown hash {hash_number:#06x}")
    match algorithm:
        case TpmAlgorithm.RSASSA | TpmAlgorithm.RSAPSS:
            values: tuple[bytes, ...] = (reader.sized(_RSA_MAX_SIZE_BYTES),)
        case TpmAlgorithm.ECDSA:
            values = (reader.sized(_COORDINATE_MAX_SIZE_BYTES), reader.sized(_COORDINATE_MAX_SIZE_BYTES))
        case TpmAlgorithm.HMAC:
            values = (reader.take(signature_hash.digest_size_bytes),)
        case _:
            raise reader.refuse(f"unknown signature scheme {algorithm:#06x}")
    reader.end()
    return TpmSignature(algorithm=TpmAlgorithm(algorithm), hash=signature_hash, values=values)


def parse_pcr_selection(octets: bytes) -> tuple[PcrSlot, ...]:
    """Read a TPML_PCR_SELECTION; the registers in the order that a quote digests them.

    Raises:
        TpmStructureError: anything else, an unknown bank, or a register above 23.
    """
    reader = OctetReader(octets, "TPML_PCR_SELECTION")
    selection = _read_pcr_selection(reader)
    reader.end()
    return selection


def encode_pcr_selection(slots: Iterable[PcrSlot]) -> bytes:
    """TPML_PCR_SELECTION of some registers; banks in their order of first appearance.

    Raises:
        ValueError: an unknown bank, or an index that is not 0 to 23.
    """
    banks: dict[str, int] = {}
    for slot in slots:
        if slot.bank not in HASHES_BY_NAME or not 0 <= slot.index < PCR_COUNT:
            raise ValueError(f"no such register: {slot}")
        banks[slot.bank] = banks.get(slot.bank, 0) | 1 << slot.index
    size_bytes = PCR_COUNT // 8
    entries = (
        HASHES_BY_NAME[bank].algorithm.to_bytes(2, "big") + bytes((size_bytes,)) + bits.to_bytes(size_bytes, "little")
        for bank, bits in banks.items()
    )
    return len(banks).to_bytes(4, "big") + b"".join(entries)


def encode_attest(attest: TpmAttest) -> bytes:
    """The octets that `attest` describes; `attest.octets` itself is not looked at."""
    match attest.body:
        case QuoteBody(selection=selection, pcr_digest=pcr_digest):
            body = encode_pcr_selection(selection) + sized(pcr_digest)
        case CertifyBody(name=name, qualified_name=qualified_name):
            body = sized(name) + sized(qualified_name)
        case CreationBody(object_name=object_name, creation_hash=creation_hash):
            body = sized(object_name) + sized(creation_hash)
    return b"".join(
        (
            _MAGIC,
            attest.type.to_bytes(2, "big"),
            sized(attest.qualified_signer),
            sized(attest.extra_data),
            attest.clock_ms.to_bytes(8, "big"),
            attest.reset_count.to_bytes(4, "big"),
            attest.restart_count.to_bytes(4, "big"),
            bytes((attest.clock_safe,)),
            attest.firmware_version.to_bytes(8, "big"),
            body,
        ),
    )


def encode_signature(signature: TpmSignature) -> bytes:
    """TPMT_SIGNATURE."""
    head = signature.algorithm.to_bytes(2, "big") + signature.hash.algorithm.to_bytes(2, "big")
    if signature.algorithm is TpmAlgorithm.HMAC:
        return head + signature.values[0]
    return head + b"".join(map(sized, signature.values))


def _read_yes_no(reader: OctetReader) -> bool:
    flag = reader.unsigned(1)
    if flag > 1:
        raise reader.refuse(f"TPMI_YES_NO of {flag}")
    return flag == 1


def _read_body(reader: OctetReader, kind: AttestType) -> QuoteBody | CertifyBody | CreationBody:
    match kind:
        case AttestType.QUOTE:
            return QuoteBody(selection=_read_pcr_selection(reader), pcr_digest=reader.sized(_DIGEST_MAX_SIZE_BYTES))
        case AttestType.CERTIFY:
            return CertifyBody(
                name=reader.sized(_NAME_MAX_SIZE_BYTES),
                qualified_name=reader.sized(_NAME_MAX_SIZE_BYTES),
            )
        case AttestType.CREATION:
            return CreationBody(
                object_name=reader.sized(_NAME_MAX_SIZE_BYTES),
                creation_hash=reader.sized(_DIGEST_MAX_SIZE_BYTES),
            )


def _read_pcr_selection(reader: OctetReader) -> tuple[PcrSlot, ...]:
    count = reader.unsigned(4)
    if count > _BANKS_MAX:
        raise reader.refuse(f"{count} banks, at most {_BANKS_MAX}")
    slots: list[PcrSlot] = []
    for _ in range(count):
        bank_number, size_bytes = reader.unsigned(2), reader.unsigned(1)
        bank = HASHES.get(bank_number)
        if bank is None or size_bytes > _PCR_SELECT_MAX_SIZE_BYTES:
            raise reader.refuse(f"bank {bank_number:#06x} with a bit map of {size_bytes} octets")
        bits = int.from_bytes(reader.take(size_bytes), "little")
        if bits >> PCR_COUNT:
            raise reader.refuse(f"registers above {PCR_COUNT - 1}")
        slots.extend(PcrSlot(bank.name, index) for index in range(PCR_COUNT) if bits >> index & 1)
    if len(set(slots)) != len(slots):
        raise reader.refuse("a register is selected twice")
    return tuple(slots)
