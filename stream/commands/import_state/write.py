"""States into the changelog of a fresh application, in transactions.

A worker that meets a part of an import refuses it: the segment length is written last. With it, in one transaction, go
the positions of all partitions and the group's offsets. So an application has all states or none.

An import that was killed is run again: it writes the same records under the same keys.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from state.changelog import Change
from state.codec import (
    IMPORT,
    INPUT,
    ONE_FORMAT,
    POSITION,
    SEGMENT_LENGTH,
    import_value,
    name_key,
    name_value,
    number_value,
    one_format_value,
)
from stream.commands.import_state.application import Target
from stream.commands.import_state.states import States
from stream.errors import Fenced, KafkaUnusable
from stream.kafka.errors import explained, is_fatal
from stream.kafka.lineage import Lineage
from stream.kafka.names import import_id
from stream.kafka.rights import publishing_states
from stream.kafka.until_done import CALL_S, until_done
from stream.state_rows import changes, read_rows

_BYTES: Final = 8 << 20
"""Of a transaction."""
_KNOWN_NAMES: Final = 300_000
_ANSWERS_WITHIN_S: Final = 30.0
PRODUCER: Final[Mapping[str, Any]] = {
    "compression.type": "lz4",
    "linger.ms": 20,
    "transaction.timeout.ms": 60_000,
    "log_level": 3,  # a coordinator that is still loading is not worth a line
}


class Importer:
    """Writes one import. The transactional id ends another one that is under way, and what a killed one left open."""

    def __init__(self, kafka: Mapping[str, Any], to: Target) -> None:
        """Raises:
        KafkaUnusable: the right to the transactional id is missing.
        """
        self._kafka, self._to = kafka, to
        own = {**PRODUCER, **kafka, "transactional.id": import_id(to.app)}
        own.pop("group.id", None)
        self._producer: Final = Producer(own)
        try:
            until_done(lambda: self._producer.init_transactions(CALL_S))
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                raise KafkaUnusable(publishing_states(to.app).line()) from error
            raise

    def write(
        self,
        admin: AdminClient,
        path: Path,
        states: States,
        note: str,
        positions: Mapping[int, int],
        progress: Callable[[int, int], None],
        *,
        noted: bool,
    ) -> None:
        """Write everything.

        Args:
            note: names this very import.
            noted: the note is there already, as the first record of each partition.
            progress: called with (users done, users).

        Raises:
            Fenced: another import began.
            KafkaUnusable: Kafka refused a transaction.
        """
        numbers = range(self._to.width)
        if not noted:
            self._publish((number, (IMPORT, import_value(note))) for number in numbers)
        done, total = 0, sum(states.users.values())
        batch: list[tuple[int, Change]] = []
        size = 0
        for users, records in self._records(path, states.facts.segment_length):
            batch += records
            size += sum(len(key) + len(value or b"") for _, (key, value) in records)
            done += users
            if size >= _BYTES:
                self._publish(batch)
                batch, size = [], 0
                progress(done, total)
        self._publish(batch)
        progress(done, total)
        self._publish(self._last(states, positions), self._offsets(admin, positions))

    def _records(self, path: Path, length: int) -> Iterator[tuple[int, list[tuple[int, Change]]]]:
        """The records of each user, and of the names that their items have."""
        named: set[tuple[int, int]] = set()
        for piece in read_rows(path):
            for row in piece:
                number = self._to.partition_of(row)
                names: dict[int, str] = {}
                records: list[tuple[int, Change]] = [(number, each) for each in changes(row, length, names)]
                new = {(number, item) for item in names} - named
                records += [(number, (name_key(item), name_value(names[item]))) for _, item in new]
                if len(named) > _KNOWN_NAMES:
                    named.clear()  # what is written a second time is the same
                named |= new
                yield 1, records

    def _last(self, states: States, positions: Mapping[int, int]) -> Iterator[tuple[int, Change]]:
        """What makes each partition one that a worker reads."""
        for number, position in positions.items():
            yield number, (SEGMENT_LENGTH, number_value(states.facts.segment_length))
            if (memory_format := states.one_format(number)) is not None:
                yield number, (ONE_FORMAT, one_format_value(memory_format))
            if self._to.interactions_id:
                yield number, (INPUT, name_value(self._to.interactions_id))
            yield number, (POSITION, number_value(position))
            yield number, (IMPORT, None)

    def _offsets(self, admin: AdminClient, positions: Mapping[int, int]) -> list[TopicPartition]:
        """What the group commits: as a worker would, with the changelog that holds the states."""
        places = [TopicPartition(self._to.changelog, number) for number in positions]
        asked = admin.list_offsets({place: OffsetSpec.latest() for place in places})
        reached = {place.partition: future.result(_ANSWERS_WITHIN_S).offset for place, future in asked.items()}
        return [
            TopicPartition(
                self._to.interactions,
                number,
                position,
                metadata=Lineage(self._to.changelog_id, self._to.width, reached[number]).text(),
            )
            for number, position in positions.items()
        ]

    def _publish(self, records: Any, offsets: list[TopicPartition] | None = None) -> None:
        """One transaction."""
        producer = self._producer
        try:
            producer.begin_transaction()
            for number, (key, value) in records:
                self._produce(number, key, value)
            if offsets is not None:
                until_done(partial(producer.send_offsets_to_transaction, offsets, self._group(), CALL_S))
            until_done(partial(producer.commit_transaction, CALL_S))
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if is_fatal(reason):
                raise Fenced(f"another import into {self._to.app} began and ended this one: {reason.str()}") from error
            with suppress(KafkaException):
                producer.abort_transaction(CALL_S)
            raise KafkaUnusable(
                f"the states were not imported: {explained(reason)}. What was written is no state yet, and no worker reads it: run "
                "the command again"
            ) from error

    def _produce(self, number: int, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(self._to.changelog, value, key, number)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _group(self) -> object:
        """Names the group to Kafka. Nobody is a member of it, so it fences nothing: the transactional id does that."""
        with closing(Consumer({**self._kafka, "group.id": self._to.app, "log_level": 3})) as consumer:
            return consumer.consumer_group_metadata()
