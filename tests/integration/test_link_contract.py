"""The contract of `stream.ports.Link`, with the `resume` and `pause` that partitions use: what the worker relies on.

Every test runs on `FakeLink` and on `KafkaLink`. What only a group of several members shows is in test_link.py.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final, Protocol

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from state.changelog import Change
from stream.errors import InputGap, StepAborted
from stream.kafka.link import KafkaLink
from stream.kafka.names import changelog_topic, dead_letter_topic
from stream.kafka.options import MemoryBudget
from stream.keys import KeyFormat
from stream.ports import Empty, Link, Outgoing
from stream.wire import DeadLetter, Recommendation, Record
from tests.fakes import FakeLink, FakeRecord, said
from tests.processes import Committed, read_committed, wait_until

PARTITIONS: Final = 2
SESSION_MS: Final = 6000
ANOTHER_TOPIC: Final = "the-id-of-another-topic"


class Kafka(Protocol):
    """A link, and what happens around it."""

    clock: Callable[[], float]
    """The link's."""

    @property
    def link(self) -> Link:
        """What is tested; there is none before `start`."""

    def put(self, partition: int, count: int) -> list[FakeRecord]:
        """Append so many records to an input partition."""

    def put_transaction(self, partition: int, count: int, *, committed: bool) -> list[FakeRecord]:
        """Append so many records to an input partition in one transaction; its marker takes the offset after them."""

    def delete_before(self, partition: int, offset: int) -> None:
        """Delete the older records of an input partition, as retention does."""

    def commit_by_hand(self, partition: int, offset: int) -> None:
        """Commit for the group, as an operator does while no worker runs."""

    def start(self) -> None:
        """Start a worker's link, again if there was one. It owns all partitions afterwards."""

    def refusing(self) -> AbstractContextManager[None]:
        """Within it a publication is refused. The test pauses all partitions before it ends, as the worker does."""

    def committed(self) -> dict[int, int]:
        """Partition → the group's offset, 0 where there is none."""

    def changelog(self, partition: int) -> list[tuple[int, Change]]:
        """The committed records with their offsets."""

    def recommendations(self) -> list[tuple[bytes, Recommendation | None]]:
        """Committed user ids and lists, in each user's order."""

    def dead_letters(self) -> list[DeadLetter]: ...


def records_from(partition: int, first: int, count: int) -> list[FakeRecord]:
    """Records of every form: with and without headers, and now and then without a key or a value."""
    return [
        FakeRecord(
            None if offset % 7 == 5 else b"user-%d" % (offset % 3),
            None if offset % 7 == 6 else said(offset, offset),
            partition,
            offset,
            _timestamp=1_700_000_000_000 + offset,
            _headers=(("trace", b"%d" % offset), ("empty", None)) if offset % 2 else (),
        )
        for offset in range(first, first + count)
    ]


class InMemory:
    """`Kafka` by the fake."""

    def __init__(self) -> None:
        self.link = FakeLink([], [])
        self.clock = lambda: 0.0
        self._sent = dict.fromkeys(range(PARTITIONS), 0)

    def put(self, partition: int, count: int) -> list[FakeRecord]:
        records = records_from(partition, self._sent[partition], count)
        self.link.records.extend(records)
        self._sent[partition] += count
        return records

    def put_transaction(self, partition: int, count: int, *, committed: bool) -> list[FakeRecord]:
        records = records_from(partition, self._sent[partition], count) if committed else []
        self.link.records.extend(records)
        self._sent[partition] += count + 1
        self.link.log_end[partition] = self._sent[partition]
        return records

    def delete_before(self, partition: int, offset: int) -> None:
        self.link.first_kept[partition] = offset

    def commit_by_hand(self, partition: int, offset: int) -> None:
        self.link.by_hand[partition] = offset

    def start(self) -> None:
        self.link = replace(self.link)  # what Kafka keeps, without this client's positions and pauses

    @contextmanager
    def refusing(self) -> Iterator[None]:
        self.link.refusals = 1
        yield

    def committed(self) -> dict[int, int]:
        return {number: self.link.committed.get(number, 0) for number in range(PARTITIONS)}

    def changelog(self, partition: int) -> list[tuple[int, Change]]:
        return list(enumerate(self.link.changelog.get(partition, [])))

    def recommendations(self) -> list[tuple[bytes, Recommendation | None]]:
        return self.link.lists()

    def dead_letters(self) -> list[DeadLetter]:
        return [letter for outgoing in self.link.published for letter in outgoing.dead]


