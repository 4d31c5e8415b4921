import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm_algorithms import HASHES, SHA256, TpmAlgorithm
from provisiond.attestation.tpm_attest import (
    AttestType,
    CertifyBody,
    CreationBody,
    PcrSlot,
    QuoteBody,
    TpmAttest,
    TpmSignature,
    encode_attest,
    encode_pcr_selection,
    encode_signature,
    parse_attest,
    parse_pcr_selection,
    parse_signature,
)
from provisiond.errors import TpmStructureError
from tests.attestation.tpm_vectors import load, octets, section

QUOTE = octets(load()["quote"][0], "attest")


@pytest.mark.parametrize("vector", [v for v in section("quote") if "clock" in v.values[0]])
def test_a_quote_says_what_the_tpm_said(vector):
    attest = parse_attest(octets(vector, "attest"))
    assert attest.type is AttestType.QUOTE
    assert attest.qualified_signer == octets(vector, "ak_qualified_name")
    assert attest.extra_data == octets(vector, "nonce")
    assert (attest.clock_ms, attest.reset_count, attest.restart_count, attest.firmware_version) == (
        vector["clock"],
        vector["reset_count"],
        vector["restart_count"],
        vector["firmware_version"],
    )
    assert isinstance(attest.body, QuoteBody)
    assert [str(slot) for slot in attest.body.selection] == list(vector["pcrs"])


@pytest.mark.parametrize("vector", [v for v in section("certify") if v.values[0]["expect"] == "ok"])
def test_a_certification_says_what_the_tpm_said(vector):
    body = parse_attest(octets(vector, "attest")).body
    assert body == CertifyBody(
        name=octets(vector, "object_name"), qualified_name=octets(vector, "object_qualified_name")
    )


@pytest.mark.parametrize("vector", section("quote") + section("certify"))
def test_attestations_and_signatures_are_written_as_they_were_read(vector):
    attest, signature = octets(vector, "attest"), octets(vector, "signature_tpmt")
    assert encode_attest(parse_attest(attest)) == attest
    assert encode_signature(parse_signature(signature)) == signature


@pytest.mark.parametrize(
    ("offset", "octets_", "reason"),
    [
        (0, b"\x00", "wrong magic"),
        (4, b"\x80\x14", "unknown attestation type"),
        (6, b"\x00\x43", "at most 66"),
        (92, b"\x02", "YES_NO"),
        (101, b"\x00\x00\x00\x11", "17 banks"),
        (105, b"\x00\x12\x03", "bank 0x0012"),
        (105, b"\x00\x0b\x05", "bit map of 5"),
    ],
)
def test_a_field_out_of_its_range_is_refused(offset, octets_, reason):
    assert QUOTE[92] == 1
    attest = bytearray(QUOTE)
    attest[offset : offset + len(octets_)] = octets_
    with pytest.raises(TpmStructureError, match=reason):
        parse_attest(bytes(attest))


def test_an_attestation_longer_than_any_tpms_is_refused():
    with pytest.raises(TpmStructureError, match="at most 1024"):
        parse_attest(QUOTE + bytes(1024))


def test_a_signature_longer_than_any_tpms_is_refused():
    with pytest.raises(TpmStructureError, match="at most 600"):
        parse_signature(bytes(601))


@pytest.mark.parametrize("head", ["001a000b", "00140010", "0005"])
def test_an_unknown_signature_is_refused(head):
    with pytest.raises(TpmStructureError):
        parse_signature(bytes.fromhex(head))


def test_an_hmac_signature_is_a_bare_digest():
    signature = parse_signature(bytes.fromhex("0005000b") + bytes(32))
    assert signature == TpmSignature(algorithm=TpmAlgorithm.HMAC, hash=SHA256, values=(bytes(32),))


def test_the_first_bit_of_the_first_octet_is_register_0():
    selection = parse_pcr_selection(bytes.fromhex("00000001000b03810001"))
    assert selection == (PcrSlot("sha256", 0), PcrSlot("sha256", 7), PcrSlot("sha256", 16))
    assert str(selection[1]) == "sha256:7"


