"""What becomes of a transaction that goes wrong, by a producer that fails as it is told to."""

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream.errors import Fenced, KafkaUnusable, OutputTooLarge, StepAborted, StopAsked
from stream.kafka.link import KafkaLink
from stream.kafka.lost_connections import WatchedLog
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
    def poll(self, *_: Any) -> None: ...


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

    def init_transactions(self, *_: Any) -> None:
        self.calls.append("init")

    def begin_transaction(self) -> None: ...
    def send_offsets_to_transaction(self, *_: Any) -> None: ...
    def poll(self, *_: Any) -> None: ...


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


LOST = "TxnCoordinator: 127.0.0.1:9092: Disconnected: connection reset by peer (after 412ms in state UP)"
REFUSED = "127.0.0.1:9092/2: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)"
SLOW = KafkaError(KafkaError._TIMED_OUT, "no answer yet", retriable=True)


@pytest.mark.parametrize(
    ("commits", "reported", "renewed"),
    [
        ([None], [], False),
        ([SLOW, None], [], True),
        ([None], [LOST], True),
        ([None], [REFUSED], False),
    ],
    ids=["answered", "timed out", "connection lost", "connection refused"],
)
def test_a_producer_whose_request_may_still_arrive_sends_no_further_transaction(
    link: KafkaLink,
    monkeypatch: pytest.MonkeyPatch,
    commits: list[KafkaError | None],
    reported: list[str],
    renewed: bool,
) -> None:
    """The request could end the next transaction of the same epoch (librdkafka #5423)."""
    first, second = Publishing([], [*commits, None]), Publishing([], [None])
    monkeypatch.setattr(link.transactions, "new_producer", lambda: second)
    link.transactions.producer = first  # type: ignore[assignment]
    link.publish(Outgoing())
    log = WatchedLog(logging.getLogger("rdkafka.producer"), link.transactions.lost)
    # The client calls its logger in `poll`, at the latest in the one before the next transaction.
    monkeypatch.setattr(
        first, "poll", lambda _: [log.log(logging.INFO, "%s [%s] %s", "FAIL", "w1", line) for line in reported]
    )
    before = len(first.calls)
    link.publish(Outgoing())
    assert (first.calls[before:], second.calls) == (([], ["init", "commit"]) if renewed else (["commit"], []))
