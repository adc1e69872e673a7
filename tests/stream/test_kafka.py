"""What becomes of a transaction that goes wrong, and of a question that Kafka does not answer. No broker answers at this address."""

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

from stream.errors import Fenced, OutputTooLarge, StepAborted, StopAsked
from stream.kafka import KafkaLink, logger
from stream.librdkafka import MemoryBudget
from stream.lineage import Changelog, Committed, Lineage
from stream.worker import Outgoing
from tests.fakes import FakeRecord


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
        slot="w1",
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
    [KafkaError(KafkaError.ILLEGAL_GENERATION, "not yours", txn_requires_abort=True), KafkaError(KafkaError._FATAL, "out", fatal=True)],
    ids=["aborted", "replaced"],
)
def test_a_step_that_was_given_up_and_its_producer_are_gone(link: KafkaLink, monkeypatch: pytest.MonkeyPatch, error: KafkaError) -> None:
    monkeypatch.setattr(logger, "disabled", True)  # pytest keeps log records, and they what they tell of
    link._transaction_s = 0.0 if error.fatal() else 15.0  # type: ignore[misc]  # 0: too old for Kafka, not another process
    first, outgoing = Producer(error), Outgoing()
    link._producer = first  # type: ignore[assignment]
    monkeypatch.setattr(link, "_new_producer", lambda: Producer(error))
    left = [weakref.ref(first), weakref.ref(outgoing.changes.setdefault(0, Changes()))]
    with pytest.raises(StepAborted):
        link.publish(outgoing)
    link._producer = Producer(error)  # type: ignore[assignment]
    del first, outgoing
    assert [each() for each in left] == [None, None]


class Changes(list[Any]):
    """A list that can be watched."""


def failing(link: KafkaLink, *errors: KafkaError) -> Producer:
    producer = Producer(*errors)
    link._producer = producer  # type: ignore[assignment]
    return producer


def test_what_failed_first_is_told_where_the_client_only_says_that_something_has(link: KafkaLink) -> None:
    gone = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic", txn_requires_abort=True)
    failing(link, gone, KafkaError(KafkaError._STATE, "erroneous state", txn_requires_abort=True))
    for _ in range(3):
        with pytest.raises(StepAborted, match="the topic is gone: `rec2pm topics create`"):
            link.publish(Outgoing())


