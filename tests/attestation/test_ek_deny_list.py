import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.ek_certificate import NOTHING_DENIED
from provisiond.attestation.ek_deny_list import parse_deny_list
from provisiond.errors import InvalidArgument

DIGEST = bytes(range(32))
TEXT = DIGEST.hex()


@pytest.mark.parametrize(
    "line",
    [TEXT, TEXT.upper(), DIGEST.hex(":"), f"  {TEXT}  # stolen", base64.b32encode(DIGEST).decode().rstrip("=").lower()],
)
def test_a_hash_names_an_endorsement_key_or_a_certificate(line):
    deny = parse_deny_list(line)
    assert deny.endorsement_key_hashes == deny.certificate_hashes == {DIGEST}
    assert not deny.certificates
    assert not deny.firmware


@pytest.mark.parametrize("serial", ["1a2b3c", "1A2B3C", "001A2B3C", "1A:2B:3C"])
def test_a_certificate_is_named_by_its_issuer_and_its_serial_number(serial):
    assert parse_deny_list(f"{TEXT} {serial}").certificates == {(DIGEST, 0x1A2B3C)}


def test_firmware_is_named_by_its_maker_and_its_version():
    assert parse_deny_list("id:49465800\tID:0D0B").firmware == {("id:49465800", "id:0d0b")}


def test_a_negative_serial_number_is_written_as_openssl_prints_it():
    assert parse_deny_list(f"{TEXT} -7F").certificates == {(DIGEST, -0x7F)}


def test_blank_lines_and_comments_say_nothing():
    assert parse_deny_list("\n# nobody\n   \n") == NOTHING_DENIED


@pytest.mark.parametrize(
    "line",
    [
        TEXT[:-2],
        TEXT + "00",
        "junk",
        f"{TEXT} xyz",
        f"{TEXT} {'1' * 43}",
        f"{TEXT} --1",
        f"{TEXT} 1 2",
        "id:4946 id:1",
        "id:49465800",
    ],
)
def test_anything_else_is_refused_with_its_line(line):
    with pytest.raises(InvalidArgument, match=r"^line 2: not a SHA-256"):
        parse_deny_list(f"{TEXT}\n{line}\n")


@given(st.text(max_size=300))
def test_any_text_gives_a_list_or_the_one_error(text):
    with contextlib.suppress(InvalidArgument):
        parse_deny_list(text)
