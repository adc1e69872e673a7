"""Connects state and model: from item keys to rows, from segments to memories, from rankings to lists of item ids."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.version.padding import padded
from state.interaction import item_key
from state.user import Preference, Segment, packed
from stream.model_cost import ModelCost
from stream.prefixes import prefix_chains

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Source = Literal["memory", "working", "popular"]
"""What a list was made from."""


class Ranked(Protocol):
    """Rows (B, K) int64 and scores (B, K) float32, best first; a score of -inf marks a row that was excluded."""

    @property
    def rows(self) -> Ints: ...
    @property
    def scores(self) -> Floats: ...


class Folded(Protocol):
    """Memory (B, S) float32 after a segment, and the last hidden state (B, d)."""

    @property
    def memory(self) -> Floats: ...
    @property
    def hidden(self) -> Floats: ...


class Model(Protocol):
    """What the step uses of `model.version.runtime.Runtime`."""

    @property
    def reference(self) -> str: ...
    @property
    def memory_format(self) -> str: ...
    @property
    def segment_length(self) -> int: ...
    @property
    def state_floats(self) -> int: ...
    @property
    def item_ids(self) -> Sequence[int | str]: ...
    @property
    def oov_row(self) -> int: ...
    @property
    def uses_time(self) -> bool: ...
    def fold(self, memory: Floats, rows: Ints, times: Ints | None) -> Folded: ...
    def longest_prefix(self, memory: Floats) -> Ints: ...
    def encode_prefixes(self, memory: Floats, rows: Ints, lengths: Ints) -> Floats: ...
    def rank(self, hidden: Floats, k: int, exclude: Ints) -> Ranked: ...
    def recommend(
        self,
        memory: Floats,
        rows: Ints,
        lengths: Ints,
        k: int,
        exclude: Ints,
        times: Ints | None,
        query_time: Ints | None,
    ) -> Ranked: ...


class Fold(msgspec.Struct, frozen=True, gc=False):
    """A preference memory after a fold, and the hidden state from which the list after it is ranked."""

    preference: Preference
    hidden: Floats


class Query(msgspec.Struct, frozen=True, gc=False):
    """One list to make."""

    preference: Preference | None
    items: bytes
    """Working memory: item keys, int64."""
    exclude: bytes
    """Item keys that may not be recommended, int64."""
    hidden: Floats | None
    """The hidden state of the fold, if the list's interaction completed a segment."""
    times: bytes
    """Times of the items in working memory, epoch ms, int64; empty for a model that does not use time."""
    query_time: int
    """The time of the user's newest item, epoch ms."""


class RankedList(msgspec.Struct, frozen=True, gc=False):
    """One list made."""

    items: list[int | str]
    scores: list[float]
    source: Source


