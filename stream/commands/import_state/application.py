"""The application of an import: whether it is fresh, and from which offsets its workers will go on."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from state.codec import IMPORT, read_import
from stream.errors import ImportUnfit, TopicsUnusable
from stream.interactions.window import offsets_of, readable
from stream.kafka.group_members import group_members
from stream.kafka.known_partitioners import Expected
from stream.kafka.names import changelog_topic
from stream.kafka.partitioner import partition_of
from stream.kafka.questions import topic_id
from stream.kafka.read_topic import committed_records, waiting_behind
from stream.kafka.shown_topics import topics_found
from stream.keys import KeyFormat
from stream.settings import Settings
from stream.state_rows import Facts, Row

_ANSWERS_WITHIN_S: Final = 30.0

Position: TypeAlias = Literal["end", "file"] | Mapping[int, int]
"""Where workers go on: at the end of the topic, where the file's states end, or at these offsets."""


def position(text: str) -> Position:
    """A position as it is typed. Raises ValueError."""
    match text:
        case "end" | "file":
            return text
    if (offsets := offsets_of(text)) is None:
        raise ValueError(f"is {text[:60]!r}, expected end, file, or PARTITION:OFFSET with commas between")
    return offsets


@dataclass(frozen=True, slots=True)
class Target:
    """The application that states are imported into."""

    app: str
    interactions: str
    changelog: str
    interactions_id: str
    """Kafka's ids of the topics; empty if the broker has no topic ids."""
    changelog_id: str
    width: int
    """Partitions of each of the two topics."""
    keys: KeyFormat
    partitioner: Expected

    def partition_of(self, row: Row) -> int:
        """The partition of a user.

        Raises:
            ImportUnfit: no key is this user, or the row's own partition does not exist here.
        """
        try:
            key = self.keys.key(row.user_id)
        except ValueError as error:
            raise ImportUnfit(f"no key can be the user {row.user_id!r}, who {error}") from error
        if self.partitioner != "ignore":
            return partition_of(key, self.width, self.partitioner)
        if not 0 <= row.partition < self.width:
            raise ImportUnfit(
                f"user {row.user_id!r} is in partition {row.partition}, and {self.interactions} has {self.width}: with "
                "REC2PM_PARTITIONER=ignore users stay where the file has them"
            )
        return row.partition

    def refuse_moved(self, row: Row) -> None:
        """Raise ImportUnfit if a user would leave the partition that the row names."""
        if (number := self.partition_of(row)) != row.partition:
            raise ImportUnfit(
                f"user {row.user_id!r} was in partition {row.partition} of {self.interactions}, and REC2PM_PARTITIONER={self.partitioner} "
                f"expects partition {number}: with --position file users must stay where their records are. Set REC2PM_PARTITIONER to "
                "what the producers use, or to `ignore`"
            )

    def refuse_unplaced(self, facts: Facts, file: Path) -> None:
        """Raise ImportUnfit if users should stay where the file has them, and that is a place in no topic."""
        if self.partitioner == "ignore" and not facts.topic:
            raise ImportUnfit(
                f"{file} does not say of which topic its partitions are, and with REC2PM_PARTITIONER=ignore nothing else says where "
                f"producers put a user in {self.interactions}: set REC2PM_PARTITIONER to what they use"
            )


def target(settings: Settings, admin: AdminClient) -> Target:
    """The application of these settings.

    Raises:
        TopicsUnusable: a topic is missing, or their partitions differ.
    """
    changelog, interactions = changelog_topic(settings.app), settings.interactions_topic
    found = topics_found(admin)
    for name in (interactions, changelog):
        if name not in found:
            raise TopicsUnusable(
                f"topic {name} is missing, or these credentials may not see it: `rec2pm topics create` creates missing topics"
            )
    width = found[interactions].partitions
    if found[changelog].partitions != width:
        raise TopicsUnusable(
            f"topic {changelog} has {found[changelog].partitions} partitions, expected {width} as {interactions} has"
        )
    return Target(
        settings.app,
        interactions,
        changelog,
        topic_id(admin, interactions),
        topic_id(admin, changelog),
        width,
        KeyFormat(settings.key_format),
        settings.partitioner,
    )


