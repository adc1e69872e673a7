"""One worker: a loop of steps.

    poll → decode → compute → publish → write

`stream.decode` decodes and `stream.step` computes. Both only compute values, so an error there has no effect. *publish*
is one Kafka transaction. *write* puts the same changes into RocksDB, after the transaction. After a crash between the
two, the restore reads the changes from the changelog. The other order could keep changes that were never published.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from model.errors import ModelError, ModelFailed
from state.errors import StateCorrupted, StateError
from stream.decode import Place, Polled, decode
from stream.doubts import Doubts
from stream.errors import (
    ABORT_REASONS,
    AbortReason,
    Action,
    StepAborted,
    StoreBehind,
    StreamError,
    TooManyRefused,
    action_on,
)
from stream.event import EventReader
from stream.failing_records import failing_records
from stream.fault_points import At, Point, passing
from stream.keys import KeyFormat
from stream.lag import Lag
from stream.partitions import Partitions
from stream.policy import RefusedShare, StepSize
from stream.ports import Counts, Link, Outgoing
from stream.progress import ProgressLine
from stream.refold import Refold
from stream.serving import Serving
from stream.step import Step
from stream.step_times import Laps, StepTimes
from stream.wire import Record, refusal

logger = logging.getLogger(__name__)

MAX_ABORTS_IN_A_ROW: Final = 10
"""Each abort may come from a rebalance. If more steps in a row are aborted, waiting does not help."""
_FIRST_REST_S: Final = 0.05
_LONGEST_REST_S: Final = 2.0
LOOK_EVERY_S: Final = 2.0
"""How often the worker looks for the end of partitions that bring no records. Positions then pass the markers of
transactions, so the lag of an idle topic becomes 0, and retention may delete the markers.
"""
NOTE_EVERY_S: Final = 1.0
"""How often the worker notes what the client knows of the ends. The client itself learns of them every few seconds."""
SETTLES_WITHIN_S: Final = 3.0
"""How long a worker that stops waits for such a look."""
FLUSH_EVERY_S: Final = 60.0
"""How often stores are flushed to disk, so that a crash leaves at most this much to restore, and progress is logged."""


class Worker:
    """Runs steps until `stop` is called."""

    def __init__(
        self,
        *,
        link: Link,
        partitions: Partitions,
        step: Step,
        serving: Serving,
        topic: str,
        keys: KeyFormat,
        doubts: Doubts,
        events: EventReader,
        step_size: StepSize,
        refused: RefusedShare,
        wait_s: float,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        refold: Refold,
        give_back: Callable[[], object] = lambda: None,
        at: At = passing,
    ) -> None:
        """Args:
        step: with the recommender that `serving` has.
        topic: the interactions topic, named in dead letters.
        wait_s: how long a poll waits for records.
        give_back: gives free memory back to the system; called with each flush.
        """
        self.link = link
        self.partitions = partitions
        self.step = step
        self.serving = serving
        self.topic = topic
        self.keys = keys
        self.doubts = doubts
        self.events = events
        self.step_size = step_size
        self.refused = refused
        self.refold = refold
        self.wait_s = wait_s
        self.clock = clock
        self._wall_ms = wall_ms
        self._give_back = give_back
        self._at = at
        self.counts = Counts()
        self.aborts: dict[AbortReason, int] = dict.fromkeys(ABORT_REASONS, 0)
        """Aborted steps, by their reasons."""
        self.step_times = StepTimes()
        self.stepped_ms = wall_ms()
        """When the newest step was published, epoch ms; before the first one, when the worker was made."""
        self.lag = Lag()
        self.held_back: Mapping[int, int] = {}
        """Partition → records of the input that wait behind somebody's open transaction (`stream.kafka.watch`)."""
        self.stopping = False
        self.turned_at = clock()
        self._aborts = 0
        self._refolding = False
        """Whether the background was the last to publish, or to try."""
        self._progress = ProgressLine(clock)
        self._flushed_at = clock()
        self._rests_until = clock()
        self._looked_at = clock()
        self._noted_at = -math.inf
        self._positions: dict[int, int] = {}
        """What `Partitions.positions` said when the worker looked last."""
        self._idle = False
        """The last poll brought nothing."""

    def stop(self) -> None:
        """Let `run` return after the present step."""
        self.stopping = True

    def run(self) -> None:
        """Step until `stop`. Whatever is raised here has had no effect and ends the process."""
        while not self.stopping:
            self.turn()
        self._settle()

    def _settle(self) -> None:
        """Pass what is no record behind the last one: it may be long until somebody runs again."""
        if not self._idle:
            self.turn()
        if not self._idle:
            return  # a backlog: its last record is not the partition's last
        self.link.look_for_ends(self.partitions.positions())
        until = self.clock() + SETTLES_WITHIN_S
        while self.link.looking and self.clock() < until:
            self.turn()

    def turn(self) -> None:
        """One poll and its step, with the restores, recovery and flush around it."""
        self.turned_at = self.clock()
        self._swap()
        hurry = False
        if self.turned_at >= self._rests_until:
            self.partitions.restore()
            hurry = self.partitions.reads()
        try:
            records = self.link.poll(self.step_size.limit, 0.0 if hurry else self.wait_s)
            self._idle = not records
            if records:
                self._at(Point.POLLED)
            passed = self._passed()
            if records or passed:
                self._refolding = False
                self._process(records, passed)
                self._aborts = 0
            self._refold()
            self._note_lag()
            if self.clock() - self._flushed_at >= FLUSH_EVERY_S:
                self.partitions.flush()
                self._give_back()
                logger.info("progress %s", self._progress.next(self.counts, self.partitions.all(), self.link.ends))
                self._flushed_at = self.clock()
        except (StreamError, StateError, ModelError) as error:
            match action_on(error), error:
                case Action.ABANDON, _:
                    self._rest(error)
                    self.partitions.catch_up()
                case Action.RESTORE, StateCorrupted():
                    # The error came before anything was published: the step had no effect.
                    self.partitions.catch_up()
                    self.partitions.wipe(error)
                case _:
                    raise

    def _note_lag(self) -> None:
        """Note where partitions end, if the client may know more than it did."""
        if (now := self.clock()) - self._noted_at >= NOTE_EVERY_S:
            self._noted_at = now
            self.lag.note(now, self.partitions.reached(), self.link.ends)

    def _swap(self) -> None:
        """Serve the version that is offered, if there is one, from the next step on."""
        offered = self.serving.take()
        if offered is None:
            return
        logger.info("model swapped model=%s former=%s", offered.reference, self.step.recommender.model.reference)
        offered.recommender.cost = self.step.recommender.cost
        self.step = replace(self.step, recommender=offered.recommender)
        self._at(Point.MODEL_SWAPPED)

    def _former_step(self, error: ModelFailed, polled: Polled, now_ms: int) -> Outgoing | None:
        """What the former version makes of a poll that a version on probation fails on. That version then serves no
        longer. None if there is no former version, or if it fails too: then the records are to blame.
        """
        former = self.serving.former
        if former is None:
            return None
        before = replace(self.step, recommender=former)
        try:
            outgoing = before.compute(polled, self.link.input_id, now_ms)
        except ModelFailed:
            return None
        logger.error(
            "model failed in its first step model=%s, the former one serves on model=%s: %s",
            self.step.recommender.model.reference,
            former.model.reference,
            error,
        )
        self.step = before
        self.serving.back(str(error))
        return outgoing

    def _passed(self) -> Mapping[int, int]:
        """Partition → the offset to read next, for those that stand before offsets without a record.

        Only partitions that have not moved since the last look are looked at: others have records to read.
        """
        if self.clock() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at, before, self._positions = self.clock(), self._positions, self.partitions.positions()
            self.link.look_for_ends(dict(self._positions.items() & before.items()))
        found = self.link.found_empty()
        return {} if found is None else self.partitions.passing(found)

    def _rest(self, aborted: Exception) -> None:
        """Count an aborted step and rest before the next attempt. Raises StepAborted after too many in a row."""
        self._aborts += 1
        self.counts.aborted += 1
        self.aborts[aborted.reason if isinstance(aborted, StepAborted) else "kafka"] += 1
        logger.warning("step aborted attempt=%d reason=%s", self._aborts, aborted)
        if self._aborts >= MAX_ABORTS_IN_A_ROW:
            raise StepAborted(
                f"{self._aborts} steps in a row were aborted, the last one because of: {aborted}"
            ) from aborted
        # The group may have removed this worker, and the client learns of that a moment later.
        self._rests_until = self.clock() + min(_FIRST_REST_S * 2 ** (self._aborts - 1), _LONGEST_REST_S)

    def _process(self, records: Sequence[Record], passed: Mapping[int, int]) -> None:
        """One step. Without records, it stores the positions that are `passed`."""
        laps = Laps(self.clock)
        outgoing = self._computed(records, passed, laps)
        self._at(Point.COMPUTED)
        self._publish(outgoing, Point.COMMITTED, laps)
        self._at(Point.WRITTEN)
        if outgoing.counts.lists or outgoing.counts.folds:
            self.serving.proved()
        self.refused.note(outgoing.counts.records, outgoing.counts.dead_letters)
        if records:
            self.step_size.learn(outgoing.counts.records, self.step_times.note(laps) - laps.seconds["publish"])
            self.stepped_ms = self._wall_ms()

    def _publish(self, outgoing: Outgoing, published: Point, laps: Laps) -> None:
        """Publish, then write."""
        sent_ms = self._wall_ms()
        reached = self.link.publish(outgoing)
        laps.end("publish")
        self._at(published)
        self.partitions.published(outgoing.next_offsets, sent_ms)
        self._write(outgoing, reached)
        self.counts.add(outgoing.counts)
        laps.end("write")

    def _refold(self) -> None:
        """Rebuild some memories in the background, unless the last step was aborted, or the version must yet prove
        itself.
        """
        if (self._aborts and not self._refolding) or self.serving.former is not None:
            return
        outgoing = self.refold.next(self.partitions, self.step, self.link.input_id)
        if outgoing is not None:
            self._refolding = True
            self._publish(outgoing, Point.REFOLDED, Laps(self.clock))
            self.refold.published()
            self._refolding, self._aborts = False, 0

    def _computed(self, records: Sequence[Record], passed: Mapping[int, int], laps: Laps) -> Outgoing:
        """What a poll publishes. Records that the model fails on become dead letters and change nothing else."""
        failing: dict[Place, ModelFailed] = {}
        now_ms = self._wall_ms()
        while True:
            polled = self._decoded(records, failing)
            laps.end("decode")
            for number, offset in passed.items():
                polled.next_offsets[number] = max(offset, polled.next_offsets.get(number, 0))
            try:
                made: Outgoing | None = self.step.compute(polled, self.link.input_id, now_ms)
            except ModelFailed as error:
                reason, made = str(error), self._former_step(error, polled, now_ms)
            if made is not None:
                made.counts.model_failures = len(failing)
                self.doubts.note(polled, made.counts, self.link.width, self.step.recommender)
                laps.end("compute")
                return made
            found = failing_records(self.step, polled, lambda: self.stopping)
            if not found:
                self.step_size.halve()
                raise StepAborted(
                    f"the model failed on {len(records)} records together, and on none of them alone: {reason}",
                    reason="model",
                )
            for (partition, offset), failed in found.items():
                logger.warning("model failed on a record partition=%d offset=%d: %s", partition, offset, failed)
            failing |= found
            laps.end("compute")

    def _decoded(self, records: Sequence[Record], failing: Mapping[Place, ModelFailed]) -> Polled:
        polled = decode(records, self.topic, self.partitions.next_offsets(), failing, self.events, self.keys)
        self._check_refused(polled)
        return polled

    def _check_refused(self, polled: Polled) -> None:
        """Stop when a large share is refused: then a producer is broken, and its records should not all be
        dead-lettered.
        """
        if polled.dead and self.refused.exceeded_by(polled.records, len(polled.dead)):
            last = refusal(polled.dead[-1].headers)
            raise TooManyRefused(
                f"{self.refused.refused + len(polled.dead)} of the newest {self.refused.records + polled.records} "
                f"records of {self.topic} were refused, more than REC2PM_MAX_REFUSED={self.refused.limit:g} allows; "
                f"the last one: {last.message if last else 'unknown'}. The committed offsets have not moved: repair "
                "what sends such records, or raise the limit to dead-letter them"
            )

    def _write(self, outgoing: Outgoing, reached: Mapping[int, int]) -> None:
        """Write a published step into the stores and caches."""
        damaged: list[StateCorrupted] = []
        for number, changes in outgoing.changes.items():
            try:
                self.partitions[number].store.write(changes, reached.get(number))
            except StateCorrupted as error:
                damaged.append(error)
            except StateError as error:
                # A worker that continued from this older store would publish older states over newer ones.
                raise StoreBehind(
                    f"a published step is not in the local store, a restart restores it: {error}"
                ) from error
            self._at(Point.WRITTEN_PARTLY)
        for number, learned in outgoing.learned.items():
            self.partitions[number].learn(learned)
        for store in damaged:
            self.partitions.wipe(store)