class OnBroker:
    """`Kafka` by a broker, with topics of its own."""

    def __init__(self, bootstrap: str, app: str) -> None:
        self.app, self.input = app, f"{app}.in"
        self.clock = time.monotonic
        self.owned: set[int] = set()
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self._sent = dict.fromkeys(range(PARTITIONS), 0)
        self._started: KafkaLink | None = None
        self._recommendations = f"{app}.out"
        names = [self.input, self._recommendations, changelog_topic(app), dead_letter_topic(app)]
        # The records' time is a fixed one of long ago.
        topics = [NewTopic(name, PARTITIONS, 1, config={"retention.ms": "-1"}) for name in names]
        for made in self._admin.create_topics(topics).values():
            made.result(30)

    @property
    def link(self) -> KafkaLink:
        assert self._started is not None, "not started"
        return self._started

    def put(self, partition: int, count: int) -> list[FakeRecord]:
        records = records_from(partition, self._sent[partition], count)
        self._produce(self._producer, records)
        assert self._producer.flush(30) == 0
        self._sent[partition] += count
        return records

    def put_transaction(self, partition: int, count: int, *, committed: bool) -> list[FakeRecord]:
        records = records_from(partition, self._sent[partition], count)
        upstream = Producer({"bootstrap.servers": self._bootstrap, "transactional.id": f"{self.app}-upstream"})
        upstream.init_transactions(30)
        upstream.begin_transaction()
        self._produce(upstream, records)
        assert upstream.flush(30) == 0
        upstream.commit_transaction(30) if committed else upstream.abort_transaction(30)
        self._sent[partition] += count + 1
        # Kafka answers before it has written the marker.
        place = TopicPartition(self.input, partition)
        wait_until(lambda: self._end_of(place) == self._sent[partition], 30, "the transaction has its marker")
        return records if committed else []

    def _end_of(self, place: TopicPartition) -> int:
        return self._admin.list_offsets({place: OffsetSpec.latest()})[place].result(30).offset

    def _produce(self, producer: Producer, records: Sequence[FakeRecord]) -> None:
        for record in records:
            producer.produce(
                self.input,
                record.value(),
                record.key(),
                record.partition(),
                timestamp=record.timestamp()[1],
                headers=record.headers(),
            )

    def delete_before(self, partition: int, offset: int) -> None:
        for deleted in self._admin.delete_records([TopicPartition(self.input, partition, offset)]).values():
            deleted.result(30)

    def commit_by_hand(self, partition: int, offset: int) -> None:
        operator = Consumer({"bootstrap.servers": self._bootstrap, "group.id": self.app})
        operator.commit(offsets=[TopicPartition(self.input, partition, offset)], asynchronous=False)
        operator.close()

    def start(self) -> None:
        self.close()
        self.owned.clear()
        self._started = KafkaLink(
            bootstrap=self._bootstrap,
            app=self.app,
            worker_name="w1",
            named=False,
            interactions_topic=self.input,
            recommendations_topic=self._recommendations,
            output_format="msgpack",
            keys=KeyFormat(),
            memory=MemoryBudget(64 << 20),
            extra={"session.timeout.ms": str(SESSION_MS)},
            clock=self.clock,
        )
        mine: Any = SimpleNamespace(
            assigned=self.owned.update, revoked=self.owned.difference_update, lost=self.owned.difference_update
        )
        self.link.start(mine)
        self.until_owned(PARTITIONS)

    def until_owned(self, count: int) -> None:
        """Poll until the group gives the link so many partitions. None of them may bring a record."""
        self._until(lambda: len(self.owned) == count, f"{count} partitions are owned")

    def until_shared_with(self, other: Consumer) -> None:
        """Poll until the other member has one of the partitions. None may bring a record here."""

        def shared() -> bool:
            other.poll(0.05)
            return len(self.owned) == PARTITIONS - 1 and len(other.assignment()) == 1

        self._until(shared, "another member owns a partition")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            assert list(self.link.poll(100, 0.05)) == []
            return condition()

        wait_until(holds, 60, what)

    def another_member(self, **options: Any) -> Consumer:
        """A consumer that is about to join the link's group."""
        settings = {
            "bootstrap.servers": self._bootstrap,
            "group.id": self.app,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": SESSION_MS,
            "enable.auto.commit": False,
        }
        made = Consumer(settings)
        made.subscribe([self.input], **options)
        return made

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """The group has a new generation, which the link has not heard of."""
        joined: list[object] = []
        other = self.another_member(on_assign=lambda *given: joined.append(given))

        def has_joined() -> bool:
            other.poll(0.05)
            return bool(joined)

        wait_until(has_joined, 60, "another member joins")
        with closing(other):
            yield
            self.until_shared_with(other)
        self.until_owned(PARTITIONS)

    def committed(self) -> dict[int, int]:
        return Committed(self._bootstrap, self.app, self.input).offsets()

    def changelog(self, partition: int) -> list[tuple[int, Change]]:
        records = read_committed(self._bootstrap, changelog_topic(self.app))
        return [
            (record.offset() or 0, (record.key() or b"", record.value()))
            for record in records
            if record.partition() == partition
        ]

    def recommendations(self) -> list[tuple[bytes, Recommendation | None]]:
        decode = msgspec.msgpack.Decoder(Recommendation).decode
        records = read_committed(self._bootstrap, self._recommendations)
        return [
            (record.key() or b"", None if (value := record.value()) is None else decode(value)) for record in records
        ]

    def dead_letters(self) -> list[DeadLetter]:
        return [
            DeadLetter(record.key(), record.value(), record.headers() or [])
            for record in read_committed(self._bootstrap, dead_letter_topic(self.app))
        ]

    def close(self) -> None:
        if self._started is not None:
            self._started.close()
            self._started = None


