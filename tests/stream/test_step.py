"""The step, without a broker: what it computes does not depend on how polls are cut, on partitions, on the cache or on
aborts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.codec import FOLDED, INPUT, ONE_FORMAT, POSITION, SEGMENT_LENGTH, mark_key, read_folded, read_number, user_of
from state.errors import SegmentLengthChanged, StateCorrupted, StoreUnwritable
from stream.decode import decode
from stream.errors import StoreBehind, TooManyRefused
from stream.policy import Cadence
from stream.ports import Outgoing
from stream.recommender import Floats, Ints
from stream.state_rows import Row, rows
from stream.wire import Recommendation
from stream.worker import FLUSH_EVERY_S
from tests.fakes import (
    ANY_MS,
    FakeFolded,
    FakeLink,
    FakeModel,
    FakeRanked,
    FakeRecord,
    TimedModel,
    run_to_end,
    said,
    worker_on,
)

SEGMENT = 4
USERS = [b"ann", b"bob", b"eve-1", b"\xc3\xa9"]

items = st.one_of(st.integers(0, 60), st.sampled_from(["song-a", "song-b", "7"]))
happenings = st.lists(
    st.tuples(st.sampled_from(USERS), st.one_of(items, items, items, items, st.none()), st.integers(0, 1)), max_size=60
)
"""User, item (None: forget this user) and partition."""


def as_records(happened: Sequence[tuple[bytes, int | str | None, int]], partitions: int) -> list[FakeRecord]:
    ends = [0] * partitions
    records = []
    for at, (user, item, partition) in enumerate(happened):
        number = partition % partitions
        records.append(FakeRecord(user, None if item is None else said(item, 1_000 + 10 * at), number, ends[number]))
        ends[number] += 1
    return records


class Outcome:
    """Everything committed: users' rows and kept segments per partition, and each user's lists in order."""

    def __init__(self, link: FakeLink, partitions: int) -> None:
        self.rows: dict[int, list[Row]] = {}
        self.kept: dict[int, dict[bytes, list[int]]] = {}
        self.lists: dict[bytes, list[Recommendation | None]] = {}
        for number in range(partitions):
            records = sorted(link.state(number).items())
            self.rows[number] = list(rows(iter(records), number))
            self.kept[number] = {key: read_folded(value)[0] for key, value in records if user_of(key)[1][:1] == FOLDED}
        for user, made in link.lists():
            self.lists.setdefault(user, []).append(made)

    def made(self) -> dict[bytes, list[Recommendation]]:
        """Without the withdrawals: two null values in a poll are one."""
        return {user: [made for made in lists if made] for user, lists in self.lists.items()}


def outcome(
    records: list[FakeRecord],
    cuts: Sequence[int],
    *,
    cadence: Cadence,
    partitions: int = 1,
    refusals: int = 0,
    cache_users: int = 3,
    model: type[FakeModel] = FakeModel,
) -> Outcome:
    with TemporaryDirectory() as folder:
        link = FakeLink(records, list(cuts), refusals=refusals)
        worker = worker_on(
            link, Path(folder), model(SEGMENT), cadence=cadence, partitions=range(partitions), cache_users=cache_users
        )
        run_to_end(worker, link)
        return Outcome(link, partitions)


@settings(max_examples=60, deadline=None)
@given(
    happenings,
    st.lists(st.integers(1, 59)),
    st.sampled_from(["fold", 1, 3]),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([FakeModel, TimedModel]),
)
def test_state_and_lists_do_not_depend_on_how_polls_are_cut_nor_on_the_cache(
    happened: list[tuple[bytes, int | str | None, int]],
    cuts: list[int],
    cadence: Cadence,
    partitions: int,
    cache_users: int,
    model: type[FakeModel],
) -> None:
    records = as_records(happened, partitions)
    one_by_one = outcome(
        records, range(len(records) + 1), cadence=cadence, partitions=partitions, cache_users=10, model=model
    )
    cut = outcome(records, cuts, cadence=cadence, partitions=partitions, cache_users=cache_users, model=model)
    assert cut.rows == one_by_one.rows
    assert cut.kept == one_by_one.kept
    for user in USERS:
        for number in range(partitions):
            mine = [made for made in cut.lists.get(user, []) if made and made.partition == number]
            expected = [made for made in one_by_one.lists.get(user, []) if made and made.partition == number]
            assert mine == expected


@settings(max_examples=40, deadline=None)
@given(happenings, st.lists(st.integers(1, 59)))
def test_a_list_per_step_is_the_list_that_a_list_per_interaction_would_have_been(
    happened: list[tuple[bytes, int | str | None, int]], cuts: list[int]
) -> None:
    records = as_records(happened, 1)
    each = outcome(records, range(len(records) + 1), cadence="interaction")
    some = outcome(records, cuts, cadence="interaction")
    for user in USERS:
        by_offset = {made.offset: made for made in each.lists.get(user, []) if made}
        mine = [made for made in some.lists.get(user, []) if made]
        assert all(by_offset[made.offset] == made for made in mine)
        assert (some.lists.get(user) or [None])[-1] == (each.lists.get(user) or [None])[-1]


@settings(max_examples=30, deadline=None)
@given(happenings)
def test_partitions_of_a_worker_do_not_meet(happened: list[tuple[bytes, int | str | None, int]]) -> None:
    both = outcome(as_records(happened, 2), [], cadence="fold", partitions=2)
    for number in (0, 1):
        alone = outcome(as_records([(u, i, 0) for u, i, p in happened if p == number], 1), [], cadence="fold")
        assert [row.working_items for row in both.rows[number]] == [row.working_items for row in alone.rows[0]]
        assert [row.memory for row in both.rows[number]] == [row.memory for row in alone.rows[0]]


@settings(max_examples=30, deadline=None)
@given(happenings, st.lists(st.integers(1, 59)))
def test_aborted_steps_leave_no_trace(happened: list[tuple[bytes, int | str | None, int]], cuts: list[int]) -> None:
    records = as_records(happened, 1)
    smooth, bumpy = outcome(records, cuts, cadence="fold"), outcome(records, cuts, cadence="fold", refusals=2)
    assert (bumpy.rows, bumpy.kept, bumpy.lists) == (smooth.rows, smooth.kept, smooth.lists)


@settings(max_examples=40, deadline=None)
@given(happenings, st.lists(st.integers(1, 59)))
def test_state_is_what_the_log_says(happened: list[tuple[bytes, int | str | None, int]], cuts: list[int]) -> None:
    """The oracle: segments, working memory and totals, recomputed from the log alone."""
    found = {row.user_id.encode(): row for row in outcome(as_records(happened, 1), cuts, cadence="fold").rows[0]}
    for user in USERS:
        since = [None if item is None else str(item) for who, item, _ in happened if who == user]
        while None in since:
            since = since[since.index(None) + 1 :]
        row = found.get(user)
        if not since:
            assert row is None
            continue
        assert row is not None
        assert (row.taken, row.folds) == (len(since), len(since) // SEGMENT)
        assert row.working_items == since[row.folds * SEGMENT :]


def test_a_user_who_fills_several_segments_within_one_poll_gets_each_fold_and_each_list(tmp_path: Path) -> None:
    records = [FakeRecord(b"ann", said(item, item), 0, item) for item in range(3 * SEGMENT + 1)]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT), cadence="fold")
    run_to_end(worker, link)
    assert [(made.offset, made.folds, made.taken) for _, made in link.lists() if made] == [
        (3, 1, 4),
        (7, 2, 8),
        (11, 3, 12),
    ]
    assert worker.counts.folds == 3


@settings(max_examples=30, deadline=None)
@given(happenings, st.lists(st.integers(1, 59)), st.integers(1, 2))
def test_the_position_is_stored_with_the_state_whatever_the_step_held(
    happened: list[tuple[bytes, int | str | None, int]], cuts: list[int], partitions: int
) -> None:
    """Interactions, nulls or refused records alone: it moves with what is committed."""
    records = [
        replace(record, _value=b"broken") if record.offset() % 5 == 0 else record
        for record in as_records(happened, partitions)
    ]
    with TemporaryDirectory() as folder:
        link = FakeLink(records, list(cuts))
        worker = worker_on(link, Path(folder), FakeModel(SEGMENT), cadence="fold", partitions=range(partitions))
        run_to_end(worker, link)
        committed: dict[int, int] = {}
        for outgoing in link.published:
            committed.update(outgoing.next_offsets)
        assert {number: read_number(link.state(number)[POSITION]) for number in committed} == committed


class Listening(TimedModel):
    """Notes what it is told."""

    def __init__(self, segment_length: int) -> None:
        super().__init__(segment_length)
        self.folded: list[tuple[list[int], list[int]]] = []
        self.asked: list[tuple[list[int], list[int], int]] = []

    def fold(self, memory: Floats, rows: Ints, times: Ints | None = None) -> FakeFolded:
        assert times is not None
        self.folded += zip((rows - 1).tolist(), times.tolist(), strict=True)
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
        assert times is not None
        assert query_time is not None
        for items, ms, n, now in zip(rows, times, lengths, query_time.tolist(), strict=True):
            self.asked.append(((items[:n] - 1).tolist(), ms[:n].tolist(), now))
        return super().recommend(memory, rows, lengths, k, exclude, times, query_time)


@pytest.mark.parametrize("cuts", [[], list(range(20)), [3, 6]], ids=["one poll", "one by one", "three polls"])
def test_a_model_that_goes_by_time_is_told_when_every_item_happened(tmp_path: Path, cuts: list[int]) -> None:
    """Items 0, 1, … at 1000, 1010, …; the newest item's time stands for that of the query."""
    records = [FakeRecord(b"ann", said(item, 1_000 + 10 * item), 0, item) for item in range(2 * SEGMENT + 3)]
    link, model = FakeLink(records, cuts), Listening(SEGMENT)
    run_to_end(worker_on(link, tmp_path, model, cadence=1), link)
    assert model.folded == [
        (list(segment), [1_000 + 10 * item for item in segment])
        for segment in (range(SEGMENT), range(SEGMENT, 2 * SEGMENT))
    ]
    expected = []
    for newest in range(2 * SEGMENT + 3):
        working = list(range(newest // SEGMENT * SEGMENT, newest + 1))
        if len(working) < SEGMENT:
            expected.append((working, [1_000 + 10 * item for item in working], 1_000 + 10 * newest))
    assert sorted(model.asked) == sorted(expected)


def test_items_of_a_rebuilt_memory_are_as_old_as_it_was(tmp_path: Path) -> None:
    """Kept segments have no times."""
    records = [FakeRecord(b"ann", said(item, 1_000 + 10 * item), 0, item) for item in range(2 * SEGMENT + 1)]
    link = FakeLink(records[: 2 * SEGMENT], [])
    run_to_end(worker_on(link, tmp_path, FakeModel(SEGMENT), keep_segments=5), link)
    model = Listening(SEGMENT)
    model.memory_format = "fake/2"
    link = FakeLink(records[2 * SEGMENT :], [])
    run_to_end(worker_on(link, tmp_path, model, keep_segments=5), link)
    assert [times for _, times in model.folded] == [[1_000 + 10 * (2 * SEGMENT - 1)] * SEGMENT] * 2


def test_lists_do_not_hold_the_users_own_items(tmp_path: Path) -> None:
    records = [FakeRecord(b"ann", said(item, item), 0, item) for item in range(11)]
    link = FakeLink(records, list(range(20)))
    run_to_end(worker_on(link, tmp_path, FakeModel(SEGMENT), exclude="kept", keep_segments=1), link)
    for _, made in link.lists():
        assert made is not None
        kept_from = max(0, made.folds - 1) * SEGMENT
        assert not set(made.items) & set(range(kept_from, made.taken))
    last = link.lists()[-1][1]
    assert last is not None
    assert len(last.items) == 5


def test_malformed_records_are_dead_lettered_and_the_stream_goes_on(tmp_path: Path) -> None:
    bad: list[tuple[bytes | None, bytes | None, str]] = [
        (None, said(1, 1), "key is null"),
        (None, None, "key is null"),
        (b"", said(1, 1), "key is null or empty"),
        (b"x" * 256, said(1, 1), "256 bytes"),
        (b"\xff\xfe", said(1, 1), "UTF-8"),
        (b"ann", b"", "empty"),
        (b"ann", b"\x00\x00\x00\x00\x07abc", "schema id 7"),
        (b"ann", b"hello", "0x68"),
        (b"ann", b"[1]", "0x5b"),
        (b"ann", b"{}", "there is no field `item`"),
        (b"ann", b'{"item": 1.5}', "float"),
        (b"ann", b'{"item": null}', "null"),
        (b"ann", b'{"item": 7, "ts": "yesterday"}', "`ts` is text that is neither a number nor ISO 8601"),
        (b"ann", b'{"item": "' + b"x" * 256 + b'"}', "255"),
        (b"ann", ('{"item": "' + "é" * 200 + '"}').encode(), "400 bytes"),
        (b"ann", b'{"item": 7', "JSON"),
        (b"ann", b"\x81\xa4item", "MessagePack"),
    ]
    records = [FakeRecord(key, value, 0, at, _headers=(("trace", b"t"),)) for at, (key, value, _) in enumerate(bad)]
    records.append(FakeRecord(b"ann", b' {"item": 7, "unknown": [1, 2]}', 0, len(bad), _timestamp=77))
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT))
    run_to_end(worker, link)
    dead = [letter for outgoing in link.published for letter in outgoing.dead]
    assert [(letter.key, letter.value) for letter in dead] == [(key, value) for key, value, _ in bad]
    for at, (letter, (_, _, reason)) in enumerate(zip(dead, bad, strict=True)):
        headers = dict(letter.headers)
        assert letter.headers[0] == ("trace", b"t")
        assert headers["__streams.errors.exception"] == b"MalformedInteraction"
        assert reason in (headers["__streams.errors.message"] or b"").decode()
        assert headers["__streams.errors.topic"] == b"interactions"
        assert headers["__streams.errors.partition"] == b"0"
        assert headers["__streams.errors.offset"] == str(at).encode()
        assert headers["rec2pm.attempts"] == b"1"
    (row,) = rows(iter(sorted(link.state(0).items())), 0)
    assert (row.taken, row.working_items, row.working_times) == (1, ["7"], [77])
    assert worker.counts.dead_letters == len(bad)
    assert link.published[-1].next_offsets == {0: len(records)}


