"""Bounded fuzzing: every seed and every old finding, and mutations of them; `scripts/fuzz` looks for new ones."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.__main__ import DOOR, FINDINGS, NAMES, seeds_of
from tests.fuzz.door import PacketPath
from tests.fuzz.targets import TARGETS, group

MUTANTS = 150


def inputs(name: str) -> Iterator[bytes]:
    """Seeds, findings, and both with octets changed, removed, doubled and inserted."""
    kept = seeds_of(name) + [path.read_bytes() for path in sorted(FINDINGS.glob(f"{name}-*"))]
    yield from kept
    chance = random.Random(name)
    for _ in range(MUTANTS):
        mutant = bytearray(chance.choice(kept))
        for _ in range(chance.randint(1, 8)):
            at = chance.randint(0, len(mutant))
            how = chance.randint(0, 3)
            if how == 0:
                mutant[at : at + 1] = chance.randbytes(1)
            elif how == 1:
                del mutant[at : at + chance.randint(1, 16)]
            elif how == 2:
                mutant[at:at] = mutant[at : at + chance.randint(1, 64)]
            else:
                mutant[at:at] = chance.choice([b"\0", b"\xff" * 4, b'"', b"{", b"/", b"%", b"\x80", b"9" * 20])
        yield bytes(mutant)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_any_bytes_give_a_value_or_a_documented_error(name: str) -> None:
    for data in inputs(name):
        TARGETS[name].try_one(data)


def test_any_bytes_leave_nothing_of_a_client_behind() -> None:
    path = PacketPath()
    try:
        for data in inputs(DOOR):
            path.feed(data)
    finally:
        path.close()


def test_targets_that_share_a_run_are_told_by_the_first_octet() -> None:
    together = group("json+settings")
    together.try_one(b"")
    assert [seed[0] for seed in together.seeds()] == [0, 1]
    for seed in seeds_of("json+settings"):
        together.try_one(seed)


def test_a_finding_belongs_to_a_target() -> None:
    for finding in FINDINGS.glob("*-*"):
        assert any(Path(finding).name.startswith(f"{name}-") for name in NAMES), finding