# The embedded broker shows aborted records, keeps no metadata with offsets and deletes no records.
@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.isolation)])
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    if request.param == "fake":
        yield InMemory()
        return
    made = OnBroker(request.getfixturevalue("bootstrap"), request.getfixturevalue("app"))
    yield made
    made.close()


def resumed(kafka: Kafka, partition: int, position: int | None = None, input_id: str | None = None) -> int:
    """Resume a partition, as soon as Kafka says where."""
    begins: list[int] = []

    def says() -> bool:
        if (begin := kafka.link.resume(partition, position, input_id)) is not None:
            begins.append(begin)
        return bool(begins)

    wait_until(says, 30, f"partition {partition} is resumed")
    return begins[0]


def polled(kafka: Kafka, count: int, limit: int = 100) -> list[Record]:
    """So many records, and those that come with them or soon after, in however many polls."""
    records: list[Record] = []

    def enough() -> bool:
        records.extend(kafka.link.poll(limit, 0.05))
        return len(records) >= count

    wait_until(enough, 30, f"{count} records come")
    for _ in range(5):
        records.extend(kafka.link.poll(limit, 0.05))
    return records


def first_poll(kafka: Kafka, limit: int) -> list[Record]:
    """The first poll that brings something."""
    records: list[Record] = []

    def comes() -> bool:
        records.extend(kafka.link.poll(limit, 0.05))
        return bool(records)

    wait_until(comes, 30, "a record comes")
    return records


def looked(kafka: Kafka, positions: dict[int, int]) -> dict[int, Empty]:
    """What a look for the ends finds. Polls go on meanwhile, and bring no record."""
    found: list[Mapping[int, Empty]] = []

    def has_answered() -> bool:
        assert list(kafka.link.poll(100, 0.05)) == []
        kafka.link.look_for_ends(positions)
        if (answer := kafka.link.found_empty()) is not None:
            found.append(answer)
        return bool(found) and (bool(found[-1]) or len(found) == 3)

    # The client may not know of the end of a partition yet, and then there is nothing to look for.
    with suppress(TimeoutError):
        wait_until(has_answered, 5, "a look is answered")
    return dict(found[-1]) if found else {}


def offsets(records: Sequence[Record], partition: int = 0) -> list[int]:
    return [record.offset() for record in records if record.partition() == partition]


def places(records: Sequence[Record]) -> list[tuple[int, int]]:
    return [(record.partition(), record.offset()) for record in records]


def fields(records: Sequence[Record], partition: int) -> list[object]:
    """Everything that a partition's records hold, in the order in which they came."""
    return [
        (record.offset(), record.key(), record.value(), record.timestamp(), record.headers())
        for record in records
        if record.partition() == partition
    ]


def step(next_offset: int, *changes: Change) -> Outgoing:
    """A step of partition 0."""
    return Outgoing(changes={0: list(changes)}, next_offsets={0: next_offset})


# --- where a partition begins ---


