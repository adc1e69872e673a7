"""What a transaction that goes wrong leaves behind in this process: nothing. No broker answers at this address."""

import gc
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream.errors import StepAborted
from stream.kafka import KafkaLink, logger
from stream.librdkafka import MemoryBudget
from stream.worker import Outgoing


class Producer:
    """Whose transactions fail as they are told to."""

    def __init__(self, error: KafkaError) -> None:
        self._error = error

    def send_offsets_to_transaction(self, *_: Any) -> None:
        raise KafkaException(self._error)

    def begin_transaction(self) -> None: ...
    def abort_transaction(self, *_: Any) -> None: ...
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
