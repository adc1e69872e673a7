"""The view as a process: what it answers, what it pushes, what it hides, and how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from stream.kafka.topics import create, plan
from stream.keys import KeyFormat
from stream.wire import Recommendation, recommendation_as_json, recommendation_as_msgpack
from tests.integration.test_broker import until

pytest.importorskip("faust", reason="the extra `view` is not installed")

RUNS_THE_VIEW = """
import os, sys
from stream.__main__ import main
sys.argv[1:] = ["view", "--listen", sys.argv[1], "--name", sys.argv[2]]
main()
"""
READY_WITHIN_S = 60.0


@dataclass
class Running:
    """A view's process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and body; status 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if "json" in answer.headers["Content-Type"] else body.decode()
        except ConnectionError:
            assert self.process.poll() is None, self.log.read_text()
            return 0, None
        finally:
            connection.close()

    def is_ready(self) -> bool:
        status, told = self.get("/ready")
        assert (status, told) in ((0, None), (503, {"ready": False}), (200, {"ready": True}))
        return status == 200

    def items(self, user: str) -> object:
        status, body = self.get(f"/recommendations/{user}")
        return body["items"] if status == 200 else status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


Start = Callable[[str], Running]


@pytest.fixture
def start(bootstrap: str, app: str, tmp_path: Path) -> Iterator[Start]:
    """Start a view by name, wait until it is ready; all end with the test."""
    with ExitStack() as running:

        def started(name: str) -> Running:
            view = launched(running, environment(bootstrap, app, tmp_path), name, tmp_path / f"{name}.log")
            until(view.is_ready, READY_WITHIN_S, "the view is ready")
            return view

        yield started


def environment(bootstrap: str, app: str, folder: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")},
        "REC2PM_BOOTSTRAP_SERVERS": bootstrap,
        "REC2PM_APP": app,
        "REC2PM_RECOMMENDATIONS_TOPIC": f"{app}-recommendations",
        "REC2PM_STATE_DIR": str(folder / "state"),
    }


def launched(
    running: ExitStack, environ: dict[str, str], name: str, log: Path, program: str = RUNS_THE_VIEW
) -> Running:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, f"127.0.0.1:{port}", name], env=environ, stdout=output, stderr=output
        )
    running.callback(process.wait)
    running.callback(process.kill)
    return Running(process, port, log)


class Worker:
    """Writes lists as a worker does: in transactions, which end with markers that are no records."""

    def __init__(self, bootstrap: str, app: str) -> None:
        create(
            AdminClient({"bootstrap.servers": bootstrap}),
            plan(app, f"{app}-interactions", f"{app}-recommendations", 3, 1),
        )
        self.topic = f"{app}-recommendations"
        self.keys = KeyFormat()
        self.producer = Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": app, "partitioner": "murmur2_random"}
        )
        self.producer.init_transactions(30)

    def recommends(self, *lists: tuple[str, bytes | None], commit: bool = True) -> None:
        self.producer.begin_transaction()
        for user, value in lists:
            self.producer.produce(self.topic, value, self.keys.key(user))
        self.producer.flush(30)
        self.producer.commit_transaction(30) if commit else self.producer.abort_transaction(30)


@pytest.fixture
def worker(bootstrap: str, app: str) -> Worker:
    return Worker(bootstrap, app)


def a_list(*items: int | str) -> Recommendation:
    scores = [1 / (rank + 1) for rank in range(len(items))]
    return Recommendation(
        list(items),
        scores,
        as_of=1_700_000_000_000,
        partition=1,
        offset=7,
        taken=3,
        folds=0,
        model="m@1",
        source="working",
    )


def packed(*items: int | str) -> bytes:
    return recommendation_as_msgpack(a_list(*items))


def test_the_newest_list_of_every_user_is_served_from_messagepack_and_json(worker: Worker, start: Start) -> None:
    worker.recommends(("u1", packed(1)), *((f"v{n}", packed(n)) for n in range(20)))
    worker.recommends(("u1", packed(5, 6)), ("a/b ü", recommendation_as_json(a_list("x"))), ("gone", packed(9)))
    worker.recommends(("gone", None))
    view = start("view-1")
    assert view.get("/recommendations/u1") == (200, {"user": "u1", **msgspec.structs.asdict(a_list(5, 6))})
    assert view.items("a%2Fb%20%C3%BC") == ["x"]
    assert [view.items(f"v{n}") for n in range(20)] == [[n] for n in range(20)]
    for nobody in ("gone", "stranger"):
        assert view.get(f"/recommendations/{nobody}") == (
            404,
            {"error": "no recommendations for this user", "user": nobody},
        )
    assert view.get("/")[0] == 200
    assert view.stop() == 0


