"""Smoke."""
from tests.broker import wire
async def test_smoke(edge):
    async with edge.client() as c:
        assert await c.connect() == 0
        c.send(wire.subscribe(wire.DPS_FILTER), wire.publish(payload=b'{"a":1}'))
        print([await c.receive() for _ in range(3)])
async def test_smoke_tls(edge):
    async with edge.client(wire.client_tls()) as c:
        assert await c.connect() == 0
        c.send(wire.subscribe(wire.DPS_FILTER), wire.publish(payload=b'{"a":1}'))
        print([await c.receive() for _ in range(3)])
