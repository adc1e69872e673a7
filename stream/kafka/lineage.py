"""Lineage: which changelog belongs to a committed offset.

Kafka keeps a line of text beside every offset that a group commits. The worker stores there, in the same transaction,
which changelog holds the state that belongs to the offset. The next owner of the partition compares it with the
changelog that it finds. So even a worker without its disk notices three things, and does not start with empty state:
the changelog was deleted and created again, the changelog was cut short, or the number of partitions changed, so that
users are in other partitions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from stream.errors import ChangelogUnfit

_MARK: Final = "rec2pm/1"


class Lineage(NamedTuple):
    """What a worker stores beside a committed offset."""

    changelog: str
    """Kafka's id of the changelog topic; empty if the broker has no topic ids."""
    partitions: int
    """Partitions of the input: the number decides in which one a user is."""
    reached: int
    """The changelog partition ends at this offset or later."""

    def text(self) -> str:
        return f"{_MARK} {self.partitions} {self.reached} {self.changelog}"


def read(text: str | None) -> Lineage | None:
    """None if no worker committed the offset: then an operator set it, and their decision holds."""
    match (text or "").split(" "):
        case [mark, partitions, reached, changelog] if mark == _MARK and partitions.isdigit() and reached.isdigit():
            return Lineage(changelog, int(partitions), int(reached))
    return None


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group has committed of an input partition."""

    offset: int | None
    lineage: Lineage | None

    @property
    def by_hand(self) -> bool:
        """True if an operator set the offset: workers always commit a lineage with it."""
        return self.offset is not None and self.lineage is None


@dataclass(frozen=True, slots=True)
class Changelog:
    """A changelog partition as it is now."""

    id: str
    """Kafka's id of the topic; empty if the broker has no topic ids."""
    partitions: int
    """Partitions of the input."""
    low: int
    """The first offset that is kept."""
    high: int
    """The high watermark."""


_WAY_OUT: Final = (
    "nothing is changed here. To continue without the old state, stop the workers and commit the group's offsets again "
    "with kafka-consumer-groups.sh --reset-offsets --to-current --execute (with --to-earliest the workers read again "
    "everything that the input still holds)"
)


def check(place: str, lineage: Lineage | None, changelog: Changelog) -> None:
    """Raises ChangelogUnfit if this is not the changelog that belongs to the committed offset."""
    if lineage is None:
        return
    if lineage.changelog and changelog.id and lineage.changelog != changelog.id:
        raise ChangelogUnfit(
            f"{place} is another topic (id {changelog.id}) than the one that holds the state up to the committed offset "
            f"(id {lineage.changelog}): it was deleted and created again, and that state is not in it; {_WAY_OUT}"
        )
    if lineage.partitions != changelog.partitions:
        raise ChangelogUnfit(
            f"the input has {changelog.partitions} partitions and had {lineage.partitions} when the state in {place} "
            f"was made: users are in other partitions now, away from their state; {_WAY_OUT}"
        )
    if lineage.reached > changelog.high:
        raise ChangelogUnfit(
            f"{place} ends at {changelog.high}, but it reached {lineage.reached} when the offset was committed: its end "
            f"is lost; {_WAY_OUT}"
        )


class KnownChangelog:
    """What this worker knows of the changelog while it runs. Answers and publications are checked against it."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._id = ""
        self._reached: dict[int, int] = {}
        """Partition → the changelog partition ends at this offset or later."""
        self.partitions = 0
        """Partitions of the input when this worker started."""

    def lineage(self, partition: int) -> Lineage:
        """The lineage of an offset that is committed now."""
        return Lineage(self._id, self.partitions, self._reached.get(partition, 0))

    def found(self, partition: int, changelog: Changelog) -> None:
        """Note Kafka's answer about a partition.

        Raises:
            ChangelogUnfit: the answer is about another topic than earlier answers.
        """
        if "" not in (self._id, changelog.id) and self._id != changelog.id:
            raise ChangelogUnfit(
                f"{self._topic} was deleted and created again while this worker ran: the old state is not in it"
            )
        self._id = changelog.id or self._id
        self._reached[partition] = changelog.high

    def grew(self, reached: Mapping[int, int]) -> None:
        """Note the offset that each partition's published records reach.

        Raises:
            ChangelogUnfit: a changelog is shorter than it was: it was deleted and created again.
        """
        for partition, offset in reached.items():
            if offset <= self._reached.get(partition, 0):
                raise ChangelogUnfit(
                    f"{self._topic}[{partition}] ended at {self._reached[partition]} and ends at {offset} now: it was "
                    "deleted and created again, and the old state is not in it"
                )
            self._reached[partition] = offset
