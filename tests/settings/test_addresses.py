"""Hosts and ports."""

import pytest

from provisiond.settings.addresses import check_host, check_host_and_port, parse_bind


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:1883", "127.0.0.1", 1883, True),
        ("127.9.9.9:0", "127.9.9.9", 0, True),
        ("[::1]:8883", "::1", 8883, True),
        ("localhost:1", "localhost", 1, True),
        ("0.0.0.0:8883", "0.0.0.0", 8883, False),
        ("[::]:8883", "::", 8883, False),
        ("[fe80::1%eth0.7]:8883", "fe80::1%eth0.7", 8883, False),
        ("gateway.local:8883", "gateway.local", 8883, False),
        ("localhost.example:1", "localhost.example", 1, False),
    ],
)
def test_a_bind_is_a_host_and_a_port(text, host, port, is_loopback):
    address = parse_bind(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)


@pytest.mark.parametrize("text", ["", "1883", ":1883", "::1:1883", "h:65536", "h:-1", "h:٣", "a b:1", "[h]:1", "h:1\n"])
def test_anything_else_is_not_a_bind(text):
    with pytest.raises(ValueError, match=r"is not HOST:PORT|neither a host name"):
        parse_bind(text)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "-a", "a..b", "ä.de", "a" * 64, "http://a"])
def test_a_host_is_a_name_or_an_address(text):
    with pytest.raises(ValueError, match="neither a host name nor an IP address"):
        check_host(text)


@pytest.mark.parametrize("text", ["hub.local", "hub.local:8884", "10.0.0.7", "::1", "[::1]:8883"])
def test_a_hub_may_have_a_port(text):
    assert check_host_and_port(text) == text


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("0.0.0.0:1", "localhost:1", True),
        ("[::]:1", "[::1]:1", True),
        ("localhost:1", "[::1]:1", True),
        ("0.0.0.0:1", "127.0.0.1:2", False),
        ("0.0.0.0:0", "127.0.0.1:0", False),
        ("0.0.0.0:1", "[::]:1", False),  # an IPv6 listener of ours takes IPv6 only
        ("0.0.0.0:1", "gateway.local:1", False),
        ("gateway.local:1", "0.0.0.0:1", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
    ],
)
def test_an_address_covers_what_it_takes_from_others(one, other, expected):
    assert parse_bind(one).covers(parse_bind(other)) is expected