def test_a_partition_brings_nothing_before_it_is_resumed(kafka: Kafka) -> None:
    for partition in range(PARTITIONS):
        kafka.put(partition, 3)
    kafka.start()
    assert list(kafka.link.poll(100, 0.5)) == []
    resumed(kafka, 1)
    assert places(polled(kafka, 3)) == [(1, 0), (1, 1), (1, 2)]
    resumed(kafka, 0)
    assert places(polled(kafka, 3)) == [(0, 0), (0, 1), (0, 2)]


def test_without_state_and_commit_a_partition_begins_at_the_first_record_that_is_kept(kafka: Kafka) -> None:
    for partition in range(PARTITIONS):
        kafka.put(partition, 5)
    kafka.delete_before(0, 2)
    kafka.start()
    assert [resumed(kafka, 0), resumed(kafka, 1)] == [2, 0]
    records = polled(kafka, 8)
    assert [offsets(records, 0), offsets(records, 1)] == [[2, 3, 4], [0, 1, 2, 3, 4]]


def test_a_partition_begins_at_the_position_of_its_state_whatever_the_group_has_committed(kafka: Kafka) -> None:
    kafka.put(0, 6)
    kafka.start()
    resumed(kafka, 0)
    polled(kafka, 6)
    kafka.link.publish(step(4, (b"key", b"value")))
    kafka.start()
    assert resumed(kafka, 0, 2) == 2
    assert offsets(polled(kafka, 4)) == [2, 3, 4, 5]
    kafka.link.pause(0)
    assert resumed(kafka, 0, 5) == 5
    assert offsets(polled(kafka, 1)) == [5]
    assert kafka.committed()[0] == 4


def test_state_that_has_no_position_begins_at_what_the_group_has_committed(kafka: Kafka) -> None:
    kafka.put(0, 6)
    kafka.start()
    resumed(kafka, 0)
    polled(kafka, 6)
    kafka.link.publish(step(4, (b"key", b"value")))
    kafka.start()
    assert resumed(kafka, 0) == 4
    assert offsets(polled(kafka, 2)) == [4, 5]


def test_an_offset_that_an_operator_committed_is_followed_until_the_worker_commits_its_own(kafka: Kafka) -> None:
    kafka.put(0, 6)
    kafka.commit_by_hand(0, 4)
    kafka.start()
    assert resumed(kafka, 0, 1) == 4
    assert offsets(polled(kafka, 2)) == [4, 5]
    kafka.link.publish(step(6, (b"key", b"value")))
    kafka.link.pause(0)
    assert resumed(kafka, 0, 3) == 3
    assert offsets(polled(kafka, 3)) == [3, 4, 5]


def test_a_partition_at_the_end_waits_for_new_records(kafka: Kafka) -> None:
    kafka.put(0, 3)
    kafka.start()
    assert resumed(kafka, 0, 3) == 3
    assert list(kafka.link.poll(100, 0.5)) == []
    kafka.put(0, 2)
    assert offsets(polled(kafka, 2)) == [3, 4]


def test_a_position_whose_next_record_was_deleted_is_refused(kafka: Kafka) -> None:
    kafka.put(0, 5)
    kafka.delete_before(0, 3)
    kafka.start()
    with pytest.raises(InputGap):
        resumed(kafka, 0, 2)
    assert resumed(kafka, 0, 3) == 3


def test_an_operators_offset_whose_next_record_was_deleted_is_refused(kafka: Kafka) -> None:
    kafka.put(0, 5)
    kafka.delete_before(0, 3)
    kafka.commit_by_hand(0, 1)
    kafka.start()
    with pytest.raises(InputGap):
        resumed(kafka, 0, 4)


def test_a_position_beyond_the_end_is_refused_by_a_poll_at_the_latest(kafka: Kafka) -> None:
    kafka.put(0, 5)
    kafka.start()
    with pytest.raises(InputGap):  # noqa: PT012  either of them
        resumed(kafka, 0, 9)
        polled(kafka, 1)


def test_state_that_was_made_from_another_topic_is_refused_unless_an_operator_says_where_to_begin(kafka: Kafka) -> None:
    for partition in range(PARTITIONS):
        kafka.put(partition, 5)
    kafka.commit_by_hand(1, 4)
    kafka.start()
    if not kafka.link.input_id:
        pytest.skip("this broker tells no topic ids")
    with pytest.raises(InputGap):
        resumed(kafka, 0, 2, ANOTHER_TOPIC)
    assert resumed(kafka, 1, 2, ANOTHER_TOPIC) == 4
    assert places(polled(kafka, 1)) == [(1, 4)]
    assert resumed(kafka, 0, 2, kafka.link.input_id) == 2


