"""The rules that every hub connector keeps, as tests: run each of `RULES` with a harness for yours.

    @pytest.mark.parametrize("rule", contract.RULES, ids=lambda rule: rule.__name__)
    async def test_my_hub_keeps_the_contract(rule, harness):
        await rule(harness)

They need no test framework; a rule that is broken raises `ContractBroken`. Each makes devices of its own and leaves the
hub as it found it, as far as the connector lets it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from provisiond.connectors import HubConnector, HubIdentity, TrialOutcome

_PATIENCE_S: Final = 30.0
"""For one rule on a slow machine; a rule that hangs is broken."""


class ContractBroken(AssertionError):
    """The connector does not keep a rule; the message says which part."""


class Harness(Protocol):
    """What the rules need to know about a hub."""

    @property
    def connector(self) -> HubConnector:
        """The one that is tried, for a hub that answers."""
        ...

    def identity(self, device_id: str, *, generation: int = 1) -> HubIdentity:
        """A device; another generation has other credentials."""
        ...

    async def connects(self, identity: HubIdentity) -> bool | None:
        """Whether a device with these credentials can connect and send a message; None where that cannot be tried."""
        ...


async def connects(connector: HubConnector, identity: HubIdentity) -> bool | None:
    """What `Harness.connects` may answer where the connector can try."""
    trial = await connector.try_connect(identity)
    return None if trial is None else trial.outcome is TrialOutcome.ACCEPTED


async def makes_what_is_not_there(harness: Harness) -> None:
    """`ensure` makes an identity, `read` finds it enabled, and the device connects."""
    identity = await _made(harness, "contract-makes")
    _require((await harness.connector.read([identity.device_id]))[identity.device_id].enabled, "it is enabled")
    _require(await harness.connects(identity) is not False, "the device can connect")


async def makes_twice_what_it_makes_once(harness: Harness) -> None:
    """`ensure` may be called again: after a lost answer nobody knows whether it was done."""
    identity = await _made(harness, "contract-twice")
    outcomes = await harness.connector.ensure([identity])
    _require(list(outcomes) == [None], "making it again succeeds")
    _require(await harness.connects(identity) is not False, "the device can still connect")


async def replaces_credentials(harness: Harness) -> None:
    """`ensure` with other credentials voids those before."""
    old = await _made(harness, "contract-rotates")
    new = harness.identity("contract-rotates", generation=2)
    _require(list(await harness.connector.ensure([new])) == [None], "new credentials are taken")
    _require(await harness.connects(new) is not False, "the new credentials serve")
    _require(await harness.connects(old) is not True, "the old credentials do not")


async def makes_a_whole_batch(harness: Harness) -> None:
    """`ensure` takes as many as `batch_size` says, and answers for each, in order."""
    size = harness.connector.batch_size
    _require(1 <= size <= 1000, "the batch size is from 1 to 1000")
    batch = [harness.identity(f"contract-batch-{number}") for number in range(size)]
    outcomes = await harness.connector.ensure(batch)
    _require(list(outcomes) == [None] * size, "each of a batch is made")
    found = await harness.connector.read([identity.device_id for identity in batch])
    _require(set(found) == {identity.device_id for identity in batch}, "each of a batch is there")
    await harness.connector.delete([identity.device_id for identity in batch])


async def disables(harness: Harness) -> None:
    """`disable` keeps the device out, whether the hub keeps the identity or not."""
    identity = await _made(harness, "contract-disables")
    await harness.connector.disable([identity.device_id])
    state = (await harness.connector.read([identity.device_id])).get(identity.device_id)
    _require(state is None or not state.enabled, "it is disabled, or not there")
    _require(await harness.connects(identity) is not True, "the device is kept out")


async def enables_again(harness: Harness) -> None:
    """`ensure` brings back what was disabled."""
    identity = await _made(harness, "contract-enables")
    await harness.connector.disable([identity.device_id])
    _require(list(await harness.connector.ensure([identity])) == [None], "it is made again")
    _require((await harness.connector.read([identity.device_id]))[identity.device_id].enabled, "it is enabled")
    _require(await harness.connects(identity) is not False, "the device can connect again")


async def deletes(harness: Harness) -> None:
    """`delete` leaves nothing; a new identity of that name is a new one."""
    identity = harness.identity("contract-deletes")
    await harness.connector.ensure([identity])
    await harness.connector.delete([identity.device_id])
    _require(not await harness.connector.read([identity.device_id]), "it is not there")
    _require(await harness.connects(identity) is not True, "the device is kept out")
    _require(list(await harness.connector.ensure([identity])) == [None], "it can be made anew")
    await harness.connector.delete([identity.device_id])


async def takes_what_is_not_there_for_gone(harness: Harness) -> None:
    """`disable`, `delete` and `read` of an unknown device are no errors."""
    await harness.connector.disable(["contract-nobody"])
    await harness.connector.delete(["contract-nobody"])
    await harness.connector.delete(["contract-nobody"])
    _require(not await harness.connector.read(["contract-nobody"]), "nothing is found")


async def touches_nobody_else(harness: Harness) -> None:
    """What is done to one device leaves another as it is."""
    one, other = await _made(harness, "contract-one"), await _made(harness, "contract-other")
    await harness.connector.disable([one.device_id])
    await harness.connector.delete([one.device_id])
    _require((await harness.connector.read([other.device_id]))[other.device_id].enabled, "the other is enabled")
    _require(await harness.connects(other) is not False, "the other can connect")


async def answers_a_probe(harness: Harness) -> None:
    """`probe` of a hub that is there succeeds."""
    await harness.connector.probe()


async def survives_being_cancelled(harness: Harness) -> None:
    """A call that is given up at any point leaves a connector that works."""
    identity = harness.identity("contract-cancelled")
    for delay_s in (0.0, 0.0005, 0.002, 0.01):
        call = asyncio.ensure_future(harness.connector.ensure([identity]))
        await asyncio.wait({call}, timeout=delay_s)
        call.cancel()
        await asyncio.wait({call})
    _require(list(await harness.connector.ensure([identity])) == [None], "it is made in the end")
    await harness.connector.delete([identity.device_id])


async def takes_several_calls_at_once(harness: Harness) -> None:
    """Calls of several tasks do not mix up their answers."""
    identities = [harness.identity(f"contract-at-once-{number}") for number in range(5)]
    await asyncio.gather(*(harness.connector.ensure([identity]) for identity in identities))
    found = await asyncio.gather(*(harness.connector.read([identity.device_id]) for identity in identities))
    for identity, states in zip(identities, found, strict=True):
        _require(set(states) == {identity.device_id}, "each task hears of its own device")
    await harness.connector.delete([identity.device_id for identity in identities])


Rule = Callable[[Harness], Awaitable[None]]


def _bounded(rule: Rule) -> Rule:
    async def bounded(harness: Harness) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await rule(harness)
        except TimeoutError as error:
            raise ContractBroken(f"{bounded.__name__}: no end within {_PATIENCE_S:g} s") from error

    bounded.__name__ = getattr(rule, "__name__", "rule")
    bounded.__doc__ = rule.__doc__
    return bounded


RULES: Final = tuple(
    _bounded(rule)
    for rule in (
        makes_what_is_not_there,
        makes_twice_what_it_makes_once,
        replaces_credentials,
        makes_a_whole_batch,
        disables,
        enables_again,
        deletes,
        takes_what_is_not_there_for_gone,
        touches_nobody_else,
        answers_a_probe,
        survives_being_cancelled,
        takes_several_calls_at_once,
    )
)
"""Every rule: an async function of a harness, named for what a connector does."""


async def _made(harness: Harness, device_id: str) -> HubIdentity:
    identity = harness.identity(device_id)
    outcomes = await harness.connector.ensure([identity])
    _require(list(outcomes) == [None], f"{device_id} is made")
    _require(device_id in await harness.connector.read([device_id]), f"{device_id} is there")
    return identity


def _require(kept: bool, rule: str) -> None:
    if not kept:
        raise ContractBroken(f"not so: {rule}")
