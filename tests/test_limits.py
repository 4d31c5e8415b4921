"""Every setting in `[broker.limits]` bounds something."""

from dataclasses import asdict

from provisiond.edge import broker_limits
from provisiond.policy import service_policy
from provisiond.settings.broker import Broker, Limits
from provisiond.settings.schema import Settings

UNUSUAL = {
    "handshake_timeout_s": 11.0,
    "connect_timeout_s": 12.0,
    "provisioning_idle_s": 13.0,
    "keep_alive_max_s": 14.0,
    "wrong_keys_pause_s": 15.0,
    "max_packet_bytes": 1_601,
    "max_connect_packet_bytes": 1_701,
    "write_buffer_bytes": 18_001,
    "max_connections": 1_901,
    "connections_per_address": 2_001,
    "requests_per_min": 2_101,
    "requests_per_min_per_address": 2_201,
    "wrong_keys": 2_301,
    "challenges": 2_401,
    "challenges_per_address": 2_501,
    "inflight": 261,
    "filters_per_subscribe": 271,
    "topic_levels": 28,
}


def test_every_limit_reaches_whoever_keeps_it() -> None:
    assert set(UNUSUAL) == set(Limits.model_fields)
    settings = Settings(broker=Broker(limits=Limits.model_construct(**UNUSUAL)))
    policy = service_policy(settings)
    kept = [*asdict(broker_limits(settings)).values(), *asdict(policy.requests).values()]
    kept += asdict(policy.challenges).values()
    assert {name for name, value in UNUSUAL.items() if value not in kept} == set()
