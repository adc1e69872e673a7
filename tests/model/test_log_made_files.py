"""Made files: read as the rules say, or refused in our words. `python -m tests.fuzz_files` makes more of them."""

import random
from pathlib import Path

import pytest

from tests.fuzz_files import check, check_damaged, damaged, make, run


def test_made_files_are_read_as_the_rules_say_or_refused(tmp_path: Path) -> None:
    outcomes = run(100, seed=1, folder=tmp_path)
    assert outcomes["read"] > 50
    assert outcomes["refused"] > 5
    assert outcomes["damaged, refused"] > 5


@pytest.mark.parametrize(("seed", "number"), [(14, 150)])
def test_a_damaged_file_on_which_the_reader_itself_fails_is_refused(tmp_path: Path, seed: int, number: int) -> None:
    """Found by the command. polars panics on this file, which is no ordinary exception."""
    draw = random.Random(f"{seed}-{number}")
    made = make(draw, tmp_path)
    check(made)
    damaged(draw, made)
    assert check_damaged(made) == "damaged, refused"
