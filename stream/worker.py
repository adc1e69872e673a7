"""One worker: a loop of steps, and one interaction's journey through a step.

    poll → decode → read → remember → fold → recommend → publish → write

Everything before *publish* is computation on values: if it fails, nothing has happened. *publish* is one Kafka transaction. *write* puts
the same changes into RocksDB, after the transaction: a crash between the two is healed from the changelog; the other order would keep
what never happened.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Protocol

import msgspec

from state.changelog import Change, take
from state.codec import name_key, name_value
from state.errors import SegmentLengthChanged
from state.user import NEW_USER, Preference, Remembered, User, packed, remember
from stream.errors import StepAborted
from stream.partitions import Partition, Partitions
from stream.policy import Lists, StepSize, due
from stream.recommender import Fold, Query, RankedList, Recommender
from stream.taken import Run, Taken, decode
from stream.wire import DeadLetter, Record, Recommendation

logger = logging.getLogger(__name__)

MAX_ABORTS_IN_A_ROW: Final = 3
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
    """Kafka as a step sees it: `stream.kafka.KafkaLink`, or a test's."""

    def poll(self, limit: int, wait_s: float) -> Sequence[Record]:
        """At most `limit` records of running partitions; none of them an error. Rebalances happen in here."""

    def publish(self, outgoing: Outgoing) -> Mapping[int, int]:
        """One transaction; partition → the changelog offset that its records reach. Raises StepAborted when it had no effect."""

    def rewind(self, partitions: Iterable[int]) -> None:
        """Go back to the committed offsets."""


