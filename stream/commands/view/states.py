"""What is remembered about users, followed on a thread of its own: the changelog, copied as workers write it.

The event loop reads the copy. Each change wakes those who watch its user.
"""

import asyncio
import logging
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from state.codec import PREFERENCE, WORKING, taken_of, user_of
from stream.commands.view.remembered import Remembered, remembered
from stream.kafka.admin import admin_client
from stream.kafka.changelog_copy import ChangelogCopy, Read
from stream.kafka.names import changelog_topic, reader_group
from stream.kafka.read_topic import partitions
from stream.kafka.shown_topics import deletions_kept_ms
from stream.settings import Settings

logger = logging.getLogger(__name__)

ACTIVE: Final = 30
"""Users that are known as active, the newest ones."""
_TURN_S: Final = 0.1


class Active(msgspec.Struct, frozen=True):
    """A user who acted lately."""

    user: str
    at_ms: int
    """When a worker took the interaction, epoch ms."""
    taken: int


class States:
    """The states of all users. `follow` reads on a thread; everything else is for the event loop."""

    def __init__(self, settings: Settings, folder: Path, wall_ms: Callable[[], int]) -> None:
        """Raises:
        TopicsUnusable: there is no changelog.
        KafkaException: Kafka does not answer.
        """
        topic = changelog_topic(settings.app)
        options = {
            "bootstrap.servers": settings.bootstrap_servers,
            **settings.kafka,
            "group.id": reader_group(settings.app),
        }
        admin = admin_client(settings)
        self._copy: Final = ChangelogCopy(
            topic=topic,
            partitions=len(partitions(options, topic)),
            options=options,
            admin=admin,
            folder=folder,
            deletions_kept_ms=deletions_kept_ms(admin, settings.app),
            wall_ms=wall_ms,
        )
        self.ready: Final = asyncio.Event()
        self.folds = 0
        """Segments folded since the copy was complete for the first time."""
        self._watchers: Final[defaultdict[bytes, set[asyncio.Event]]] = defaultdict(set)
        self._active: Final[OrderedDict[bytes, tuple[int, int]]] = OrderedDict()
        self._ends = threading.Event()

    async def follow(self) -> None:
        """Read until `close`.

        Raises:
            KafkaUnusable: the changelog cannot be read any more.
        """
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        told_ready = False
        try:
            while not self._ends.is_set():
                was_ready = self._copy.at_end
                found = self._copy.turn(_TURN_S)
                if found or self._copy.at_end != told_ready:
                    told = [each for records in found.values() for each in _told(records)]
                    folds = sum(_is_fold(each) for records in found.values() for each in records) if was_ready else 0
                    loop.call_soon_threadsafe(self._take, told, folds, self._copy.at_end)
                    told_ready = self._copy.at_end
        finally:
            self._copy.close()

    def _take(self, told: Sequence[tuple[bytes, int, int | None]], folds: int, ready: bool) -> None:
        """On the event loop: note who acted, and wake who watches them."""
        self.folds += folds
        if ready:
            self.ready.set()
        for user, at_ms, taken in sorted(told, key=lambda each: each[1]):
            for changed in self._watchers.get(user, ()):
                changed.set()
            if taken is None:
                self._active.pop(user, None)
                continue
            self._active[user] = (at_ms, taken)
            self._active.move_to_end(user)
        while len(self._active) > ACTIVE:
            self._active.popitem(last=False)

    def user(self, user: str) -> Remembered | None:
        """What is remembered about a user; None if nothing.

        Raises:
            StateError: the copy cannot be read.
        """
        return remembered(self._copy.stores, user)

    def active(self) -> list[Active]:
        """Who acted lately, the newest first."""
        return [Active(user.decode(), *seen) for user, seen in reversed(self._active.items())]

    def positions(self) -> dict[int, int | None]:
        """Partition → the offset of the next interaction that the states lack; None if it has no state yet."""
        return {number: store.position() for number, store in self._copy.stores.items()}

    def versions(self) -> dict[int, str | None]:
        """Partition → the version that serves it."""
        marks = {number: store.last_mark() for number, store in self._copy.stores.items()}
        return {number: None if mark is None else mark[1].version for number, mark in marks.items()}

    @contextmanager
    def watched(self, user: str, changed: asyncio.Event) -> Iterator[None]:
        """Set an event each time a user's state changes."""
        key = user.encode()
        self._watchers[key].add(changed)
        try:
            yield
        finally:
            self._watchers[key].discard(changed)
            if not self._watchers[key]:
                del self._watchers[key]

    def close(self) -> None:
        self._ends.set()


def _told(records: Sequence[Read]) -> list[tuple[bytes, int, int | None]]:
    """Of each user among records of one partition: the id, when the newest was written, and `taken`; None as `taken`
    if the newest one deletes the newest state.
    """
    told: dict[bytes, tuple[int, int | None]] = {}
    for (key, value), at_ms in records:
        user, rest = user_of(key)
        if not user or rest[:1] != WORKING:
            continue
        taken, known = taken_of(rest), told.get(user)
        if value is not None:
            told[user] = (at_ms, taken)
        # A step deletes older working records of a user who folded. Only a user who is forgotten loses the newest.
        elif known is None or (known[1] is not None and taken >= known[1]):
            told[user] = (at_ms, None)
    return [(user, at_ms, taken) for user, (at_ms, taken) in told.items()]


def _is_fold(record: Read) -> bool:
    (key, value), _ = record
    user, rest = user_of(key)
    return bool(user) and rest == PREFERENCE and value is not None
