"""Positions pass what is no record, such as markers of transactions; the state is that of the records alone."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from state.codec import POSITION, read_number
from stream.ports import Empty
from stream.worker import LOOK_EVERY_S
from tests.fakes import (
    FakeLink,
    FakeModel,
    FakeRecord,
    said,
    worker_on,
)
from tests.stream.test_step import SEGMENT, USERS, Outcome, items, outcome

upstream = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.lists(st.tuples(st.sampled_from(USERS), items), max_size=4),
        st.booleans(),
    ),
    max_size=20,
)
"""Transactions: partition, interactions, and whether it was committed."""


@settings(max_examples=60, deadline=None)
@given(upstream, st.lists(st.integers(1, 59)), st.lists(st.integers(0, 3), max_size=6), st.booleans())
def test_the_position_passes_what_is_no_record_and_the_state_is_that_of_the_records_alone(
    transactions: list[tuple[int, list[tuple[bytes, int | str]], bool]],
    cuts: list[int],
    refusals: list[int],
    stops: bool,
) -> None:
    """Markers and aborted records; wherever polls end, steps are aborted, and whether the worker idles or stops."""
    ends = [0, 0]
    records: list[FakeRecord] = []
    plain: list[FakeRecord] = []
    for partition, happened, committed in transactions:
        for user, item in happened:
            if committed:
                at = sum(record.partition() == partition for record in plain)
                plain.append(FakeRecord(user, said(item, 1_000), partition, at))
                records.append(replace(plain[-1], _offset=ends[partition]))
            ends[partition] += 1
        ends[partition] += 1
    there = {number: end for number, end in enumerate(ends) if end}
    with TemporaryDirectory() as folder:
        link = FakeLink(records, list(cuts), log_end=there)
        worker = worker_on(link, Path(folder), FakeModel(SEGMENT), cadence="fold", partitions=(0, 1))
        for refused in refusals:
            link.refusals = refused
            worker.turn()
        link.refusals = 0
        while not link.drained() or worker.partitions.running() != [0, 1]:
            worker.turn()
        if stops:
            worker.turn()
            worker.stop()
            worker.run()
        else:
            for _ in range(400):
                worker.turn()
        worker.partitions.close()
        assert link.committed == there
        assert {number: read_number(link.state(number)[POSITION]) for number in there} == there
        found = Outcome(link, 2)
    expected = outcome(plain, [], cadence="fold", partitions=2)
    assert (found.rows, found.kept) == (expected.rows, expected.kept)


def test_a_partition_that_stands_still_passes_its_markers_beside_a_busy_one(tmp_path: Path) -> None:
    now = 0.0
    records = [FakeRecord(b"ann", said(1, 1), 0, 0), *(FakeRecord(b"bob", said(1, 1), 1, at) for at in range(9))]
    link = FakeLink(records, list(range(2, 11)), log_end={0: 3})
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT), partitions=(0, 1), clock=lambda: now)
    committed = []
    for _ in range(5):
        worker.turn()
        committed.append(link.committed[0])
        now += LOOK_EVERY_S
    assert committed == [1, 1, 3, 3, 3]
    assert [outgoing.counts.records for outgoing in link.published] == [2, 1, 1, 1, 1], "with the steps of the other"
    worker.partitions.close()


def test_an_idle_worker_stores_what_it_passed_once(tmp_path: Path) -> None:
    now = 0.0
    link = FakeLink([FakeRecord(b"ann", said(1, 1), 0, 0)], [], log_end={0: 3})
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT), clock=lambda: now)
    for _ in range(5):
        worker.turn()
        now += LOOK_EVERY_S
    assert [(outgoing.counts.records, dict(outgoing.next_offsets)) for outgoing in link.published] == [
        (1, {0: 1}),
        (0, {0: 3}),
    ]
    assert link.published[1].recommendations == []
    worker.partitions.close()


def test_what_was_found_behind_a_later_position_is_not_passed_from_an_earlier_one(tmp_path: Path) -> None:
    """The worker looked, and then went back after an aborted step."""
    link = FakeLink([FakeRecord(b"ann", said(1, 1), 0, 0)], [], log_end={0: 3})
    worker = worker_on(link, tmp_path, FakeModel(SEGMENT))
    assert worker.partitions.passing({0: Empty(1, 3)}) == {}
    worker.turn()
    assert worker.partitions.passing({0: Empty(1, 3)}) == {0: 3}
    assert worker.partitions.passing({0: Empty(0, 1), 1: Empty(0, 5)}) == {}
    worker.partitions.close()
