"""One worker: a loop of steps, and one interaction's journey through a step.

    poll → decode → read → remember → fold → recommend → publish → write

`turn` polls, `_take` decodes, `step` does the rest. Everything before *publish* is computation on values: if it fails,
nothing has happened. *publish* is one Kafka transaction. *write* puts the same changes into RocksDB, after the
transaction: a crash between the two is healed from the changelog; the other order would keep what never happened.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final, Protocol

import msgspec

from model.errors import ModelFailed
from state.changelog import Change, take
from state.codec import INPUT, POSITION, SEGMENT_LENGTH, name_key, name_value, number_value, working_key, working_value
from state.errors import SegmentLengthChanged, StateCorrupted, StateError
from state.user import NEW_USER, Preference, Remembered, User, packed, remember
from stream.decode import Place, Polled, Run, columns, decode
from stream.errors import StepAborted, StopAsked, StoreBehind, TooManyRefused
from stream.failing_records import in_parts
from stream.fault_points import At, Point, passing
from stream.partitions import Partition, Partitions
from stream.policy import Lists, RefusedShare, StepSize, due, stride
from stream.recommender import Floats, Fold, Query, RankedList, Recommender
from stream.wire import DeadLetter, Recommendation, Record, refusal

logger = logging.getLogger(__name__)

MAX_ABORTS_IN_A_ROW: Final = 10
"""Each of them may be another's rebalance; what aborts more often than that will not stop by itself."""
_FIRST_REST_S: Final = 0.05
_LONGEST_REST_S: Final = 2.0
FLUSH_EVERY_S: Final = 60.0
"""How often stores are brought to disk: a crash leaves at most this much to restore."""


@dataclass(slots=True)
class Outgoing:
    """What a step publishes, in one transaction."""

    changes: dict[int, list[Change]] = field(default_factory=dict)
    """Partition → changelog records."""
    recommendations: list[tuple[bytes, Recommendation | None]] = field(default_factory=list)
    """User id and list; None withdraws the user's last list."""
    dead: Sequence[DeadLetter] = ()
    next_offsets: Mapping[int, int] = field(default_factory=dict)


class Link(Protocol):
    """Kafka as a step sees it: `stream.kafka.link.KafkaLink`, or a test's."""

    def poll(self, limit: int, wait_s: float) -> Sequence[Record]:
        """At most `limit` records of running partitions; none of them an error. Rebalances happen in here."""

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        """One transaction; partition → the changelog offset that its records reach.

        Raises:
            StepAborted: undone as a whole, or, where no answer came in time, perhaps through as a whole.
        """

    @property
    def input_id(self) -> str:
        """Kafka's id of the topic that is polled; empty where the broker does not tell."""

    @property
    def waited_at(self) -> float:
        """When it last was seen that Kafka does not answer, by the worker's clock."""


class Touch(msgspec.Struct, gc=False):
    """One run that needs the model, on its way through a step: the user before it, what it makes of them, and the lists
    that are due.
    """

    run: Run
    before: User
    remembered: Remembered
    preferences: tuple[Preference | None, ...]
    """Before the step, and after each fold of it."""
    due: Sequence[int]
    """Indices of the run's interactions after which a list is asked for."""
    hidden: tuple[Floats, ...] = ()
    """The hidden state of each fold."""
    failed: tuple[int, ModelFailed] | None = None
    """The index of the run's first interaction that the model fails on, as far as it was asked."""

    def fails(self, at: int, error: ModelFailed) -> None:
        """Note that the model fails on an interaction: what is due after it is not known."""
        if self.failed is None or at < self.failed[0]:
            self.failed = at, error
            self.due = [each for each in self.due if each < at]