class Recommender:
    """A model and its catalogue, by item key."""

    def __init__(self, model: Model, promotion: str = "", clock: Callable[[], float] = time.perf_counter) -> None:
        """Args:
        promotion: the id of the promotion that says so; empty for a model from the settings.
        clock: monotonic seconds, for what the model's calls take.
        """
        self.model: Final = model
        self.promotion: Final = promotion
        self.cost = ModelCost()
        self._clock = clock
        keys = np.array([item_key(item) for item in model.item_ids], dtype=np.int64)
        self._ids: Final = np.empty(len(keys), object)
        self._ids[:] = list(model.item_ids)
        self._order: Final = np.argsort(keys, kind="stable")
        self._sorted: Final = keys[self._order]

    def rows(self, items: bytes) -> Ints:
        """The catalogue row of each item key (packed int64); unknown items get the out-of-vocabulary row."""
        keys = np.frombuffer(items, dtype=np.int64)
        if not len(self._sorted):
            return np.full(len(keys), self.model.oov_row, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        return np.where(self._sorted[at] == keys, self._order[at] + 1, self.model.oov_row)

    def unknown(self, items: bytes) -> int:
        """How many of the item keys (packed int64) the model does not know."""
        return len(self.lacked(items))

    def lacked(self, items: bytes) -> Ints:
        """Those of the item keys (packed int64) that the model does not know, in the same order."""
        keys: Ints = np.frombuffer(items, dtype=np.int64)
        lacked: Ints = keys[self.rows(items) == self.model.oov_row]
        return lacked

    def fold(
        self,
        before: Sequence[Preference | None],
        segments: Sequence[bytes],
        as_of: Sequence[int],
        times: Sequence[bytes] | None = None,
    ) -> list[Fold]:
        """Fold one segment of each of B users.

        Args:
            before: preference memories; None for a user who has none.
            segments: item keys, `segment_length` each.
            as_of: time of each segment's last interaction, epoch ms.
            times: of all interactions of a segment, packed epoch ms; unknown ones are replaced by `as_of`.
        """
        model, began = self.model, self._clock()
        rows = self.rows(b"".join(segments)).reshape(len(segments), model.segment_length)
        when: Ints | None = None
        if model.uses_time:
            known = np.array(as_of, np.int64).repeat(model.segment_length) if times is None else _unpacked(times)
            when = known.reshape(rows.shape)
        folded = model.fold(self._memories(before), rows, when)
        made = [
            Fold(
                Preference(
                    model.memory_format,
                    model.segment_length,
                    1 if old is None else old.folds + 1,
                    when_ms,
                    memory.tobytes(),
                    0 if old is None else old.missing,
                ),
                hidden,
            )
            for old, when_ms, memory, hidden in zip(before, as_of, folded.memory, folded.hidden, strict=True)
        ]
        self.cost.folds += len(segments)
        self.cost.fold_seconds += self._clock() - began
        return made

    def rebuild(
        self,
        preferences: Sequence[Preference],
        earlier: Sequence[Preference | None],
        kept: Sequence[Sequence[Segment]],
    ) -> list[Preference]:
        """Make the memories of B users in this model's memory format.

        Args:
            preferences: their memories in another format.
            earlier: the memory in this model's format that a user had before, or None. It lacks the newest segments.
            kept: kept segments, oldest first. Those that the earlier memory stands for are passed over.

        Returns:
            Memories of the same number of segments. `missing` says how many of those were not kept. A segment whose
            times were not kept is taken for as old as the newest of `preferences`.
        """
        made = list(earlier)
        lacked = [
            [segment for segment in segments if old is None or segment.number >= old.folds]
            for old, segments in zip(earlier, kept, strict=True)
        ]
        for turn in range(max(map(len, lacked), default=0)):
            now = [user for user, segments in enumerate(lacked) if len(segments) > turn]
            segments = [lacked[user][turn] for user in now]
            newest = [preferences[user].as_of for user in now]
            unknown = [packed([newest_ms]) * self.model.segment_length for newest_ms in newest]
            folds = self.fold(
                [made[user] for user in now],
                [segment.items for segment in segments],
                newest,
                [segment.times or same for segment, same in zip(segments, unknown, strict=True)],
            )
            for user, fold in zip(now, folds, strict=True):
                made[user] = fold.preference
        empty = bytes(4 * self.model.state_floats)
        return [
            Preference(
                self.model.memory_format,
                old.segment_length,
                old.folds,
                old.as_of,
                empty if new is None else new.memory,
                old.folds - len(segments) - (0 if before is None else before.folds - before.missing),
            )
            for old, new, before, segments in zip(preferences, made, earlier, lacked, strict=True)
        ]

    def recommend(self, queries: Sequence[Query], k: int) -> list[RankedList]:
        """Rank B lists of at most k items; a list is shorter only if the catalogue is.

        Queries whose items are prefixes of the items of another one, after the same memory, share a pass.
        """
        began = self._clock()
        oov_row, empty = self.model.oov_row, bytes(4 * self.model.state_floats)
        memories = [
            b"" if (old := query.preference) is None or old.memory == empty else old.memory for query in queries
        ]
        items = [query.items if query.hidden is None else b"" for query in queries]
        rows = self._cut(items, unknown=oov_row)
        hidden = [query.hidden for query in queries]
        sources: list[Source] = ["memory"] * len(queries)
        for at, memory in enumerate(memories):
            if not memory and hidden[at] is None:
                if (rows[at] != oov_row).any():
                    sources[at] = "working"
                else:
                    # Without a memory and a known item, the model gets no items and returns its popularity list.
                    sources[at], items[at], rows[at] = "popular", b"", rows[at][:0]
        if not self.model.uses_time and (chains := prefix_chains(memories, items)):
            for at, state in self._shared(chains, queries, rows):
                hidden[at] = state
        lists: list[RankedList | None] = [None] * len(queries)
        excludes = self._cut([query.exclude for query in queries], unknown=0)
        if ready := [at for at, state in enumerate(hidden) if state is not None]:
            states = np.stack([hidden[at] for at in ready])  # type: ignore[misc]  # chosen by it
            self._rank(lists, ready, sources, excludes, lambda exclude: self.model.rank(states, k, exclude))
        if others := [at for at, state in enumerate(hidden) if state is None]:
            before = self._memories([queries[at].preference for at in others])
            lengths = np.array([len(rows[at]) for at in others], dtype=np.int64)
            working = padded([rows[at] for at in others])
            when, now = None, None
            if self.model.uses_time:
                when = padded([_unpacked([queries[at].times])[: len(rows[at])] for at in others])
                now = np.array([queries[at].query_time for at in others], np.int64)
            self._rank(
                lists,
                others,
                sources,
                excludes,
                lambda exclude: self.model.recommend(before, working, lengths, k, exclude, when, now),
            )
        self.cost.lists += len(queries)
        self.cost.list_seconds += self._clock() - began
        return [made for made in lists if made is not None]

    def _shared(
        self, chains: Sequence[Sequence[int]], queries: Sequence[Query], rows: Sequence[Ints]
    ) -> Iterator[tuple[int, Floats]]:
        """The queries that share a pass, by their indices, and their hidden states. `chains`: `prefix_chains`."""
        longest = self.model.longest_prefix(self._memories([queries[chain[0]].preference for chain in chains]))
        fitting = [
            [at for at in chain if len(rows[at]) <= most] for chain, most in zip(chains, longest.tolist(), strict=True)
        ]
        if not (shared := [chain for chain in fitting if len(chain) > 1]):
            return
        last = [rows[chain[-1]] for chain in shared]
        states = self.model.encode_prefixes(
            self._memories([queries[chain[0]].preference for chain in shared]),
            padded(last),
            np.array([len(each) for each in last], np.int64),
        )
        for chain, hidden in zip(shared, states, strict=True):
            for at in chain:
                yield at, hidden[len(rows[at]) - 1]

    def _rank(
        self,
        lists: list[RankedList | None],
        at: Sequence[int],
        sources: Sequence[Source],
        excludes: Sequence[Ints],
        ranked_without: Callable[[Ints], Ranked],
    ) -> None:
        """Make the lists of the queries with these indices, and put them into `lists` there. `sources` and `excludes`
        are of all queries.
        """
        exclude = padded([excludes[index] for index in at])
        ranked = ranked_without(exclude)
        allowed = np.isfinite(ranked.scores)
        if not allowed.any(axis=1).all():
            # A list is never empty: if everything would be left out, nothing is.
            again = ranked_without(np.zeros_like(exclude[:, :1]))
            emptied = ~allowed.any(axis=1)
            ranked.rows[emptied], ranked.scores[emptied], allowed[emptied] = (
                again.rows[emptied],
                again.scores[emptied],
                True,
            )
        ids, scores, counts = self._ids[ranked.rows - 1].tolist(), ranked.scores.tolist(), allowed.sum(axis=1).tolist()
        for index, items, points, count in zip(at, ids, scores, counts, strict=True):
            if count < len(items):
                items, points = items[:count], points[:count]
            lists[index] = RankedList(items, points, sources[index])

    def _cut(self, items: Sequence[bytes], unknown: int) -> list[Ints]:
        """The rows of each packed sequence, from one lookup; `unknown` is the row for unknown items."""
        rows = self.rows(b"".join(items))
        rows[rows == self.model.oov_row] = unknown
        ends = list(accumulate(len(each) >> 3 for each in items))
        return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _memories(self, preferences: Sequence[Preference | None]) -> Floats:
        """(B, S) float32; zeros for a user without preference memory."""
        empty = bytes(4 * self.model.state_floats)
        # A bytearray, because torch refuses an array that it cannot write to.
        joined = bytearray().join(empty if preference is None else preference.memory for preference in preferences)
        return np.frombuffer(joined, dtype=np.float32).reshape(len(preferences), self.model.state_floats)


def _unpacked(times: Sequence[bytes]) -> Ints:
    """Packed int64s, joined. A bytearray, because torch refuses an array that it cannot write to."""
    return np.frombuffer(bytearray().join(times), dtype=np.int64)