def test_unknown_items_are_remembered_and_counted(tmp_path: Path) -> None:
    records = [FakeRecord(b"ann", said(item, 1), 0, at) for at, item in enumerate([3, "never-seen", 10**17, -5])]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, FakeModel(9))
    run_to_end(worker, link)
    (row,) = rows(iter(sorted(link.state(0).items())), 0)
    assert row.working_items == ["3", "never-seen", str(10**17), "-5"]
    assert worker.counts.unknown_items == 3


def test_a_user_with_no_memory_and_no_known_item_gets_the_popularity_list(tmp_path: Path) -> None:
    link = FakeLink([FakeRecord(b"ann", said("never-seen", 1), 0, 0)], [])
    run_to_end(worker_on(link, tmp_path, FakeModel(9)), link)
    ((_, made),) = link.lists()
    assert made is not None
    assert made.source == "popular"
    assert len(made.items) == 5


def test_a_forgotten_user_leaves_nothing_and_their_list_is_withdrawn(tmp_path: Path) -> None:
    records = [FakeRecord(b"ann", said(item, item), 0, item) for item in range(2 * SEGMENT + 1)]
    records.append(FakeRecord(b"ann", None, 0, len(records)))
    link = FakeLink(records, [len(records) - 1])
    run_to_end(worker_on(link, tmp_path, FakeModel(SEGMENT)), link)
    assert set(link.state(0)) == {SEGMENT_LENGTH, POSITION, INPUT, ONE_FORMAT, mark_key(0)}
    assert link.lists()[-1] == (b"ann", None)


