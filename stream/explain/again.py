"""The list of one interaction, computed again by the worker's own step, and what it was made from.

    interactions before it → Step.compute, version by version → the interaction itself → its list

A list does not depend on other users, nor on where polls ended. So the interactions of one user are enough.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from state.codec import Mark
from state.store import StoreMemory
from state.user import User, packed
from stream.errors import ListUnexplained
from stream.explain.history import History
from stream.partition import Partition
from stream.policy import stride
from stream.recommender import Query, Recommender
from stream.replay.computed import computed
from stream.step import Rules, Step
from stream.wire import Recommendation

DEPTH: Final = 1000
"""The ranks that one part of a history alone would give are looked for up to here."""
_STORE: Final = StoreMemory(16 << 20)


class Choice(msgspec.Struct, frozen=True):
    """One item of the list."""

    rank: int
    item: int | str
    score: float
    memory_rank: int | None
    """Its rank if the user had the memory and no newer items. None: beyond DEPTH, or the user has only one of both."""
    newest_rank: int | None
    """Its rank if the user had the newer items and no memory."""


class Interaction(msgspec.Struct, frozen=True):
    """An interaction of the user."""

    offset: int
    timestamp: int
    """Epoch ms."""
    item: str


class Fold(msgspec.Struct, frozen=True):
    """A segment that the memory stands for."""

    number: int
    """From 1 on."""
    version: str
    """The version that served when the segment was complete."""
    interactions: list[Interaction]


class LeftOut(msgspec.Struct, frozen=True):
    """An item that would be in the list, had the user not had it."""

    item: int | str
    rank: int
    """Where it would be."""


class Explanation(msgspec.Struct, frozen=True):
    """A list and what it was made from."""

    user: str
    partition: int
    interaction: Interaction
    """The list was made after it."""
    version: str
    promotion: str
    """Its id; empty if the settings named the version."""
    recommendation: Recommendation
    """As it was published."""
    choices: list[Choice]
    left_out: list[LeftOut]
    folds: list[Fold]
    newest: list[Interaction]
    """The working memory: what came after the last fold, oldest first."""
    missing_segments: int
    """Segments that the memory lacks, because it was rebuilt after a promotion and they were not kept."""
    failed: list[int]
    """Offsets of the user's interactions that the model failed on: they are remembered nowhere."""


def again(
    history: History, marks: Sequence[Mark], rules: Rules, load: Callable[[Mark], Recommender], scratch: Path
) -> Explanation:
    """Make the list after the last interaction of a history.

    Args:
        marks: of the partition, oldest first; the first one is at the first interaction or before it.
        rules: as the worker had them.
        load: the version of a mark.
        scratch: a folder for a store, which is not there yet.

    Raises:
        ListUnexplained: no list is made after it.
        What `load` raises.
    """
    partition = Partition(history.partition, cache_users=16)
    partition.open(scratch, _STORE)
    try:
        return _Again(history, rules, partition).run(marks, load)
    finally:
        partition.close()


