"""A bit that flips anywhere in the database changes no answer: some are not given any more."""

from pathlib import Path

from tests.crash.flips import run


def test_no_flipped_bit_changes_an_answer(tmp_path: Path) -> None:
    tally, changed = run(tmp_path, trials=120, seed=1)
    assert changed == []
    assert tally["noticed"] > 0
