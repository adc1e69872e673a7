"""Made records are taken, passed over or refused in our words. `python -m tests.fuzz_records` makes more of them."""

from pathlib import Path

from tests.fuzz_records import run


def test_made_records_are_taken_or_refused_as_a_file_with_the_same_values_is(tmp_path: Path) -> None:
    seen = run(1500, 1, tmp_path)
    assert min(seen["taken"], seen["refused"], seen["passed_over"]) > 0
    assert min(seen["read from a file"], seen["refused in a file too"], seen["implausible"]) > 0