def test_a_stream_begins_with_the_list_of_now_and_ends_soon_after_sigterm(worker: Worker, start: Start) -> None:
    worker.recommends(("u1", packed(1)))
    view = start("view-1")
    with socket.create_connection(("127.0.0.1", view.port), timeout=20) as reader, reader.makefile("rb") as lines:
        reader.sendall(b"GET /recommendations/u1/stream HTTP/1.1\r\nHost: view\r\n\r\n")
        assert next_event(lines)["items"] == [1]
        worker.recommends(("u1", packed(2)), ("u2", packed(8)))
        assert next_event(lines)["items"] == [2]
        assert view.items("u2") == [8]
        worker.recommends(("u1", None))
        assert next_event(lines) == {"user": "u1"}, "withdrawn"
        assert view.items("u1") == 404
        worker.recommends(("u1", packed(3)))
        assert next_event(lines)["items"] == [3]
        asked = time.monotonic()
        assert view.stop() == 0
        assert time.monotonic() - asked < 6


def test_a_user_is_asked_for_as_text_whatever_form_the_keys_have(
    worker: Worker, bootstrap: str, app: str, tmp_path: Path
) -> None:
    worker.keys = KeyFormat("long")
    worker.recommends(("42", packed(1)))
    with ExitStack() as running:
        env = {**environment(bootstrap, app, tmp_path), "REC2PM_KEY_FORMAT": "long"}
        view = launched(running, env, "view-1", tmp_path / "view.log")
        until(view.is_ready, READY_WITHIN_S, "the view is ready")
        assert view.items("42") == [1]
        assert view.items("43") == view.items("anna") == view.items("anna/stream") == 404
        with socket.create_connection(("127.0.0.1", view.port), timeout=20) as reader, reader.makefile("rb") as lines:
            reader.sendall(b"GET /recommendations/42/stream HTTP/1.1\r\nHost: view\r\n\r\n")
            assert next_event(lines)["items"] == [1]
            worker.recommends(("42", packed(2)))
            assert next_event(lines)["items"] == [2]
        assert "Traceback" not in view.log.read_text()


def next_event(lines: Any) -> Any:
    while line := lines.readline():
        if line.startswith(b"data: "):
            return json.loads(line.removeprefix(b"data: "))
    raise AssertionError("the stream ended")


@pytest.mark.isolation
def test_a_list_of_an_aborted_transaction_is_never_shown(worker: Worker, start: Start) -> None:
    worker.recommends(("u1", packed(1)))
    worker.recommends(("u1", packed(666)), ("u2", packed(666)), commit=False)
    view = start("view-1")
    assert (view.items("u1"), view.items("u2")) == ([1], 404)
    worker.recommends(("u1", packed(667)), commit=False)
    worker.recommends(("u3", packed(3)))
    until(lambda: view.items("u3") == [3], 20, "the next list is shown")
    assert view.items("u1") == [1]


def test_a_view_started_again_knows_what_it_had_and_what_it_missed(worker: Worker, start: Start) -> None:
    worker.recommends(("kept", packed(1)), ("changed", packed(1)), ("gone", packed(1)))
    assert start("view-1").stop(signal.SIGKILL) == -signal.SIGKILL
    worker.recommends(("changed", packed(2)), ("gone", None))
    view = start("view-1")
    assert (view.items("kept"), view.items("changed"), view.items("gone")) == ([1], [2], 404)
    assert view.stop(signal.SIGINT) == 130


def test_a_second_view_of_the_same_name_and_folder_is_refused(
    worker: Worker, start: Start, bootstrap: str, app: str, tmp_path: Path
) -> None:
    start("view-1")
    with ExitStack() as running:
        second = launched(running, environment(bootstrap, app, tmp_path), "view-1", tmp_path / "second.log")
        assert second.process.wait(30) == 2
    assert "--name=view-1: a live view has this name" in second.log.read_text()


def test_two_views_of_other_names_both_know_every_user(worker: Worker, start: Start) -> None:
    worker.recommends(*((f"v{n}", packed(n)) for n in range(20)))
    views = [start("view-1"), start("view-2")]
    worker.recommends(("v7", packed(77)))
    for view in views:
        until(lambda view=view: view.items("v7") == [77], 20, "the new list arrives")  # type: ignore[misc]
        assert [view.items(f"v{n}") for n in range(20) if n != 7] == [[n] for n in range(20) if n != 7]


@pytest.mark.parametrize(
    ("program", "name", "said"),
    [
        (RUNS_THE_VIEW, "view-1", "recommendations is missing: run `rec2pm topics create`"),
        (RUNS_THE_VIEW, "no/name", "--name=no/name: expected"),
        (f"import sys; sys.modules['faust'] = None\n{RUNS_THE_VIEW}", "view-1", "pip install '.[view]'"),
    ],
)
def test_a_view_that_cannot_run_says_what_to_do(
    bootstrap: str, app: str, tmp_path: Path, program: str, name: str, said: str
) -> None:
    with ExitStack() as running:
        view = launched(running, environment(bootstrap, app, tmp_path), name, tmp_path / "view.log", program)
        with suppress(subprocess.TimeoutExpired):
            view.process.wait(30)
        assert view.process.returncode == 2
        assert said in view.log.read_text()
