"""What the benchmarks of reliability make of logs, lists and figures: restore, takeover, rolling, guarantee in
bench/.
"""

from collections import defaultdict

import pytest

from bench import at_least_once, changelogs, guarantee, restore, rolling, takeover, worker_log
from bench.changelogs import Content, Written
from bench.restore import OURS, QUIX, Prepared, Restored
from bench.rolling import Moments
from bench.started import Usage, between
from bench.traffic import Seen, silences, waited
from bench.worker_log import Line
from state.codec import SEGMENT_LENGTH, read_user, user_of

TODAY = """\
2026-11-21 19:49:25,064 INFO stream.compose model loaded model=null@1 kind=null segment_length=50 state_bytes=0
2026-11-21 19:49:25,496 INFO stream.compose worker starts app=a slot=w-38103413 bootstrap=127.0.0.1:58771
2026-11-21 19:49:25,500 INFO stream.partitions partitions assigned=[] owned=[]
2026-11-21 19:49:27,633 INFO stream.partitions partitions assigned=[0, 1] owned=[0, 1]
2026-11-21 19:49:28,000 INFO stream.kafka.restore restoring partition=1 records=7 bytes=90 reached=7 end=30 seconds=0.30
2026-11-21 19:49:28,828 INFO stream.kafka.restore restored partition=0 records=20 bytes=500 reached=25 end=25 seconds=1.16
not a line of the log
2026-11-21 19:49:29,633 INFO stream.kafka.restore restored partition=1 records=22 bytes=600 reached=30 end=30 seconds=2.00
2026-11-21 19:49:31,703 INFO stream.partitions partitions revoked=[0] owned=[1]
""".splitlines()
WITH_WAIT = "2026-11-21 19:49:29,633 INFO x restored partition=1 records=22 bytes=600 per_s=40 reached=30 end=30 waited_s=1.25 seconds=2.00"


def _event(at: float, event: str, **fields: object) -> Line:
    return Line(at, event, {name: str(value) for name, value in fields.items()})


def _seen(arrived: float, partition: int = 0, *, sent: float = 0.0, made: float = 0.0) -> Seen:
    return Seen(arrived, partition, 0, sent, made)


def test_a_log_is_read_with_the_fields_that_its_lines_have() -> None:
    lines = worker_log.parsed(TODAY)
    assert [line.event for line in lines] == [
        "model loaded",
        "worker starts",
        *["partitions"] * 2,
        "restoring",
        *["restored"] * 2,
        "partitions",
    ]
    assert lines[3].at - lines[1].at == pytest.approx(2.137)
    given = worker_log.assigned(lines)
    assert given is not None
    assert given.numbers("assigned") == (0, 1)
    assert worker_log.assigned(lines, [7]) is None
    assert worker_log.owned(lines) == {1}
    assert set(worker_log.restored(lines, [0, 1])) == {0, 1}
    assert worker_log.restored(lines, [1])[1].number("waited_s") is None
    assert worker_log.parsed([WITH_WAIT])[0].number("waited_s") == 1.25


def test_quix_lines_are_read_too() -> None:
    (line,) = worker_log.parsed([f"[2026-11-21 19:42:16,176] [INFO] [quixstreams] : {restore.QUIX_ENDS}"])
    assert line.event == restore.QUIX_ENDS


def test_a_restore_is_timed_from_the_first_assignment_to_the_last_partition() -> None:
    lines = [_event(5.0, "partitions", assigned=[]), _event(10.0, "partitions", assigned=[0, 1, 2, 3])]
    lines += [_event(11.0 + partition, "restored", partition=partition, records=100) for partition in range(4)]
    assert restore.timed(lines) == (10.0, 14.0, 400)
    with pytest.raises(ValueError, match=r"partitions \[0, 1, 2\], expected 4"):
        restore.timed(lines[:-1])


def test_rates_are_compared_within_a_round() -> None:
    def run(program: str, turn: int, seconds: float) -> Restored:
        return Restored(program, "small", turn, seconds, seconds, 1.0, 1.0, 1.0)

    # The machine was ten times slower in the second round.
    runs = [run(OURS, 0, 2.0), run(QUIX, 0, 8.0), run(OURS, 1, 20.0), run(QUIX, 1, 80.0)]
    rows = restore.table(Prepared(Content("small", 100), Written(100, 3_000), "a", "g"), runs)[2:]
    assert [row.split("|")[5].strip() for row in rows] == ["4.00", "1.00"]


@pytest.mark.parametrize(("kind", "smallest", "largest"), [("small", 20, 50), ("memories", 1_024, 1_200)])
def test_a_content_is_what_a_worker_could_have_written(kind: str, smallest: int, largest: int) -> None:
    users: dict[bytes, list[tuple[bytes, bytes]]] = defaultdict(list)
    homes: dict[bytes, set[int]] = defaultdict(set)
    keys = set()
    for partition, key, value in changelogs.changes(Content(kind, 400, partitions=3)):
        keys.add((partition, key))
        if key != SEGMENT_LENGTH:
            user, rest = user_of(key)
            users[user].append((rest, value))
            homes[user].add(partition)
            assert smallest <= len(key) + len(value) <= largest
    assert len(keys) == 400 + 3
    assert all(len(each) == 1 for each in homes.values())
    assert {partition for each in homes.values() for partition in each} == {0, 1, 2}
    if kind == "small":
        assert all(read_user(sorted(records)).taken > 0 for records in users.values())


