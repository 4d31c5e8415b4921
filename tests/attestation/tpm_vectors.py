"""The TPM vectors of `tests/vectors/tpm_vectors.json`: every positive one was consumed by a TPM when it was made."""

import functools
import json
from pathlib import Path

import pytest

VECTORS = Path(__file__).parents[1] / "vectors" / "tpm_vectors.json"


@functools.cache
def load():
    return json.loads(VECTORS.read_text(encoding="utf-8"))


def section(name):
    """The vectors of a section, as parameters named by their ids."""
    vectors = load()[name]
    return [
        pytest.param(vector, id=str(vector.get("id", vector.get("note", number))))
        for number, vector in enumerate(vectors)
    ]


def public_named(note):
    """TPM2B_PUBLIC of a vector of the `public` section."""
    return next(bytes.fromhex(vector["tpm2b_public"]) for vector in load()["public"] if vector["note"] == note)


def octets(vector, field):
    return bytes.fromhex(vector[field])
