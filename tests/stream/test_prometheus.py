"""What a worker tells over HTTP."""

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from stream.errors import SettingsInvalid
from stream.partition import Progress
from stream.prometheus import ALIVE_WITHIN_S, served
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
        assert "rec2pm_step_seconds_count 1.0" in told
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
