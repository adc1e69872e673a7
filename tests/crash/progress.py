"""Sample the progress of the group: when had it read what was in the topic at some moment?"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import psutil
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from tests.crash.reading import ends, places_of

_EVERY_S = 0.05
_ANSWERS_WITHIN_S = 2.0
AFTER_S = 0.3
"""Seconds after the start of a fault until every partition has new records: a group that read them has recovered."""


class Sample(NamedTuple):
    time: float
    offsets: dict[int, int]


class Progress:
    """Committed offsets and ends of a group's topic, by wall clock, for the last minutes."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        options = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 500, "log_level": 2}
        self._options = options
        self._admin = AdminClient(options)
        # It never joins. Read_uncommitted: it asks for what is committed now, and does not wait for pending offsets.
        self._consumer = Consumer({**options, "group.id": group, "isolation.level": "read_uncommitted"})
        self._places = places_of(self._admin, topic)
        self.committed: deque[Sample] = deque(maxlen=10_000)
        self.ends: deque[Sample] = deque(maxlen=10_000)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._consumer.close()

    def recovered_at(self, began: float) -> float | None:
        """When all partitions had been taken up to the first end that could be read AFTER_S after `began`; None: not
        yet.
        """
        target = next((each for each in list(self.ends) if each.time >= began + AFTER_S), None)
        if target is None:
            return None
        for each in list(self.committed):
            if each.time >= target.time and _covers(each, target):
                return each.time
        return None

    def longest_wait(self, began: float, ended: float) -> float:
        """Seconds: how long a record that came between the two moments, which everybody has passed, waited until it was
        taken.
        """
        longest = 0.0
        taken = iter([each for each in list(self.committed) if each.time >= began])
        now = next(taken, None)
        for end in [each for each in list(self.ends) if began <= each.time <= ended + AFTER_S]:
            while now is not None and not _covers(now, end):
                now = next(taken, None)
            if now is None:
                break
            longest = max(longest, now.time - end.time)
        return longest

    def behind(self) -> int:
        """Records that are in the topic and not taken, as sampled last."""
        if not self.ends or not self.committed:
            return 0
        taken = self.committed[-1].offsets
        return sum(end - taken.get(number, 0) for number, end in self.ends[-1].offsets.items())

    def _sample(self) -> None:
        while not self._ended.wait(_EVERY_S):
            try:
                found = ends(self._admin, self._places, timeout_s=_ANSWERS_WITHIN_S)
                if self.ends and any(found[number] < end for number, end in self.ends[-1].offsets.items()):
                    continue  # seen once: these ends are older than the last sample
                self.ends.append(Sample(time.time(), found))
                found = self._consumer.committed(self._places, timeout=_ANSWERS_WITHIN_S)
                self.committed.append(Sample(time.time(), {place.partition: max(place.offset, 0) for place in found}))
            except (KafkaException, TimeoutError):
                # The broker is away. After its restart, an old admin client would ask for ends with an old epoch.
                self._admin = AdminClient(self._options)


class Used(NamedTuple):
    """What a process used at a moment."""

    time: float
    name: str
    pid: int
    rss_mb: float
    files: int


def _covers(taken: Sample, end: Sample) -> bool:
    return all(taken.offsets.get(number, 0) >= offset for number, offset in end.offsets.items())


Pids: TypeAlias = Callable[[], Mapping[str, int]]


class Usage:
    """Memory and open files of processes, once a second. `pids`: called for worker name → process id."""

    def __init__(self, pids: Pids) -> None:
        self._pids = pids
        self.samples: list[Used] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="usage", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(1.0):
            for name, pid in self._pids().items():
                try:
                    process = psutil.Process(pid)
                    used = Used(time.time(), name, pid, process.memory_info().rss / 2**20, process.num_fds())
                except psutil.Error:
                    continue  # it ended in this moment
                self.samples.append(used)
