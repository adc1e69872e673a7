"""What a step gives to Kafka, and Kafka as the worker sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from state.changelog import Change
from state.user import Preference, User
from stream.wire import DeadLetter, Recommendation, Record


@dataclass(slots=True)
class Counts:
    """What one step did, or a worker since it started."""

    steps: int = 0
    aborted: int = 0
    records: int = 0
    interactions: int = 0
    folds: int = 0
    lists: int = 0
    dead_letters: int = 0
    model_failures: int = 0
    forgotten: int = 0
    passed_over: int = 0
    implausible_times: int = 0
    unknown_items: int = 0
    rebuilt: int = 0
    rebuilt_from_part: int = 0
    refold_looked: int = 0
    refolded: int = 0
    keys_compared: int = 0
    keys_misplaced: int = 0

    def add(self, other: "Counts") -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def words(self) -> str:
        """The counts for people: the usual ones always, the others where there are any."""
        always = f"{self.interactions} interactions remembered in {self.steps} steps, {self.folds} segments folded, {self.lists} lists"
        others = (
            (self.dead_letters, "dead letters"),
            (self.model_failures, "records that the model failed on"),
            (self.forgotten, "users forgotten"),
            (self.unknown_items, "interactions with unknown items"),
            (self.rebuilt, "memories rebuilt"),
            (self.rebuilt_from_part, "of them from part of the history"),
            (self.aborted, "aborted steps"),
        )
        return ", ".join([always, *(f"{count} {what}" for count, what in others if count)])


@dataclass(slots=True)
class Learned:
    """What a partition may keep in memory once the step is published."""

    taken: dict[bytes, int] = field(default_factory=dict)
    """User → interactions remembered."""
    users: dict[bytes, User] = field(default_factory=dict)
    """User → the whole state."""
    prepared: dict[bytes, Preference] = field(default_factory=dict)
    """User → a memory that the background has rebuilt."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Hashed item key → text; the store has it."""
    served: bool = False
    """Whether the partition's mark, or what it says of memory formats, has changed."""


@dataclass(slots=True)
class Outgoing:
    """The result of a step. One transaction publishes the first four fields. The others are used after it."""

    changes: dict[int, list[Change]] = field(default_factory=dict)
    """Partition → changelog records, for the local store too."""
    recommendations: list[tuple[bytes, Recommendation | None]] = field(default_factory=list)
    """User id and list, in the order of each user's interactions; None withdraws the user's last list."""
    dead: Sequence[DeadLetter] = ()
    next_offsets: Mapping[int, int] = field(default_factory=dict)
    """Partition → the offset to read next: past the last record, and past what is no record (`Empty`)."""
    learned: dict[int, Learned] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


class Empty(NamedTuple):
    """Offsets of a partition that hold no record for this reader: markers of transactions, aborted records, and what
    compaction removed.
    """

    start: int
    end: int
    """The offset after them."""


class Link(Protocol):
    """Kafka as the worker sees it: `stream.kafka.link.KafkaLink`, or `tests.fakes.FakeLink`.

    Both pass the contract in tests/integration/test_link_contract.py.
    """

    def poll(self, limit: int, wait_s: float) -> Sequence[Record]:
        """At most `limit` records of running partitions, ordered by offset within each; none of them an error.

        A partition has no records before `resume`, or while it is paused. Rebalances happen in this call.
        """

    def look_for_ends(self, positions: Mapping[int, int]) -> None:
        """Look whether partitions hold records from these offsets on. Does not wait for the answer (`found_empty`)."""

    def found_empty(self) -> Mapping[int, Empty] | None:
        """The partitions of the last look that hold no record from its offset to the end, if they have moved apart.

        Each answer is given once. None if no look has ended since the last call.
        """

    @property
    def looking(self) -> bool:
        """Whether a look has no answer yet."""

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        """Publish in one transaction. Returns partition → the changelog offset that its records reach, if it has any.

        Raises:
            StepAborted: Kafka aborted all of it. Or no answer came in time: then all of it may be committed.
        """

    def resume(self, partition: int, position: int | None, input_id: str | None) -> int | None:
        """Begin to fetch a partition's records, or move to another offset and lift a pause.

        Args:
            position: the offset stored with the state; None if there is no state.
            input_id: id of the topic that the state was made from; None if no worker has stored it.

        Returns:
            The lowest offset that the first record can have; None if Kafka has not answered yet: call again.

        Raises:
            InputGap: the topic does not hold the next record.
        """

    def pause(self, partition: int) -> None:
        """Fetch no records of a partition until `resume`."""

    @property
    def input_id(self) -> str:
        """Kafka's id of the input topic; empty if the broker has no topic ids."""

    @property
    def width(self) -> int:
        """The number of partitions of the input topic."""

    @property
    def waited_at(self) -> float:
        """When Kafka last failed to answer, by the worker's clock."""

    @property
    def ends(self) -> Mapping[int, int]:
        """Partition → the end of what can be read of it, a few seconds ago; without those that are not known."""
