"""The bench's null model keeps the contract, so what it leaves out is only the cost."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from bench import null_model
from model.version.registry import Registry
from model.version.runtime import Runtime


def test_it_recommends_the_first_items_that_are_not_excluded(tmp_path: Path) -> None:
    runtime = Runtime.load(null_model.write(Registry(tmp_path), 50).folder)
    assert (runtime.reference, runtime.state_floats, runtime.segment_length, runtime.item_ids[:2]) == (
        "null@1",
        0,
        50,
        [0, 1],
    )
    users = 100
    memory, rows, lengths = np.zeros((users, 0), np.float32), np.zeros((users, 7), np.int64), np.full(users, 7)
    folded = runtime.fold(memory, np.ones((users, 50), np.int64))
    assert folded.memory.shape == (users, 0)
    exclude = np.tile(np.array([2, 0, 4, 1_001]), (users, 1))
    for ranked in (runtime.recommend(memory, rows, lengths, 3, exclude), runtime.rank(folded.hidden, 3, exclude)):
        assert (ranked.rows == [1, 3, 5]).all()
        assert (np.diff(ranked.scores) < 0).all()
    assert (runtime.recommend(memory, rows, lengths, 3, exclude[:, :0]).rows == [1, 2, 3]).all()
    everything = runtime.rank(folded.hidden, 2_000, np.tile(np.arange(3, 1_001), (users, 1)))
    assert everything.rows.shape == (users, 1_000)
    assert (everything.rows[:, :2] == [1, 2]).all()
    assert (everything.scores[:, 2:] == -np.inf).all()


def test_a_version_that_is_there_is_left_alone(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "bench.null_model",
        "--out",
        str(tmp_path),
        "--segment-length",
        "20",
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    stamp = (tmp_path / "null" / "1" / "model.pt").stat().st_mtime_ns
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stdout.strip() == str(tmp_path / "null" / "1")
    assert "null@1 is there already, segment length 20" in second.stderr
    assert (tmp_path / "null" / "1" / "model.pt").stat().st_mtime_ns == stamp