@dataclass(slots=True)
class _Again:
    history: History
    rules: Rules
    partition: Partition

    def run(self, marks: Sequence[Mark], load: Callable[[Mark], Recommender]) -> Explanation:
        history, last = self.history, len(self.history.offsets) - 1
        failed: list[int] = []
        versions: list[str] = []  # of each interaction that is remembered
        # A list after every interaction: the model may have failed on one of them for its list alone.
        every = replace(self.rules, cadence=1 if self.rules.cadence == "interaction" else self.rules.cadence)
        for mark, start, end in _turns(history, marks):
            recommender = load(mark)
            if start < (before := min(end, last)):
                failing_here = self._take(self._step(recommender, every), start, before)
                failed += failing_here
                versions += [mark.version] * (before - start - len(failing_here))
        step = self._step(recommender, self.rules)
        outgoing, failing = computed(step, lambda without: history.polled(last, last + 1, without), history.times[last])
        if failing:
            why = failing[history.offsets[last]]
            raise ListUnexplained(f"{mark.version} fails on this interaction, so it is a dead letter: {why}")
        made = next((each for _, each in outgoing.recommendations if each is not None), None)
        remembered = [at for at, offset in enumerate(history.offsets) if offset not in set(failed)]
        if made is None:
            raise ListUnexplained(self._no_list(remembered, step))
        excluded = self._excluded(remembered, made, step)
        wider = self._step(recommender, replace(self.rules, exclude="none", top_k=self.rules.top_k + len(excluded)))
        unfiltered, _ = computed(wider, lambda without: history.polled(last, last + 1, without), history.times[last])
        everything = next(each for _, each in unfiltered.recommendations if each is not None)
        self.partition.store.write(outgoing.changes[history.partition], None)
        user = self.partition.store.read([history.user])[0]
        memory = user.memory_of(recommender.model.memory_format)
        return Explanation(
            user=history.user.decode(),
            partition=history.partition,
            interaction=self._interaction(last),
            version=mark.version,
            promotion=mark.promotion,
            recommendation=made,
            choices=self._choices(made, user, recommender, excluded),
            left_out=_left_out(made, everything),
            folds=[*self._folds(remembered, [*versions, mark.version], made, step)],
            newest=[self._interaction(at) for at in remembered[made.folds * step.recommender.model.segment_length :]],
            missing_segments=0 if memory is None else memory.missing,
            failed=failed,
        )

    def _step(self, recommender: Recommender, rules: Rules) -> Step:
        return Step({self.history.partition: self.partition}, recommender, rules)

    def _take(self, step: Step, start: int, end: int) -> list[int]:
        """Remember some interactions; returns the offsets of those that the model fails on."""
        history, number = self.history, self.history.partition
        outgoing, failing = computed(step, lambda without: history.polled(start, end, without), history.times[end - 1])
        self.partition.store.write(outgoing.changes[number], None)
        self.partition.learn(outgoing.learned[number])
        self.partition.next_offset = history.offsets[end - 1] + 1
        return sorted(failing)

    def _no_list(self, remembered: Sequence[int], step: Step) -> str:
        """Why there is no list, and where the one is that the user had."""
        taken, cadence = len(remembered), self.rules.cadence
        every = stride(cadence, step.recommender.model.segment_length)
        had = taken // every * every
        where = (
            f"the user had the list of offset {self.history.offsets[remembered[had - 1]]}"
            if had
            else "the user had none"
        )
        return (
            f"no list was made after interaction {taken} of this user: REC2PM_RECOMMEND={cadence} makes one after every "
            f"{every}th, and {where}"
        )

    def _excluded(self, remembered: Sequence[int], made: Recommendation, step: Step) -> list[int]:
        """Keys of the items that the list leaves out because the user had them."""
        length = step.recommender.model.segment_length
        within = made.taken - made.folds * length
        kept = min(made.folds, self.rules.keep_segments) * length
        count = {"none": 0, "working": within, "kept": within + kept}[self.rules.exclude]
        return [self.history.items[at] for at in remembered[len(remembered) - count :]]

    def _choices(
        self, made: Recommendation, user: User, recommender: Recommender, excluded: Sequence[int]
    ) -> list[Choice]:
        """The items of the list, and where they would be for one part of the history alone."""
        memory, alone = user.memory_of(recommender.model.memory_format), list[dict[int | str, int]]()
        if made.source == "memory" and user.working:
            exclude, uses_time = packed(excluded), recommender.model.uses_time
            queries = [
                Query(memory, b"", exclude, None, b"", made.as_of),
                Query(None, user.items, exclude, None, user.times if uses_time else b"", made.as_of),
            ]
            found = recommender.recommend(queries, min(DEPTH, len(recommender.model.item_ids)))
            alone = [{item: rank for rank, item in enumerate(each.items, start=1)} for each in found]
        by_memory, by_newest = alone or ({}, {})
        return [
            Choice(rank, item, score, by_memory.get(item), by_newest.get(item))
            for rank, (item, score) in enumerate(zip(made.items, made.scores, strict=True), start=1)
        ]

    def _folds(
        self, remembered: Sequence[int], versions: Sequence[str], made: Recommendation, step: Step
    ) -> Iterator[Fold]:
        length = step.recommender.model.segment_length
        for number in range(made.folds):
            segment = range(number * length, (number + 1) * length)
            yield Fold(number + 1, versions[segment[-1]], [self._interaction(remembered[at]) for at in segment])

    def _interaction(self, at: int) -> Interaction:
        history = self.history
        return Interaction(history.offsets[at], history.times[at], history.text(history.items[at]))


def _turns(history: History, marks: Sequence[Mark]) -> Iterator[tuple[Mark, int, int]]:
    """The versions that served the user, with the first and the last interaction (exclusive) of each."""
    starts = [bisect_left(history.offsets, mark.offset) for mark in marks]
    for mark, start, end in zip(marks, starts, [*starts[1:], len(history.offsets)], strict=True):
        if start < end:
            yield mark, start, end


def _left_out(made: Recommendation, everything: Recommendation) -> list[LeftOut]:
    """The items that are better than the last one of the list, and not in it."""
    listed = set(made.items)
    last = max((at for at, item in enumerate(everything.items) if item in listed), default=-1)
    return [LeftOut(item, at + 1) for at, item in enumerate(everything.items[: last + 1]) if item not in listed]
