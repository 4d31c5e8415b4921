"""The MQTT 3.1.1 packets that a device sends, encoded ahead of time so that the load costs the machine little."""

CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9
DISCONNECT = b"\xe0\x00"
_REPLIES = "$dps/registrations/res/#"
_REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid=1"


def encode_connect(client_id: str, username: str, password: str | None, keep_alive_s: int = 60) -> bytes:
    """CONNECT with a clean session."""
    flags = 0x82 if password is None else 0xC2
    fields = [client_id, username, *([] if password is None else [password])]
    return _encode(
        0x10, b"\x00\x04MQTT\x04" + bytes([flags]) + keep_alive_s.to_bytes(2, "big") + b"".join(map(_text, fields))
    )


def encode_subscribe(topic_filter: str = _REPLIES) -> bytes:
    """SUBSCRIBE, to the replies of the provisioning service, at QoS 1, packet id 1."""
    return _encode(0x82, b"\x00\x01" + _text(topic_filter) + b"\x01")


def encode_register(registration_id: str) -> bytes:
    """The register PUBLISH at QoS 1, packet id 2, with the Python SDK's body."""
    body = f'{{"payload": null, "registrationId": "{registration_id}"}}'
    return _encode(0x32, _text(_REGISTER) + b"\x00\x02" + body.encode())


def encode_puback(packet_id: bytes) -> bytes:
    """PUBACK of the server's PUBLISH."""
    return b"\x40\x02" + packet_id


def split_packet(buffer: bytearray) -> tuple[int, bytes] | None:
    """Take the first whole packet out of `buffer`: its type and the bytes after the fixed header."""
    length, shift = 0, 0
    for index in range(1, 5):
        if index >= len(buffer):
            return None
        length |= (buffer[index] & 0x7F) << shift
        shift += 7
        if buffer[index] < 0x80:
            break
    else:
        raise ValueError("remaining length is longer than four bytes")
    end = index + 1 + length
    if len(buffer) < end:
        return None
    packet_type, body = buffer[0] >> 4, bytes(buffer[index + 1 : end])
    del buffer[:end]
    return packet_type, body


def split_publish(body: bytes) -> tuple[str, bytes, bytes]:
    """Topic, packet id and payload of a QoS 1 PUBLISH."""
    end = 2 + int.from_bytes(body[:2], "big")
    return body[2:end].decode(), body[end : end + 2], body[end + 2 :]


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _encode(first: int, body: bytes) -> bytes:
    length, remaining = bytearray(), len(body)
    while True:
        remaining, digit = divmod(remaining, 128)
        length.append(digit | (0x80 if remaining else 0))
        if not remaining:
            return bytes([first]) + bytes(length) + body
