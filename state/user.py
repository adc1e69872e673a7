"""One user's state as a value. Two things can happen to it: interactions are remembered, a segment is folded."""

from array import array
from collections.abc import Iterable

import msgspec


class Preference(msgspec.Struct, frozen=True, gc=False):
    """What stands for every interaction older than the working memory."""

    memory_format: str
    """Names what `memory` means; only a model with the same memory format may read it."""
    segment_length: int
    """Interactions in each folded segment."""
    folds: int
    """Segments that the memory stands for."""
    as_of: int
    """Time of the newest interaction folded, epoch ms."""
    memory: bytes
    """float32[C·d], little-endian."""
    missing: int = 0
    """Those of the segments that were not kept any more when the memory was rebuilt, so it lacks them."""


class User(msgspec.Struct, frozen=True, gc=False):
    """A user's whole state. Items and times are int64s packed into bytes: a step may hold many users."""

    taken: int = 0
    """Interactions remembered so far, folded ones included."""
    items: bytes = b""
    """Working memory: item keys, oldest first, int64 each."""
    times: bytes = b""
    """Their times, epoch ms, int64 each."""
    ends: tuple[int, ...] = ()
    """The stored working records of this user, newest first, stale ones included: `taken` of each."""
    preference: Preference | None = None
    """The memory that the newest segment was folded into."""
    prepared: Preference | None = None
    """A memory in another format, rebuilt before that format folds a segment. It takes the place of `preference` then.
    """
    earlier: tuple[Preference, ...] = ()
    """Memories of other formats that folded segments before, the newest first."""

    @property
    def folds(self) -> int:
        """Segments folded into the preference memory."""
        return 0 if self.preference is None else self.preference.folds

    def memory_of(self, memory_format: str) -> Preference | None:
        """The memory of all folded segments in this format; None if there are no segments, or it must be rebuilt."""
        for memory in (self.preference, self.prepared):
            if memory is not None and (memory.memory_format, memory.folds) == (memory_format, self.folds):
                return memory
        return None

    def earlier_of(self, memory_format: str) -> Preference | None:
        """The memory that models of this format once folded segments into; None if there is none any more."""
        return next((memory for memory in self.earlier if memory.memory_format == memory_format), None)

    @property
    def working(self) -> int:
        """Items in the working memory."""
        return len(self.items) >> 3


NEW_USER = User()


class Segment(msgspec.Struct, frozen=True, gc=False):
    """`segment_length` consecutive interactions of one user, ready to fold."""

    number: int
    """How many segments of the user come before it."""
    items: bytes
    times: bytes
    """Empty if they were not kept."""

    @property
    def as_of(self) -> int | None:
        """Time of the newest interaction, epoch ms; None if the times were not kept."""
        return unpacked(self.times[-8:])[0] if self.times else None


class Remembered(msgspec.Struct, frozen=True, gc=False):
    """A user's working memory after new interactions, and the segments that they completed, oldest first."""

    items: bytes
    times: bytes
    segments: tuple[Segment, ...]


def packed(values: Iterable[int]) -> bytes:
    """Integers as int64, in this machine's byte order: packed values stay in memory."""
    return array("q", values).tobytes()


def unpacked(values: bytes) -> "array[int]":
    """The integers of `packed`."""
    return array("q", values)


def remember(user: User, items: bytes, times: bytes, segment_length: int) -> Remembered:
    """Append interactions to the working memory and cut off each segment that they complete.

    Args:
        user: the state before.
        items: item keys, oldest first, packed.
        times: epoch ms, one for each item, packed.
        segment_length: `L_seg`; afterwards the working memory is shorter than this.
    """
    working, stamps = user.items + items, user.times + times
    width = segment_length << 3
    if len(working) < width:
        return Remembered(working, stamps, ())
    segments = []
    for number in range(user.folds, user.folds + len(working) // width):
        segments.append(Segment(number, working[:width], stamps[:width]))
        working, stamps = working[width:], stamps[width:]
    return Remembered(working, stamps, tuple(segments))