def refuse_used(kafka: Mapping[str, Any], admin: AdminClient, to: Target, note: str) -> bool:
    """Look whether the application is fresh: nobody in its group, no committed offsets, an empty changelog.

    Args:
        note: names this very import. What it left unfinished before is not in its way.

    Returns:
        Whether it left something unfinished.

    Raises:
        ImportUnfit: the application is not fresh.
        BehindOpenTransaction: a transaction is open.
    """
    if members := group_members(admin, to.app):
        raise ImportUnfit(
            f"application {to.app} has {len(members)} workers: stop them, and import into a fresh application"
        )
    if committed := _committed(kafka, to):
        raise ImportUnfit(
            f"application {to.app} is not fresh: its group has committed offset {committed[0].offset} of {to.interactions}"
            f"[{committed[0].partition}]. Choose a REC2PM_APP that nobody has used"
        )
    unfinished = [_unfinished(kafka, to, number) for number in range(to.width)]
    notes = {each for each in unfinished if each is not None}
    if other := notes - {note}:
        raise ImportUnfit(
            f"{to.changelog} has a part of another import ({min(other)}; this one is {note}): finish that one with its file, or delete "
            "the topic and run `rec2pm topics create`"
        )
    return bool(notes)


def _committed(kafka: Mapping[str, Any], to: Target) -> list[TopicPartition]:
    places = [TopicPartition(to.interactions, number) for number in range(to.width)]
    # A consumer that never joins; read_uncommitted, so that the call does not wait for a killed import.
    options = {**kafka, "group.id": to.app, "isolation.level": "read_uncommitted", "log_level": 3}
    with closing(Consumer(options)) as consumer:
        return [each for each in consumer.committed(places, timeout=_ANSWERS_WITHIN_S) if each.offset >= 0]


def _unfinished(kafka: Mapping[str, Any], to: Target, number: int) -> str | None:
    """What names the import that left a partition unfinished; None if the partition is empty.

    Raises:
        ImportUnfit: it has something else.
    """
    noted: str | None = None
    with closing(committed_records(kafka, to.changelog, number)) as records:
        for message in records:
            # The note is the first record, and it is deleted with the last of the states.
            if message.key() == IMPORT:
                value = message.value()
                noted = None if value is None else read_import(value)
            if noted is None:
                raise ImportUnfit(
                    f"application {to.app} is not fresh: {to.changelog}[{number}] holds states. Choose a REC2PM_APP that nobody has used"
                )
    return noted


def positions(kafka: Mapping[str, Any], to: Target, wanted: Position, facts: Facts, file: Path) -> dict[int, int]:
    """Partition → the first record that the states lack.

    Raises:
        ImportUnfit: the topic does not have these offsets, or they are of another topic.
        BehindOpenTransaction: with `end`, records wait behind an open transaction.
    """
    ends = _ends(kafka, to)
    if wanted == "end":
        return {number: _settled_end(kafka, to, number, high) for number, (_, high) in ends.items()}
    if wanted == "file":
        found = _of_file(to, facts, file, ends)
    else:
        found = dict(wanted)
        if found.keys() != ends.keys():
            raise ImportUnfit(
                f"--position names the partitions {_listed(found)}, expected each of {to.interactions} once: {_listed(ends)}"
            )
    for number, (low, high) in ends.items():
        if not low <= found[number] <= high:
            raise ImportUnfit(
                f"{to.interactions}[{number}] has the offsets {low} to {high}, and workers would go on at {found[number]}: records "
                "would be missing, or are not there yet"
            )
    return found


def _of_file(to: Target, facts: Facts, file: Path, ends: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    if not facts.positions:
        raise ImportUnfit(
            f"{file} does not say where its states end: they were not made from a whole topic. Use --position end, or name the offsets"
        )
    if facts.topic_id and to.interactions_id and facts.topic_id != to.interactions_id:
        raise ImportUnfit(
            f"{file} has states of the topic {facts.topic} (id {facts.topic_id}), and {to.interactions} is another one (id "
            f"{to.interactions_id}): offsets of the one mean nothing in the other. Use --position end, or name the offsets"
        )
    of_file = {int(number): offset for number, offset in facts.positions.items()}
    if unknown := sorted(of_file.keys() - ends.keys()):
        raise ImportUnfit(
            f"{file} has states of partition {unknown[0]}, and {to.interactions} has {to.width} partitions"
        )
    # Of a partition without a position no record was read.
    return {number: of_file.get(number, low) for number, (low, _) in ends.items()}


def _ends(kafka: Mapping[str, Any], to: Target) -> dict[int, tuple[int, int]]:
    """Partition → the first offset, and the end, with what waits behind open transactions."""
    options = {**kafka, "isolation.level": "read_uncommitted"}
    return readable(options, to.interactions)


def _settled_end(kafka: Mapping[str, Any], to: Target, number: int, high: int) -> int:
    if high and (behind := waiting_behind(kafka, to.interactions, number, high - 1)) is not None:
        raise behind
    return high


def _listed(numbers: Mapping[int, object]) -> str:
    return ", ".join(map(str, sorted(numbers)))
