"""What the link asks of a client, and in which order, when partitions come, go and are resumed."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from stream.kafka.lineage import Committed, Lineage
from stream.kafka.link import KafkaLink
from stream.ports import Outgoing


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

    class Sending:
        def poll(self, *_: Any) -> None: ...
        def begin_transaction(self) -> None: ...
        def commit_transaction(self, *_: Any) -> None: ...
        def send_offsets_to_transaction(self, _: Any, metadata: object, *__: Any) -> None:
            sent.append(metadata)

    link._consumer = Polling()  # type: ignore[assignment]
    link.transactions.producer = Sending()  # type: ignore[assignment]
    link.poll(1, 0)
    link.publish(Outgoing())
    assert sent == ["first"]
    assert next(generations) == "second", "it was not asked again"
