"""What changes around a running worker: its topics, and transactions that hold its input back.

A thread with a client of its own looks every few seconds. The loop of steps never waits for it, and nothing that it
finds changes what a step does. Each change is said once, and once more when it is over.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec

from stream.errors import StreamError
from stream.kafka.read_topic import FIND_TRANSACTION
from stream.kafka.topic_problems import Problem

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
TOPICS_EVERY_S: Final = 60.0
HELD_BACK_S: Final = 15.0
"""How long an open transaction holds the input back before it is said."""
_CALL_S: Final = 5.0
_ENDS_WITHIN_S: Final = 4.0
"""An answer to the thread's client that comes while the interpreter ends would end the process with a signal."""
_ASK_AGAIN_S: Final = 0.02
_NOT_CHECKED: Final = "not checked"
"""In the line of a problem that says that Kafka did not show something."""

Said: TypeAlias = tuple[int, str]
"""A level of `logging`, and a line."""


class TopicChanges:
    """What is new among the problems of the topics, and which topics are right again."""

    def __init__(self, known: Sequence[Problem]) -> None:
        """Args:
        known: what was said when the worker started.
        """
        self._known = {(problem.topic, problem.line) for problem in known}

    def since(self, found: Sequence[Problem]) -> list[Said]:
        """What there is to say after a look that found these problems."""
        now = {(problem.topic, problem.line) for problem in found}
        said = [
            (
                logging.ERROR if problem.severity == "error" else logging.WARNING,
                f"changed while the worker runs: {problem.line}",
            )
            for problem in found
            if (problem.topic, problem.line) not in self._known
        ]
        # What Kafka does not show may still be wrong.
        unseen = {topic for topic, line in now if _NOT_CHECKED in line}
        kept = {(topic, line) for topic, line in self._known if topic in unseen}
        wrong = {topic for topic, _ in now | kept}
        right = sorted({topic for topic, line in self._known if topic not in wrong})
        self._known = now | kept
        return [*said, *((logging.INFO, f"{topic} is right again") for topic in right)]


@dataclass(slots=True)
class _Held:
    stable: int
    """The last stable offset: the first one that readers do not get."""
    since: float
    said: bool = False


class HeldBack:
    """Partitions of the input whose newest records wait behind an open transaction."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._held: dict[int, _Held] = {}
        self._patience_s: dict[int, float] = {}
        """It doubles each time, so a producer whose transactions are long by design is soon no news."""

    def since(self, ends: Mapping[int, tuple[int, int]], now: float) -> list[Said]:
        """What there is to say.

        Args:
            ends: partition → its last stable offset and its high watermark, of the partitions of this worker.
            now: monotonic seconds.
        """
        said: list[Said] = []
        for number, (stable, high) in ends.items():
            held = self._held.get(number)
            if held is not None and (stable >= high or stable != held.stable):
                if held.said:
                    said.append(
                        (
                            logging.INFO,
                            f"input goes on topic={self._topic} partition={number} after={now - held.since:.0f} s",
                        )
                    )
                held = None
                del self._held[number]
            if stable >= high:
                continue
            if held is None:
                self._held[number] = _Held(stable, now)
                continue
            if not held.said and now - held.since >= self._patience_s.get(number, HELD_BACK_S):
                held.said = True
                self._patience_s[number] = 2 * self._patience_s.get(number, HELD_BACK_S)
                said.append((logging.WARNING, self._line(number, held, high, now)))
        for number in self._held.keys() - ends.keys():
            del self._held[number]
        return said

    def _line(self, number: int, held: _Held, high: int, now: float) -> str:
        return (
            f"input waits topic={self._topic} partition={number}: {high - held.stable} records (transaction markers among "
            f"them) from offset {held.stable} on are behind a transaction that somebody opened at least "
            f"{now - held.since:.0f} s ago, and nobody can read them before it ends. "
            f"{FIND_TRANSACTION.format(topic=self._topic, partition=number)}"
        )


@contextmanager
def watching(
    options: Mapping[str, Any],
    *,
    check: Callable[[AdminClient], Sequence[Problem]],
    known: Sequence[Problem],
    interactions: str,
    partitions: Callable[[], Sequence[int]],
    note: Callable[[Mapping[int, int]], None],
) -> Iterator[None]:
    """Look while the block runs.

    Args:
        options: for the thread's own client.
        check: what is wrong with the topics (`stream.kafka.topic_problems.check`).
        known: what was wrong when the worker started.
        partitions: the partitions of the input that this worker reads.
        note: called with how many records of each are held back.
    """
    ended = threading.Event()
    look = _Look(options, check, TopicChanges(known), HeldBack(interactions), interactions, partitions, note, ended)

    def run() -> None:
        while not ended.wait(LOOK_EVERY_S):
            look.once(time.monotonic())
        look.close()

    thread = threading.Thread(target=run, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_ENDS_WITHIN_S)


class _Look:
    """One look after the other."""

    def __init__(
        self,
        options: Mapping[str, Any],
        check: Callable[[AdminClient], Sequence[Problem]],
        changes: TopicChanges,
        held_back: HeldBack,
        interactions: str,
        partitions: Callable[[], Sequence[int]],
        note: Callable[[Mapping[int, int]], None],
        ended: threading.Event,
    ) -> None:
        # The worker's other clients say it when Kafka is away.
        self._options = {**options, "log_level": 0}
        self._check = check
        self._changes = changes
        self._held_back = held_back
        self._interactions = interactions
        self._partitions = partitions
        self._note = note
        self._ended = ended
        self._admin: AdminClient | None = None
        self._topics_at = time.monotonic() + TOPICS_EVERY_S
        self._failed = False

    def once(self, now: float) -> None:
        """Look, and log what changed. A look that fails is said once, until one succeeds."""
        try:
            self._admin = self._admin or AdminClient(self._options)
            ends = self._ends(self._admin)
            self._note({number: high - stable for number, (stable, high) in ends.items() if stable < high})
            said = self._held_back.since(ends, now)
            # Kafka has just answered, so this does not wait for long when the worker stops.
            if now >= self._topics_at and not self._ended.is_set():
                self._topics_at = now + TOPICS_EVERY_S
                said += self._changes.since(self._check(self._admin))
        except (KafkaException, StreamError, TimeoutError) as error:
            # An admin client asks with the leader's epoch that it saw first, and is refused once that has changed.
            self._admin = None
            if not self._failed and not self._ended.is_set():
                logger.info("what changes is not noticed for the moment: %s", error)
            self._failed = True
            return
        self._failed = False
        for level, line in said:
            logger.log(level, "%s", line)

    def close(self) -> None:
        """Free the client, which ends what it still asks for."""
        self._admin = None

    def _ends(self, admin: AdminClient) -> dict[int, tuple[int, int]]:
        """Partition → its last stable offset and its high watermark."""
        places = [TopicPartition(self._interactions, number) for number in self._partitions()]
        if not places:
            return {}
        # In this order: a transaction that ends in between looks ended, not open.
        highs, stables = (
            admin.list_offsets(
                {place: OffsetSpec.latest() for place in places}, isolation_level=level, request_timeout=_CALL_S
            )
            for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED)
        )
        return {place.partition: (self._offset(stables[place]), self._offset(highs[place])) for place in places}

    def _offset(self, asked: "Future[ListOffsetsResultInfo]") -> int:
        deadline = time.monotonic() + 2 * _CALL_S
        while not asked.done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {2 * _CALL_S:.0f} s")
            if self._ended.wait(_ASK_AGAIN_S):
                raise TimeoutError("the worker stops")
        offset: int = asked.result().offset
        return offset
