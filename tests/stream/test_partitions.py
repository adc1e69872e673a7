"""The partitions a worker owns: consumed only when restored, and let go of so that the next owner can open them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from state.codec import OFFSET, SEGMENT_LENGTH, number_value, working_key, working_value
from state.errors import SegmentLengthChanged, StateCorrupted, StoreLocked
from state.store import Store, StoreMemory
from state.user import NEW_USER, User
from stream.partition import MOVES, OWNED, Partition, Phase, Progress
from stream.partitions import Partitions
from stream.ports import Learned

MEMORY = StoreMemory(8 << 20)


class SlowRestore:
    """A restore that is done after so many turns."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.closed = False

    def advance(self) -> bool:
        self.turns -= 1
        return self.turns <= 0

    def progress(self) -> Progress | None:
        return Progress(0, 0.0, self.turns)

    def close(self) -> None:
        self.closed = True


class Owner:
    """Partitions with restores that take `turns`, and a record of what was resumed."""

    def __init__(self, folder: Path, turns: int = 1) -> None:
        self.resumed: list[int] = []
        self.cache_users = 6
        self.paused: list[int] = []
        self.restores: dict[int, SlowRestore] = {}
        self.turns = turns
        self.unfit: Exception | None = None
        """Why no model can serve what is stored."""
        self.refusals = 0
        """How often Kafka is not ready to resume."""
        self.partitions = Partitions(
            folder=folder,
            memory=MEMORY,
            cache_users=3,
            begin_restore=self._begin,
            resume=self._resume,
            pause=self.paused.append,
            check=self._check,
        )

    def _check(self, partition: Partition) -> None:
        assert partition.phase is Phase.RESUMING
        if self.unfit is not None:
            raise self.unfit

    def _begin(self, partition: Partition, memory: StoreMemory) -> SlowRestore:
        assert partition.phase is Phase.RESTORING
        made = self.restores[partition.number] = SlowRestore(self.turns)
        return made

    def _resume(self, number: int, position: int | None, input_id: str | None) -> int | None:
        if self.refusals:
            self.refusals -= 1
            return None
        self.resumed.append(number)
        return 0


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    made = Owner(tmp_path)
    yield made
    made.partitions.close()


def can_be_opened(folder: Path) -> bool:
    try:
        Store(folder, MEMORY).close()
    except StoreLocked:
        return False
    return True


def test_nothing_slow_happens_when_partitions_are_assigned(owner: Owner, tmp_path: Path) -> None:
    owner.partitions.assigned([0, 3])
    assert owner.partitions.owned() == [0, 3]
    assert owner.partitions.running() == []
    assert list(tmp_path.iterdir()) == []
    assert owner.resumed == []


def test_a_partition_is_resumed_once_when_its_restore_is_done(tmp_path: Path) -> None:
    owner = Owner(tmp_path, turns=3)
    owner.partitions.assigned([2])
    assert [owner.partitions.restore() for _ in range(2)] == [True, True]
    assert owner.resumed == []
    assert not owner.partitions.restore()
    assert not owner.partitions.restore()
    assert (owner.resumed, owner.partitions.running()) == ([2], [2])
    assert owner.restores[2].closed
    owner.partitions.close()


def test_a_partition_that_kafka_cannot_resume_yet_is_not_running_and_is_asked_for_again(owner: Owner) -> None:
    owner.refusals = 2
    owner.partitions.assigned([2])
    assert [owner.partitions.restore() for _ in range(2)] == [True, True]
    assert owner.partitions.running() == []
    assert owner.restores[2].turns == 0, "the restore is done and is not asked again"
    assert not owner.partitions.restore()
    assert (owner.resumed, owner.partitions.running()) == ([2], [2])


def test_with_many_partitions_every_one_gets_restored(tmp_path: Path) -> None:
    owner = Owner(tmp_path, turns=2)
    owner.partitions.assigned(range(11))
    turns = 0
    while owner.partitions.restore():
        turns += 1
        assert turns < 100
    assert sorted(owner.resumed) == list(range(11))
    owner.partitions.close()


def test_the_store_of_a_partition_that_is_not_open_is_not_to_be_had(owner: Owner) -> None:
    owner.partitions.assigned([5])
    with pytest.raises(RuntimeError, match="partition 5 is assigned: its store is not open"):
        _ = owner.partitions[5].store
    owner.partitions.restore()
    assert owner.partitions[5].store.changelog_offset() is None


