"""Where devices come in: a broker of our own, or a client of the site's; made from the configuration."""

from collections.abc import Callable, Mapping
from functools import partial
from secrets import token_hex

from provisiond.broker.embedded import EmbeddedBroker
from provisiond.broker.external import ExternalBroker, ExternalBrokerSpec
from provisiond.broker.external_requests import Ignored
from provisiond.broker.limits import BrokerLimits
from provisiond.broker.listener import ListenerSpec
from provisiond.broker.offences import Reason
from provisiond.metrics import Metrics
from provisiond.model import JSONValue, Message
from provisiond.ports import Gatekeeper
from provisiond.protocols.operator import status_message
from provisiond.settings import Listener, Settings
from provisiond.settings.files import load_password


def make_edge(
    settings: Settings, *, gatekeeper: Gatekeeper, status: Callable[[], Mapping[str, JSONValue]]
) -> EmbeddedBroker | ExternalBroker:
    """The edge that `[broker] mode` asks for, not yet started.

    Args:
        settings: the configuration.
        gatekeeper: answers whoever comes in.
        status: how the service is, for the retained status message at the site's broker.
    """
    if settings.broker.mode == "embedded":
        return EmbeddedBroker(
            gatekeeper=gatekeeper,
            listeners=[listener_spec(listener) for listener in settings.broker.listeners],
            limits=broker_limits(settings),
        )
    spec = external_broker_spec(settings)

    def say_status(running: bool) -> Message:
        return status_message({**status(), "running": running, "instance": spec.client_id})

    return ExternalBroker(gatekeeper=gatekeeper, spec=spec, status=say_status)


def reload_edge(edge: EmbeddedBroker | ExternalBroker, settings: Settings) -> None:
    """Have the edge take over certificates and, where the broker is our own, limits.

    Raises:
        ConfigurationError: a certificate or a limit cannot be used; the edge keeps all that it had.
    """
    limits = broker_limits(settings)
    edge.reload_certificates()
    if isinstance(edge, EmbeddedBroker):
        edge.reload_limits(limits)


def measure_edge(metrics: Metrics, edge: EmbeddedBroker | ExternalBroker) -> None:
    """Let Prometheus see what the edge counts."""
    metrics.gauge("provisiond_connections", "Open MQTT connections.", lambda: edge.statistics.connections)
    if not isinstance(edge, ExternalBroker):
        statistics = edge.statistics
        metrics.counters(
            "provisiond_connections_ended",
            "Connections refused or ended by us.",
            "reason",
            lambda: {reason.value: statistics.refused[reason] for reason in Reason},
        )
        return
    ignored = edge.statistics.ignored
    for reason in Ignored:
        name = f"provisiond_broker_ignored_{reason.value.replace('-', '_')}"
        text = f"Messages of the site's broker, and wishes in them, passed over since the start: {reason.value}."
        metrics.gauge(name, text, partial(ignored.__getitem__, reason))


def external_broker_spec(settings: Settings) -> ExternalBrokerSpec:
    """`[broker.external]` as the client takes it."""
    external = settings.broker.external
    password_file = external.password_file
    return ExternalBrokerSpec(
        host=external.address.host,
        port=external.address.port,
        protocol=external.protocol,
        ca_file=external.ca_file,
        cert_file=external.cert_file,
        key_file=external.key_file,
        username=external.username,
        password=None if password_file is None else lambda: load_password(password_file),
        client_id=external.client_id or f"provisiond-{token_hex(6)}",
        share_group=external.group if external.is_shared else "",
        keep_alive_s=round(external.keep_alive_s),
        inflight=external.inflight,
    )


def listener_spec(listener: Listener) -> ListenerSpec:
    """A listener as the broker takes it."""
    return ListenerSpec(
        name=listener.name,
        host=listener.address.host,
        port=listener.address.port,
        tls=listener.tls,
        certificate_path=listener.cert_file,
        key_path=listener.key_file,
        client_certificates=listener.client_certs,
    )


def broker_limits(settings: Settings) -> BrokerLimits:
    """The broker's bounds from `[broker.limits]`."""
    limits = settings.broker.limits
    return BrokerLimits(
        handshake_timeout_s=limits.handshake_timeout_s,
        connect_timeout_s=limits.connect_timeout_s,
        max_connect_bytes=limits.max_connect_packet_bytes,
        max_packet_bytes=limits.max_packet_bytes,
        max_connections=limits.max_connections,
        max_connections_per_address=limits.connections_per_address,
        max_filters_per_subscribe=limits.filters_per_subscribe,
        max_topic_levels=limits.topic_levels,
        keep_alive_ceiling_s=limits.keep_alive_max_s,
        provisioning_idle_s=limits.provisioning_idle_s,
        write_buffer_bytes=limits.write_buffer_bytes,
        inflight=limits.inflight,
    )
