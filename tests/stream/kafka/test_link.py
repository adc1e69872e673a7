"""What becomes of a transaction that goes wrong, and of a question that Kafka does not answer. No broker answers at
this address.
"""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition

from stream.errors import Fenced, KafkaUnusable, OutputTooLarge, StepAborted, StopAsked
from stream.kafka.lineage import Changelog, Committed, Lineage
from stream.kafka.link import KafkaLink
from stream.kafka.options import MemoryBudget
from stream.kafka.transactions import logger
from stream.ports import Outgoing


class Producer:
    """Whose transactions fail as they are told to, the last error again and again."""

    def __init__(self, *errors: KafkaError) -> None:
        self._errors = list(errors)
        self.aborted = 0

    def send_offsets_to_transaction(self, *_: Any) -> None:
        raise KafkaException(self._errors.pop(0) if len(self._errors) > 1 else self._errors[0])

    def abort_transaction(self, *_: Any) -> None:
        self.aborted += 1

    def begin_transaction(self) -> None: ...
    def init_transactions(self, *_: Any) -> None: ...


@pytest.fixture
def link() -> Iterator[KafkaLink]:
    made = KafkaLink(
        bootstrap="127.0.0.1:1",
        app="app",
        worker_name="w1",
        named=False,
        interactions_topic="app.in",
        recommendations_topic="app.out",
        output_format="json",
        memory=MemoryBudget(64 << 20),
        extra={"log_level": "0"},
        clock=time.monotonic,
    )
    yield made
    made.close()


