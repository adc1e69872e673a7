"""Which changelog goes with a committed offset.

Kafka keeps a line of text beside every offset that a group commits. The worker says there, in the same transaction,
which changelog holds the state that goes with that offset. Whoever takes the partition over compares: a changelog that
was deleted, made anew or cut short, or a partition whose users have moved because the number of partitions changed, is
recognised even by a worker that has lost its disk, instead of being taken for an empty beginning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from stream.errors import ChangelogUnfit

_MARK: Final = "rec2pm/1"


class Lineage(NamedTuple):
    """What is said beside a committed offset."""

    changelog: str
    """Kafka's id of the changelog topic; empty where the broker does not tell."""
    partitions: int
    """How many the input had: it decides in which one a user is."""
    reached: int
    """The changelog partition is at least so long."""

    def text(self) -> str:
        return f"{_MARK} {self.partitions} {self.reached} {self.changelog}"


def read(text: str | None) -> Lineage | None:
    """None where the offset was not committed by a worker but set by somebody: they know what they do."""
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
        """Whether an operator set the offset: workers always commit a lineage with it."""
        return self.offset is not None and self.lineage is None


@dataclass(frozen=True, slots=True)
class Changelog:
    """A changelog partition as it is."""

    id: str
    """Kafka's id of the topic; empty where the broker does not tell."""
    partitions: int
    """Of the input."""
    low: int
    """The first offset that is kept."""
    high: int
    """The high watermark."""


_WAY_OUT: Final = (
    "nothing is changed here. To go on without the former state, stop the workers and commit the group's offsets again "
    "with kafka-consumer-groups.sh --reset-offsets --to-current --execute (with --to-earliest the workers read again "
    "everything that the input still holds)"
)


def check(place: str, lineage: Lineage | None, changelog: Changelog) -> None:
    """Raises ChangelogUnfit where the changelog is not the one that the committed offset goes with."""
    if lineage is None:
        return
    if lineage.changelog and changelog.id and lineage.changelog != changelog.id:
        raise ChangelogUnfit(
            f"{place} is another topic (id {changelog.id}) than the one that holds the state up to the committed offset "
            f"(id {lineage.changelog}): it was deleted and made anew, and that state is not in it; {_WAY_OUT}"
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
    """What this worker knows of the changelog while it runs; answers and publications are held against it."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._id = ""
        self._reached: dict[int, int] = {}
        """Partition → the changelog is at least so long."""
        self.partitions = 0
        """Of the input, when this worker started."""

    def lineage(self, partition: int) -> Lineage:
        """What to say beside an offset that is committed now."""
        return Lineage(self._id, self.partitions, self._reached.get(partition, 0))

    def found(self, partition: int, changelog: Changelog) -> None:
        """Note Kafka's answer about a partition.

        Raises:
            ChangelogUnfit: it is about another topic than earlier answers.
        """
        if "" not in (self._id, changelog.id) and self._id != changelog.id:
            raise ChangelogUnfit(
                f"{self._topic} was deleted and made anew while this worker ran: the state of before is not in it"
            )
        self._id = changelog.id or self._id
        self._reached[partition] = changelog.high

    def grew(self, reached: Mapping[int, int]) -> None:
        """Note the offset that each partition's published records reach.

        Raises:
            ChangelogUnfit: a changelog is shorter than it was. It is another one, made anew under the same name.
        """
        for partition, offset in reached.items():
            if offset <= self._reached.get(partition, 0):
                raise ChangelogUnfit(
                    f"{self._topic}[{partition}] ended at {self._reached[partition]} and ends at {offset} now: it was "
                    "deleted and made anew, and the state of before is not in it"
                )
            self._reached[partition] = offset