class Touch(msgspec.Struct, gc=False):
    """One run on its way through a step: the user before it, what it makes of them, and the lists that are due."""

    run: Run
    before: User
    remembered: Remembered
    preferences: list[Preference | None]
    """Before the step, and after each fold of it."""
    hidden: list[Fold]
    due: Sequence[int]
    """Indices of the run's interactions after which a list is asked for."""


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
    forgotten: int = 0
    unknown_items: int = 0
    rebuilt: int = 0
    restored: int = 0


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
        wait_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.link = link
        self.partitions = partitions
        self.recommender = recommender
        self.topic = topic
        self.lists = lists
        self.top_k = top_k
        self.exclude = exclude
        self.keep_segments = keep_segments
        self.step_size = step_size
        self.wait_s = wait_s
        self.clock = clock
        self.counts = Counts()
        self.stopping = False
        self._aborts = 0
        self._flushed_at = clock()

    def stop(self) -> None:
        """Finish the step, then leave."""
        self.stopping = True

    def run(self) -> None:
        """Step until `stop`. Whatever is raised here has had no effect and ends the process."""
        while not self.stopping:
            self.turn()

    def turn(self) -> None:
        """One step, and what surrounds it: restore, retry, flush."""
        restoring = self.partitions.restore()
        try:
            self.step(0.0 if restoring else self.wait_s)
            self._aborts = 0
        except StepAborted as aborted:
            self._aborts += 1
            self.counts.aborted += 1
            logger.warning("step aborted attempt=%d reason=%s", self._aborts, aborted)
            if self._aborts >= MAX_ABORTS_IN_A_ROW:
                raise
            self.link.rewind(self.partitions.running())
        if self.clock() - self._flushed_at >= FLUSH_EVERY_S:
            self.partitions.flush()
            self._flushed_at = self.clock()

    def step(self, wait_s: float) -> None:
        """One interaction's journey, for a whole poll at once."""
        records = self.link.poll(self.step_size.limit, wait_s)
        if not records:
            return
        started = self.clock()
        taken = decode(records, self.topic)
        touched = self._read(taken)
        touches = [self._remember(run, before) for run, before in touched]
        self._fold(touches)
        lists = self._recommend(touches)
        outgoing, after = self._collect(taken, touches, lists)
        reached = self.link.publish(outgoing)
        self._write(taken, outgoing, after, reached)
        self._count(taken, touches, outgoing)
        self.step_size.took(len(records), self.clock() - started)

    def _read(self, taken: Taken) -> list[tuple[Run, User]]:
        """Each run with its user's state before it: from the cache, else from the store."""
        touched: list[tuple[Run, User]] = []
        superseded = {id(run) for run in taken.superseded}
        for number, runs in taken.runs.items():
            partition = self.partitions[number]
            mine = [run for run in taken.superseded if run.partition == number] if superseded else []
            cached = partition.cache.get
            missing = sorted({run.user for run in chain(mine, runs.values()) if not run.fresh and cached(run.user) is None})
            read = dict(zip(missing, partition.store.read(missing), strict=True)) if missing else {}
            for run in chain(mine, runs.values()):
                if run.fresh:
                    touched.append((run, NEW_USER))
                else:
                    touched.append((run, cached(run.user) or read[run.user]))
        return touched

    def _remember(self, run: Run, before: User) -> Touch:
        remembered = remember(before, run.items, run.times, self.recommender.model.segment_length)
        asked = due(self.lists, before.folds, before.working, len(run.items), self.recommender.model.segment_length)
        return Touch(run, before, remembered, [before.preference], [], asked)

    def _fold(self, touches: Sequence[Touch]) -> None:
        """Fold every completed segment: the first of each user together, then the second of those who have one, and so on."""
        self._rebuild([touch for touch in touches if touch.preferences[0] is not None and (touch.due or touch.remembered.segments)])
        turn = 0
        folding = [touch for touch in touches if touch.remembered.segments]
        while folding:
            segments = [touch.remembered.segments[turn] for touch in folding]
            folds = self.recommender.fold(
                [touch.preferences[-1] for touch in folding],
                [segment.items for segment in segments],
                [segment.as_of for segment in segments],
            )
            for touch, fold in zip(folding, folds, strict=True):
                touch.preferences.append(fold.preference)
                touch.hidden.append(fold)
            turn += 1
            folding = [touch for touch in folding if len(touch.remembered.segments) > turn]

    def _rebuild(self, touches: Sequence[Touch]) -> None:
        """Give users whose preference memory an other model wrote one that this model can read."""
        model = self.recommender.model
        foreign = [(touch, old) for touch in touches if (old := touch.preferences[0]) and old.memory_format != model.memory_format]
        if not foreign:
            return
        for _, old in foreign:
            if old.segment_length != model.segment_length:
                raise SegmentLengthChanged(
                    f"stored preference memories were folded every {old.segment_length} interactions; {model.reference} folds every "
                    f"{model.segment_length}. Serve a model with segment_length {old.segment_length}, or start a new REC2PM_APP for this one"
                )
        kept = [self._kept(touch, touch.before.folds) for touch, _ in foreign]
        rebuilt = self.recommender.rebuild([old for _, old in foreign], kept)
        for (touch, _), preference in zip(foreign, rebuilt, strict=True):
            touch.preferences[0] = preference
        self.counts.rebuilt += len(foreign)

    def _recommend(self, touches: Sequence[Touch]) -> list[tuple[Touch, int, RankedList]]:
        """The lists that are due: (touch, index of the interaction in its run, list)."""
        asked = [(touch, at) for touch in touches for at in touch.due]
        if not asked:
            return []
        ranked = self.recommender.recommend([self._query(touch, at) for touch, at in asked], self.top_k)
        return [(touch, at, made) for (touch, at), made in zip(asked, ranked, strict=True)]

    def _query(self, touch: Touch, at: int) -> Query:
        """What a list after the run's `at`-th interaction may know: nothing that came later in the poll."""
        folded, within = divmod(touch.before.working + at + 1, self.recommender.model.segment_length)
        items = packed(touch.run.items[at + 1 - within : at + 1]) if within <= at else touch.before.items + packed(touch.run.items[: at + 1])
        exclude = b""
        if self.exclude != "none":
            exclude = items
        if self.exclude == "kept":
            exclude += b"".join(self._kept(touch, touch.before.folds + folded))
        return Query(touch.preferences[folded], items, exclude, touch.hidden[folded - 1].hidden if not within else None)

    def _kept(self, touch: Touch, folds: int) -> list[bytes]:
        """The kept segments of a user after `folds` folds, oldest first: of this step, or of the store."""
        before = touch.before.folds
        stored = range(max(0, folds - self.keep_segments), min(before, folds))
        kept: list[bytes] = []
        if stored:
            store = self.partitions[touch.run.partition].store
            kept = [packed(items) for items in store.kept([(touch.run.user, number) for number in stored]) if items]
        new = touch.remembered.segments[max(0, folds - self.keep_segments - before) : max(0, folds - before)]
        return kept + [segment.items for segment in new]

    def _collect(
        self, taken: Taken, touches: Sequence[Touch], lists: Sequence[tuple[Touch, int, RankedList]]
    ) -> tuple[Outgoing, list[tuple[Partition, bytes, User]]]:
        """Everything that the step publishes, and the users as they are after it."""
        outgoing = Outgoing(dead=taken.dead, next_offsets=taken.next_offsets)
        superseded = {id(run) for run in taken.superseded}
        after: list[tuple[Partition, bytes, User]] = []
        changes: list[Change] = []
        partition: Partition | None = None
        for touch in touches:
            run = touch.run
            if partition is None or partition.number != run.partition:
                partition = self.partitions[run.partition]
                changes = outgoing.changes.setdefault(run.partition, [])
            if id(run) in superseded:
                continue
            new: list[Change] = []
            user = NEW_USER
            if run.items:
                user, new = take(
                    run.user, touch.before, run.items, run.times, touch.remembered, touch.preferences[-1], self.keep_segments
                )
            if run.fresh:
                rewritten = {key for key, _ in new}
                changes += [(key, None) for key in partition.store.keys_of(run.user) if key not in rewritten]
            changes += new
            after.append((partition, run.user, user))
        for number, names in taken.names.items():
            unnamed = self.partitions[number].unnamed(names)
            outgoing.changes[number] += [(name_key(item), name_value(names[item])) for item in unnamed]
        self._address(outgoing, touches, lists)
        return outgoing, after

    def _address(self, outgoing: Outgoing, touches: Sequence[Touch], lists: Sequence[tuple[Touch, int, RankedList]]) -> None:
        """The lists as records, in each user's order; a forgotten user's last list is withdrawn before a newer one follows."""
        withdrawn: set[int] = set()
        forgotten = {id(touch.run): touch.run for touch in touches if touch.run.fresh}
        for touch, at, made in lists:
            run, before = touch.run, touch.before
            if run.fresh and id(run) not in withdrawn:
                withdrawn.add(id(run))
                outgoing.recommendations.append((run.user, None))
            position = before.working + at + 1
            length = self.recommender.model.segment_length
            outgoing.recommendations.append(
                (
                    run.user,
                    Recommendation(
                        items=made.items,
                        scores=made.scores,
                        as_of=run.times[at],
                        partition=run.partition,
                        offset=run.offsets[at],
                        taken=before.folds * length + position,
                        folds=before.folds + position // length,
                        model=self.recommender.model.reference,
                        source=made.source,
                    ),
                )
            )
        outgoing.recommendations += [(run.user, None) for key, run in forgotten.items() if key not in withdrawn]

    def _write(
        self, taken: Taken, outgoing: Outgoing, after: Sequence[tuple[Partition, bytes, User]], reached: Mapping[int, int]
    ) -> None:
        for number, changes in outgoing.changes.items():
            self.partitions[number].store.write(changes, reached.get(number))
        for partition, user_id, user in after:
            partition.remember(user_id, user)
        for number, names in taken.names.items():
            self.partitions[number].named(names)

    def _count(self, taken: Taken, touches: Sequence[Touch], outgoing: Outgoing) -> None:
        counts = self.counts
        counts.steps += 1
        counts.records += taken.records
        counts.forgotten += taken.forgotten
        counts.dead_letters += len(taken.dead)
        counts.interactions += taken.records - taken.forgotten - len(taken.dead)
        counts.folds += sum(len(touch.hidden) for touch in touches)
        counts.lists += sum(made is not None for _, made in outgoing.recommendations)
        counts.unknown_items += self.recommender.unknown(packed([item for touch in touches for item in touch.run.items]))