def test_a_record_that_is_too_large_leaves_no_transaction_open(link: KafkaLink) -> None:
    producer = failing(link, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large", txn_requires_abort=True))
    with pytest.raises(OutputTooLarge, match=r"max\.message\.bytes"):
        link.publish(Outgoing())
    assert producer.aborted == 1


@pytest.mark.parametrize("code", [KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH])
@pytest.mark.parametrize(("lasted_s", "becomes"), [(14.0, Fenced), (16.0, StepAborted)], ids=["young", "too old"])
def test_the_clock_tells_another_process_from_a_time_out(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch, code: int, lasted_s: float, becomes: type[Exception]
) -> None:
    """Kafka's answer is the same: to a transaction past its time-out (15 s), and to one whose name another process has taken."""
    now = 0.0

    class Slow(Producer):
        def begin_transaction(self) -> None:
            nonlocal now
            now = lasted_s

    put_out = KafkaError(code, "put out", fatal=True)
    link._producer = Slow(put_out)  # type: ignore[assignment]
    link._clock = lambda: now  # type: ignore[misc]
    monkeypatch.setattr(link, "_new_producer", lambda: Producer(put_out))
    with pytest.raises(becomes):
        link.publish(Outgoing())


def test_a_call_that_does_not_return_is_not_waited_for_when_the_process_is_to_stop(link: KafkaLink) -> None:
    held = threading.Event()

    class Stuck(Producer):
        def init_transactions(self, *_: Any) -> None:
            held.wait(60)

    link._producer = Stuck()  # type: ignore[assignment]
    link._began = time.monotonic() - 10
    link.stopping = lambda: True
    with pytest.raises(StopAsked, match="init_transactions did not return"):
        link._init_transactions()
    held.set()


def test_the_loop_does_not_wait_for_an_answer_about_the_changelog(link: KafkaLink, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    told = Changelog("an-id", 1, 0, 7)

    def asked(*_: Any) -> Changelog:
        answers.wait(60)
        return told

    monkeypatch.setattr(link, "_changelog", asked)
    began = time.monotonic()
    assert [link.changelog(0), link.changelog(0)] == [None, None]
    assert time.monotonic() - began < 10
    answers.set()
    deadline = time.monotonic() + 10
    while (found := link.changelog(0)) is None:
        assert time.monotonic() < deadline
    assert found == told


def test_an_end_that_was_asked_for_before_a_restore_began_is_no_answer_to_it(link: KafkaLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_changelog", lambda *_: Changelog("an-id", 1, 0, 7))
    monkeypatch.setattr(link, "_committed", lambda *_: None)
    link.changelog(0)
    link.committed(0)
    monkeypatch.setattr(link, "_changelog", lambda *_: Changelog("an-id", 1, 0, 8))
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
            link._id_of(Admin(), "app.in")  # type: ignore[arg-type]
    else:
        assert link._id_of(Admin(), "app.in") == found  # type: ignore[arg-type]


class Publishing:
    """A producer that publishes: `offsets` are those that its records get, None where the client does not tell."""

    def __init__(self, offsets: list[int | None], commits: list[KafkaError | None]) -> None:
        self._offsets, self._commits = offsets, commits
        self.calls: list[str] = []

    def produce(self, topic: str, value: bytes, key: bytes, partition: int = 0, delivered: Callable[..., None] | None = None) -> None:
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
    link._producer = producer  # type: ignore[assignment]
    assert link.publish(Outgoing({3: [(b"key", b"value")]})) == {3: 13}
    assert producer.calls == ["commit"] * 3


def test_a_partition_whose_offset_the_client_does_not_tell_is_left_out_of_what_is_reached(link: KafkaLink) -> None:
    """The store keeps the offset of before then, and reads the same records again after a crash."""
    link._producer = Publishing([None, -1001, 7], [None])  # type: ignore[assignment]
    assert link.publish(Outgoing({number: [(b"key", b"value")] for number in range(3)})) == {2: 8}


class Polled(FakeRecord):
    def error(self) -> None:
        return None


class Consumer:
    """Gives out records, and notes where it was led."""

    def __init__(self, *polls: list[tuple[int, int]]) -> None:
        self._polls = [[Polled(b"ann", b"", partition, offset) for partition, offset in each] for each in polls]
        self.sought: list[tuple[int, int]] = []

    def consume(self, *_: Any) -> list[Polled]:
        return self._polls.pop(0)

    def seek(self, place: TopicPartition) -> None:
        self.sought.append((place.partition, place.offset))

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        return 0, 100

    def resume(self, _: object) -> None: ...
    def close(self) -> None: ...
    def consumer_group_metadata(self) -> None: ...


def test_a_client_that_goes_back_to_the_beginning_is_led_on_and_nothing_is_taken_twice(
    link: KafkaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks where a partition begins when it is assigned; an answer that comes after `seek` makes it ask again, and go there."""
    consumer = Consumer([(3, 40), (4, 7), (3, 41)], [(3, 0), (3, 1), (4, 8)], [(3, 0), (3, 42)], [(3, 43)], [(3, 20)])
    link._consumer.close()
    link._consumer = consumer  # type: ignore[assignment]
    monkeypatch.setattr(link, "_producer", Producer(KafkaError(0)))
    monkeypatch.setattr(link, "_committed", lambda *_: Committed(40, Lineage("an-id", 6, 0)))
    assert link.resume(3, 40, None)
    assert link.resume(4, 7, None)

    def polled() -> list[tuple[int, int]]:
        return [(record.partition(), record.offset()) for record in link.poll(10, 0)]

    assert [polled() for _ in range(4)] == [[(3, 40), (4, 7), (3, 41)], [(4, 8)], [(3, 42)], [(3, 43)]]
    assert consumer.sought == [(3, 40), (4, 7), (3, 42), (3, 43)]
    assert link.resume(3, 20, None), "after a step that was given up, say"
    assert polled() == [(3, 20)]
