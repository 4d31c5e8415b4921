"""How much a client may ask of the broker, and why each number is what it is."""

from dataclasses import dataclass, fields

from provisiond.errors import ConfigurationError

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLimits:
    """Every bound of the MQTT edge.

    Args:
        handshake_timeout_s: from accept to the end of the TLS handshake and of the CONNECT together. Two round trips
            fit many times over, even on a modem; an idle socket is gone in ten seconds.
        connect_timeout_s: from the moment the connection can carry MQTT (accept, or the end of the TLS handshake)
            until its CONNECT has arrived whole.
        admit_timeout_s: how long the service may think about a CONNECT before the client hears "unavailable".
        close_timeout_s: how long what was written last may take to leave before the socket is cut.
        max_handshake_bytes: bytes a TLS client may send before its handshake ends. Eight RSA-4096 certificates take
            about 16 KiB.
        max_chain_certificates: certificates a client may present, leaf included: a leaf, its intermediates and a root
            are five at most; a few unrelated ones are forgiven.
        max_connect_bytes: the first packet. The longest of the device SDKs, with user name, client version and SAS
            token, is under 1 KiB (CVE-2017-7651: whoever reads more before the CONNECT is judged can be filled up).
        max_packet_bytes: remaining length of any later packet: a 64 KiB payload, its topic, and room.
        max_connections: open connections in all; at under 60 KiB each they fit in 600 MB.
        max_connections_per_address: open connections from one IPv4 address or IPv6 /64: a site behind one router fits,
            and one host cannot take more than a quarter of the places.
        max_filters_per_subscribe: topic filters in one SUBSCRIBE or UNSUBSCRIBE; the SDKs send one, hub clients six.
        max_topic_levels: levels of a topic or filter; the longest that means something has eight, and a request id
            may hold slashes (CVE-2019-11779: 65,000 levels).
        max_topic_bytes: a 10 KB request id must be answered, not cut off.
        keep_alive_ceiling_s: the longest keep-alive that is honoured, and the one that stands for 0; the longest
            Azure IoT Hub lets its devices ask for.
        provisioning_idle_s: a provisioning connection that has asked nothing for so long is closed (the Python SDK
            pings for ever after a refusal); longer than the slowest poll interval that a device keeps (300 s in C).
        max_hub_packet_bytes: the same for who was authenticated at its CONNECT: Azure's largest event, its topic, room.
        write_buffer_bytes: bytes waiting for a client that does not read; two of the largest replies.
        consumer_buffer_bytes: the same for an operator, who listens to many devices at once, and as much again of
            messages that wait for its acknowledgements: ten seconds of 1,000 events/s of 1 KiB.
        inflight: QoS 1 messages sent and not acknowledged; a device has one or two.
    """

    handshake_timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    admit_timeout_s: float = 5.0
    close_timeout_s: float = 2.0
    max_handshake_bytes: int = 32 * KIB
    max_chain_certificates: int = 8
    max_connect_bytes: int = 4 * KIB
    max_packet_bytes: int = 96 * KIB
    max_connections: int = 10_000
    max_connections_per_address: int = 2_500
    max_filters_per_subscribe: int = 8
    max_topic_levels: int = 32
    max_topic_bytes: int = 16 * KIB
    keep_alive_ceiling_s: float = 1_177.0
    provisioning_idle_s: float = 360.0
    max_hub_packet_bytes: int = 288 * KIB
    write_buffer_bytes: int = 256 * KIB
    consumer_buffer_bytes: int = 8192 * KIB
    inflight: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ConfigurationError(f"broker.limits.{field.name} must be more than 0")