def test_a_register_is_selected_once():
    with pytest.raises(TpmStructureError, match="twice"):
        parse_pcr_selection(bytes.fromhex("00000002000b03010000000b03010000"))


def test_registers_end_at_23():
    with pytest.raises(TpmStructureError, match="above 23"):
        parse_pcr_selection(bytes.fromhex("00000001000b0400000001"))
    with pytest.raises(ValueError, match="sha256:24"):
        encode_pcr_selection([PcrSlot("sha256", 24)])
    with pytest.raises(ValueError, match="md5:0"):
        encode_pcr_selection([PcrSlot("md5", 0)])


slots = st.builds(PcrSlot, st.sampled_from([item.name for item in HASHES.values()]), st.integers(0, 23))
selections = st.lists(slots, unique=True, max_size=40)
names, digests = st.binary(max_size=66), st.binary(max_size=64)


def grouped(selection):
    """In the order that a TPM digests them: by bank as selected, then by index."""
    banks = list(dict.fromkeys(slot.bank for slot in selection))
    return tuple(sorted(selection, key=lambda slot: (banks.index(slot.bank), slot.index)))


@given(selection=selections)
def test_a_selection_is_read_as_it_was_written(selection):
    assert parse_pcr_selection(encode_pcr_selection(selection)) == grouped(selection)


bodies = st.one_of(
    st.tuples(st.just(AttestType.QUOTE), st.builds(QuoteBody, selection=selections.map(grouped), pcr_digest=digests)),
    st.tuples(st.just(AttestType.CERTIFY), st.builds(CertifyBody, name=names, qualified_name=names)),
    st.tuples(st.just(AttestType.CREATION), st.builds(CreationBody, object_name=names, creation_hash=digests)),
)


@given(
    body=bodies,
    signer=names,
    extra_data=names,
    clock=st.integers(0, 2**64 - 1),
    count=st.integers(0, 2**32 - 1),
    safe=st.booleans(),
)
def test_an_attestation_is_read_as_it_was_written(body, signer, extra_data, clock, count, safe):
    attest = TpmAttest(
        octets=b"",
        type=body[0],
        qualified_signer=signer,
        extra_data=extra_data,
        clock_ms=clock,
        reset_count=count,
        restart_count=count,
        clock_safe=safe,
        firmware_version=clock,
        body=body[1],
    )
    written = encode_attest(attest)
    read = parse_attest(written)
    assert read.octets == written
    assert encode_attest(read) == written
    assert (read.body, read.clock_safe, read.qualified_signer) == (attest.body, safe, signer)


signatures = st.one_of(
    st.builds(
        TpmSignature,
        algorithm=st.sampled_from([TpmAlgorithm.RSASSA, TpmAlgorithm.RSAPSS]),
        hash=st.sampled_from(list(HASHES.values())),
        values=st.tuples(st.binary(max_size=512)),
    ),
    st.builds(
        TpmSignature,
        algorithm=st.just(TpmAlgorithm.ECDSA),
        hash=st.sampled_from(list(HASHES.values())),
        values=st.tuples(st.binary(max_size=66), st.binary(max_size=66)),
    ),
)


@given(signature=signatures)
def test_a_signature_is_read_as_it_was_written(signature):
    assert parse_signature(encode_signature(signature)) == signature


@given(junk=st.binary(max_size=300), parse=st.sampled_from([parse_attest, parse_signature, parse_pcr_selection]))
def test_any_octets_give_a_value_or_the_one_error(junk, parse):
    with contextlib.suppress(TpmStructureError):
        parse(junk)


@given(position=st.integers(0, 1000), octet=st.integers(0, 255), size=st.integers(0, 1000))
def test_any_changed_attestation_gives_a_value_or_the_one_error(position, octet, size):
    attest = bytearray(QUOTE)
    attest[position % len(attest)] = octet
    with contextlib.suppress(TpmStructureError):
        assert parse_attest(bytes(attest)).octets == bytes(attest)
    with contextlib.suppress(TpmStructureError):
        assert size >= len(QUOTE) or not parse_attest(QUOTE[:size])
