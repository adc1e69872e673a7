"""Which dead letters were replayed: ranges of offsets, kept by Kafka as a group's committed offset and its metadata.

The committed offset is one past the newest letter that was replayed. The metadata counts down from there, in turn,
offsets that were replayed and offsets that were not. `r1:50,6,*` at offset 100 says: 50 to 99 were replayed, 44 to 49
were not, everything below was. Offsets that hold no letter (a transaction's marker, a letter that was deleted) belong
to either range.

A committed offset without metadata says that everything below it was replayed. kafka-consumer-groups.sh
--reset-offsets leaves such an offset, and so does a broker that keeps no metadata (tansu).
"""

from bisect import bisect_right
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from stream.errors import KafkaUnusable

MAX_METADATA: Final = 4096
"""Bytes: Kafka's `offset.metadata.max.bytes` by default."""
_FORMAT: Final = "r1:"
_ALL_BELOW: Final = "*"


@dataclass(frozen=True, slots=True)
class Replayed:
    """The letters of one partition that were replayed."""

    ranges: tuple[tuple[int, int], ...] = ()
    """(first offset, one past the last), in order; between each two is a letter that was not replayed."""

    def __contains__(self, offset: object) -> bool:
        if not isinstance(offset, int):
            return False
        at = bisect_right(self.ranges, offset, key=lambda each: each[0]) - 1
        return at >= 0 and offset < self.ranges[at][1]


def replayed_of(letters: Sequence[int], sent: Container[int]) -> Replayed:
    """The ranges to keep.

    Args:
        letters: the offsets of a partition's letters, in order; other offsets do not matter.
        sent: those of them that were replayed.
    """
    ranges: list[tuple[int, int]] = []
    continues = False
    for offset in letters:
        if offset in sent:
            ranges[-1:] = [(ranges[-1][0], offset + 1)] if continues else [*ranges[-1:], (offset, offset + 1)]
        continues = offset in sent
    return Replayed(tuple(ranges))


def encoded(replayed: Replayed, limit: int = MAX_METADATA) -> tuple[int, str]:
    """As an offset and its metadata, of at most `limit` characters.

    What does not fit is the oldest. There, letters that were not replayed count as replayed from now on, never the
    other way round.
    """
    if not replayed.ranges:
        return 0, _FORMAT + "0"
    position = below = replayed.ranges[-1][1]
    runs: list[str] = []
    room = limit - len(_FORMAT) - len(_ALL_BELOW)
    for first, end in reversed(replayed.ranges):
        pair = [str(below - end), str(end - first)] if runs else [str(end - first)]
        room -= sum(len(each) + 1 for each in pair)
        if room < 0:
            runs[-1:] = [_ALL_BELOW]
            break
        runs += pair
        below = first
    return position, _FORMAT + ",".join(runs)


def decoded(position: int, metadata: str | None) -> Replayed:
    """Read what `encoded` wrote.

    Raises:
        KafkaUnusable: a newer build wrote it.
    """
    if not metadata:
        return Replayed(((0, position),)) if position else Replayed()
    runs = metadata.removeprefix(_FORMAT).split(",")
    if not metadata.startswith(_FORMAT) or not all(run.isdigit() or run == _ALL_BELOW for run in runs):
        raise KafkaUnusable(
            f"the note of replayed dead letters is {metadata[:40]!r}, which this build cannot read: a newer rec2pm wrote it"
        )
    ranges: list[tuple[int, int]] = []
    end = position
    for number, run in enumerate(runs):
        first = 0 if run == _ALL_BELOW else end - int(run)
        if number % 2 == 0 and first < end:
            ranges.append((first, end))
        end = first
    return Replayed(tuple(reversed(ranges)))
