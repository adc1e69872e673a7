"""Topics in memory, as a worker sees them: for one worker that owns every partition for good."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from state.changelog import Change
from state.store import StoreMemory
from stream.partition import Partition
from stream.ports import Empty, Outgoing
from stream.wire import DeadLetter, Header, Recommendation

_APPEND_TIME: Final = 1
"""Kafka's code of the kind of a record's timestamp: when it was created."""


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record of the interactions topic (`stream.wire.Record`)."""

    own_key: bytes | None
    own_value: bytes | None
    own_partition: int
    own_offset: int
    own_timestamp: int
    own_headers: tuple[Header, ...] = ()

    def key(self) -> bytes | None:
        return self.own_key

    def value(self) -> bytes | None:
        return self.own_value

    def partition(self) -> int:
        return self.own_partition

    def offset(self) -> int:
        return self.own_offset

    def timestamp(self) -> tuple[int, int]:
        return _APPEND_TIME, self.own_timestamp

    def headers(self) -> list[Header] | None:
        return list(self.own_headers) or None


@dataclass(slots=True)
class MemoryLink:
    """Every publication is accepted at once. Records wait in `waiting` until a poll takes them."""

    width: int
    input_id: str = ""
    waited_at: float = -math.inf
    looking: bool = False
    ends: dict[int, int] = field(default_factory=dict)
    waiting: list[MemoryRecord] = field(default_factory=list)
    changelog: dict[int, list[Change]] = field(default_factory=dict)
    """Partition → its records, in the order of their offsets."""
    lists: list[tuple[bytes, Recommendation | None]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    committed: dict[int, int] = field(default_factory=dict)

    def append(
        self, key: bytes | None, value: bytes | None, partition: int, timestamp: int, headers: Sequence[Header]
    ) -> int:
        """Add a record to the end of a partition; returns its offset."""
        offset = self.ends.get(partition, 0)
        self.waiting.append(MemoryRecord(key, value, partition, offset, timestamp, tuple(headers)))
        self.ends[partition] = offset + 1
        return offset

    def poll(self, limit: int, wait_s: float) -> Sequence[MemoryRecord]:  # noqa: ARG002
        polled, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return sorted(polled, key=lambda record: (record.own_partition, record.own_offset))

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        self.lists += outgoing.recommendations
        self.dead += outgoing.dead
        self.committed |= outgoing.next_offsets
        reached = {}
        for number, changes in outgoing.changes.items():
            if changes:
                self.changelog.setdefault(number, []).extend(changes)
                reached[number] = len(self.changelog[number])
        return reached

    def resume(self, partition: int, position: int | None, input_id: str | None) -> int:  # noqa: ARG002
        return self.committed.get(partition, 0)

    def pause(self, partition: int) -> None:
        """Nothing else reads a partition, so nothing pauses one."""

    def look_for_ends(self, positions: Mapping[int, int]) -> None:
        """There are no offsets without a record."""

    def found_empty(self) -> Mapping[int, Empty] | None:
        return None

    def begin_restore(self, partition: Partition, memory: StoreMemory) -> "MemoryRestore":  # noqa: ARG002
        return MemoryRestore(partition, self.changelog.get(partition.number, ()))


@dataclass(slots=True)
class MemoryRestore:
    """Writes the changelog of one partition into its empty store."""

    partition: Partition
    changes: Sequence[Change]

    def advance(self) -> bool:
        self.partition.store.write(dict(self.changes).items(), len(self.changes))
        return True

    def progress(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is open."""