def test_a_partition_that_is_not_owned_is_not_to_be_had(owner: Owner) -> None:
    owner.partitions.assigned([0])
    owner.partitions.revoked([0])
    with pytest.raises(KeyError):
        _ = owner.partitions[0]


def test_a_store_that_another_process_has_open_ends_the_worker_with_the_folders_name(
    owner: Owner, tmp_path: Path
) -> None:
    another = Store(tmp_path / "0", MEMORY)
    try:
        owner.partitions.assigned([0])
        with pytest.raises(StoreLocked, match=str(tmp_path / "0")):
            owner.partitions.restore()
    finally:
        another.close()


def in_phase(phase: Phase) -> Partition:
    partition = Partition(7, cache_users=3)
    partition.phase = phase
    return partition


@pytest.mark.parametrize("before", Phase)
@pytest.mark.parametrize("after", Phase)
def test_a_partition_moves_as_the_drawing_says_and_in_no_other_way(before: Phase, after: Phase) -> None:
    partition = in_phase(before)
    if after in MOVES[before]:
        partition.become(after)
        assert partition.phase is after
    else:
        with pytest.raises(RuntimeError, match=f"7 cannot become {after.name.lower()}: it is {before.name.lower()}"):
            partition.become(after)
        assert partition.phase is before


def test_what_is_revoked_or_lost_has_no_way_back_and_every_other_phase_ends_in_both() -> None:
    for phase in Phase:
        ends = {Phase.REVOKED, Phase.LOST}
        assert MOVES[phase] & ends == (ends if phase in OWNED else set())
    assert Phase.RUNNING not in MOVES[Phase.ASSIGNED], "nothing runs that was not restored"


def test_a_revoked_store_is_known_to_lack_nothing_and_a_lost_one_is_not(owner: Owner, tmp_path: Path) -> None:
    owner.partitions.assigned([0, 1])
    owner.partitions.restore()
    owner.partitions.published({}, 500_000)
    owner.partitions.revoked([0])
    owner.partitions.lost([1])
    for number, known_ms in ((0, 500_000), (1, None)):
        store = Store(tmp_path / str(number), MEMORY)
        assert store.complete_ms() == known_ms
        store.close()


def test_a_store_that_is_revoked_while_it_is_restored_is_not_known_to_lack_nothing(tmp_path: Path) -> None:
    owner = Owner(tmp_path, turns=5)
    owner.partitions.assigned([0])
    owner.partitions.restore()
    owner.partitions.published({}, 500_000)
    owner.partitions.revoked([0])
    store = Store(tmp_path / "0", MEMORY)
    assert store.complete_ms() is None
    store.close()


def test_a_flush_notes_since_when_stores_are_known_to_lack_nothing_and_never_an_earlier_time(owner: Owner) -> None:
    owner.partitions.assigned([0])
    owner.partitions.restore()
    for known_ms, expected in ((None, None), (3_000, 3_000), (2_000, 3_000)):
        owner.partitions.known_ms = known_ms
        owner.partitions.flush()
        assert owner.partitions[0].store.complete_ms() == expected


def test_after_an_aborted_step_stores_read_on_before_their_partitions_run_again(owner: Owner) -> None:
    owner.partitions.assigned([0, 1])
    owner.partitions.restore()
    partition = owner.partitions[0]
    store, first = partition.store, owner.restores[0]
    partition.learn(Learned({b"ann": 7}, {}))
    owner.refusals = 1
    owner.partitions.catch_up()
    assert (owner.paused, owner.partitions.running()) == ([0, 1], [])
    assert partition.taken([b"ann"]) == [0], "what is in memory may be of before another's steps"
    while owner.partitions.restore():
        pass
    assert sorted(owner.resumed) == [0, 0, 1, 1]
    assert partition.store is store, "it is not opened again"
    assert owner.restores[0] is not first


def test_partitions_that_wait_for_kafka_keep_none_from_being_restored(tmp_path: Path) -> None:
    class Waits(SlowRestore):
        def advance(self) -> bool:
            return False

        def progress(self) -> None:
            return None

    owner = Owner(tmp_path)
    begin = owner.partitions._begin_restore
    owner.partitions._begin_restore = lambda partition, memory: (
        Waits(1) if partition.number < 9 else begin(partition, memory)
    )
    owner.partitions.assigned(range(10))
    owner.partitions.restore()
    assert owner.partitions.running() == [9]
    owner.partitions.close()


