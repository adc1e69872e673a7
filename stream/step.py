"""The step: one poll as a pure computation, from what is stored to what is published.

    read → remember → fold → recommend → collect

`Step.compute` follows this line. It reads stores and caches and writes to nothing, so an error leaves everything as it
was. `stream.worker` decodes before it, and publishes and writes after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from state.changelog import Change, Keep, take
from state.codec import (
    ONE_FORMAT,
    SEGMENT_LENGTH,
    name_key,
    name_value,
    number_value,
    one_format_value,
    working_key,
    working_value,
)
from state.errors import SegmentLengthChanged
from state.user import NEW_USER, Preference, Remembered, Segment, User, packed, remember, unpacked
from stream.decode import Polled, Run, columns
from stream.marks import marked
from stream.partition import Owned, Partition
from stream.policy import Cadence, list_after, stride
from stream.ports import Counts, Learned, Outgoing
from stream.rebuild import rebuilt
from stream.recommender import Floats, Fold, Model, Query, RankedList, Recommender
from stream.wire import Recommendation

Exclude = Literal["none", "working", "kept"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator decides about lists and memory; the names of the settings are in `stream.settings`."""

    cadence: Cadence
    top_k: int
    exclude: Exclude
    keep_segments: int
    keep_formats: int = 1


class Touch(msgspec.Struct, gc=False):
    """One run that needs the model, while the step works on it."""

    run: Run
    before: User
    remembered: Remembered
    preferences: tuple[Preference | None, ...]
    """The preference memory before the step, in the model's format if it is read, and after each fold of it."""
    list_after: Sequence[int]
    """Indices of the run's interactions after which a list is made."""
    rebuilt: bool = False
    """Whether the first of them was rebuilt."""
    hidden: tuple[Floats, ...] = ()
    """The hidden state of each fold."""
    lists: list[tuple[int, RankedList]] = msgspec.field(default_factory=list)
    """The finished lists, each with its index in the run, in the order of `list_after`."""


def check_segment_length(partition: Partition, model: Model) -> None:
    """Check that the model has the segment length of the stored state; with another, the state means nothing.

    Raises:
        SegmentLengthChanged: it has another.
    """
    stored = partition.segment_length()
    if stored not in (None, model.segment_length):
        raise SegmentLengthChanged(
            f"the stored state was built by folding every {stored} interactions, but {model.reference} folds every "
            f"{model.segment_length}: serve a model with the former segment_length, or choose a new REC2PM_APP for "
            "this one"
        )


