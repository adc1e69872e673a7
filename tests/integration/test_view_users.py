"""The view beside real workers: what is remembered about users, what workers do, titles, and who is let in."""

import http.client
import json
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hypothesis
import openapi_spec_validator
import pytest
from hypothesis import strategies
from jsonschema import Draft202012Validator

from model.version.registry import Registry
from stream.commands.command_line import REC2PM
from stream.testing import untrained
from stream.testing.process import Worker
from tests.crash.ports import free_port
from tests.integration.test_broker import until
from tests.integration.test_view import Running
from tests.processes import rec2pm
from tests.promoting import promote

pytest.importorskip("faust", reason="the extra `view` is not installed")

ITEMS = [f"item-{number}" for number in range(40)]
SEGMENT = 5
READY_WITHIN_S = 90.0


class View(Running):
    """A `rec2pm view` of a worker's application."""

    def __init__(self, running: ExitStack, worker: Worker, *options: str, **env: str) -> None:
        self.port, self.log = free_port(), worker.log.with_name("view.log")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*REC2PM, "view", "--listen", f"127.0.0.1:{self.port}", *options],
                env={**worker.env, **env},
                stdout=output,
                stderr=output,
            )
        running.callback(self.process.wait)
        running.callback(self.process.kill)
        until(lambda: self.get("/ready")[0] == 200, READY_WITHIN_S, "the view is ready")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(15)


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def models(tmp_path: Path) -> str:
    folder = tmp_path / "models"
    untrained(folder, ITEMS, name="first", segment_length=SEGMENT)
    untrained(folder, ITEMS, name="second", segment_length=SEGMENT, seed=1)
    return str(folder)


@pytest.fixture
def worker(bootstrap: str, app: str, models: str, tmp_path: Path) -> Iterator[Worker]:
    """It serves `first`, makes a list after every interaction, and keeps two segments."""
    started = Worker.start(
        bootstrap, models, tmp_path / "w", {"app": app, "model": "first", "worker": "w-1", "keep_segments": 2}
    )
    yield started
    started.stop()


def acts(worker: Worker, user: str, begin: int, end: int) -> None:
    worker.send_all([(user, ITEMS[number % 40], 1_700_000_000_000 + number) for number in range(begin, end)])


def test_the_view_tells_of_a_user_what_user_show_tells(worker: Worker, running: ExitStack, tmp_path: Path) -> None:
    acts(worker, "ann", 0, 13)
    acts(worker, "bob ü/x", 0, 2)
    worker.wait_until_taken()
    titles = tmp_path / "items.csv"
    titles.write_text('item_id,title\nitem-11,Heat\nitem-3,"Ran, 乱"\n')
    view = View(running, worker, "--users", "--items", str(titles))

    status, told = view.get("/users/ann")
    assert status == 200
    shown = json.loads(rec2pm("user", "show", "ann", "--json", env=worker.env).stdout)
    for name in ("taken", "folds", "working_items", "working_times", "as_of", "partition"):
        assert told[name] == shown[name], name
    assert (told["taken"], told["folds"], told["segment_length"]) == (13, 2, SEGMENT)
    assert told["segments"] == list(reversed(shown["kept_segments"]))
    assert told["memory"] == {
        "format": shown["memory_format"],
        "floats": len(shown["memory"]),
        "bytes": 4 * len(shown["memory"]),
        "as_of": shown["memory_as_of"],
        "missing_segments": 0,
    }
    assert told["serves"] == told["list"]["model"] == "first@1"
    assert told["list"]["taken"] == 13
    assert told["titles"] == {"item-11": "Heat", "item-3": "Ran, 乱"}
    assert view.get("/users/bob%20%C3%BC%2Fx")[1]["memory"] is None
    assert view.get("/users/nobody") == (404, {"error": "nothing is remembered about this user", "user": "nobody"})
    assert view.get(f"/users/{'x' * 256}")[0] == view.get(f"/recommendations/{'x' * 256}")[0] == 400
    listed = view.get("/recommendations/ann")[1]
    assert set(listed["titles"]) == {"item-11", "item-3"} & set(listed["items"])
    assert {each["user"] for each in view.get("/users")[1]["active"]} == {"ann", "bob ü/x"}

    answers_are_as_described(view, ["ann", "bob ü/x"])
    workers = view.get("/workers")[1]
    assert workers["interactions"] == 15
    assert [each["version"] for each in workers["partitions"] if each["position"]] == ["first@1"] * len(
        {told["partition"], view.get("/users/bob%20%C3%BC%2Fx")[1]["partition"]}
    )
    until(lambda: [each["serves"] for each in view.get("/workers")[1]["workers"]] == ["first@1"], 20, "the report")
    until(lambda: all(each["lag"] == 0 for each in view.get("/workers")[1]["partitions"]), 20, "how far they are")
    assert view.stop() == 0, view.log.read_text()
    assert "Traceback" not in view.log.read_text()

    # What came while no view was there, and a user who is forgotten.
    acts(worker, "ann", 13, 15)
    rec2pm("user", "forget", "bob ü/x", "--execute", env=worker.env)
    worker.wait_until_taken()
    again = View(running, worker, "--users")
    assert (again.get("/users/ann")[1]["taken"], again.get("/users/ann")[1]["folds"]) == (15, 3)
    assert again.get("/users/bob%20%C3%BC%2Fx")[0] == 404
    assert "begun again" not in again.log.read_text(), "the copy is continued"


