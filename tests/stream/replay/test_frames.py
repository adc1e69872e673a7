"""What a shard has made survives a kill at any byte, and nothing is read twice."""

from pathlib import Path

import polars as pl
import pytest

from stream.replay.frames import Frame, Frames


def frame(reaches: int) -> Frame:
    return Frame(reaches, {"lists": pl.DataFrame({"offset": [reaches - 1], "items": [["a", "b"]]})}, {"lists": reaches})


def made(path: Path, *reaches: int) -> Frames:
    frames = Frames(path)
    for each in reaches:
        frames.append(frame(each))
    return frames


def test_frames_come_back_in_order_with_their_tables_and_figures(tmp_path: Path) -> None:
    frames = made(tmp_path / "frames", 3, 7)
    assert [(each.reaches, each.figures) for each in frames.read()] == [(3, {"lists": 3}), (7, {"lists": 7})]
    assert [each.tables["lists"].to_dict(as_series=False) for each in frames.read()] == [
        {"offset": [2], "items": [["a", "b"]]},
        {"offset": [6], "items": [["a", "b"]]},
    ]
    assert frames.reaches() == 7


def test_what_is_beyond_the_store_is_cut_off(tmp_path: Path) -> None:
    frames = made(tmp_path / "frames", 3, 7, 9)
    frames.keep(7)
    assert [each.reaches for each in frames.read()] == [3, 7]
    frames.append(frame(8))
    assert [each.reaches for each in frames.read()] == [3, 7, 8]
    frames.keep(-1)
    assert frames.reaches() is None


@pytest.mark.parametrize("cut", [1, 5, 12, 13, 60])
def test_a_frame_that_a_kill_left_half_written_is_none(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "frames"
    frames = made(path, 3)
    whole = path.stat().st_size
    frames.append(frame(7))
    with path.open("r+b") as file:
        file.truncate(whole + cut)
    assert [each.reaches for each in frames.read()] == [3]
    frames.keep(3)
    frames.append(frame(8))
    assert [each.reaches for each in frames.read()] == [3, 8]


def test_a_shard_that_has_not_begun_has_no_frames(tmp_path: Path) -> None:
    frames = Frames(tmp_path / "frames")
    assert not frames.there
    assert list(frames.read()) == []
    frames.keep(5)
    assert frames.reaches() is None