Taken = Mapping[int, Mapping[bytes, int]]
"""Partition → user → interactions remembered before the step."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is needed to compute a poll."""

    partitions: Owned
    recommender: Recommender
    rules: Rules

    def compute(self, polled: Polled, input_id: str, now_ms: int) -> Outgoing:
        """Compute one poll.

        Args:
            polled: the decoded poll.
            input_id: Kafka's id of the input topic; empty if the broker has no topic ids.
            now_ms: the time of day, epoch ms.

        Raises:
            ModelFailed: on some records of the poll; `stream.failing_records` finds out which.
            SegmentLengthChanged: the stored state was built with another segment length.
            StateCorrupted, StateFormatUnknown: a store cannot be read.
        """
        before = self.read(polled)
        outgoing, loud = self.remember(polled, before)
        touches = self.serve(loud, before, self.rules.cadence)
        self._collect(outgoing, polled, touches, input_id)
        for number in polled.runs:
            if changes := marked(self.partitions[number], self.recommender, now_ms):
                outgoing.changes[number].extend(changes)
                outgoing.learned[number].served = True
        return outgoing

    def read(self, polled: Polled) -> Taken:
        """`taken` of each user of the poll: from memory, else from the store."""
        before = {}
        for number, runs in polled.runs.items():
            partition = self.partitions[number]
            check_segment_length(partition, self.recommender.model)
            users = sorted(runs)
            before[number] = dict(zip(users, partition.taken(users), strict=True))
        return before

    def remember(self, polled: Polled, before: Taken) -> tuple[Outgoing, list[Run]]:
        """Append each quiet run to its user's working memory; return the loud runs.

        A quiet run completes no segment and gets no list. One record stores it, and that needs only the `taken` of its
        user. With a list per fold most runs are quiet. A loud run needs the user's whole state and the model.
        """
        length = self.recommender.model.segment_length
        every = stride(self.rules.cadence, length)
        outgoing = Outgoing(dead=polled.dead, next_offsets=polled.next_offsets)
        loud = list(polled.superseded)
        for number, users in before.items():
            changes: list[Change] = []
            learned = Learned(names=polled.names.get(number, {}))
            outgoing.changes[number], outgoing.learned[number] = changes, learned
            changed, known = changes.append, learned.taken
            runs, fresh = polled.runs[number], polled.fresh.get(number, ())
            for user, taken in users.items():
                flat = runs[user]
                if len(flat) == 3:
                    now = taken + 1
                    items, times = flat[:1], flat[1:2]
                else:
                    items, times = flat[::3], flat[1::3]
                    now = taken + len(items)
                if now // length != taken // length or now // every != taken // every or user in fresh:
                    loud.append(columns(number, user, flat, fresh=user in fresh))
                else:
                    changed((working_key(user, now), working_value(items, times)))
                    known[user] = now
        return outgoing, loud

    def serve(self, runs: Sequence[Run], before: Taken, cadence: Cadence) -> list[Touch]:
        """Make the folds and lists of runs. The result of one run does not depend on the others.

        Raises:
            ModelFailed: on some of them.
        """
        touches = self._touches(runs, before, cadence)
        self._rebuild(touches)
        self._fold(touches)
        self._recommend(touches)
        return touches

    def _touches(self, runs: Sequence[Run], before: Taken, cadence: Cadence) -> list[Touch]:
        """Each run with its user's state before it, and that state's working memory after it."""
        asked: dict[int, dict[bytes, int]] = {}
        for run in runs:
            if not run.fresh:
                asked.setdefault(run.partition, {})[run.user] = before[run.partition][run.user]
        users = {number: self.partitions[number].users(each) for number, each in asked.items()}
        length = self.recommender.model.segment_length
        # Items and times of all runs are packed at once, then cut into runs.
        items = packed([item for run in runs for item in run.items])
        times = packed([time for run in runs for time in run.times])
        touches = []
        end = 0
        for run in runs:
            user = NEW_USER if run.fresh else users[run.partition][run.user]
            start, end = end, end + (len(run.items) << 3)
            remembered = remember(user, items[start:end], times[start:end], length)
            after = list_after(cadence, user.folds, user.working, len(run.items), length)
            if run.good:
                after = [at for at in after if at >= run.good]
            touches.append(Touch(run, user, remembered, (user.preference,), after))
        return touches

    def _rebuild(self, touches: Sequence[Touch]) -> None:
        """Give each touch that reads a memory one in the model's format: the stored one, or one that is rebuilt."""
        memory_format = self.recommender.model.memory_format
        foreign = []
        for touch in touches:
            if touch.before.preference is not None and (touch.list_after or touch.remembered.segments):
                touch.preferences = (touch.before.memory_of(memory_format),)
                if touch.preferences == (None,):
                    foreign.append(touch)
        users = [(touch.run.partition, touch.run.user, touch.before) for touch in foreign]
        memories = rebuilt(self.partitions, users, self.recommender, self.rules.keep_segments)
        for touch, memory in zip(foreign, memories, strict=True):
            touch.preferences, touch.rebuilt = (memory,), True

    def _fold(self, touches: Sequence[Touch]) -> None:
        """Fold every completed segment: the first of each user together, then the second of those who have one, …"""
        turn = 0
        while folding := [touch for touch in touches if len(touch.remembered.segments) > turn]:
            for touch, fold in zip(folding, self._folded(turn, folding), strict=True):
                touch.preferences += (fold.preference,)
                touch.hidden += (fold.hidden,)
            turn += 1

    def _folded(self, turn: int, touches: Sequence[Touch]) -> list[Fold]:
        segments = [touch.remembered.segments[turn] for touch in touches]
        return self.recommender.fold(
            [touch.preferences[-1] for touch in touches],
            [segment.items for segment in segments],
            [unpacked(segment.times)[-1] for segment in segments],
            [segment.times for segment in segments],
        )

    def _recommend(self, touches: Sequence[Touch]) -> None:
        """Make the lists."""
        length, uses_time = self.recommender.model.segment_length, self.recommender.model.uses_time
        asked = [
            (touch, at, *divmod(touch.before.working + at + 1, length)) for touch in touches for at in touch.list_after
        ]
        if not asked:
            return
        kept: Sequence[Sequence[Segment]] = [()] * len(asked)
        if self.rules.exclude == "kept":
            kept = self._kept([(touch, touch.before.folds + folded) for touch, _, folded, _ in asked])
        queries = []
        for (touch, at, folded, within), segments in zip(asked, kept, strict=True):
            # A list depends on its interaction and those before it, on none that comes later in the poll.
            run, new = touch.run, slice(max(0, at + 1 - within), at + 1)
            before, before_ms = (b"", b"") if within <= at else (touch.before.items, touch.before.times)
            items = before + packed(run.items[new])
            exclude = b"" if self.rules.exclude == "none" else b"".join([items, *(each.items for each in segments)])
            times = before_ms + packed(run.times[new]) if uses_time else b""
            hidden = None if within else touch.hidden[folded - 1]
            queries.append(Query(touch.preferences[folded], items, exclude, hidden, times, run.times[at]))
        made = self.recommender.recommend(queries, self.rules.top_k)
        for (touch, at, _, _), each in zip(asked, made, strict=True):
            touch.lists.append((at, each))

    def _kept(self, asked: Sequence[tuple[Touch, int]]) -> list[list[Segment]]:
        """The kept segments of each touch's user after some folds, oldest first: the stored ones, then this step's."""
        keep = self.rules.keep_segments
        wanted: dict[int, list[tuple[bytes, int]]] = {}
        for touch, folds in {(id(touch), folds): (touch, folds) for touch, folds in asked}.values():
            stored = range(max(0, folds - keep), min(touch.before.folds, folds))
            wanted.setdefault(touch.run.partition, []).extend((touch.run.user, number) for number in stored)
        found = {
            number: dict(zip(segments, self.partitions[number].store.kept(segments), strict=True))
            for number, segments in wanted.items()
        }
        kept: list[list[Segment]] = []
        last: tuple[Touch, int] | None = None
        for touch, folds in asked:
            if last is not None and last[0] is touch and last[1] == folds:
                kept.append(kept[-1])
                continue
            last = touch, folds
            before, oldest = touch.before.folds, max(0, folds - keep)
            mine = found[touch.run.partition]
            stored_segments = [mine[touch.run.user, number] for number in range(oldest, min(before, folds))]
            new = touch.remembered.segments[max(0, oldest - before) : max(0, folds - before)]
            kept.append([*(segment for segment in stored_segments if segment), *new])
        return kept

    def _collect(self, outgoing: Outgoing, polled: Polled, touches: Sequence[Touch], input_id: str) -> None:
        """Add the changes of the loud runs, the positions and the lists."""
        for touch in touches:
            if not touch.run.superseded:
                self._settle(touch, outgoing.changes[touch.run.partition], outgoing.learned[touch.run.partition])
        for number, names in polled.names.items():
            unnamed = self.partitions[number].unnamed(names)
            outgoing.changes[number].extend((name_key(item), name_value(names[item])) for item in unnamed)
        for number, next_offset in polled.next_offsets.items():
            partition, changes = self.partitions[number], outgoing.changes.setdefault(number, [])
            changes += partition.reaching(next_offset, input_id)
            if partition.segment_length() is None:
                changes.append((SEGMENT_LENGTH, number_value(self.recommender.model.segment_length)))
                changes.append((ONE_FORMAT, one_format_value(self.recommender.model.memory_format)))
                outgoing.learned.setdefault(number, Learned()).served = True
        for touch in touches:
            self._address(touch, outgoing.recommendations)
        outgoing.counts = self._counted(polled, touches)

    def _settle(self, touch: Touch, changes: list[Change], learned: Learned) -> None:
        """Add the changes of one loud run, and its user's new state."""
        run, known = touch.run, len(changes)
        # The user was forgotten right before: every stored key is deleted, except those that this step writes.
        stored = self.partitions[run.partition].store.keys_of(run.user) if run.fresh else ()
        user = take(
            changes,
            run.user,
            touch.before,
            run.items,
            run.times,
            touch.remembered,
            touch.preferences[-1],
            Keep(self.rules.keep_segments, self.rules.keep_formats, self.recommender.model.uses_time),
        )
        if stored:
            rewritten = {key for key, _ in changes[known:]}
            changes += [(key, None) for key in stored if key not in rewritten]
        learned.taken[run.user] = user.taken
        if stride(self.rules.cadence, self.recommender.model.segment_length) == 1:
            # With fewer lists most runs are quiet, and a quiet run would make a cached state stale.
            learned.users[run.user] = user

    def _address(self, touch: Touch, recommendations: list[tuple[bytes, Recommendation | None]]) -> None:
        """A touch's lists as records. The last list of a forgotten user is withdrawn before the next one."""
        run, before, length = touch.run, touch.before, self.recommender.model.segment_length
        if run.fresh:
            recommendations.append((run.user, None))
        for at, made in touch.lists:
            recommendation = Recommendation(
                items=made.items,
                scores=made.scores,
                as_of=run.times[at],
                partition=run.partition,
                offset=run.offsets[at],
                taken=before.taken + at + 1,
                folds=before.folds + (before.working + at + 1) // length,
                model=self.recommender.model.reference,
                source=made.source,
            )
            recommendations.append((run.user, recommendation))

    def _counted(self, polled: Polled, touches: Sequence[Touch]) -> Counts:
        return Counts(
            steps=1,
            records=polled.records,
            interactions=polled.records - polled.forgotten - polled.passed_over - len(polled.dead),
            folds=sum(len(touch.hidden) for touch in touches),
            lists=sum(len(touch.lists) for touch in touches),
            dead_letters=len(polled.dead),
            forgotten=polled.forgotten,
            passed_over=polled.passed_over,
            implausible_times=len(polled.implausible),
            unknown_items=self.recommender.unknown(packed(polled.items)),
            rebuilt=sum(touch.rebuilt for touch in touches),
            rebuilt_from_part=sum(
                touch.rebuilt and (memory := touch.preferences[0]) is not None and memory.missing > 0
                for touch in touches
            ),
        )