def test_state_of_another_segment_length_stops_the_worker_before_anything_is_published(tmp_path: Path) -> None:
    records = [FakeRecord(b"ann", said(item, item), 0, item) for item in range(7)]
    link = FakeLink(records, [])
    run_to_end(worker_on(link, tmp_path / "unfolded", FakeModel(10)), link)
    link = FakeLink(records, [])
    run_to_end(worker_on(link, tmp_path / "folded", FakeModel(3)), link)
    for folder in ("unfolded", "folded"):
        link = FakeLink([FakeRecord(b"ann", said(9, 9), 0, 9)], [])
        with pytest.raises(SegmentLengthChanged, match="segment_length"):
            worker_on(link, tmp_path / folder, FakeModel(4))
        assert link.published == []


def test_a_write_that_fails_after_the_transaction_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on would publish the other partitions' users from before the step."""
    link = FakeLink([FakeRecord(b"ann", said(1, 1), 0, 0), FakeRecord(b"bob", said(2, 2), 1, 0)], [])
    worker = worker_on(link, tmp_path, FakeModel(4), partitions=(0, 1))

    def fails(changes: object, changelog_offset: object) -> None:
        raise StoreUnwritable("no space left")

    monkeypatch.setattr(worker.partitions[0].store, "write", fails)
    with pytest.raises(StoreBehind, match="no space left"):
        worker.turn()
    worker.partitions.close()


