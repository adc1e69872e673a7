"""What the real step leaves behind of random interactions, on a link in memory: evidence to try the oracle with."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from model.version.runtime import Runtime
from stream.event import EventReader
from stream.recommender import Recommender
from stream.state_rows import rows
from stream.wire import recommendation_as_msgpack
from tests.crash.arithmetic import Catalogue
from tests.crash.reading import Observed
from tests.crash.replay import Rules
from tests.crash.served import Promoted, marks, memories
from tests.crash.taken import Taken
from tests.crash.versions import LedgerVersion
from tests.fakes import FakeLink, FakeRecord, said, worker_on

LENGTH = 4
KEEP = 2
LISTS = 3
ITEMS: list[int | str] = [*range(20), *(f"item-{number}" for number in range(10))]
FIRST = LedgerVersion("ledger@1", Catalogue(ITEMS))
RULES = Rules({"ledger@1": FIRST}, "ledger@1", LENGTH, LISTS, top_k=5, keep_segments=KEEP)
FROM = (1_700_000_000_000, 1_700_000_000, 1_700_000_000_000_000, 0)
"""Times in milliseconds, in seconds, in microseconds, and too early to be plausible."""
MALFORMED = (b"", b"\xc1", b"[1]", b'{"item": null}', b'{"ts": 1}', b"\x81\xa4item\xc0")
PARTITIONS = (0, 1)
_BEGIN = (10, 0)
"""The first offset of each partition."""


def interactions(count: int, chosen: random.Random) -> list[FakeRecord]:
    """Over two partitions: known and unknown items, JSON and MessagePack, malformed values, users who are forgotten."""
    made = []
    offsets = list(_BEGIN)
    for _ in range(count):
        partition = chosen.randrange(2)
        user: bytes | None = f"user-{partition}-{chosen.randrange(6)}".encode()
        item = chosen.choice([*ITEMS, "unknown", 99])
        value: bytes | None = said(item, chosen.randrange(10_000) + chosen.choice(FROM))
        kind = chosen.random()
        if kind < 0.04:
            value = None
        elif kind < 0.08:
            value = chosen.choice(MALFORMED)
        elif kind < 0.09:
            user = None
        elif kind < 0.15:
            value = b'{"item": "%s"}' % str(item).encode()
        made.append(FakeRecord(user, value, partition, offsets[partition], _timestamp=chosen.randrange(10_000)))
        offsets[partition] += 1
    return made


def observed(
    records: Sequence[FakeRecord],
    cuts: Sequence[int],
    folder: Path,
    runtime: Runtime,
    promoted: Mapping[int, Runtime] | None = None,
) -> Observed:
    """What a worker that is given these polls leaves behind. The clock counts steps, one a second.

    `promoted`: the number of a step → the version that serves from then on.
    """
    link = FakeLink(list(records), list(cuts))
    worker = worker_on(
        link,
        folder,
        runtime,  # type: ignore[arg-type]
        cadence=LISTS,
        keep_segments=KEEP,
        partitions=PARTITIONS,
        events=EventReader(),
        clock=lambda: float(len(link.published)),
    )
    history = [Promoted(str(number), each.reference, 1000 * number) for number, each in (promoted or {}).items()]
    waiting = dict(promoted or {})
    while not link.drained():
        number = len(link.published)
        if (version := waiting.pop(number, None)) is not None:
            worker.step = replace(worker.step, recommender=Recommender(version, str(number)))
        worker.turn()
    worker.partitions.close()
    changelog = [
        Taken(partition, at, key, value, 0)
        for partition, changes in link.changelog.items()
        for at, (key, value) in enumerate(changes)
    ]
    lists = [
        Taken(0, 0, user, None if made is None else recommendation_as_msgpack(made), 1000 * number)
        for number, outgoing in enumerate(link.published)
        for user, made in outgoing.recommendations
    ]
    dead = [each for outgoing in link.published for each in outgoing.dead]
    return Observed(
        [
            Taken(record.partition(), record.offset(), record.key(), record.value(), record.timestamp()[1])
            for partition in PARTITIONS
            for record in records
            if record.partition() == partition
        ],
        lists,
        [
            msgspec.structs.asdict(row)
            for partition in PARTITIONS
            for row in rows(iter(sorted(link.state(partition).items())), partition)
        ],
        [Taken(0, at, each.key, each.value, 0, tuple(each.headers)) for at, each in enumerate(dead)],
        marks(changelog),
        memories(changelog),
        history,
    )