def test_the_same_content_twice_is_the_same() -> None:
    assert list(changelogs.changes(Content("small", 50))) == list(changelogs.changes(Content("small", 50)))


def test_what_a_process_used_is_counted_from_the_moment_asked_for() -> None:
    samples = [Usage(1.0, 0.5, 100.0), Usage(2.0, 2.0, 200.0), Usage(3.0, 5.0, 300.0)]
    assert between(samples, 2.5) == (3.0, 200.0)
    assert between(samples, 0.0) == (4.5, 100.0)


def test_the_parts_of_a_takeover_add_up_to_it() -> None:
    new = [
        _event(99.0, "partitions", assigned=[0, 1]),
        _event(102.0, "worker starts"),
        _event(103.0, "partitions", assigned=[0, 1]),
        _event(106.0, "restored", partition=1, records=30, waited_s=1.0),
        _event(107.0, "restored", partition=0, records=40, waited_s=1.5),
    ]
    other = [_event(90.0, "restored", partition=0, records=9)]
    # The dead one's last list, which is read after its death; then the successor's.
    lists = [
        _seen(100.1, 1, made=99.9),
        _seen(100.2, 2, made=100.1),
        _seen(106.5, 1, made=106.4),
        _seen(107.25, 0, made=107.1),
    ]
    assert takeover.taken_over(100.0, [0, 1], [new, other], lists[:3]) is None
    found = takeover.taken_over(100.0, [0, 1], [new, other], lists)
    assert found == takeover.Takeover(
        started=2.0, assigned=1.0, transaction=1.0, restored=2.0, listed=0.5, total=6.5, last=7.25, records=70
    )
    assert sum([2.0, 1.0, 1.0, 2.0, 0.5]) == found.total


def test_a_takeover_by_a_running_worker_has_no_start_and_a_log_of_today_no_wait() -> None:
    running = [
        _event(90.0, "worker starts"),
        _event(106.0, "partitions", assigned=[3]),
        _event(106.5, "restored", partition=3, records=5),
    ]
    found = takeover.taken_over(100.0, [3], [running], [_seen(107.0, 3, made=106.9)])
    assert found is not None
    assert (found.started, found.assigned, found.transaction, found.restored) == (None, 6.0, None, 0.5)
    with pytest.raises(ValueError, match="no living worker's log has it assigned"):
        takeover.taken_over(100.0, [3], [[]], [_seen(107.0, 3, made=106.9)])


def test_a_silence_may_reach_over_either_end() -> None:
    lists = [_seen(1.0, 0), _seen(4.0, 0), _seen(9.0, 0), _seen(2.0, 1)]
    assert silences(lists, 3, 0.0, 10.0) == [5.0, 8.0, 10.0]


def test_an_interaction_that_met_the_restart_counts_as_during_it() -> None:
    moments = Moments(steady=10.0, began=20.0, ended=30.0, last=40.0)
    lists = [
        _seen(9.1, sent=9.0),  # before anything is measured
        _seen(15.1, sent=15.0),
        _seen(25.0, sent=19.9),
        _seen(31.0, sent=29.0),
        _seen(35.2, sent=35.0),
    ]
    found = rolling.latency(lists, moments)
    assert {name: (each.lists, round(each.worst)) for name, each in found.items()} == {
        "before": (1, 100),
        "during": (2, 5100),
        "after": (1, 200),
    }


def test_of_no_lists_there_is_no_latency() -> None:
    assert waited([]) is None


def test_another_program_takes_the_workers_place_or_the_bench_stops() -> None:
    worker = " ".join(guarantee.COMMANDS[guarantee.EXACTLY])
    assert (
        guarantee.instead(f"sh -c 'x topics create && exec {worker}'", ["other"])
        == "sh -c 'x topics create && exec other'"
    )
    with pytest.raises(ValueError, match="once in"):
        guarantee.instead("exec something else", ["other"])


@pytest.mark.parametrize("asynchronous", [True, False])
def test_without_transactions_offsets_are_committed_after_everything_is_delivered(asynchronous: bool) -> None:
    told: list[object] = []

    class Client:
        left = 0

        def produce(self, *_: object) -> None: ...

        def poll(self, _timeout: float) -> None: ...

        def flush(self, _timeout: float) -> int:
            told.append("flushed")
            return self.left

        def commit(self, *, offsets: list[int], asynchronous: bool) -> None:
            told.append((offsets, asynchronous))

    client = Client()
    producer = at_least_once.WithoutTransactions(client, client, asynchronous=asynchronous)  # type: ignore[arg-type]
    producer.begin_transaction()
    producer.send_offsets_to_transaction([7], None, 1.0)  # type: ignore[list-item]
    producer.commit_transaction(1.0)
    assert told == ["flushed", ([7], asynchronous)]
    client.left = 3
    with pytest.raises(RuntimeError, match="3 records were not delivered"):
        producer.commit_transaction(1.0)
    assert told[-1] == "flushed"
