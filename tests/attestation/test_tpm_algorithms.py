import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisiond.attestation.tpm_algorithms import ATTRIBUTES_MASK, CURVES, HASHES, HASHES_BY_NAME, ObjectAttributes

hashes = st.sampled_from(list(HASHES.values()))


@given(hash_=hashes, key=st.binary(max_size=300), message=st.binary(max_size=300))
def test_an_hmac_is_the_librarys(hash_, key, message):
    assert hash_.hmac(key, message) == hmac.digest(key, message, hash_.name)


@pytest.mark.parametrize("hash_", HASHES.values(), ids=lambda item: item.name)
def test_a_hash_is_the_one_that_its_name_says(hash_):
    reference = hashlib.new(hash_.name, b"octets")
    assert hash_.digest(b"octets") == reference.digest()
    assert (hash_.digest_size_bytes, hash_.block_size_bytes) == (reference.digest_size, reference.block_size)
    assert hash_.primitive.name == hash_.name
    assert HASHES_BY_NAME[hash_.name] is HASHES[hash_.algorithm] is hash_


def test_only_sha1_is_not_approved():
    assert [hash_.name for hash_ in HASHES.values() if not hash_.approved] == ["sha1"]


def test_coordinates_are_as_long_as_the_field():
    assert [curve.coordinate_size_bytes for curve in CURVES.values()] == [32, 48, 66]
    assert all(-(-curve.primitive.key_size // 8) == curve.coordinate_size_bytes for curve in CURVES.values())


def test_the_defined_attributes_are_twelve():
    assert ATTRIBUTES_MASK == 0x000F0CF6
    assert int(ObjectAttributes.RESIDENT) == 0x00000032