def test_the_input_has_the_same_id_for_as_long_as_it_exists(kafka: Kafka) -> None:
    kafka.put(0, 3)
    kafka.start()
    before = kafka.link.input_id
    resumed(kafka, 0)
    polled(kafka, 3)
    kafka.link.publish(step(3, (b"key", b"value")))
    after = kafka.link.input_id
    kafka.start()
    assert [after, kafka.link.input_id] == [before, before]


# --- the end of a partition ---


@pytest.mark.parametrize("committed", [True, False])
def test_the_marker_of_a_transaction_and_what_it_aborted_are_no_records(kafka: Kafka, *, committed: bool) -> None:
    kafka.put(0, 3)
    kafka.put_transaction(0, 2, committed=committed)
    kafka.put(1, 1)
    kafka.start()
    for partition in range(PARTITIONS):
        resumed(kafka, partition)
    records = polled(kafka, 6 if committed else 4)
    assert offsets(records) == ([0, 1, 2, 3, 4] if committed else [0, 1, 2])
    position = 5 if committed else 3
    assert looked(kafka, {0: position, 1: 1}) == {0: Empty(position, 6)}
    kafka.put(0, 1)
    assert offsets(polled(kafka, 1)) == [6]


def test_a_partition_with_nothing_but_an_aborted_transaction_is_empty_to_its_end(kafka: Kafka) -> None:
    kafka.put_transaction(0, 4, committed=False)
    kafka.start()
    assert resumed(kafka, 0) == 0
    assert looked(kafka, {0: 0}) == {0: Empty(0, 5)}


def test_a_partition_with_a_record_from_the_position_on_is_not_empty(kafka: Kafka) -> None:
    """It may be somewhere in the client, and not polled yet."""
    kafka.put_transaction(0, 3, committed=True)
    kafka.start()
    resumed(kafka, 0)
    polled(kafka, 3)
    kafka.link.look_for_ends({0: 1})
    wait_until(lambda: not kafka.link.looking or kafka.link.found_empty() == {}, 10, "the look has ended")
    assert not kafka.link.looking
    assert looked(kafka, {0: 3}) == {0: Empty(3, 4)}


def test_a_position_after_the_marker_holds_when_the_marker_is_deleted(kafka: Kafka) -> None:
    kafka.put_transaction(0, 3, committed=True)
    kafka.delete_before(0, 4)
    kafka.start()
    assert resumed(kafka, 0, 4) == 4
    kafka.put(0, 1)
    assert offsets(polled(kafka, 1)) == [4]
    kafka.start()
    with pytest.raises(InputGap):
        resumed(kafka, 0, 3)


# --- polls and pauses ---


def test_records_come_as_they_were_sent_in_order_and_never_more_than_the_limit(kafka: Kafka) -> None:
    sent = [kafka.put(partition, 20) for partition in range(PARTITIONS)]
    kafka.start()
    for partition in range(PARTITIONS):
        resumed(kafka, partition)
    sizes: list[int] = []
    records: list[Record] = []

    def all_came() -> bool:
        poll = kafka.link.poll(7, 0.05)
        sizes.append(len(poll))
        records.extend(poll)
        return len(records) >= 40

    wait_until(all_came, 30, "all records come")
    assert max(sizes) <= 7
    for partition in range(PARTITIONS):
        assert fields(records, partition) == fields(sent[partition], partition)


def test_a_paused_partition_waits_while_others_go_on_and_comes_back_where_it_is_resumed(kafka: Kafka) -> None:
    for partition in range(PARTITIONS):
        kafka.put(partition, 10)
    kafka.start()
    resumed(kafka, 0)
    came = first_poll(kafka, 4)  # the real client has fetched more
    kafka.link.pause(0)
    resumed(kafka, 1)
    assert places(polled(kafka, 10)) == [(1, offset) for offset in range(10)]
    for partition in range(PARTITIONS):
        kafka.put(partition, 2)
    assert places(polled(kafka, 2)) == [(1, 10), (1, 11)]
    assert resumed(kafka, 0, len(came)) == len(came)
    assert places(polled(kafka, 12 - len(came))) == [(0, offset) for offset in range(len(came), 12)]


def test_the_link_never_says_that_it_waited_for_kafka_in_the_future(kafka: Kafka) -> None:
    kafka.put(0, 3)
    kafka.start()
    assert kafka.link.waited_at <= kafka.clock()
    resumed(kafka, 0)
    polled(kafka, 3)
    kafka.link.publish(step(3, (b"key", b"value")))
    assert kafka.link.waited_at <= kafka.clock()


