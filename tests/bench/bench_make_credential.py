"""Credentials made per second on one core, next to Keylime's pure-Python implementation, in one run of one interpreter.

    python -m tests.bench.bench_make_credential [--cache DIR] [--seconds S] [--rounds N]

Both start from the octets that a device sends and end with the octets that its TPM takes: read the endorsement key,
take the Name of the storage root key, draw a 32-octet secret and make its credential. Ours also checks the templates
of both keys, the storage root key's numbers and the ROCA fingerprint; nothing is kept from one credential to the next.

Keylime is installed from PyPI into an environment of its own below the cache directory, with the version of
cryptography that runs this. The two take turns on one core; figures are medians of the rounds.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import secrets
import statistics
import subprocess
import sys
import time
import venv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEYLIME_VERSION = "7.14.3"
ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "tpm_vectors.json"
CASES = {"rsa2048": "RSA-2048 (L-1)", "p256": "P-256 (L-2)", "p384": "P-384 (H-3)"}
SECRET_SIZE_BYTES = 32


class SystemEntropy:
    """The kernel's."""

    def token_bytes(self, size_bytes: int) -> bytes:
        return secrets.token_bytes(size_bytes)


def prepare(cache: Path) -> Path:
    """The interpreter of an environment that has Keylime; made at the first call."""
    cryptography = importlib.metadata.version("cryptography")
    directory = cache / f"keylime-{KEYLIME_VERSION}-cryptography-{cryptography}"
    python = directory / "bin" / "python"
    if not (directory / "complete").exists():
        venv.create(directory, with_pip=True, clear=True)
        requirements = (f"keylime=={KEYLIME_VERSION}", "pyyaml", f"cryptography=={cryptography}")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True, timeout=600)
        (directory / "complete").touch()
    return python


# --- in the environment that has both --------------------------------------------------------------------------------


def make_ours() -> Callable[[bytes, bytes], tuple[bytes, bytes, bytes]]:
    from provisiond.attestation.tpm import parse_endorsement_key, parse_storage_root_key
    from provisiond.attestation.tpm_credential import make_credential

    entropy = SystemEntropy()

    def ours(endorsement_key: bytes, storage_root_key: bytes) -> tuple[bytes, bytes, bytes]:
        secret = entropy.token_bytes(SECRET_SIZE_BYTES)
        name = parse_storage_root_key(storage_root_key).name
        made = make_credential(parse_endorsement_key(endorsement_key), name, secret, entropy=entropy)
        return secret, made.id_object, made.encrypted_secret

    return ours


def make_keylimes() -> Callable[[bytes, bytes], tuple[bytes, bytes, bytes]]:
    logging.disable(logging.WARNING)  # Keylime looks for its configuration files; what is timed does not use them
    warnings.simplefilter("ignore")  # it takes CFB from where cryptography had it before
    from keylime.tpm.tpm2_objects import get_tpm2b_public_name
    from keylime.tpm.tpm_util import makecredential

    def keylimes(endorsement_key: bytes, storage_root_key: bytes) -> tuple[bytes, bytes, bytes]:
        secret = secrets.token_bytes(SECRET_SIZE_BYTES)
        name = bytes.fromhex(get_tpm2b_public_name(storage_root_key))
        blob = makecredential(endorsement_key, secret, name)[8:]  # the header of tpm2-tools' file format
        end = 2 + int.from_bytes(blob[:2], "big")
        return secret, blob[:end], blob[end:]

    return keylimes


def check(make: Callable[[bytes, bytes], tuple[bytes, bytes, bytes]], vector: dict[str, Any], srk: bytes) -> None:
    """What is timed is right: the endorsement key's holder opens it."""
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    from provisiond.attestation.tpm_structures import parse_public
    from tests.attestation.software_tpm import activate

    public = parse_public(bytes.fromhex(vector["tpm2b_public"]))
    private_key = load_der_private_key(bytes.fromhex(vector["private_pkcs8_der"]), password=None)
    secret, id_object, encrypted_secret = make(public.tpm2b, srk)
    assert activate(private_key, public, parse_public(srk).name, id_object, encrypted_secret) == secret


def rate(make: Callable[[bytes, bytes], object], endorsement_key: bytes, srk: bytes, seconds: float) -> float:
    """Calls per second of processor time, over at least `seconds`: what else the machine does is not counted."""
    calls = 0
    start = time.process_time()
    while (elapsed := time.process_time() - start) < seconds:
        for _ in range(20):
            make(endorsement_key, srk)
        calls += 20
    return calls / elapsed


def measure(seconds: float, rounds: int) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    srk = next(bytes.fromhex(v["tpm2b_public"]) for v in vectors["public"] if v["note"] == "srk-rsa2048")
    makers = {"ours": make_ours(), "keylime": make_keylimes()}
    print(
        f"Python {platform.python_version()}, cryptography {importlib.metadata.version('cryptography')},"
        f" Keylime {KEYLIME_VERSION}, one core of {os.cpu_count()}, medians of {rounds} rounds of {seconds:g} s"
    )
    print(f"{'endorsement key':18}{'provisiond/s':>14}{'Keylime/s':>12}{'ratio':>8}   quartiles")
    for case, title in CASES.items():
        vector = next(v for v in vectors["software_ek"] if v["id"] == case)
        endorsement_key = bytes.fromhex(vector["tpm2b_public"])
        for make in makers.values():
            check(make, vector, srk)
            rate(make, endorsement_key, srk, seconds / 10)  # warm up
        samples = [
            {name: rate(make, endorsement_key, srk, seconds) for name, make in makers.items()} for _ in range(rounds)
        ]
        ours, theirs = (statistics.median(sample[name] for sample in samples) for name in makers)
        ratios = statistics.quantiles((sample["ours"] / sample["keylime"] for sample in samples), n=4)
        ratio, spread = ratios[1], f"   {ratios[0]:.2f} to {ratios[2]:.2f}"
        print(f"{title:18}{ours:14,.0f}{theirs:12,.0f}{ratio:8.2f}{spread}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache", help="where Keylime's environment is kept")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a sample")
    parser.add_argument("--rounds", type=int, default=25, help="samples of each, in turns")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(arguments.seconds, arguments.rounds)
        return
    command = [prepare(arguments.cache.resolve()), "-m", "tests.bench.bench_make_credential", "--inside"]
    options = ["--seconds", str(arguments.seconds), "--rounds", str(arguments.rounds)]
    completed = subprocess.run([*command, *options], cwd=ROOT, check=False, timeout=3600)
    sys.exit(completed.returncode)


if __name__ == "__main__":
    main()
