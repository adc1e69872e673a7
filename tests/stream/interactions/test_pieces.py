"""The folder of an export: whole or not there, whatever interrupts it; forgotten users are in no file."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.log import open_log
from model.times import TimeRule
from stream.errors import ExportUnfit
from stream.event import EventReader
from stream.interactions import pieces as subject
from stream.interactions.pieces import ORIGIN, Job, Origin, Pieces, origin_of
from stream.keys import KeyFormat
from stream.rows import MOST_REASONS, OTHER_REASONS, Batch, Reader
from tests.fakes import FakeRecord

FROM = 1_700_000_000_000
Record = tuple[str, int | str | None]
"""A user and an item; None: forget the user."""


def made(records: list[Record], partition: int) -> list[FakeRecord]:
    values = [
        None if item is None else msgspec.json.encode({"item": item, "ts": FROM + at})
        for at, (_, item) in enumerate(records)
    ]
    return [
        FakeRecord(user.encode(), value, partition, offset)
        for offset, ((user, _), value) in enumerate(zip(records, values, strict=True))
    ]


def left(records: list[Record], partition: int) -> list[tuple[str, str, int, int, int]]:
    """What a worker remembers in the end."""
    return [
        (user, str(item), FROM + offset, partition, offset)
        for offset, (user, item) in enumerate(records)
        if item is not None and (user, None) not in records[offset:]
    ]


def job(*lengths: int) -> Job:
    return Job("in", "id", "all", "usual", {str(number): (0, length) for number, length in enumerate(lengths)})


def write(pieces: Pieces, records: list[Record], partition: int, cut: int) -> None:
    """Write on from where the files end, in files of so many records."""
    start = pieces.next(partition) or 0
    for first in range(start, len(records), cut):
        batch = Batch(first, first)
        reader = Reader(EventReader(), KeyFormat(), TimeRule())
        reader.read(made(records, partition)[first : first + cut], {partition: batch})
        pieces.append(partition, batch, reader.counts, reader.reasons)


def write_all(out: Path, records: list[Record]) -> Origin:
    with closing(Pieces(out)) as pieces:
        noted = pieces.begin(job(len(records)))
        if pieces.origin() is None:
            write(pieces, records, 0, 7)
        return pieces.finish(noted)


def rows(out: Path) -> list[tuple[Any, ...]]:
    files = sorted(out.glob("*.parquet"))
    frames = [pl.read_parquet(path).with_columns(pl.col("item_id").cast(pl.String)) for path in files]
    return [row for frame in frames for row in frame.iter_rows()]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """After so many files, the next one is written under its hidden name and not renamed."""
    replace = subject.replace_durably

    def after(count: int) -> None:
        left = [count]

        def failing(path: Path, how: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                replace(path, how, before_renaming=_killed)
            replace(path, how)

        monkeypatch.setattr(subject, "replace_durably", failing)

    yield after
    monkeypatch.undo()


def _killed() -> None:
    raise OSError("killed")


RECORDS = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", "eve"]), st.none() | st.integers(0, 9) | st.just("text")), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(RECORDS, RECORDS, st.integers(1, 9))
def test_the_rows_are_what_a_worker_remembers(
    tmp_path_factory: pytest.TempPathFactory, one: list[Record], other: list[Record], cut: int
) -> None:
    out = tmp_path_factory.mktemp("export") / "out"
    with closing(Pieces(out)) as pieces:
        noted = pieces.begin(job(len(one), len(other)))
        write(pieces, one, 0, cut)
        write(pieces, other, 1, cut)
        origin = pieces.finish(noted)

    assert rows(out) == left(one, 0) + left(other, 1)
    assert origin.forgotten == sum(item is None for _, item in one + other)
    assert (origin.rows, origin_of(out)) == (len(rows(out)), origin)
    assert {path.suffix for path in out.iterdir()} <= {".parquet", ".json"}
    assert all(
        b"forgotten" not in path.read_bytes() or b'"forgotten":{}' in path.read_bytes()
        for path in out.glob("*.parquet")
    )


@pytest.mark.parametrize("step", ["glob", "rename"])
def test_a_kill_while_the_folder_gets_its_name_loses_no_count(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that forgotten users leave empty are gone, and the folder has no name yet."""
    out, records = tmp_path / "out", [("ann", at) for at in range(30)] + [("ann", None)]
    real = getattr(Path, step)

    def killed(path: Path, *what: Any) -> Any:
        if step == "rename" or str(what[0]).startswith(".*"):
            _killed()
        return real(path, *what)

    with monkeypatch.context() as patched:
        patched.setattr(Path, step, killed)
        with pytest.raises(OSError, match="killed"):
            write_all(out, records)
    assert not out.exists()
    origin = write_all(out, records)
    assert (origin.rows, origin.forgotten) == (0, 1)
    assert [path.name for path in out.iterdir()] == [ORIGIN]


@pytest.mark.parametrize("after", range(12))
def test_a_start_after_a_kill_ends_with_the_same_folder(
    tmp_path: Path, after: int, interrupted: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = random.Random(after)
    records: list[Record] = [
        (chosen.choice(["ann", "bob", "eve"]), None if chosen.random() < 0.2 else chosen.randrange(50))
        for _ in range(40)
    ]
    out = tmp_path / "out"
    interrupted(after)
    killed = False
    try:
        write_all(out, records)
    except OSError:
        killed = True
    assert out.exists() != killed, "an unfinished folder has no name that readers see"
    monkeypatch.undo()

    origin = write_all(out, records) if killed else origin_of(out)

    assert origin is not None
    assert rows(out) == left(records, 0)
    assert origin.forgotten == sum(item is None for _, item in records)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_are_a_log_whatever_types_their_items_have(tmp_path: Path) -> None:
    records: list[Record] = [("ann", 7), ("bob", "x")]
    with closing(Pieces(tmp_path / "out")) as pieces:
        noted = pieces.begin(job(2))
        write(pieces, records, 0, 1)
        pieces.finish(noted)
    read = open_log(str(tmp_path / "out")).interactions.collect()
    assert read.rows() == [("ann", "7", FROM), ("bob", "x", FROM + 1)]


def test_only_what_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with closing(Pieces(out)) as pieces:
        assert pieces.begin(job(5)) == job(5)
        with pytest.raises(ExportUnfit, match="another process"):
            Pieces(out)
    with closing(Pieces(out)) as pieces:
        assert pieces.begin(job(9)) == job(5), "the range of the first start holds"
        with pytest.raises(ExportUnfit, match="the topic was in and is other"):
            pieces.begin(msgspec.structs.replace(job(5), topic="other"))


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").touch()
    with pytest.raises(ExportUnfit, match="it is not empty"):
        Pieces(tmp_path / "mine")
    (tmp_path / "mine" / ORIGIN).touch()
    with pytest.raises(ExportUnfit, match="an export is whole there"):
        Pieces(tmp_path / "mine")


def test_reasons_are_counted_and_bounded() -> None:
    reader = Reader(EventReader(), KeyFormat(), TimeRule())
    values = [b"{" + b" " * size for size in range(2 * MOST_REASONS)]
    records = [FakeRecord(b"ann", value, 0, offset) for offset, value in enumerate(values)]
    reader.read(records, {0: Batch(0, 0)})
    assert len(reader.reasons) == MOST_REASONS + 1
    assert reader.reasons[OTHER_REASONS] == MOST_REASONS
    assert sum(reader.reasons.values()) == reader.counts.refused == len(records)