def test_damage_found_after_the_transaction_is_healed_and_the_other_partitions_have_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = FakeLink([FakeRecord(b"ann", said(1, 1), 0, 0), FakeRecord(b"bob", said(2, 2), 1, 0)], [])
    worker = worker_on(link, tmp_path, FakeModel(4), partitions=(0, 1))

    def fails(changes: object, changelog_offset: object) -> None:
        error = StateCorrupted("a block")
        error.folder = tmp_path / "0"
        raise error

    monkeypatch.setattr(worker.partitions[0].store, "write", fails)
    worker.turn()
    assert worker.partitions.running() == [1]
    assert worker.partitions[1].store.taken([b"bob"]) == [1]
    worker.turn()
    assert worker.partitions.running() == [0, 1]
    assert len(link.published) == 1, "what is published is not taken again"
    assert worker.partitions[0].taken([b"ann"]) == [0], (
        "what is in memory went with the store; here nothing restores it"
    )
    worker.partitions.close()


def test_when_more_than_a_share_is_refused_the_worker_stops_before_it_publishes(tmp_path: Path) -> None:
    records = [FakeRecord(b"ann", said(1, 1) if at % 2 else b"broken", 0, at) for at in range(200)]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT), max_refused=0.4)
    with pytest.raises(
        TooManyRefused,
        match=r"100 of the newest 200 records of interactions .* REC2PM_MAX_REFUSED=0.4 .*: value starts with",
    ):
        worker.turn()
    assert link.published == []
    worker.partitions.close()
    run_to_end(worker_on(link := FakeLink(records, []), tmp_path, FakeModel(SEGMENT), max_refused=0.5), link)
    assert sum(len(outgoing.dead) for outgoing in link.published) == 100


