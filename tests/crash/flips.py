"""Flip a bit of the database anywhere, and ask everything: each answer is what it was, or is not given.

python -m tests.crash.flips [--trials 1000] [--seed N]
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from provisiond.attestation.x509 import subject_hash
from provisiond.errors import StoreError
from provisiond.model import ProvisioningStatus
from provisiond.ports import FactsQuery, StoredFacts, Write
from provisiond.store import SqliteStore
from tests.store.records import KEYS, make_audit, make_enrollment, make_group, make_registration
from tests.store.released import CA_DER

DEVICES, STRANGERS = 60, 10
NAMES = [f"device-{number:03d}" for number in range(DEVICES + STRANGERS)]

Answers = Mapping[str, StoredFacts | str]


async def fill(path: Path) -> None:
    """Devices that are enrolled, some disabled, and registered, some with a TPM; groups; a hub that drains."""
    async with await SqliteStore.open(path) as store:
        await store.create_enrollment(make_group("line-4", ca_der=CA_DER), make_audit())
        await store.create_enrollment(make_group("keys"), make_audit())
        await store.set_hub_draining("local", True, make_audit())
        for number, name in enumerate(NAMES[:DEVICES]):
            status = ProvisioningStatus.DISABLED if number % 3 == 0 else ProvisioningStatus.ENABLED
            enrollment = make_enrollment(name, attestation=KEYS, provisioning_status=status)
            await store.create_enrollment(enrollment, make_audit())
            registration = make_registration(name, endorsement_key_hash=hash_of(number) if number % 2 else None)
            await store.commit(Write(registration=registration, expected_version=0, audit=make_audit()))


def hash_of(number: int) -> bytes:
    """Of the endorsement key of a device."""
    return sha256(b"%d" % number).digest()


async def ask(path: Path) -> Answers:
    """What the store says of every device, and of some that are not there; `not given` where it refuses to."""
    answers: dict[str, StoredFacts | str] = {}
    async with await SqliteStore.open(path) as store:
        for number, name in enumerate(NAMES):
            question = FactsQuery(
                registration_key=name,
                issuer_hashes=frozenset([subject_hash(CA_DER)]),
                symmetric_key_groups=True,
                tpm_groups=True,
                endorsement_key_hash=hash_of(number),
            )
            try:
                answers[name] = await store.facts(question)
            except StoreError:
                answers[name] = "not given"
    return answers


def judge(path: Path, expected: Answers) -> tuple[str, list[str]]:
    """What became of the flip: `unseen`, `noticed`, or `changed` with the answers that are."""
    try:
        found = asyncio.run(ask(path))
    except StoreError:
        return "noticed", []
    changed = [name for name, answer in found.items() if answer not in (expected[name], "not given")]
    if changed:
        return "changed", changed
    return ("noticed" if "not given" in found.values() else "unseen"), []


def run(directory: Path, trials: int, seed: int) -> tuple[Counter[str], list[str]]:
    """So many flips, one at a time."""
    whole, flipped = directory / "whole.db", directory / "flipped.db"
    asyncio.run(fill(whole))
    expected, content = asyncio.run(ask(whole)), whole.read_bytes()
    chance, tally, changed = random.Random(seed), Counter[str](), []
    for _ in range(trials):
        octet, bit = chance.randrange(len(content)), chance.randrange(8)
        damaged = bytearray(content)
        damaged[octet] ^= 1 << bit
        for leftover in directory.glob("flipped.db*"):
            leftover.unlink()
        flipped.touch(mode=0o600)
        flipped.write_bytes(damaged)
        verdict, names = judge(flipped, expected)
        tally[verdict] += 1
        changed += [f"octet {octet} bit {bit}: {name}" for name in names]
    return tally, changed


def main() -> int:
    """Print the figures; 1 when an answer was changed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="provisiond-flips-") as name:
        tally, changed = run(Path(name), options.trials, options.seed)
    print("| flips | nothing depended on them | noticed | answers changed |\n|---|---|---|---|")
    print(f"| {options.trials} | {tally['unseen']} | {tally['noticed']} | {tally['changed']} |")
    for line in changed:
        print(f"  {line}", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