def test_no_more_than_four_changelogs_are_read_at_once(tmp_path: Path) -> None:
    owner = Owner(tmp_path, turns=3)
    owner.partitions.assigned(range(10))
    while owner.partitions.restore():
        assert sum(partition.reads() for partition in owner.partitions.all()) <= 4
    assert len(owner.resumed) == 10
    owner.partitions.close()


def test_a_partition_that_is_gone_can_be_opened_by_its_next_owner(owner: Owner, tmp_path: Path) -> None:
    owner.partitions.assigned([0, 1])
    owner.partitions.restore()
    assert not can_be_opened(tmp_path / "0")
    kept = owner.partitions[0]  # a reference that lives on: closed, and not merely collected
    owner.partitions.revoked([0])
    assert can_be_opened(tmp_path / "0")
    with pytest.raises(RuntimeError, match="not open"):
        _ = kept.store
    assert not can_be_opened(tmp_path / "1")
    assert owner.partitions.owned() == [1]


def test_a_partition_that_goes_during_its_restore_closes_both(tmp_path: Path) -> None:
    owner = Owner(tmp_path, turns=5)
    owner.partitions.assigned([0])
    owner.partitions.restore()
    owner.partitions.lost([0])
    assert owner.restores[0].closed
    assert can_be_opened(tmp_path / "0")
    assert not owner.partitions.restore()
    assert owner.resumed == []


def test_letting_go_of_what_was_never_owned_is_no_error(owner: Owner) -> None:
    owner.partitions.lost([9])
    assert owner.partitions.owned() == []


def test_a_partition_that_comes_back_starts_with_an_empty_cache_and_its_old_store(owner: Owner) -> None:
    owner.partitions.assigned([0])
    owner.partitions.restore()
    before = owner.partitions[0]
    before.store.write([(working_key(b"ann", 1), working_value([1], [1]))], 4)
    before.learn(Learned({b"ann": 7}, {b"ann": User(7)}))
    owner.partitions.revoked([0])
    owner.partitions.assigned([0])
    owner.partitions.restore()
    assert owner.partitions[0].taken([b"ann"]) == [1], "the store's, not the one in memory"
    assert owner.partitions[0].users({b"ann": 7})[b"ann"].working == 1
    assert owner.partitions[0].store.changelog_offset() == 4
    assert owner.resumed == [0, 0]


def test_a_store_that_cannot_be_opened_is_made_anew(owner: Owner, tmp_path: Path) -> None:
    store = Store(tmp_path / "0", MEMORY)
    store.write([], 9)
    store.close()
    (tmp_path / "0" / "CURRENT").write_bytes(b"")
    owner.partitions.assigned([0])
    while owner.partitions.restore():
        pass
    assert owner.partitions[0].store.changelog_offset() is None