def test_damage_found_before_the_transaction_is_healed_from_the_changelog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = FakeLink([FakeRecord(b"ann", said(1, 1), 0, 0)], [])
    worker = worker_on(link, tmp_path, FakeModel(4))

    def fails(users: object) -> None:
        error = StateCorrupted("a block")
        error.folder = tmp_path / "0"
        raise error

    monkeypatch.setattr(worker.partitions[0].store, "taken", fails)
    worker.turn()
    assert (worker.partitions.running(), link.published) == ([], [])
    while not link.published:
        worker.turn()
    assert worker.partitions.running() == [0]
    worker.partitions.close()


def test_a_memory_of_another_model_is_rebuilt_from_the_kept_segments(tmp_path: Path) -> None:
    """Preference memory is only read by a model version whose memory format it has."""
    records = [FakeRecord(b"ann", said(item, item), 0, item) for item in range(3 * SEGMENT)]
    link = FakeLink(records[: 2 * SEGMENT], [])
    run_to_end(worker_on(link, tmp_path, FakeModel(SEGMENT), keep_segments=5), link)
    other = FakeModel(SEGMENT)
    other.memory_format = "fake/2"
    link = FakeLink(records[2 * SEGMENT :], [])
    worker = worker_on(link, tmp_path, other, keep_segments=5)
    run_to_end(worker, link)
    (row,) = rows(iter(sorted(link.state(0).items())), 0)
    expected = outcome(records, [], cadence="fold").rows[0][0]
    assert (row.memory, row.memory_format, row.folds) == (expected.memory, "fake/2", 3)
    assert worker.counts.rebuilt == 1


