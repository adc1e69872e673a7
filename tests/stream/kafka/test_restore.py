"""Which stores a restore goes on with, and which it does not trust. Nothing is read here: no broker answers at this
address.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from state.codec import working_key, working_value
from state.store import StoreMemory
from stream.errors import ChangelogUnfit
from stream.kafka.lineage import Changelog, Committed, Lineage
from stream.kafka.options import CHANGELOG_READER
from stream.kafka.restore import ChangelogRestore
from stream.partition import Partition, Restore
from tests.fakes import NothingToRestore, restoring

MEMORY = StoreMemory(8 << 20)
HOUR_MS = 3_600_000
NOW_MS = 500 * HOUR_MS
DAY_MS = 24 * HOUR_MS
THIS = "this-changelog"


class Kafka:
    """What Kafka answers."""

    def __init__(self) -> None:
        self.committed: Committed | None = Committed(7, Lineage(THIS, 4, 50))
        self.changelog: Changelog | None = Changelog(THIS, 4, 0, 100)
        self.asked: list[str] = []

    def ask_committed(self, partition: int) -> Committed | None:
        self.asked.append("committed")
        return self.committed

    def ask_changelog(self, partition: int) -> Changelog | None:
        self.asked.append("changelog")
        return self.changelog


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[Partition]:
    with restoring(3, tmp_path, MEMORY) as made:
        yield made


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


def restore_of(partition: Partition, kafka: Kafka, clock: Callable[[], float] = lambda: 0.0) -> ChangelogRestore:
    made = ChangelogRestore(
        topic="app.changelog",
        partition=partition,
        memory=MEMORY,
        config={**CHANGELOG_READER, "bootstrap.servers": "127.0.0.1:1", "group.id": "x", "log_level": 0},
        committed=kafka.ask_committed,
        changelog=kafka.ask_changelog,
        deletions_kept_ms=DAY_MS,
        clock=clock,
        wall_ms=lambda: NOW_MS,
    )
    partition.restore = made
    return made


def written(partition: Partition, *, offset: int, changelog: str = THIS, complete_ms: int = NOW_MS - HOUR_MS) -> None:
    partition.store.belong_to(changelog)
    partition.store.write([(working_key(b"ann", 1), working_value([1], [1]))], offset)
    partition.store.mark_complete(complete_ms)


def is_kept(partition: Partition) -> bool:
    return partition.store.taken([b"ann"]) == [1]


def test_a_store_of_this_changelog_is_gone_on_with(partition: Partition, kafka: Kafka) -> None:
    written(partition, offset=60)
    restore = restore_of(partition, kafka)
    assert not restore.advance()
    assert is_kept(partition)
    assert (told := restore.progress())
    assert told.remaining == 40


def test_a_store_that_reaches_the_end_is_done_and_known_to_lack_nothing_now(partition: Partition, kafka: Kafka) -> None:
    written(partition, offset=100)
    assert restore_of(partition, kafka).advance()
    assert partition.store.complete_ms() == NOW_MS


@pytest.mark.parametrize("side", ["fake", "kafka"])
def test_a_restore_with_nothing_to_restore_is_done_at_once_and_leaves_the_store(
    partition: Partition, kafka: Kafka, side: str
) -> None:
    """The contract of `Restore`, as far as the fake has to keep it."""
    written(partition, offset=100)
    restore: Restore = NothingToRestore() if side == "fake" else restore_of(partition, kafka)
    assert restore.progress() is None
    assert restore.advance()
    assert is_kept(partition)
    restore.close()


def test_the_end_is_asked_for_only_after_kafka_has_said_what_is_committed(partition: Partition, kafka: Kafka) -> None:
    """Until then a dead predecessor's transaction may still land behind the end."""
    committed, kafka.committed = kafka.committed, None
    restore = restore_of(partition, kafka)
    assert not restore.advance()
    assert not restore.advance()
    assert kafka.asked == ["committed", "committed"]
    kafka.committed = committed
    restore.advance()
    assert kafka.asked[2:] == ["committed", "changelog"]


