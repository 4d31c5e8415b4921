import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.der import (
    DerReader,
    DerTag,
    DerValue,
    read_bit_string,
    read_boolean,
    read_exactly,
    read_object_identifier,
    read_time,
    read_unsigned,
    read_value,
)
from provisiond.attestation.ek_certificate_reader import (
    CertificateExtension,
    read_attributes,
    read_basic_constraints,
    read_certificate,
    read_extended_key_usage,
    read_key_usage,
    read_stored_certificate,
)
from provisiond.errors import AttestationError


def value(text):
    return read_exactly(bytes.fromhex(text), bytes.fromhex(text)[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "3001",
        "3080 0000",
        "308101 00",
        "3081",
        "308200ff",
        "30830000 01 00",
        "3f8101 00",
        "30ff",
        "308180",
    ],
)
def test_octets_that_are_not_der_are_refused(text):
    with pytest.raises(AttestationError) as caught:
        read_value(bytes.fromhex(text))
    assert caught.value.finding == "certificate-encoding"


def test_a_value_keeps_its_octets():
    octets = bytes.fromhex("30060201010101ff")
    outer = read_value(octets + b"more")
    assert outer.octets == octets
    assert [inner.octets.hex() for inner in outer.reader().rest()] == ["020101", "0101ff"]


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 65535])
def test_every_length_has_one_form(size):
    length = bytes((size,)) if size < 128 else bytes((0x81, size)) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    assert read_value(b"\x04" + length + bytes(size)).content == bytes(size)


def test_what_is_left_over_is_refused():
    with pytest.raises(AttestationError, match="left over"):
        read_exactly(bytes.fromhex("300000"))
    reader = DerReader(bytes.fromhex("0500"))
    with pytest.raises(AttestationError, match="left over"):
        reader.end()
    with pytest.raises(AttestationError, match="tag 0x05 where 0x30"):
        reader.next(DerTag.SEQUENCE)


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("0606678105020101"[:4] + "678105020101", "2.23.133.2.1.1"),
        ("0603551d0f", "2.5.29.15"),
        ("06092a864886f70d01010b", "1.2.840.113549.1.1.11"),
        ("06028837", "2.999"),
        ("060100", "0.0"),
    ],
)
def test_an_object_identifier_is_read(text, identifier):
    assert read_object_identifier(value(text)) == identifier


@pytest.mark.parametrize("text", ["0600", "060180", "06038001 01", "0602 8180", "0641" + "01" * 65, "0500"])
def test_a_padded_or_cut_object_identifier_is_refused(text):
    with pytest.raises(AttestationError):
        read_object_identifier(value(text))


@pytest.mark.parametrize(("text", "number"), [("020100", 0), ("02017f", 127), ("02020080", 128)])
def test_an_integer_is_read(text, number):
    assert read_unsigned(value(text)) == number


@pytest.mark.parametrize("text", ["0200", "020180", "02020001", "0500"])
def test_a_negative_or_padded_integer_is_refused(text):
    with pytest.raises(AttestationError):
        read_unsigned(value(text))


def test_a_boolean_is_all_or_nothing():
    assert read_boolean(value("0101ff"))
    assert not read_boolean(value("010100"))
    for text in ("010101", "0100", "0102ffff"):
        with pytest.raises(AttestationError):
            read_boolean(value(text))


def test_a_bit_string_says_how_many_bits_it_leaves_out():
    assert read_bit_string(value("03020780")) == (b"\x80", 7)
    assert read_bit_string(value("030100")) == (b"", 0)
    for text in ("0300", "030101", "03020881", "03020781"):
        with pytest.raises(AttestationError):
            read_bit_string(value(text))


@pytest.mark.parametrize(
    ("tag", "text", "moment"),
    [
        (DerTag.UTC_TIME, "491231235959Z", datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (DerTag.UTC_TIME, "500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (DerTag.GENERALIZED_TIME, "99991231235959Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_time_is_read(tag, text, moment):
    assert read_time(DerValue(tag, text.encode(), b"")) == moment


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (DerTag.UTC_TIME, "4912312359Z"),
        (DerTag.UTC_TIME, "491231235959+0000"),
        (DerTag.UTC_TIME, "20491231235959Z"),
        (DerTag.GENERALIZED_TIME, "20261231235959.5Z"),
        (DerTag.GENERALIZED_TIME, "20261331235959Z"),
        (DerTag.GENERALIZED_TIME, "20260230000000Z"),
        (DerTag.GENERALIZED_TIME, "2026\u00b21231235959Z"),
        (DerTag.OCTET_STRING, "491231235959Z"),
        (DerTag.UTC_TIME, ""),
    ],
)
def test_a_time_of_another_form_is_refused(tag, text):
    with pytest.raises(AttestationError):
        read_time(DerValue(tag, text.encode("latin-1"), b""))


READERS = [
    read_value,
    read_exactly,
    read_certificate,
    read_stored_certificate,
    read_attributes,
    lambda octets: read_key_usage(CertificateExtension(critical=False, value=octets)),
    lambda octets: read_extended_key_usage(CertificateExtension(critical=False, value=octets)),
    lambda octets: read_basic_constraints(CertificateExtension(critical=False, value=octets)),
    lambda octets: read_object_identifier(DerValue(DerTag.OBJECT_IDENTIFIER, octets, octets)),
    lambda octets: read_unsigned(DerValue(DerTag.INTEGER, octets, octets)),
    lambda octets: read_bit_string(DerValue(DerTag.BIT_STRING, octets, octets)),
    lambda octets: read_time(DerValue(DerTag.UTC_TIME, octets, octets)),
]


@given(junk=st.binary(max_size=100), reader=st.sampled_from(READERS))
def test_any_octets_give_a_value_or_the_one_error(junk, reader):
    with contextlib.suppress(AttestationError):
        reader(junk)


def nested(children):
    tags = st.sampled_from([DerTag.SEQUENCE, DerTag.SET, 0xA0, 0xA3])
    return st.tuples(tags, st.lists(children, max_size=4).map(b"".join)).map(encode)


def encode(pair):
    tag, content = pair
    size = len(content)
    length = bytes((size,)) if size < 128 else bytes((0x81, size)) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    return bytes((tag,)) + length + content


leaves = st.tuples(st.sampled_from([int(tag) for tag in DerTag if tag < 0x30]), st.binary(max_size=12)).map(encode)


@given(octets=st.recursive(leaves, nested, max_leaves=30))
def test_any_der_is_taken_apart_and_gives_a_value_or_the_one_error(octets):
    read = read_value(octets)
    assert read.octets == octets
    for reader in READERS[2:8]:
        with contextlib.suppress(AttestationError):
            reader(octets)
