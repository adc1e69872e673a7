"""What a worker tells over HTTP."""

import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from stream.errors import SettingsInvalid
from stream.partition import Progress
from stream.ports import Outgoing
from stream.probes import ALIVE_WITHIN_S, served, waiting
from stream.prometheus import registry, registry_while_waiting
from stream.recommender import Recommender
from stream.serving import Served
from stream.worker import Worker
from tests.fakes import FakeLink, FakeModel, FakeRecord, NothingToRestore, said, worker_on

WHO = "application shop, worker w1"


def asked(port: int | None, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_counts_health_and_readiness_are_those_of_the_worker(tmp_path: Path) -> None:
    now = 0.0
    link = FakeLink([FakeRecord(b"ann", said(item, item), 0, item) for item in range(5)], [])
    worker = worker_on(link, tmp_path, FakeModel(4), clock=lambda: now)
    with served(worker, "127.0.0.1:0", lambda: now, who=WHO, by_default=False) as port:
        worker.turn()
        status, told = asked(port, "/metrics")
        assert status == 200
        assert "rec2pm_interactions_total 5.0" in told
        assert "rec2pm_folds_total 1.0" in told
        assert 'rec2pm_partitions{phase="running"} 1.0' in told
        assert 'rec2pm_model_info{model="fake@1",' in told
        assert "rec2pm_serves_promoted 1.0" in told
        assert "rec2pm_whole_step_seconds_count 1.0" in told
        assert asked(port, "/livez")[0] == 200
        assert asked(port, "/readyz")[0] == 200
        assert asked(port, "/elsewhere")[0] == 404
        now = ALIVE_WITHIN_S + 1
        assert asked(port, "/livez")[0] == 503
        assert "rec2pm_waiting_for_kafka 0.0" in asked(port, "/metrics")[1]
        link.waited_at = now
        assert asked(port, "/livez")[0] == 200, "to start it again would not bring Kafka back"
        assert "rec2pm_waiting_for_kafka 1.0" in asked(port, "/metrics")[1]
        assert asked(port, "/livez")[1].endswith(f"({WHO})\n"), "a probe may have reached another worker"
        assert asked(port, "/readyz") == (200, f"1 of 1 assigned partitions are running ({WHO})\n")
        worker.partitions.close()


def test_a_worker_in_the_group_without_a_partition_is_ready_and_one_outside_it_is_not(tmp_path: Path) -> None:
    worker = worker_on(FakeLink([], []), tmp_path, FakeModel(4), partitions=())
    worker.partitions.joined = False
    with served(worker, "127.0.0.1:0", lambda: 0.0, who=WHO, by_default=False) as port:
        assert asked(port, "/readyz") == (503, f"not in the group yet ({WHO})\n")
        worker.partitions.assigned([])
        standby = (200, f"standby: in the group, which has no partition for this worker ({WHO})\n")
        assert asked(port, "/readyz") == standby
        worker.partitions.assigned([3])
        assert asked(port, "/readyz") == (503, f"0 of 1 assigned partitions are running ({WHO})\n")
        worker.partitions.revoked([3])
        assert asked(port, "/readyz") == standby
        worker.partitions.lost([])
        assert asked(port, "/readyz")[0] == 503
    worker.partitions.close()


def test_the_progress_of_a_restore_is_told(tmp_path: Path) -> None:
    class Halfway(NothingToRestore):
        def progress(self) -> Progress | None:  # type: ignore[override]
            return Progress(300, 60.0, 120)

    worker = worker_on(FakeLink([], []), tmp_path, FakeModel(4))
    worker.partitions.all()[0].restore = Halfway()
    with served(worker, "127.0.0.1:0", lambda: 0.0, who=WHO, by_default=False) as port:
        told = asked(port, "/metrics")[1]
    assert 'rec2pm_restore_records{partition="0"} 300.0' in told
    assert 'rec2pm_restore_records_per_second{partition="0"} 60.0' in told
    assert 'rec2pm_restore_remaining_records{partition="0"} 120.0' in told
    assert 'rec2pm_restore_seconds_left{partition="0"} 2.0' in told
    worker.partitions.close()


def test_a_port_that_is_taken_is_an_error_only_where_it_was_asked_for(tmp_path: Path) -> None:
    worker = worker_on(FakeLink([], []), tmp_path, FakeModel(4))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with served(worker, listen, lambda: 0.0, who=WHO, by_default=True) as port:
            assert port is None
        with (
            pytest.raises(SettingsInvalid, match="REC2PM_METRICS_LISTEN"),
            served(worker, listen, lambda: 0.0, who=WHO, by_default=False),
        ):
            pass
    worker.partitions.close()


def test_an_empty_setting_is_off(tmp_path: Path) -> None:
    worker = worker_on(FakeLink([], []), tmp_path, FakeModel(4))
    with served(worker, "", lambda: 0.0, who=WHO, by_default=False) as port:
        assert port is None
    worker.partitions.close()


def values(worker: Worker) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name → the values of its labels → the sample's value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in registry(worker, 1 << 30).collect():
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_the_phases_of_steps_add_up_to_the_whole(tmp_path: Path) -> None:
    now = 0.0
    link = FakeLink([FakeRecord(b"ann", said(item, item), 0, item) for item in range(6)], [3])
    publish = link.publish

    def slow(outgoing: Outgoing) -> Mapping[int, int]:
        nonlocal now
        now += 2.0
        return publish(outgoing)

    link.publish = slow  # type: ignore[method-assign]
    worker = worker_on(link, tmp_path, FakeModel(4), clock=lambda: now)
    for _ in range(3):
        now += 100.0  # a poll that waits is no part of a step
        worker.turn()
    told = values(worker)
    assert told["rec2pm_step_seconds_sum"] == {("decode",): 0.0, ("compute",): 0.0, ("publish",): 4.0, ("write",): 0.0}
    assert told["rec2pm_step_seconds_count"] == dict.fromkeys(told["rec2pm_step_seconds_sum"], 2.0)
    assert told["rec2pm_whole_step_seconds_sum"] == {(): 4.0}
    assert told["rec2pm_last_step_timestamp_seconds"] == {(): 204.0}
    worker.partitions.close()


def test_folds_and_lists_are_counted_with_their_seconds_over_a_swap(tmp_path: Path) -> None:
    link = FakeLink([FakeRecord(b"ann", said(item, item), 0, item) for item in range(8)], [4])
    worker = worker_on(link, tmp_path, FakeModel(4))
    worker.turn()
    before = values(worker)
    assert before["rec2pm_fold_seconds_count"] == {(): 1.0}
    assert before["rec2pm_list_seconds_count"] == {(): 1.0}
    assert before["rec2pm_fold_seconds_sum"][()] > 0
    worker.serving.offer(Served(Recommender(FakeModel(4)), "1" * 64, "promoted"))
    worker.turn()
    after = values(worker)
    assert after["rec2pm_fold_seconds_count"] == {(): 2.0}
    assert after["rec2pm_list_seconds_sum"][()] > before["rec2pm_list_seconds_sum"][()]
    worker.partitions.close()


def test_the_lag_is_told_for_partitions_that_have_run(tmp_path: Path) -> None:
    now = 0.0
    records = [FakeRecord(b"ann", said(item, item), 0, item) for item in range(6)]
    link = FakeLink([*records, FakeRecord(b"bob", said(1, 1), 1, 0)], [2])
    worker = worker_on(link, tmp_path, FakeModel(4), clock=lambda: now)
    worker.turn()
    now = 7.0
    told = values(worker)
    assert told["rec2pm_lag_records"] == {("0",): 4.0}
    assert told["rec2pm_lag_seconds"] == {("0",): 7.0}
    worker.turn()
    told = values(worker)
    assert told["rec2pm_lag_records"] == {("0",): 0.0}
    assert told["rec2pm_lag_seconds"] == {("0",): 0.0}
    worker.partitions.assigned([1])
    assert ("1",) not in values(worker)["rec2pm_lag_records"], "its position is not known yet"
    worker.partitions.close()


def test_exactly_one_state_is_that_of_the_worker(tmp_path: Path) -> None:
    now = 100.0
    link = FakeLink([], [])
    worker = worker_on(link, tmp_path, FakeModel(4), partitions=(), clock=lambda: now)

    def state() -> str:
        (found,) = [name for (name,), value in values(worker)["rec2pm_state"].items() if value]
        return found

    worker.partitions.joined = False
    assert state() == "joining"
    worker.partitions.assigned([])
    assert state() == "standby"
    worker.partitions.assigned([3])
    assert state() == "restoring"
    while worker.partitions.restore():
        pass
    assert state() == "running"
    link.waited_at = now
    assert state() == "waiting_for_kafka"
    worker.partitions.close()
    (family,) = [each for each in registry_while_waiting().collect() if each.name == "rec2pm_state"]
    assert [sample.labels["state"] for sample in family.samples if sample.value] == ["waiting_for_model"]


def test_aborts_restores_and_dead_letters_are_told_by_their_reasons(tmp_path: Path) -> None:
    records = [FakeRecord(b"ann", b"nonsense", 0, 0), FakeRecord(b"ann", said(1, 1), 0, 1)]
    link = FakeLink([*records, FakeRecord(b"ann", said(2, 2), 0, 1)], [2], refusals=1)
    worker = worker_on(link, tmp_path, FakeModel(4))
    for _ in range(20):
        worker.turn()
    told = values(worker)
    assert {reason: number for (reason,), number in told["rec2pm_aborted_total"].items() if number} == {
        "kafka": 1.0,
        "offset_went_back": 1.0,
    }
    assert told["rec2pm_dead_letters_total"] == {("MalformedInteraction",): 1.0, ("ModelFailed",): 0.0}
    assert told["rec2pm_restores_total"][("assigned",)] == 1.0
    assert told["rec2pm_restores_total"][("step_aborted",)] >= 2.0
    worker.partitions.close()


def test_the_process_and_its_stores_have_a_size(tmp_path: Path) -> None:
    link = FakeLink([FakeRecord(b"ann", said(1, 1), 0, 0)], [])
    worker = worker_on(link, tmp_path, FakeModel(4))
    worker.turn()
    worker.partitions.flush()
    told = values(worker)
    files = [each for each in (tmp_path / "0").iterdir() if each.is_file()]
    assert told["rec2pm_store_bytes"] == {("0",): sum(each.stat().st_size for each in files)}
    assert told["rec2pm_memory_limit_bytes"] == {(): float(1 << 30)}
    assert told["process_resident_memory_bytes"][()] > 1 << 20
    worker.partitions.close()


def test_a_worker_that_waits_for_a_model_has_metrics_that_say_so() -> None:
    with waiting("127.0.0.1:0", lambda: "waits for films@3", who=WHO, by_default=False) as port:
        status, told = asked(port, "/metrics")
        assert status == 200
        assert 'rec2pm_state{state="waiting_for_model"} 1.0' in told
        assert asked(port, "/readyz")[0] == 503