def test_a_kafka_that_is_slow_to_commit_makes_no_smaller_steps(tmp_path: Path) -> None:
    now = 0.0

    class Slow(FakeLink):
        def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
            nonlocal now
            now += 3.0
            return super().publish(outgoing)

    link = Slow([FakeRecord(b"ann", said(item, item), 0, item) for item in range(9)], list(range(9)))
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT), clock=lambda: now)
    before = worker.step_size.limit
    run_to_end(worker, link)
    assert worker.step_size.limit == before


@pytest.mark.parametrize("again", [0, 3], ids=["from the beginning", "the newest once more"])
def test_a_record_that_came_before_aborts_the_step_and_counts_once(tmp_path: Path, again: int) -> None:
    """A client that goes back by itself. Where a partition stands is known here, and it is told to go on from there."""
    records = [FakeRecord(b"ann", said(at, 1_000 + at), 0, at) for at in range(6)]
    link = FakeLink([*records[:4], records[again], *records[4:]], [4])
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT))
    worker.turn()
    worker.turn()
    assert (worker.counts.interactions, worker.counts.aborted) == (4, 1)
    link.records[:] = records  # it has been led on
    run_to_end(worker, link)
    assert (worker.counts.interactions, worker.counts.aborted) == (6, 1)
    assert [row.taken for row in rows(iter(sorted(link.state(0).items())), 0)] == [6]


def test_a_record_that_comes_twice_within_a_poll_aborts_the_step(tmp_path: Path) -> None:
    records = [FakeRecord(b"ann", said(at, 1_000 + at), number, at) for at, number in [(0, 0), (0, 1), (1, 0), (0, 0)]]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT), partitions=(0, 1))
    worker.turn()
    assert (worker.counts.records, worker.counts.aborted, link.published) == (0, 1, [])
    worker.partitions.close()


def test_stores_are_flushed_and_memory_given_back_now_and_then(tmp_path: Path) -> None:
    now = 0.0
    told: list[float] = []
    worker = worker_on(
        FakeLink([], []), tmp_path, FakeModel(SEGMENT), clock=lambda: now, give_back=lambda: told.append(now)
    )
    for seconds in (1.0, FLUSH_EVERY_S - 1, FLUSH_EVERY_S, FLUSH_EVERY_S + 1, 2 * FLUSH_EVERY_S):
        now = seconds
        worker.turn()
    assert told == [FLUSH_EVERY_S, 2 * FLUSH_EVERY_S]
    worker.partitions.close()


@settings(max_examples=40, deadline=None)
@given(happenings, st.integers(0, 60), st.sampled_from(["interaction", "fold", 3]))
def test_computing_a_poll_changes_nothing_and_gives_the_same_again(
    happened: list[tuple[bytes, int | str | None, int]], known: int, cadence: Cadence
) -> None:
    """The step is a value: only publishing and writing change what the next one starts from."""
    records = as_records(happened, 1)
    with TemporaryDirectory() as folder:
        link = FakeLink(records[:known], [])
        worker = worker_on(link, Path(folder), FakeModel(SEGMENT), cadence=cadence)
        for _ in range(2):
            worker.turn()
        polled = decode(records[known:], "interactions", worker.partitions.next_offsets(), {}, ANY_MS, worker.keys)
        before = worker.partitions[0].store.read(USERS)
        first = worker.step.compute(polled, "an-id", 5_000)
        assert worker.step.compute(polled, "an-id", 5_000) == first
        assert worker.partitions[0].store.read(USERS) == before
        assert worker.partitions.next_offsets() == {0: len(records[:known])}
        worker.partitions.close()