def test_waiting_for_kafkas_word_is_said_now_and_then(
    partition: Partition, kafka: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.committed = None
    times = iter((0.0, 1.0, 4.9, 6.0, 7.0, 11.5))
    restore = restore_of(partition, kafka, partial(next, times))
    for _ in range(5):
        restore.advance()
    assert [record.getMessage()[:43] for record in caplog.records] == [
        "restore waits partition=3 seconds=6: Kafka ",
        "restore waits partition=3 seconds=12: Kafka",
    ]


def test_the_end_is_asked_for_until_kafka_tells_it(partition: Partition, kafka: Kafka) -> None:
    kafka.changelog = None
    restore = restore_of(partition, kafka)
    assert not restore.advance()
    assert restore.progress() is None
    restore.advance()
    assert kafka.asked == ["committed", "changelog", "changelog"]


@pytest.mark.parametrize(
    "store",
    [
        {"offset": 101},
        {"offset": 9},
        {"offset": 60, "changelog": "another-changelog"},
        {"offset": 60, "complete_ms": NOW_MS - DAY_MS},
        {"offset": 60, "complete_ms": NOW_MS - 22 * HOUR_MS},
        {"offset": 100, "complete_ms": NOW_MS - DAY_MS},
    ],
    ids=[
        "beyond the end",
        "before the beginning",
        "of another topic",
        "older than deletions",
        "nearly so",
        "older though at the end",
    ],
)
def test_a_store_that_is_not_to_be_trusted_is_wiped_and_read_from_the_beginning(
    partition: Partition, kafka: Kafka, store: dict[str, int | str]
) -> None:
    written(partition, **store)  # type: ignore[arg-type]
    kafka.changelog = Changelog(THIS, 4, 10, 100)
    restore = restore_of(partition, kafka)
    assert not restore.advance()
    assert not is_kept(partition)
    assert (told := restore.progress())
    assert told.remaining == 100
    assert (partition.store.changelog_id(), partition.store.complete_ms()) == (THIS, NOW_MS)


def test_a_store_that_never_said_what_it_is_a_copy_of_is_not_trusted(partition: Partition, kafka: Kafka) -> None:
    partition.store.write([(working_key(b"ann", 1), working_value([1], [1]))], 60)
    restore_of(partition, kafka).advance()
    assert not is_kept(partition)


def test_an_empty_store_says_whose_copy_it_becomes_before_anything_is_in_it(partition: Partition, kafka: Kafka) -> None:
    assert not restore_of(partition, kafka).advance()
    assert (partition.store.changelog_id(), partition.store.complete_ms()) == (THIS, NOW_MS)
    assert partition.store.changelog_offset() is None


def test_nothing_at_all_is_a_first_start(partition: Partition, kafka: Kafka) -> None:
    kafka.committed, kafka.changelog = Committed(None, None), Changelog(THIS, 4, 0, 0)
    assert restore_of(partition, kafka).advance()


def test_a_changelog_without_the_state_of_the_committed_offset_is_refused_and_the_store_left(
    partition: Partition, kafka: Kafka
) -> None:
    written(partition, offset=60)
    kafka.changelog = Changelog("made-anew", 4, 0, 100)
    with pytest.raises(ChangelogUnfit, match=r"app\.changelog\[3\] is another topic"):
        restore_of(partition, kafka).advance()
    assert is_kept(partition)


def test_offsets_that_somebody_set_by_hand_accept_the_changelog_there_is(partition: Partition, kafka: Kafka) -> None:
    written(partition, offset=60)
    kafka.committed = Committed(7, None)
    kafka.changelog = Changelog("made-anew", 4, 0, 100)
    assert not restore_of(partition, kafka).advance()
    assert not is_kept(partition), "the store is a copy of the old one"