@dataclass(slots=True)
class After:
    """What a step changes in a partition: the records that say so, how far its users are then, and the whole states
    that were made.
    """

    changes: list[Change] = field(default_factory=list)
    taken: dict[bytes, int] = field(default_factory=dict)
    users: dict[bytes, User] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What the worker did since it started."""

    steps: int = 0
    aborted: int = 0
    records: int = 0
    interactions: int = 0
    folds: int = 0
    lists: int = 0
    dead_letters: int = 0
    model_failures: int = 0
    forgotten: int = 0
    unknown_items: int = 0
    rebuilt: int = 0


class Worker:
    """Runs steps until it is told to stop."""

    def __init__(
        self,
        *,
        link: Link,
        partitions: Partitions,
        recommender: Recommender,
        topic: str,
        lists: Lists,
        top_k: int,
        exclude: str,
        keep_segments: int,
        step_size: StepSize,
        refused: RefusedShare,
        wait_s: float,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        give_back: Callable[[], object] = lambda: None,
        at: At = passing,
    ) -> None:
        """Args:
        give_back: give memory that is not used back to the system; called with each flush.
        """
        self.link = link
        self.partitions = partitions
        self.recommender = recommender
        self.topic = topic
        self.lists = lists
        self.top_k = top_k
        self.exclude = exclude
        self.keep_segments = keep_segments
        self.step_size = step_size
        self.refused = refused
        self.wait_s = wait_s
        self.clock = clock
        self._wall_ms = wall_ms
        self._give_back = give_back
        self._at = at
        self.counts = Counts()
        self.stopping = False
        self.turned_at = clock()
        self._aborts = 0
        self._flushed_at = clock()
        self._rests_until = clock()

    def stop(self) -> None:
        """Finish the step, then leave."""
        self.stopping = True

    def run(self) -> None:
        """Step until `stop`. Whatever is raised here has had no effect and ends the process."""
        while not self.stopping:
            self.turn()

    def turn(self) -> None:
        """One poll and the step it makes, and what surrounds it: restore, retry, flush."""
        self.turned_at = self.clock()
        hurry = False
        if self.turned_at >= self._rests_until:
            self.partitions.restore()
            hurry = self.partitions.reads()
        try:
            records = self.link.poll(self.step_size.limit, 0.0 if hurry else self.wait_s)
            if records:
                self._at(Point.POLLED)
                self._take(records)
                self._aborts = 0
            if self.clock() - self._flushed_at >= FLUSH_EVERY_S:
                self.partitions.flush()
                self._give_back()
                self._flushed_at = self.clock()
        except StepAborted as aborted:
            self._rest(aborted)
            self.partitions.catch_up()
        except StateCorrupted as damaged:
            # Found before anything was published: the step had no effect.
            self.partitions.catch_up()
            self.partitions.rebuild(damaged)

    def _rest(self, aborted: StepAborted) -> None:
        """Before another attempt. Raises the error when there were too many already."""
        self._aborts += 1
        self.counts.aborted += 1
        logger.warning("step aborted attempt=%d reason=%s", self._aborts, aborted)
        if self._aborts >= MAX_ABORTS_IN_A_ROW:
            raise StepAborted(
                f"{self._aborts} steps in a row were aborted, the last one because of: {aborted}"
            ) from aborted
        # The group may go on without us for a moment before the client hears of it.
        self._rests_until = self.clock() + min(_FIRST_REST_S * 2 ** (self._aborts - 1), _LONGEST_REST_S)

    def _take(self, records: Sequence[Record]) -> None:
        """One step. Records that the model fails on are dead-lettered with it, as if they had never come: it is
        computed again without them.
        """
        started = self.clock()
        refused: dict[Place, ModelFailed] = {}
        while failed := self.step(decode(records, self.topic, self.partitions.due(), refused), started):
            for (partition, offset), error in failed.items():
                logger.warning("model failed on a record partition=%d offset=%d: %s", partition, offset, error)
            refused |= failed
        self.counts.model_failures += len(refused)

    def step(self, polled: Polled, started: float) -> Mapping[Place, ModelFailed]:
        """One interaction's journey, for a whole poll at once. Where the model fails on records of it, they are
        returned, and nothing has happened.
        """
        self._check_refused(polled)
        before = self._read(polled)
        after, touches = self._remember(polled, before)
        self._fold(touches)
        lists = self._recommend(touches)
        if any(touch.failed for touch in touches):
            return self._failing(touches, before)
        outgoing = self._collect(polled, touches, lists, after)
        self._at(Point.COMPUTED)
        sent_ms, computed = self._wall_ms(), self.clock()
        reached = self.link.publish(outgoing)
        publishing_s = self.clock() - computed
        self._at(Point.COMMITTED)
        self.partitions.known_ms = sent_ms
        for number, next_offset in polled.next_offsets.items():
            self.partitions[number].due = next_offset
        self.refused.took(polled.records, len(polled.dead))
        self._write(polled, after, reached)
        self._at(Point.WRITTEN)
        self._count(polled, touches, outgoing)
        self.step_size.took(polled.records, self.clock() - started - publishing_s)
        return {}

    def _failing(
        self, touches: Sequence[Touch], before: Mapping[int, Mapping[bytes, int]]
    ) -> Mapping[Place, ModelFailed]:
        """Every record that the model fails on, and why, by runs of which some failed.

        They are found as if records came one by one, so that what comes out does not depend on how polls are cut: the
        first of a run, then the first of the run without it, and so on.
        """
        found: dict[Place, ModelFailed] = {}
        while failing := [touch for touch in touches if touch.failed is not None]:
            if self.stopping:
                raise StopAsked("asked to stop while looking for the records that the model fails on")
            if self.lists == "interaction":
                # The list that a shorter run would have had, after each interaction before the one that failed.
                for touch in failing:
                    touch.due = range(touch.failed[0])  # type: ignore[index]  # chosen by it
                self._recommend(failing)
            found.update(_failed(failing))
            shorter = [_without(touch.run, touch.failed[0]) for touch in failing]  # type: ignore[index]
            touches = self._touches([run for run in shorter if run.offsets], before)
            self._fold(touches)
            self._recommend(touches)
        return found

    def _check_refused(self, polled: Polled) -> None:
        """A broken producer is not a million dead letters."""
        if polled.dead and self.refused.exceeded_by(polled.records, len(polled.dead)):
            last = refusal(polled.dead[-1].headers)
            raise TooManyRefused(
                f"{self.refused.refused + len(polled.dead)} of the newest {self.refused.records + polled.records} records of {self.topic} cannot be "
                f"taken, more than REC2PM_MAX_REFUSED={self.refused.limit:g} allows; the last one: {last.message if last else 'unknown'}. The committed "
                "offsets stand where they were: repair what sends such records, or raise the limit to dead-letter them"
            )

    def _read(self, polled: Polled) -> dict[int, dict[bytes, int]]:
        """By partition, how many interactions of each user of the poll are remembered: from memory, else from the
        store.
        """
        before = {}
        for number, runs in polled.runs.items():
            partition = self.partitions[number]
            self._check_segment_length(partition)
            users = sorted(runs)
            before[number] = dict(zip(users, partition.taken(users), strict=True))
        return before

    def _check_segment_length(self, partition: Partition) -> None:
        """Counts and kept segments mean nothing under another segment length."""
        model, stored = self.recommender.model, partition.segment_length()
        if stored not in (None, model.segment_length):
            raise SegmentLengthChanged(
                f"the stored state was built by folding every {stored} interactions, but {model.reference} folds every {model.segment_length}: "
                "serve a model with the former segment_length, or choose a new REC2PM_APP for this one"
            )

    def _remember(
        self, polled: Polled, before: Mapping[int, Mapping[bytes, int]]
    ) -> tuple[dict[int, After], list[Touch]]:
        """Append each run to its user's working memory.

        A run that completes no segment and asks for no list is settled by one record, for which it is enough to know
        how far its user is; most are, with a list per fold. The others are returned: they need the whole user, and the
        model.
        """
        length = self.recommender.model.segment_length
        every = stride(self.lists, length)
        settled: dict[int, After] = {}
        loud = list(polled.superseded)
        for number, users in before.items():
            after = settled[number] = After()
            changed, known = after.changes.append, after.taken
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
        return settled, self._touches(loud, before)

    def _touches(self, runs: Sequence[Run], before: Mapping[int, Mapping[bytes, int]]) -> list[Touch]:
        """Each run with its user's whole state before it, and what it makes of them."""
        asked: dict[int, dict[bytes, int]] = {}
        for run in runs:
            if not run.fresh:
                asked.setdefault(run.partition, {})[run.user] = before[run.partition][run.user]
        users = {number: self.partitions[number].users(each) for number, each in asked.items()}
        length = self.recommender.model.segment_length
        # Items and times are packed once for all, then cut into runs.
        items, times = (
            packed([item for run in runs for item in run.items]),
            packed([time for run in runs for time in run.times]),
        )
        touches = []
        end = 0
        for run in runs:
            user = NEW_USER if run.fresh else users[run.partition][run.user]
            start, end = end, end + (len(run.items) << 3)
            remembered = remember(user, items[start:end], times[start:end], length)
            asked_after = due(self.lists, user.folds, user.working, len(run.items), length)
            touches.append(Touch(run, user, remembered, (user.preference,), asked_after))
        return touches

    def _fold(self, touches: Sequence[Touch]) -> None:
        """Fold every completed segment: the first of each user together, then the second of those who have one, and so
        on.
        """
        self._rebuild(
            [
                touch
                for touch in touches
                if touch.preferences[0] is not None and (touch.due or touch.remembered.segments)
            ]
        )
        turn = 0
        folding = [touch for touch in touches if touch.remembered.segments and touch.failed is None]
        while folding:
            folded, failed = in_parts(partial(self._folded, turn), folding)
            for touch, fold in folded:
                touch.preferences += (fold.preference,)
                touch.hidden += (fold.hidden,)
            for touch, error in failed:
                touch.fails(self._completes(touch, turn), error)
            turn += 1
            folding = [touch for touch, _ in folded if len(touch.remembered.segments) > turn]

    def _folded(self, turn: int, touches: Sequence[Touch]) -> list[Fold]:
        segments = [touch.remembered.segments[turn] for touch in touches]
        return self.recommender.fold(
            [touch.preferences[-1] for touch in touches],
            [segment.items for segment in segments],
            [segment.as_of for segment in segments],
            [segment.times for segment in segments],
        )

    def _completes(self, touch: Touch, turn: int) -> int:
        """The index of the run's interaction that completes its `turn`-th segment."""
        return (turn + 1) * self.recommender.model.segment_length - touch.before.working - 1

    def _rebuild(self, touches: Sequence[Touch]) -> None:
        """Give users whose preference memory an other model wrote one that this model can read."""
        model = self.recommender.model
        foreign = [
            (touch, old)
            for touch in touches
            if (old := touch.preferences[0]) and old.memory_format != model.memory_format
        ]
        if not foreign:
            return
        kept = self._kept([(touch, old.folds) for touch, old in foreign])
        rebuilt, failed = in_parts(
            lambda some: self.recommender.rebuild([old for _, old, _ in some], [segments for _, _, segments in some]),
            [(touch, old, segments) for (touch, old), segments in zip(foreign, kept, strict=True)],
        )
        for (touch, _, _), preference in rebuilt:
            touch.preferences = (preference,)
        for (touch, _, _), error in failed:
            # The first interaction that asks for the memory.
            completes = [self._completes(touch, 0)] if touch.remembered.segments else []
            touch.fails(0 if self.lists == "interaction" else min([*touch.due, *completes]), error)

    def _recommend(self, touches: Sequence[Touch]) -> list[tuple[Touch, int, RankedList]]:
        """The lists that are due: (touch, index of the interaction in its run, list)."""
        length, uses_time = self.recommender.model.segment_length, self.recommender.model.uses_time
        asked = [(touch, at, *divmod(touch.before.working + at + 1, length)) for touch in touches for at in touch.due]
        if not asked:
            return []
        kept: Sequence[Sequence[bytes]] = [()] * len(asked)
        if self.exclude == "kept":
            kept = self._kept([(touch, touch.before.folds + folded) for touch, _, folded, _ in asked])
        queries = []
        for (touch, at, folded, within), segments in zip(asked, kept, strict=True):
            # A list may know what came before its interaction, and nothing that came later in the poll.
            run, new = touch.run, slice(max(0, at + 1 - within), at + 1)
            before, before_ms = (b"", b"") if within <= at else (touch.before.items, touch.before.times)
            items = before + packed(run.items[new])
            exclude = b"" if self.exclude == "none" else b"".join([items, *segments])
            times = before_ms + packed(run.times[new]) if uses_time else b""
            hidden = None if within else touch.hidden[folded - 1]
            queries.append((touch, at, Query(touch.preferences[folded], items, exclude, hidden, times, run.times[at])))
        ranked, failed = in_parts(
            lambda some: self.recommender.recommend([query for _, _, query in some], self.top_k), queries
        )
        for (touch, at, _), error in failed:
            touch.fails(at, error)
        return [(touch, at, made) for (touch, at, _), made in ranked]

    def _kept(self, asked: Sequence[tuple[Touch, int]]) -> list[list[bytes]]:
        """The kept segments of a touch's user as they are after so many folds, oldest first: the store's, then this
        step's.
        """
        wanted: dict[int, list[tuple[bytes, int]]] = {}
        for touch, folds in asked:
            stored = range(max(0, folds - self.keep_segments), min(touch.before.folds, folds))
            wanted.setdefault(touch.run.partition, []).extend((touch.run.user, number) for number in stored)
        found = {
            number: dict(zip(segments, self.partitions[number].store.kept(segments), strict=True))
            for number, segments in wanted.items()
        }
        kept = []
        for touch, folds in asked:
            before, oldest = touch.before.folds, max(0, folds - self.keep_segments)
            mine = found[touch.run.partition]
            stored_segments = [mine[touch.run.user, number] for number in range(oldest, min(before, folds))]
            new = touch.remembered.segments[max(0, oldest - before) : max(0, folds - before)]
            kept.append([*(packed(items) for items in stored_segments if items), *(segment.items for segment in new)])
        return kept

    def _collect(
        self,
        polled: Polled,
        touches: Sequence[Touch],
        lists: Sequence[tuple[Touch, int, RankedList]],
        after: dict[int, After],
    ) -> Outgoing:
        """Settle the rest, and bring together everything that the step publishes."""
        for touch in touches[len(polled.superseded) :]:  # they come first, and leave nothing
            self._settle(touch, after[touch.run.partition])
        for number, names in polled.names.items():
            unnamed = self.partitions[number].unnamed(names)
            after[number].changes.extend((name_key(item), name_value(names[item])) for item in unnamed)
        for number, next_offset in polled.next_offsets.items():
            # With the state, so that the two cannot come apart: Kafka may forget what a group has committed, and after
            # a crash did.
            changes_of_it = after.setdefault(number, After()).changes
            changes_of_it.append((POSITION, number_value(next_offset)))
            if (input_id := self.link.input_id) and self.partitions[number].store.input_id() != input_id:
                changes_of_it.append((INPUT, name_value(input_id)))
        for number, partition_after in after.items():
            if partition_after.changes and self.partitions[number].segment_length() is None:
                partition_after.changes.append((SEGMENT_LENGTH, number_value(self.recommender.model.segment_length)))
        changes = {number: each.changes for number, each in after.items() if each.changes}
        outgoing = Outgoing(changes, dead=polled.dead, next_offsets=polled.next_offsets)
        self._address(outgoing, touches, lists)
        return outgoing

    def _settle(self, touch: Touch, after: After) -> None:
        """Note what a run that needed the model makes of its user."""
        run, known = touch.run, len(after.changes)
        # What is stored of a user who was forgotten right before is deleted, but for what is written anew.
        stored = self.partitions[run.partition].store.keys_of(run.user) if run.fresh else ()
        user = take(
            after.changes,
            run.user,
            touch.before,
            run.items,
            run.times,
            touch.remembered,
            touch.preferences[-1],
            self.keep_segments,
        )
        if stored:
            rewritten = {key for key, _ in after.changes[known:]}
            after.changes += [(key, None) for key in stored if key not in rewritten]
        after.taken[run.user] = user.taken
        if self.lists == "interaction":
            # With fewer lists a user is mostly asked for after quiet runs, which leave what is kept here behind.
            after.users[run.user] = user

    def _address(
        self, outgoing: Outgoing, touches: Sequence[Touch], lists: Sequence[tuple[Touch, int, RankedList]]
    ) -> None:
        """The lists as records, in each user's order; a forgotten user's last list is withdrawn before a newer one
        follows.
        """
        length = self.recommender.model.segment_length
        ready = iter(lists)  # in the order of their touches
        for touch in touches:
            run, before = touch.run, touch.before
            if run.fresh:
                outgoing.recommendations.append((run.user, None))
            for _, at, made in islice(ready, len(touch.due)):
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
                outgoing.recommendations.append((run.user, recommendation))

    def _write(self, polled: Polled, after: Mapping[int, After], reached: Mapping[int, int]) -> None:
        damaged: list[StateCorrupted] = []
        for number, each in after.items():
            if each.changes:
                try:
                    self.partitions[number].store.write(each.changes, reached.get(number))
                except StateCorrupted as error:
                    damaged.append(error)
                except StateError as error:
                    # Going on from what the caches and the other stores know would publish older states over newer
                    # ones.
                    raise StoreBehind(
                        f"a published step is not in the local store, a restart restores it: {error}"
                    ) from error
                self._at(Point.WRITTEN_PARTLY)
        for number, each in after.items():
            self.partitions[number].remember(each.taken, each.users)
        for number, names in polled.names.items():
            self.partitions[number].named(names)
        for store in damaged:
            self.partitions.rebuild(store)

    def _count(self, polled: Polled, touches: Sequence[Touch], outgoing: Outgoing) -> None:
        counts = self.counts
        counts.steps += 1
        counts.records += polled.records
        counts.forgotten += polled.forgotten
        counts.dead_letters += len(polled.dead)
        counts.interactions += polled.records - polled.forgotten - len(polled.dead)
        counts.rebuilt += sum(touch.preferences[0] is not touch.before.preference for touch in touches)
        counts.folds += sum(len(touch.hidden) for touch in touches)
        counts.lists += sum(made is not None for _, made in outgoing.recommendations)
        counts.unknown_items += self.recommender.unknown(packed(polled.items))


def _without(run: Run, at: int) -> Run:
    """A run as if one of its interactions had not come."""
    items, times, offsets = ([*column[:at], *column[at + 1 :]] for column in (run.items, run.times, run.offsets))
    return Run(run.partition, run.user, run.fresh, items, times, offsets)


def _failed(touches: Sequence[Touch]) -> dict[Place, ModelFailed]:
    """By their places, the first record of each run that the model fails on."""
    return {
        (touch.run.partition, touch.run.offsets[touch.failed[0]]): touch.failed[1]
        for touch in touches
        if touch.failed is not None
    }