def answers_are_as_described(view: View, known: list[str]) -> None:
    """Every answer has a status and a body of the description, for whatever user it is about."""
    described = view.get("/openapi.json")[1]
    openapi_spec_validator.validate(described)
    schemas = described["components"]["schemas"]

    def check(template: str, user: str) -> int:
        status, body = view.get(template.format(user=quote(user, safe="")))
        responses = described["paths"][template]["get"]["responses"]
        assert str(status) in responses, (template, user, status, body)
        schema = responses[str(status)]["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": {"schemas": schemas}}).validate(body)
        if status == 200:
            assert body.keys() <= schemas[schema["$ref"].rpartition("/")[2]]["properties"].keys(), template
        return status

    templates = [path for path in described["paths"] if not path.endswith("/stream")]
    assert {check(template, user) for template in templates for user in known} == {200}
    about_users = [each for each in templates if "{" in each]
    assert {check(template, "ü" * 128) for template in about_users} == {400}, "one byte too long"

    @hypothesis.settings(max_examples=30, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(
        template=strategies.sampled_from(about_users),
        user=strategies.text(min_size=1, max_size=300).filter(
            lambda text: text not in (".", "..") and "\0" not in text
        ),
    )
    def whoever(template: str, user: str) -> None:
        assert check(template, user) == (400 if len(user.encode()) > 255 else 404)

    whoever()


def events(port: int, path: str) -> Generator[tuple[str, Any], None, None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    name = ""
    with closing(connection), closing(answer):
        while line := answer.readline():
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])
    raise AssertionError("the stream ended")


def test_a_stream_follows_a_user_through_folds_and_a_promotion(
    worker: Worker, running: ExitStack, bootstrap: str, app: str, models: str
) -> None:
    view = View(running, worker, "--users")
    stream = events(view.port, "/users/ann/stream")
    assert next(stream) == ("state", {"user": "ann"})
    assert next(stream) == ("none", {"user": "ann"})
    seen: dict[str, Any] = {}
    folds = []

    def come_to(reached: Callable[[], bool]) -> None:
        while not reached():
            name, told = next(stream)
            seen[name] = told
            if name == "state":
                folds.append(told["folds"])
                assert told["taken"] == told["folds"] * SEGMENT + len(told["working_items"])

    for begin in range(0, 12, 3):
        acts(worker, "ann", begin, begin + 3)
        come_to(lambda end=begin + 3: all(seen.get(each, {}).get("taken") == end for each in ("state", "list")))  # type: ignore[misc]
    assert folds == sorted(folds)
    assert folds[-1] == 2
    assert view.get("/workers")[1]["folds"] == 2
    assert view.get("/workers")[1]["lists"] >= 4

    promote(bootstrap, app, Registry(models).resolve("second@1"))
    until(lambda: view.get("/workers")[1]["workers"][0]["serves"] == "second@1", 60, "the worker has the version")
    acts(worker, "ann", 12, 13)
    come_to(lambda: seen["list"]["model"] == "second@1")
    assert view.get("/workers")[1]["champion"] == "second@1"
    stream.close()
