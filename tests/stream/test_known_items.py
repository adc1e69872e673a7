"""A worker whose model was trained on other ids than the topic has."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.policy import StepSize
from tests.fakes import FakeLink, FakeModel, FakeRecord, run_to_end, said, worker_on


@pytest.mark.parametrize(
    ("came", "shown"), [(lambda item: f"0{item}", '"027", "028", "029"'), (lambda item: item, None)]
)
def test_a_worker_that_knows_few_items_says_so_once_with_ids_of_both_sides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, came: Callable[[int], int | str], shown: str | None
) -> None:
    records = [FakeRecord(b"ann", said(came(7 + at % 40), at), 0, at) for at in range(600)]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, FakeModel(10))
    worker.step_size = StepSize(budget_s=1.0, largest=60, first=60)
    run_to_end(worker, link)
    warnings = [record.getMessage() for record in caplog.records if "few items known" in record.getMessage()]
    if shown is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert warning.startswith(
            "few items known model=fake@1: its catalogue has 0 of the newest 120 items, less than 50 %."
        )
        assert f"Unknown are {shown}; the catalogue has 27, 28, 29." in warning
