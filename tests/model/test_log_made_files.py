"""Made files: read as the rules say, or refused in our words. `python -m tests.fuzz_files` makes more of them."""

from pathlib import Path

from tests.fuzz_files import run


def test_made_files_are_read_as_the_rules_say_or_refused(tmp_path: Path) -> None:
    outcomes = run(100, seed=1, folder=tmp_path)
    assert outcomes["read"] > 50
    assert outcomes["refused"] > 5
    assert outcomes["damaged, refused"] > 5