@pytest.fixture
def no_cycle_collector() -> Iterator[None]:
    """As in the worker, nearly (`stream.compose`)."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_cycle_collector")
@pytest.mark.parametrize(
    "error",
    [
        KafkaError(KafkaError.ILLEGAL_GENERATION, "not yours", txn_requires_abort=True),
        KafkaError(KafkaError._FATAL, "out", fatal=True),
    ],
    ids=["aborted", "replaced"],
)
def test_an_aborted_step_and_its_producer_are_gone(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch, error: KafkaError
) -> None:
    monkeypatch.setattr(logger, "disabled", True)  # pytest keeps log records, and they what they tell of
    link.transactions.lasts_s = 0.0 if error.fatal() else 15.0  # 0: too old for Kafka, not another process
    first, outgoing = Producer(error), Outgoing()
    link.transactions.producer = first  # type: ignore[assignment]
    monkeypatch.setattr(link.transactions, "new_producer", lambda: Producer(error))
    left = [weakref.ref(first), weakref.ref(outgoing.changes.setdefault(0, Changes()))]
    with pytest.raises(StepAborted):
        link.publish(outgoing)
    link.transactions.producer = Producer(error)  # type: ignore[assignment]
    del first, outgoing
    assert [each() for each in left] == [None, None]


class Changes(list[Any]):
    """A list that can be watched."""


def failing(link: KafkaLink, *errors: KafkaError) -> Producer:
    producer = Producer(*errors)
    link.transactions.producer = producer  # type: ignore[assignment]
    return producer


def test_what_failed_first_is_told_where_the_client_only_says_that_something_has(link: KafkaLink) -> None:
    gone = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic", txn_requires_abort=True)
    failing(link, gone, KafkaError(KafkaError._STATE, "erroneous state", txn_requires_abort=True))
    for _ in range(3):
        with pytest.raises(StepAborted, match="the topic is gone: `rec2pm topics create`"):
            link.publish(Outgoing())


def test_a_transaction_that_lacks_a_record_is_undone_and_not_committed_without_it(link: KafkaLink) -> None:
    """A record for a partition that is not there, say: the client says so at the commit."""
    lacking = KafkaError(KafkaError._INCONSISTENT, "1 message(s) failed delivery", txn_requires_abort=True)
    producer = Publishing([None], [lacking])
    link.transactions.producer = producer  # type: ignore[assignment]
    with pytest.raises(StepAborted, match="failed delivery"):
        link.publish(Outgoing({7: [(b"key", b"value")]}))
    assert producer.calls == ["commit", "abort"]


@pytest.mark.parametrize(
    ("error", "becomes", "told"),
    [
        (
            KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large", txn_requires_abort=True),
            OutputTooLarge,
            r"max\.message\.bytes",
        ),
        (KafkaError(KafkaError._UNKNOWN_PARTITION, "unknown"), KafkaUnusable, "fewer partitions than it had"),
    ],
    ids=["too large", "no such partition"],
)
def test_a_record_that_ends_the_process_leaves_no_transaction_open(
    link: KafkaLink, error: KafkaError, becomes: type[Exception], told: str
) -> None:
    producer = failing(link, error)
    with pytest.raises(becomes, match=told):
        link.publish(Outgoing())
    assert producer.aborted == 1


@pytest.mark.parametrize("code", [KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH])
@pytest.mark.parametrize(("lasted_s", "becomes"), [(14.0, Fenced), (16.0, StepAborted)], ids=["young", "too old"])
def test_the_clock_tells_another_process_from_a_time_out(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch, code: int, lasted_s: float, becomes: type[Exception]
) -> None:
    """Kafka's answer is the same: to a transaction past its time-out (15 s), and to one whose name another process has
    taken.
    """
    now = 0.0

    class Slow(Producer):
        def begin_transaction(self) -> None:
            nonlocal now
            now = lasted_s

    put_out = KafkaError(code, "put out", fatal=True)
    link.transactions.producer = Slow(put_out)  # type: ignore[assignment]
    link._outage.clock = lambda: now
    monkeypatch.setattr(link.transactions, "new_producer", lambda: Producer(put_out))
    with pytest.raises(becomes):
        link.publish(Outgoing())


def test_a_call_that_does_not_return_is_not_waited_for_when_the_process_is_to_stop(link: KafkaLink) -> None:
    held = threading.Event()

    class Stuck(Producer):
        def init_transactions(self, *_: Any) -> None:
            held.wait(60)

    link.transactions.producer = Stuck()  # type: ignore[assignment]
    link.transactions.began = time.monotonic() - 10
    link.stop_waiting_if(lambda: True)
    with pytest.raises(StopAsked, match="init_transactions did not return"):
        link.transactions.start()
    held.set()


def test_the_loop_does_not_wait_for_an_answer_about_the_changelog(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    told = Changelog("an-id", 1, 0, 7)

    def asked(*_: Any) -> Changelog:
        answers.wait(60)
        return told

    monkeypatch.setattr(link.questions, "changelog_now", asked)
    began = time.monotonic()
    assert [link.changelog(0), link.changelog(0)] == [None, None]
    assert time.monotonic() - began < 10
    answers.set()
    deadline = time.monotonic() + 10
    while (found := link.changelog(0)) is None:
        assert time.monotonic() < deadline
    assert found == told


def test_an_end_that_was_asked_for_before_a_restore_began_is_no_answer_to_it(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link.questions, "changelog_now", lambda *_: Changelog("an-id", 1, 0, 7))
    monkeypatch.setattr(link.questions, "committed_within", lambda *_: None)
    link.changelog(0)
    link.committed(0)
    monkeypatch.setattr(link.questions, "changelog_now", lambda *_: Changelog("an-id", 1, 0, 8))
    assert link.changelog(0) is None
    time.sleep(0.05)
    assert link.changelog(0) == Changelog("an-id", 1, 0, 8)


@pytest.mark.parametrize(("code", "found"), [(KafkaError.UNSUPPORTED_VERSION, ""), (KafkaError.UNKNOWN, None)])
def test_only_a_broker_that_knows_no_ids_is_taken_for_one(link: KafkaLink, code: int, found: str | None) -> None:
    """Otherwise a topic that was made anew would not be noticed after any error."""

    class Admin:
        def describe_topics(self, topics: TopicCollection, **_: Any) -> dict[str, Future[Any]]:
            answer: Future[Any] = Future()
            answer.set_exception(KafkaException(KafkaError(code)))
            return {"app.in": answer}

    if found is None:
        with pytest.raises(KafkaException):
            link.questions.topic_id("app.in", Admin())  # type: ignore[arg-type]
    else:
        assert link.questions.topic_id("app.in", Admin()) == found  # type: ignore[arg-type]


class Publishing:
    """A producer that publishes: `offsets` are those that its records get, None where the client does not tell."""

    def __init__(self, offsets: list[int | None], commits: list[KafkaError | None]) -> None:
        self._offsets, self._commits = offsets, commits
        self.calls: list[str] = []

    def produce(
        self, topic: str, value: bytes, key: bytes, partition: int = 0, delivered: Callable[..., None] | None = None
    ) -> None:
        if delivered is not None:
            offset = self._offsets.pop(0)
            delivered(None, SimpleNamespace(partition=lambda: partition, offset=lambda: offset))

    def commit_transaction(self, *_: Any) -> None:
        self.calls.append("commit")
        if error := self._commits.pop(0):
            raise KafkaException(error)

    def abort_transaction(self, *_: Any) -> None:
        self.calls.append("abort")

    def begin_transaction(self) -> None: ...
    def send_offsets_to_transaction(self, *_: Any) -> None: ...


def test_a_commit_without_an_answer_is_called_again_and_never_aborted(link: KafkaLink) -> None:
    """It may be through already: an abort is refused then (`_CONFLICT`)."""
    slow = KafkaError(KafkaError._TIMED_OUT, "no answer yet", retriable=True)
    producer = Publishing([12], [slow, slow, None])
    link.transactions.producer = producer  # type: ignore[assignment]
    assert link.publish(Outgoing({3: [(b"key", b"value")]})) == {3: 13}
    assert producer.calls == ["commit"] * 3


def test_a_partition_whose_offset_the_client_does_not_tell_is_left_out_of_what_is_reached(link: KafkaLink) -> None:
    """The store keeps the offset of before then, and reads the same records again after a crash."""
    link.transactions.producer = Publishing([None, -1001, 7], [None])  # type: ignore[assignment]
    assert link.publish(Outgoing({number: [(b"key", b"value")] for number in range(3)})) == {2: 8}


class Consumer:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[tuple[int, int]]]] = []

    def subscribe(self, _: list[str], **callbacks: Callable[..., None]) -> None:
        self.callbacks = callbacks

    def _noted(self, name: str, places: list[TopicPartition]) -> None:
        self.calls.append((name, [(place.partition, place.offset) for place in places]))

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self._noted("assign", places)

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        self._noted("unassign", places)

    def seek(self, place: TopicPartition) -> None:
        self._noted("seek", [place])

    def resume(self, places: list[TopicPartition]) -> None:
        self._noted("resume", places)

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        return 0, 100

    def close(self) -> None: ...


@pytest.mark.parametrize("ends", ["on_revoke", "on_lost"])
def test_the_client_is_given_a_partition_with_the_place_to_begin_at_and_never_looks_for_one(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """One that looks for a place, the beginning say, may go back to it half a second after it was led elsewhere."""
    link._consumer.close()
    consumer = Consumer()
    link._consumer = consumer  # type: ignore[assignment]
    monkeypatch.setattr(link.transactions, "start", lambda: None)
    monkeypatch.setattr(link.questions, "partitions_of", lambda _: 6)
    monkeypatch.setattr(link.questions, "topic_id", lambda *_: "an-id")
    monkeypatch.setattr(link.questions, "committed_within", lambda *_: Committed(40, Lineage("an-id", 6, 0)))
    happened: list[tuple[str, list[int]]] = []
    link.start(
        SimpleNamespace(
            **{how: lambda given, how=how: happened.append((how, given)) for how in ("assigned", "revoked", "lost")}
        )
    )  # type: ignore[arg-type]

    def places(*numbers: int) -> list[TopicPartition]:
        return [TopicPartition("app.in", number) for number in numbers]

    consumer.callbacks["on_assign"](consumer, places(3, 4, 5))
    assert consumer.calls == [("assign", [])]
    assert [link.resume(3, 40, None), link.resume(4, 7, None)] == [40, 7]
    assert link.resume(3, 20, None) == 20, "after a step that was given up, say"
    begun = [("resume", [(3, 40)]), ("assign", [(3, 40)]), ("resume", [(4, 7)]), ("assign", [(4, 7)])]
    assert consumer.calls[1:] == [*begun, ("seek", [(3, 20)]), ("resume", [(3, 20)])]

    consumer.callbacks[ends](consumer, places(4, 5))
    assert [(name, [number for number, _ in of]) for name, of in consumer.calls[7:]] == [("unassign", [4])]
    consumer.callbacks["on_assign"](consumer, places(4))
    assert link.resume(4, 9, None) == 9
    assert consumer.calls[-2:] == [("resume", [(4, 9)]), ("assign", [(4, 9)])], (
        "it may have been paused when it was let go of"
    )
    assert happened == [
        ("assigned", [3, 4, 5]),
        ({"on_revoke": "revoked", "on_lost": "lost"}[ends], [4, 5]),
        ("assigned", [4]),
    ]


def test_a_step_is_sent_with_the_generation_of_the_poll_that_gave_it_its_records(link: KafkaLink) -> None:
    """Kafka takes a newer one, of after a rebalance, although the records are another's by then."""
    link._consumer.close()
    generations = iter(["first", "second"])
    sent: list[object] = []

    class Polling(Consumer):
        def consume(self, *_: Any) -> list[Any]:
            return [SimpleNamespace(error=lambda: None)]

        def consumer_group_metadata(self) -> str:
            return next(generations)

    class Sending(Publishing):
        def send_offsets_to_transaction(self, _: Any, metadata: object, *__: Any) -> None:
            sent.append(metadata)

    link._consumer = Polling()  # type: ignore[assignment]
    link.transactions.producer = Sending([], [None])  # type: ignore[assignment]
    link.poll(1, 0)
    link.publish(Outgoing())
    assert sent == ["first"]
    assert next(generations) == "second", "it was not asked again"
