from hypothesis import given
from hypothesis import strategies as st

from tests.bench import packets


@given(body=st.binary(max_size=20_000), rest=st.binary(max_size=20))
def test_a_packet_is_split_off_whole_and_the_rest_is_left(body: bytes, rest: bytes) -> None:
    buffer = bytearray(packets._encode(0x32, body) + rest)
    assert packets.split_packet(buffer) == (packets.PUBLISH, body)
    assert buffer == rest


@given(body=st.binary(max_size=300), missing=st.integers(min_value=1))
def test_a_packet_that_is_not_whole_is_left_alone(body: bytes, missing: int) -> None:
    whole = packets._encode(0x32, body)
    part = bytearray(whole[: -min(missing, len(whole))])
    before = bytes(part)
    assert packets.split_packet(part) is None
    assert part == before
