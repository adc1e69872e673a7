"""The trainer: it keeps the training log up to date, and now and then lets a process of its own learn from it."""

import logging
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Final

from stream.errors import SettingsInvalid, TrainingFailed
from stream.rows import Reader
from stream.trainer.collect import Collector
from stream.trainer.job import Job, Jobs
from stream.trainer.log import TrainingLog
from stream.trainer.points import At, passing

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.5
_TELL_EVERY_S: Final = 60.0
_STOPS_WITHIN_S: Final = 20.0
"""How long a training may take to write its checkpoint. After that it is killed, and loses what is newer."""
_AGAIN_AFTER_S: Final = (1.0, 10.0)
"""After the first failure of a training, and after the second. After the third the trainer ends."""
_WRONG_USAGE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When a training begins, and how it goes.

    A training begins `every_s` after the one before began, or with `after` new rows, whichever comes first; never
    without a new row, and never with fewer than `least` rows in the log. The other fields are those of `Job`.
    """

    every_s: float
    after: int | None
    least: int
    name: str | None
    recipe: str | None
    settings: tuple[str, ...]
    keep_format: bool
    promote: bool
    threads: int


class Trainer:
    """One trainer process, from the joining of the group to the leaving."""

    def __init__(
        self,
        *,
        collector: Collector,
        reader: Reader,
        log: TrainingLog,
        plan: Plan,
        command: Sequence[str],
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        at: At = passing,
    ) -> None:
        """Args:
        command: what starts the process that trains; its standard input ends with this process.
        clock: monotonic seconds.
        wall_ms: epoch ms.
        """
        self._collector, self._reader, self._log, self._plan = collector, reader, log, plan
        self._command, self._clock, self._wall_ms = command, clock, wall_ms
        self._jobs: Final = Jobs(log, at)
        self._child: subprocess.Popen[bytes] | None = None
        self._failures, self._again_at = 0, float("-inf")
        self._told_at, self._told = clock(), 0
        self._since: tuple[int, int] | None = None
        """Rows in the log since the last training, and the number of writes when they were counted."""
        self._said_caught_up = False
        self.stopping = threading.Event()

    def run(self) -> None:
        """Collect and train until `stopping` is set.

        Raises:
            TrainerElsewhere, TrainingLogUnfit, KafkaUnusable: from the collector.
            SettingsInvalid: a training cannot begin like this.
            TrainingFailed: a training failed several times.
        """
        try:
            self._collector.start()
            while not self.stopping.is_set():
                self._collector.poll(_POLL_S)
                self._tell()
                if self._collector.has_all:
                    self._train()
            if self._collector.has_all:
                self._collector.write()
        finally:
            self._stop_child()
            self._collector.close()
        logger.info("trainer stopped: %s", self._reader.counts.words())

    def _train(self) -> None:
        """One look at the training that is under way, or whether to begin one."""
        if self._child is not None:
            if (code := self._child.poll()) is not None:
                self._child = None
                self._ended(code)
            return
        if self._clock() < self._again_at:
            return
        job = self._jobs.unfinished()
        if job is None and self._due():
            job = self._begun()
        if job is not None:
            self._child = subprocess.Popen([*self._command, str(self._jobs.folder.folder)], stdin=subprocess.PIPE)

    def _due(self) -> bool:
        if not self._collector.caught_up:
            return False
        if not self._said_caught_up:
            self._said_caught_up = True
            logger.info(
                "caught up rows=%d collected=%s", self._log.rows + self._collector.buffered, self._reader.counts.words()
            )
        plan, last = self._plan, self._jobs.last
        buffered = self._collector.buffered
        if self._log.rows + buffered < plan.least:
            return False
        if self._since is None or self._since[1] != self._collector.writes:
            until = {int(number): offset for number, offset in last.until.items()} if last is not None else {}
            self._since = self._log.rows_since(until), self._collector.writes
        new = self._since[0] + buffered
        if new == 0:
            return False
        late = last is None or self._wall_ms() - last.began_ms >= 1000 * plan.every_s
        return late or (plan.after is not None and new >= plan.after)

    def _begun(self) -> Job:
        self._collector.write()
        plan, forgotten, now_ms = self._plan, self._log.forgotten, self._wall_ms()
        when = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S")
        job = Job(
            id=f"trainer-{when}-{now_ms % 1000:03}",
            began_ms=now_ms,
            rows=self._log.rows,
            name=plan.name,
            recipe=plan.recipe,
            settings=plan.settings,
            keep_format=plan.keep_format,
            promote=plan.promote,
            threads=plan.threads,
            forgotten=forgotten.users,
            until={str(number): offset for number, offset in forgotten.until.items()},
        )
        self._jobs.begin(job)
        self._since = None
        logger.info("training begins rows=%d of=%s", job.rows, job.id)
        return job

    def _ended(self, code: int) -> None:
        """What follows from the end of the process that trains."""
        job, ended = self._jobs.folder.job(), self._jobs.folder.ended()
        if job is not None and ended is not None:
            logger.info("training ended of=%s: %s", job.id, ended.words)
            self._jobs.finish(job)
            self._failures, self._since = 0, None
            return
        if code == _WRONG_USAGE:
            raise SettingsInvalid("the training cannot begin: the line before this one says why")
        self._failures += 1
        if self._failures > len(_AGAIN_AFTER_S):
            raise TrainingFailed(
                f"the training ended {self._failures} times before its end, the last time with {_in_words(code)}: the lines before this one say "
                "why. Started again, the trainer goes on with it"
            )
        wait_s = _AGAIN_AFTER_S[self._failures - 1]
        self._again_at = self._clock() + wait_s
        logger.warning("the training ended before its end, with %s: it goes on in %.0f s", _in_words(code), wait_s)

    def _stop_child(self) -> None:
        if (child := self._child) is None:
            return
        child.terminate()
        try:
            child.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._child = None

    def _tell(self) -> None:
        """A line a minute, if something came."""
        counts = self._reader.counts
        if self._clock() - self._told_at < _TELL_EVERY_S or counts.records == self._told:
            return
        self._told_at, self._told = self._clock(), counts.records
        why = f"; the newest refused one: {self._reader.why_refused}" if counts.refused else ""
        logger.info("collected %s; the log has %d rows%s", counts.words(), self._log.rows, why)


def _in_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


@contextmanager
def stopped_by_signals(trainer: Trainer) -> Iterator[list[int]]:
    """SIGTERM and SIGINT ask the trainer to stop; the list gets their numbers. The previous handlers return
    afterwards.
    """
    signals: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signals.append(number)
        trainer.stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
