"""Records that the model fails on: which they are, and that the others go on as if these had never come."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ModelFailed
from state.errors import StateCorrupted
from stream.decode import Polled, decode
from stream.errors import StopAsked
from stream.policy import Cadence
from stream.recommender import Floats, Ints, Recommender
from tests.fakes import FakeFolded, FakeLink, FakeModel, FakeRanked, FakeRecord, run_to_end, said, worker_on
from tests.stream.test_step import SEGMENT, USERS, Outcome, as_records, happenings, outcome

POISON = 13


class Choking(FakeModel):
    """Fails on a segment or a working memory that holds the poison."""

    def fold(self, memory: Floats, rows: Ints, times: Ints | None = None) -> FakeFolded:
        self._check(rows)
        return super().fold(memory, rows, times)

    def recommend(
        self,
        memory: Floats,
        rows: Ints,
        lengths: Ints,
        k: int,
        exclude: Ints,
        times: Ints | None = None,
        query_time: Ints | None = None,
    ) -> FakeRanked:
        self._check(rows)
        return super().recommend(memory, rows, lengths, k, exclude, times, query_time)

    def encode_prefixes(self, memory: Floats, rows: Ints, lengths: Ints) -> Floats:
        self._check(rows)
        return super().encode_prefixes(memory, rows, lengths)

    def _check(self, rows: Ints) -> None:
        if (rows == POISON + 1).any():
            raise ModelFailed("fake@1 failed in update: poison")


@settings(max_examples=40, deadline=None)
@given(happenings, st.lists(st.integers(1, 59)), st.integers(0, 59), st.sampled_from(["interaction", 1]))
def test_a_record_that_the_model_fails_on_is_dead_lettered_and_the_others_are_as_if_it_had_not_come(
    happened: list[tuple[bytes, int | str | None, int]], cuts: list[int], at: int, cadence: Cadence
) -> None:
    clean = [(user, 0 if item == POISON else item, partition) for user, item, partition in happened]
    at = min(at, len(clean))
    records = as_records([*clean[:at], (b"bob", POISON, 0), *clean[at:]], 1)
    others = [record for record in records if record.offset() != at]
    with TemporaryDirectory() as folder:
        link = FakeLink(records, list(cuts))
        worker = worker_on(link, Path(folder), Choking(SEGMENT), cadence=cadence)
        run_to_end(worker, link)
        found = Outcome(link, 1)
    expected = outcome(
        others, [cut for cut in cuts if cut <= at] + [cut - 1 for cut in cuts if cut > at], cadence=cadence
    )
    assert found.rows == expected.rows
    assert found.made() == expected.made()
    (letter,) = [letter for outgoing in link.published for letter in outgoing.dead]
    told = dict(letter.headers)
    assert (letter.key, letter.value) == (b"bob", records[at].value())
    assert told["__streams.errors.exception"] == b"ModelFailed"
    assert told["__streams.errors.message"] == b"fake@1 failed in update: poison"
    assert told["__streams.errors.offset"] == str(at).encode()
    assert (worker.counts.model_failures, worker.counts.dead_letters) == (1, 1)
    assert link.published[-1].next_offsets == {0: len(records)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(USERS[:2]), st.sampled_from([0, 1, 1, 2, POISON, None]), st.just(0)), max_size=40
    ),
    st.lists(st.integers(1, 39)),
    st.sampled_from(["fold", 1, 3, "interaction"]),
)
def test_which_records_the_model_fails_on_does_not_depend_on_how_polls_are_cut(
    happened: list[tuple[bytes, int | str | None, int]], cuts: list[int], cadence: Cadence
) -> None:
    def taken(cuts: Sequence[int]) -> tuple[Outcome, list[bytes | None]]:
        with TemporaryDirectory() as folder:
            link = FakeLink(as_records(happened, 1), list(cuts))
            worker = worker_on(link, Path(folder), Choking(SEGMENT), cadence=cadence)
            run_to_end(worker, link)
            dead = [letter for outgoing in link.published for letter in outgoing.dead]
            assert worker.counts.model_failures == worker.counts.dead_letters == len(dead)
            return Outcome(link, 1), sorted(dict(letter.headers)["__streams.errors.offset"] for letter in dead)

    (one_by_one, died), (in_polls, dead) = taken(range(len(happened))), taken(cuts)
    assert dead == died
    assert (in_polls.rows, in_polls.kept) == (one_by_one.rows, one_by_one.kept)
    if cadence != "interaction":  # one for each step
        assert in_polls.made() == one_by_one.made()


def test_a_user_who_comes_with_many_records_that_the_model_fails_on_costs_two_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 300
    records = [FakeRecord(b"ann", said(POISON, 1_000), 0, at) for at in range(many)]
    records += [FakeRecord(b"user-%d" % at, said(1, 1_000), 0, many + at) for at in range(300)]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, Choking(SEGMENT), cadence="fold")
    decoded: list[int] = []

    def counted(*given: Any) -> Polled:
        polled = decode(*given)
        decoded.append(polled.records)
        return polled

    monkeypatch.setattr("stream.worker.decode", counted)
    run_to_end(worker, link)
    assert (decoded, worker.counts.model_failures) == ([600, 600], many - SEGMENT + 1)


class Counting(Choking):
    """Counts the calls of the model."""

    calls = 0

    def _check(self, rows: Ints) -> None:
        self.calls += 1
        super()._check(rows)


def test_one_failing_record_in_a_large_poll_is_found_with_few_calls_of_the_model(tmp_path: Path) -> None:
    users = 1000
    records = [FakeRecord(b"user-%d" % at, said(POISON if at == 700 else 1, 1_000), 0, at) for at in range(users)]
    link = FakeLink(records, [])
    model = Counting(SEGMENT)
    run_to_end(worker_on(link, tmp_path, model), link)
    assert [letter.key for outgoing in link.published for letter in outgoing.dead] == [b"user-700"]
    # Who begins with the same item shares a pass. The poison shares none.
    assert model.calls <= 2 * (3 + 2 * 10), "two calls for each of three passes, and two halves at each of ten levels"


def test_a_poll_that_the_model_fails_on_only_as_a_whole_is_taken_in_smaller_polls(tmp_path: Path) -> None:
    """A batch that does not fit into memory, for one."""

    class Small(FakeModel):
        def recommend(self, memory: Floats, rows: Ints, *given: Any) -> FakeRanked:
            if len(rows) > 3:
                raise ModelFailed("fake@1 failed in recommend: out of memory")
            return super().recommend(memory, rows, *given)

    records = [FakeRecord(b"user-%d" % at, said(1, 1_000), 0, at) for at in range(40)]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, Small(SEGMENT))
    worker.step_size.limit = 40
    run_to_end(worker, link)
    assert len(link.lists()) == 40
    assert [outgoing.dead for outgoing in link.published if outgoing.dead] == []


def test_a_worker_that_is_to_stop_looks_no_further_for_what_the_model_fails_on(tmp_path: Path) -> None:
    link = FakeLink([FakeRecord(b"ann", said(POISON, 1_000), 0, at) for at in range(20)], [])
    worker = worker_on(link, tmp_path, Choking(SEGMENT), cadence="fold")
    worker.stop()
    with pytest.raises(StopAsked):
        worker.turn()
    assert link.published == []
    worker.partitions.close()


def test_records_that_the_model_fails_on_cost_the_others_no_transaction(tmp_path: Path) -> None:
    users = [b"user-%d" % number for number in range(40)]
    bad = {user for number, user in enumerate(users) if number % 4 == 0}
    records = [
        FakeRecord(user, said(POISON if user in bad and turn == 2 else 1, 1_000), 0, at)
        for at, (turn, user) in enumerate((turn, user) for turn in range(SEGMENT) for user in users)
    ]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, Choking(SEGMENT), cadence="fold")
    run_to_end(worker, link)
    assert (len(link.published), worker.counts.folds, worker.counts.model_failures) == (1, 30, 10)
    assert [letter.key for letter in link.published[0].dead] == sorted(bad, key=users.index)


def test_a_store_found_damaged_in_a_step_that_the_model_fails_on_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        FakeRecord(b"ann", said(1, 1), 0, 0),
        FakeRecord(b"ann", said(POISON, 2), 0, 1),
        FakeRecord(b"ann", said(3, 3), 0, 2),
    ]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, Choking(SEGMENT), cadence=1)
    store = worker.partitions[0].store

    def fails(changes: object, changelog_offset: object) -> None:
        error = StateCorrupted("a block")
        error.folder = tmp_path / "0"
        raise error

    monkeypatch.setattr(store, "write", fails)
    run_to_end(worker, link)
    assert [letter.value for outgoing in link.published for letter in outgoing.dead] == [records[1].value()]
    assert link.published[-1].next_offsets == {0: 3}


class Wide(FakeModel):
    """Memories of another size."""

    state_floats = 3

    def fold(self, memory: Floats, rows: Ints, times: Ints | None = None) -> FakeFolded:
        folded = super().fold(memory[:, :2], rows)
        return FakeFolded(np.pad(folded.memory, ((0, 0), (0, 1))), folded.hidden)


@pytest.mark.parametrize("cadence", ["interaction", "fold"])
def test_a_memory_that_cannot_be_rebuilt_refuses_the_records_that_ask_for_it(tmp_path: Path, cadence: Cadence) -> None:
    """One by one or in a poll: what asks for a list, or completes a segment."""

    def refused(cuts: Sequence[int]) -> list[bytes | None]:
        with TemporaryDirectory() as folder:
            link = FakeLink([FakeRecord(b"ann", said(POISON, 1), 0, at) for at in range(SEGMENT)], [])
            worker = worker_on(link, Path(folder), Wide(SEGMENT), cadence=cadence)
            worker.turn()
            model = Choking(SEGMENT)
            model.memory_format = "fake/2"
            worker.step = replace(worker.step, recommender=Recommender(model))
            link.records.extend(FakeRecord(b"ann", said(1, 2), 0, at) for at in range(SEGMENT, 2 * SEGMENT))
            link.cuts[:] = cuts
            run_to_end(worker, link)
            dead = [letter for outgoing in link.published for letter in outgoing.dead]
            return sorted(dict(letter.headers)["__streams.errors.offset"] for letter in dead)

    last = range(SEGMENT, 2 * SEGMENT) if cadence == "interaction" else [2 * SEGMENT - 1]
    assert refused([]) == refused(range(2 * SEGMENT)) == [b"%d" % at for at in last]
