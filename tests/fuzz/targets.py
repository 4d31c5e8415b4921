"""Every reader of what strangers, devices, hubs and operators write: any bytes give a value or a documented error."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from provisiond.attestation import certificate, ek_certificate_reader, revocation, sas_token, tpm_attest, tpm_structures
from provisiond.attestation.tpm_pcr_policy import parse_pcr_policy
from provisiond.broker import packets
from provisiond.broker.packets import ProtocolViolation
from provisiond.errors import (
    AdminError,
    AttestationError,
    ConfigurationError,
    ConnectRefused,
    DeviceFault,
    InvalidArgument,
    MalformedRequest,
    SealBroken,
)
from provisiond.model import ConnectAttempt, Connection, EnrollmentKind, Message, RegistrationId, Reply, Role
from provisiond.protocols import dps, dps_client, iothub, native, native_client, operator, twin
from provisiond.protocols.bulk import read_bulk
from provisiond.protocols.bulk_rows import BulkFormat
from provisiond.protocols.dps_client import MalformedReply
from provisiond.protocols.json_body import encode_json, parse_json
from provisiond.protocols.native_topics import reply_topic
from provisiond.protocols.sealing import SealingContext, open_with_symmetric_key
from provisiond.protocols.service_api_bodies import enrollment_from_json
from provisiond.protocols.topic_filters import is_filter, matches
from provisiond.settings import load_settings
from tests.broker import wire
from tests.certificates import make_ca, make_key, make_leaf

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VECTORS = Path(__file__).parents[1] / "vectors" / "tpm_vectors.json"
REGISTER = b"$dps/registrations/PUT/iotdps-register/?$rid=1\n"
POLL = b"$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId=5.a\n"
MAX_SIZE_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Target:
    """One reader.

    Args:
        read: reads; what it raises beside `expected` is a finding.
        expected: the documented errors.
        seeds: makes inputs to begin with.
    """

    read: Callable[[bytes], object]
    expected: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]

    def try_one(self, data: bytes) -> None:
        """Read; raises whatever is not documented."""
        with contextlib.suppress(*self.expected):
            self.read(data[:MAX_SIZE_BYTES])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _message(data: bytes) -> Message:
    """A topic, a line feed, and the payload."""
    topic, _, payload = data.partition(b"\n")
    return Message(topic=_text(topic), payload=payload, qos=1)


def _connection(role: Role) -> Connection:
    return Connection(
        connection_id="1",
        role=role,
        claimed_id=RegistrationId.parse("device-1"),
        listener="local",
        remote_address="127.0.0.1",
    )


def _attempt(data: bytes) -> ConnectAttempt:
    client_id, username, password = [*data.split(b"\n", 2), b"", b""][:3]
    return ConnectAttempt(
        connection_id="1",
        listener="local",
        remote_address="127.0.0.1",
        tls=True,
        client_id=_text(client_id),
        username=_text(username),
        password=password or None,
    )


# --- readers ---------------------------------------------------------------------------------------------------------


def _read_packets(data: bytes) -> None:
    buffer = bytearray(data)
    readers: dict[int, Callable[[int, bytes], object]] = {
        packets.CONNECT: lambda _, body: packets.parse_connect(body),
        packets.PUBLISH: packets.parse_publish,
        packets.SUBSCRIBE: lambda _, body: packets.parse_subscribe(body, 8),
        packets.UNSUBSCRIBE: lambda _, body: packets.parse_unsubscribe(body, 8),
    }
    while (packet := packets.take_packet(buffer, 4096)) is not None:
        header, body = packet
        readers.get(header >> 4, lambda _, rest: packets.parse_packet_id(rest))(header & 0x0F, body)


def _read_connect(data: bytes) -> None:
    attempt = _attempt(data)
    if dps.is_provisioning_user_name(attempt.username):
        dps.admit(attempt, id_scope="0ne0TEST")
    elif native.is_native_user_name(attempt.username, attempt.client_id):
        native.admit(attempt)
    elif iothub.is_hub_user_name(attempt.username):
        iothub.claim(attempt)


def _read_dps(data: bytes) -> None:
    message = _message(data)
    rid = dps.request_id(message.topic)
    reply = dps.encode(Reply(status=400), rid=rid)
    assert reply.topic.isascii(), reply.topic
    assert reply.topic.isprintable(), reply.topic
    dps.parse(_connection(Role.DPS), message)


def _read_native(data: bytes) -> None:
    message = _message(data)
    topic = reply_topic(message.topic)
    assert topic is None or not set(topic) & set("+#\0"), topic
    native.parse(message, connection=_connection(Role.NATIVE))


def _read_hub(data: bytes) -> None:
    message = _message(data)
    iothub.may_publish("device-1", message.topic)
    iothub.parse("device-1", message.topic)
    twin.parse_patch(message.payload)


def _read_hub_message(data: bytes) -> None:
    iothub.parse_hub_message("device-1", _text(data))


def _read_operator(data: bytes) -> None:
    operator.parse(_message(data))


def _read_replies(data: bytes) -> None:
    message = _message(data)
    native_client.parse_reply(message.payload)
    dps_client.parse_reply(message.topic, message.payload)


def _read_answer(data: bytes) -> None:
    operator.parse_answer(_message(data))


def _read_json(data: bytes) -> None:
    assert parse_json(encode_json(value := parse_json(data))) == value


def _read_enrollment(data: bytes) -> None:
    kind = EnrollmentKind.GROUP if data[:1] == b"g" else EnrollmentKind.INDIVIDUAL
    enrollment_from_json(kind, parse_json(data[1:]), now=NOW)


def _read_bulk(data: bytes) -> None:
    form = list(BulkFormat)[data[0] % len(BulkFormat)] if data else BulkFormat.AUTO
    for _ in read_bulk([data[1:500], data[500:]], form):
        pass


def _read_pcr_policy(data: bytes) -> None:
    document = parse_json(data)
    if isinstance(document, dict):
        parse_pcr_policy(document)


def _read_sealed(data: bytes) -> None:
    sealed = parse_json(data)
    context = SealingContext(id_scope="0ne0TEST", registration_id="device-1", operation_id="5.a")
    if isinstance(sealed, dict):
        open_with_symmetric_key(sealed, key=b"k" * 64, context=context)


def _read_filters(data: bytes) -> None:
    message = _message(data)
    topic = _text(message.payload)
    if is_filter(message.topic) and topic:
        matches(message.topic, topic)


def _read_certificates(data: bytes) -> None:
    parsed = certificate.parse_certificate(data)
    certificate.names_of(parsed)
    certificate.read_common_name(parsed)
    certificate.check_key(parsed, what="the key")
    certificate.identity_of(parsed)


def _read_ek_certificate(data: bytes) -> None:
    raw = ek_certificate_reader.read_stored_certificate(data)
    ek_certificate_reader.read_attributes(raw.subject)


def _read_settings(data: bytes) -> None:
    path = _scratch_directory() / "provisiond.toml"
    path.write_bytes(data)
    load_settings(path, environment={})


@cache
def _scratch_directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="provisiond-fuzz-"))


# --- seeds -----------------------------------------------------------------------------------------------------------


def _vectors(group: str) -> list[bytes]:
    return [bytes.fromhex(vector["tpm2b_public"]) for vector in json.loads(VECTORS.read_text())[group]][:8]


def _attests() -> list[bytes]:
    """Whatever the vectors have of attestations, by their magic number."""
    found: list[bytes] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)
        elif isinstance(value, str) and value.lower().startswith("ff544347"):
            found.append(bytes.fromhex(value))

    walk(json.loads(VECTORS.read_text()))
    return found[:8] or [b"\xffTCG\x80\x18" + bytes(60)]


def _chain() -> list[bytes]:
    root = make_ca("Fuzz Root")
    return [make_leaf("device-1", root).der, root.der, make_leaf("rsa", root, key=make_key("rsa2048")).der]


_CONNECTS = [
    b"device-1\n0ne0TEST/registrations/device-1/api-version=2019-03-31&ClientVersion=x\nSharedAccessSignature sr=a",
    b"device-1\nprovisiond/v1/device-1\n",
    b"device-1\nhub/device-1/?api-version=2021-04-12\npassword",
]
_TOKEN = (
    b"SharedAccessSignature sr=0ne0TEST%2Fregistrations%2Fdevice-1&sig="
    + b"A" * 43
    + b"%3D&se=1999999999&skn=registration"
)
_TPM_BODY = b'{"tpm": {"endorsementKey": "AAA=", "storageRootKey": "AAA=", "ekChain": []}, "payload": {"a": [1, 2.5]}}'
_NATIVE = b'provisiond/v1/device-1/req/register/r1\n{"attestation": {"type": "symmetricKey"}, "payload": null}'
_ENROLLMENT = (
    b'i{"registrationId": "device-1", "attestation": {"type": "symmetricKey", "symmetricKey": '
    b'{"primaryKey": "QUJDREVGR0hJSktMTU5PUA=="}}, "initialTwin": {"tags": {}, "properties": {"desired": {}}}}'
)
_SETTINGS = b'config_version = 1\n[service]\nid_scope = "0ne0TEST001"\nstate_dir = "/var/lib/x"\n[[hubs]]\nname = "a"\n'

_PACKETS = [
    wire.connect(password=b"x", will=("a", b"b")) + wire.subscribe("a/#") + wire.publish() + wire.puback(1),
    wire.unsubscribe("a") + wire.PINGREQ + wire.DISCONNECT,
]

TARGETS: dict[str, Target] = {
    "mqtt-packets": Target(read=_read_packets, expected=(ProtocolViolation,), seeds=lambda: _PACKETS),
    "connect": Target(read=_read_connect, expected=(ConnectRefused,), seeds=lambda: _CONNECTS),
    "dps": Target(
        read=_read_dps, expected=(DeviceFault,), seeds=lambda: [REGISTER + b"{}", REGISTER + _TPM_BODY, POLL]
    ),
    "dps-and-native-replies": Target(
        read=_read_replies,
        expected=(MalformedReply,),
        seeds=lambda: [b'$dps/registrations/res/200/?$rid=1\n{"status": 200}'],
    ),
    "native": Target(read=_read_native, expected=(DeviceFault,), seeds=lambda: [_NATIVE]),
    "iothub": Target(
        read=_read_hub,
        expected=(MalformedRequest,),
        seeds=lambda: [
            b'devices/device-1/messages/events/a=b&%24.ct=json\n{"a": null}',
            b'$iothub/twin/PATCH/properties/reported/?$rid=1\n{"a": {"b": 1}}',
            b"$iothub/methods/res/200/?$rid=1\n{}",
        ],
    ),
    "iothub-messages": Target(
        read=_read_hub_message,
        expected=(MalformedRequest,),
        seeds=lambda: [b"$iothub/twin/res/204/?$rid=1&$version=4", b"devices/device-1/messages/devicebound/a=b"],
    ),
    "operator": Target(
        read=_read_operator,
        expected=(DeviceFault,),
        seeds=lambda: [b'provisiond/v1/_operator/req/r1\n{"operation": "list"}'],
    ),
    "operator-answers": Target(
        read=_read_answer,
        expected=(MalformedRequest,),
        seeds=lambda: [b'provisiond/v1/_operator/res/r1\n{"status": 200}'],
    ),
    "json": Target(
        read=_read_json, expected=(MalformedRequest,), seeds=lambda: [b'{"a": [1, 2.5e3, "\\u00e9", null]}']
    ),
    "enrollments": Target(
        read=_read_enrollment, expected=(InvalidArgument, MalformedRequest), seeds=lambda: [_ENROLLMENT]
    ),
    "bulk": Target(
        read=_read_bulk,
        expected=(AdminError, MalformedRequest),
        seeds=lambda: [b"\1registrationId,attestation.type\na,x509\n", b"\2" + _ENROLLMENT[1:] + b"\n", b"\3[{}]"],
    ),
    "pcr-policies": Target(
        read=_read_pcr_policy,
        expected=(InvalidArgument, MalformedRequest),
        seeds=lambda: [b'{"sha256": {"7": ["' + b"00" * 32 + b'"]}}'],
    ),
    "sealed-secrets": Target(
        read=_read_sealed,
        expected=(SealBroken, MalformedRequest),
        seeds=lambda: [b'{"protected": "e30", "iv": "AA", "ciphertext": "AA", "tag": "AA", "aad": "AA"}'],
    ),
    "sas-tokens": Target(
        read=lambda data: sas_token.parse_sas_token(_text(data)), expected=(AttestationError,), seeds=lambda: [_TOKEN]
    ),
    "topic-filters": Target(read=_read_filters, expected=(), seeds=lambda: [b"a/+/#\na/b/c", b"+/+\n/a"]),
    "certificates": Target(read=_read_certificates, expected=(AttestationError,), seeds=_chain),
    "ek-certificates": Target(read=_read_ek_certificate, expected=(AttestationError,), seeds=_chain),
    "crls": Target(
        read=revocation.load_crl, expected=(InvalidArgument,), seeds=lambda: [b"-----BEGIN X509 CRL-----\n", b"0\x82"]
    ),
    "tpm-public": Target(
        read=tpm_structures.parse_public,
        expected=(MalformedRequest,),
        seeds=lambda: _vectors("public") + _vectors("software_ek"),
    ),
    "tpm-attest": Target(read=tpm_attest.parse_attest, expected=(MalformedRequest,), seeds=_attests),
    "tpm-signature": Target(
        read=tpm_attest.parse_signature,
        expected=(MalformedRequest,),
        seeds=lambda: [b"\x00\x18\x00\x0b\x00\x20" + bytes(32) + b"\x00\x20" + bytes(32)],
    ),
    "settings": Target(read=_read_settings, expected=(ConfigurationError,), seeds=lambda: [_SETTINGS]),
}


def group(name: str) -> Target:
    """Several targets as one, their names joined by `+`: the first octet of an input says whose the rest is."""
    names = name.split("+")
    if len(names) == 1:
        return TARGETS[name]
    targets = [TARGETS[each] for each in names]

    def read(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)].try_one(data[1:])

    def seeds() -> list[bytes]:
        return [bytes([number]) + seed for number, target in enumerate(targets) for seed in target.seeds()]

    return Target(read=read, expected=(), seeds=seeds)