# --- publications ---


def test_a_publication_says_how_far_the_changelog_of_each_changed_partition_reaches(kafka: Kafka) -> None:
    for partition in range(PARTITIONS):
        kafka.put(partition, 4)
    kafka.start()
    for partition in range(PARTITIONS):
        resumed(kafka, partition)
    polled(kafka, 8)
    a, b, c, d, gone = (b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"d", b"4"), (b"d", None)
    one = kafka.link.publish(Outgoing(changes={0: [a, b], 1: []}, next_offsets={0: 1, 1: 1}))
    two = kafka.link.publish(Outgoing(changes={0: [c], 1: [d, gone]}, next_offsets={0: 2, 1: 2}))
    none = kafka.link.publish(Outgoing(next_offsets={0: 3}))
    assert [set(one), set(two), set(none)] == [{0}, {0, 1}, set()]
    found = {number: kafka.changelog(number) for number in range(PARTITIONS)}
    assert [[change for _, change in found[number]] for number in range(PARTITIONS)] == [[a, b, c], [d, gone]]
    (_, of_b, of_c), (_, of_gone) = ([offset for offset, _ in found[number]] for number in range(PARTITIONS))
    assert [one[0], two[0], two[1]] == [of_b + 1, of_c + 1, of_gone + 1]
    assert one[0] < two[0]


def test_a_publication_shows_everything_of_a_step_and_its_partitions_go_on(kafka: Kafka) -> None:
    kafka.put(0, 6)
    kafka.put(1, 1)
    kafka.start()
    for partition in range(PARTITIONS):
        resumed(kafka, partition)
    polled(kafka, 7)
    kafka.link.publish(whole_step(4))
    assert shown(kafka) == everything_of(whole_step(4))
    kafka.put(0, 1)
    assert places(polled(kafka, 1)) == [(0, 6)]


def test_a_refused_publication_shows_nothing_and_its_records_come_again(kafka: Kafka) -> None:
    for partition in range(PARTITIONS):
        kafka.put(partition, 6)
    kafka.start()
    for partition in range(PARTITIONS):
        resumed(kafka, partition)
    before = polled(kafka, 12)
    with kafka.refusing():
        with pytest.raises(StepAborted):
            kafka.link.publish(whole_step(4))
        for partition in range(PARTITIONS):
            kafka.link.pause(partition)
    assert shown(kafka) == ([], {}, [], [0, 0])
    assert [resumed(kafka, partition, 0) for partition in range(PARTITIONS)] == [0, 0]
    again = polled(kafka, 12)
    for partition in range(PARTITIONS):
        assert fields(again, partition) == fields(before, partition)
    kafka.link.publish(whole_step(4))
    assert shown(kafka) == everything_of(whole_step(4))


def whole_step(next_offset: int) -> Outgoing:
    """A step of partition 0 that has something of everything."""
    one = Recommendation([1, "song-a"], [0.5, 0.25], 1_000, 0, 1, 2, 0, "fake@1", "working")
    two = Recommendation([2], [1.0], 2_000, 0, 2, 3, 0, "fake@1", "memory")
    return Outgoing(
        changes={0: [(b"key", b"value"), (b"gone", None)]},
        recommendations=[(b"ann", one), (b"bob", None), (b"ann", None), (b"ann", two)],
        dead=[DeadLetter(b"eve", b"broken", [("reason", b"none"), ("empty", None)]), DeadLetter(None, None, [])],
        next_offsets={0: next_offset},
    )


Shown = tuple[list[Change], dict[bytes, list[Recommendation | None]], list[DeadLetter], list[int]]
"""What a reader of committed records sees: changes of partition 0, each user's lists, dead letters, group offsets."""


def shown(kafka: Kafka) -> Shown:
    lists: dict[bytes, list[Recommendation | None]] = {}
    for user, made in kafka.recommendations():
        lists.setdefault(user, []).append(made)
    committed = kafka.committed()
    return (
        [change for _, change in kafka.changelog(0)],
        lists,
        sorted(kafka.dead_letters(), key=str),
        [committed[number] for number in range(PARTITIONS)],
    )


def everything_of(outgoing: Outgoing) -> Shown:
    lists: dict[bytes, list[Recommendation | None]] = {}
    for user, made in outgoing.recommendations:
        lists.setdefault(user, []).append(made)
    return list(outgoing.changes[0]), lists, sorted(outgoing.dead, key=str), [outgoing.next_offsets[0], 0]