class ReadsTheOffset(SlowRestore):
    """A restore that, as the real one does, begins with the offset that the store reaches."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(1)
        self.partition = partition

    def advance(self) -> bool:
        self.partition.store.changelog_offset()
        return super().advance()


def damaged(folder: Path) -> None:
    store = Store(folder, MEMORY)
    store.write([(OFFSET, b"\x01\xa1x")], None)
    store.close()


def test_a_store_whose_offset_cannot_be_read_is_made_anew(owner: Owner, tmp_path: Path) -> None:
    """StateCorrupted → RESTORE, wherever it is found."""
    damaged(tmp_path / "0")
    owner.partitions._begin_restore = lambda partition, _: ReadsTheOffset(partition)
    owner.partitions.assigned([0])
    assert owner.partitions.restore()
    assert not owner.partitions.restore()
    assert (owner.resumed, owner.paused) == ([0], [])
    assert owner.partitions[0].store.changelog_offset() is None


def test_a_running_store_that_cannot_be_read_is_paused_wiped_and_restored(owner: Owner, tmp_path: Path) -> None:
    owner.partitions.assigned([0, 1])
    owner.partitions.restore()
    partition = owner.partitions[0]
    partition.store.write([(working_key(b"ann", 1), working_value([1], [1])), (OFFSET, b"\x01\xa1x")], None)
    partition.learn(Learned({b"ann": 7}, {b"ann": User(7)}))
    partition.learn(Learned(names={2**62: "song"}))
    with pytest.raises(StateCorrupted) as caught:
        partition.store.changelog_offset()
    owner.partitions.wipe(caught.value)
    assert (owner.paused, owner.partitions.running()) == ([0], [1])
    while owner.partitions.restore():
        pass
    assert owner.resumed == [0, 1, 0]
    assert partition.taken([b"ann"]) == [0], "not what is in memory"
    assert partition.users({b"ann": 7}) == {b"ann": NEW_USER}
    assert partition.unnamed([2**62]) == [2**62], "a name that was stored is not any more"


def test_a_store_that_is_damaged_again_after_it_was_made_anew_ends_the_worker(owner: Owner, tmp_path: Path) -> None:
    """The changelog itself holds what cannot be read: wiping once more would go on for ever."""
    owner.partitions.assigned([0])
    owner.partitions.restore()
    error = StateCorrupted("damaged")
    error.folder = tmp_path / "0"
    owner.partitions.wipe(error)
    with pytest.raises(StateCorrupted):
        owner.partitions.wipe(error)


def test_damage_that_belongs_to_no_store_of_ours_ends_the_worker(owner: Owner, tmp_path: Path) -> None:
    owner.partitions.assigned([0])
    owner.partitions.restore()
    for folder in (None, tmp_path / "7"):
        error = StateCorrupted("damaged")
        error.folder = folder
        with pytest.raises(StateCorrupted):
            owner.partitions.wipe(error)
    assert owner.partitions.running() == [0]


def test_a_state_that_the_model_cannot_serve_stops_the_worker_before_the_partition_runs(owner: Owner) -> None:
    owner.unfit = SegmentLengthChanged("another segment_length")
    owner.partitions.assigned([0])
    with pytest.raises(SegmentLengthChanged):
        owner.partitions.restore()
    assert (owner.partitions.running(), owner.resumed) == ([], [])


def test_a_store_that_is_no_copy_of_the_changelog_is_reopened_empty(owner: Owner) -> None:
    owner.partitions.assigned([0])
    owner.partitions.restore()
    partition = owner.partitions[0]
    partition.store.write([(working_key(b"ann", 1), working_value([1], [1])), (SEGMENT_LENGTH, number_value(50))], 4)
    assert partition.segment_length() == 50
    partition.learn(Learned({b"ann": 1}, {}))
    partition.reopen_empty(MEMORY)
    assert (partition.store.changelog_offset(), partition.segment_length()) == (None, None)
    assert (partition.taken([b"ann"]), partition.users({b"ann": 0})) == ([0], {b"ann": NEW_USER})


def test_users_untouched_for_longest_make_room_and_the_newest_state_counts(owner: Owner) -> None:
    owner.partitions.assigned([0])
    owner.partitions.restore()
    partition = owner.partitions[0]
    users = [b"user-%d" % number for number in range(owner.cache_users * 2)]
    for user in users:
        partition.learn(Learned({user: 1}, {user: User(1)}))
        partition.learn(Learned({users[0]: 2}, {users[0]: User(2)}))  # touched all the time
    assert partition.taken([users[0], users[1], users[-1]]) == [2, 0, 1], (
        "the one that made room is read from the store"
    )
    assert partition.users({users[0]: 2, users[1]: 1, users[-1]: 1}) == {
        users[0]: User(2),
        users[1]: NEW_USER,
        users[-1]: User(1),
    }


def test_a_state_in_memory_that_the_user_has_gone_on_from_is_read_again(owner: Owner) -> None:
    owner.partitions.assigned([0])
    owner.partitions.restore()
    partition = owner.partitions[0]
    partition.store.write([(working_key(b"ann", 2), working_value([1, 2], [1, 2]))], 4)
    partition.learn(Learned({b"ann": 2}, {b"ann": User(1)}))
    assert partition.users({b"ann": 2})[b"ann"].working == 2


def test_a_user_who_was_forgotten_stays_so_whatever_was_known_before(owner: Owner) -> None:
    owner.partitions.assigned([0])
    owner.partitions.restore()
    partition = owner.partitions[0]
    partition.learn(Learned({b"ann": 7}, {}))
    partition.learn(Learned({b"%d" % number: 1 for number in range(owner.cache_users)}, {}))
    partition.learn(Learned({b"ann": 0}, {}))
    assert partition.taken([b"ann"]) == [0]


def test_an_item_is_asked_for_its_name_until_it_is_known_to_be_stored(owner: Owner) -> None:
    owner.partitions.assigned([0])
    owner.partitions.restore()
    partition = owner.partitions[0]
    assert partition.unnamed([2**62, 2**62 + 1]) == [2**62, 2**62 + 1]
    partition.learn(Learned(names={2**62: "song"}))
    assert partition.unnamed([2**62, 2**62 + 1]) == [2**62 + 1]
