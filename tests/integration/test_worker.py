"""`rec2pm worker` as a process beside a broker: the whole journey, clean stops, restarts, and kill -9.

One journey in three parts, each a worker of its own: the tests look at what it left behind.
"""

import json
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgpack
import msgspec
import numpy as np
import polars as pl
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from bench import null_model
from model.version.registry import Registry
from model.version.runtime import Runtime
from stream.commands.broker import Broker
from stream.commands.command_line import REC2PM
from stream.kafka import topics
from stream.state_rows import SCHEMA
from stream.testing import Driver
from stream.wire import refusal
from tests.model import tiny
from tests.processes import session_ms
from tests.same_lists import list_difference

ROOT = Path(__file__).parents[2]
PARTITIONS = 3
COMMAND_S = 60
"""A command imports torch or polars on a machine that may be busy."""
WORK_S = 60
KEPT = 5
FIELDS = ["items", "scores", "as_of", "partition", "offset", "taken", "folds", "model", "source"]


@dataclass
class Running:
    """A worker process."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> tuple[int, float]:
        """SIGTERM; its exit code, and the seconds until it was gone."""
        began = time.monotonic()
        self.process.terminate()
        return self.process.wait(COMMAND_S), time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(COMMAND_S)

    def told(self) -> str:
        return self.log.read_text()[-3000:]


@dataclass
class Application:
    """One application on the broker: its topics, its state folder, its processes."""

    bootstrap: str
    folder: Path
    name: str = field(default_factory=lambda: f"test-{uuid4().hex[:12]}")
    started: list[Running] = field(default_factory=list)
    partitions: int = PARTITIONS
    sent: int = 0
    """Records produced. Not asked of the broker: the embedded one's end of a partition ignores what its last batch
    holds.
    """
    asking: Consumer | None = None

    @property
    def interactions(self) -> str:
        return f"{self.name}.interactions"

    @property
    def recommendations(self) -> str:
        return f"{self.name}.recommendations"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def environ(self, settings: Mapping[str, object]) -> dict[str, str]:
        ours = {
            "BOOTSTRAP_SERVERS": self.bootstrap,
            "APP": self.name,
            "INTERACTIONS_TOPIC": self.interactions,
            "RECOMMENDATIONS_TOPIC": self.recommendations,
            "STATE_DIR": self.state,
            "MODELS": self.models,
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")}
        return {**inherited, **{f"REC2PM_{name}": str(value) for name, value in ours.items()}}

    def rec2pm(self, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        command = [*REC2PM, *map(str, arguments)]
        environ = self.environ(settings)
        return subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )

    def start_worker(self, command: Sequence[str] = (*REC2PM, "worker"), **settings: object) -> Running:
        log = self.folder / f"worker-{len(self.started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(command),
                cwd=ROOT,
                env=self.environ(settings),
                stdout=output,
                stderr=output,
            )
        self.started.append(Running(process, log))
        return self.started[-1]

    def close(self) -> None:
        if self.asking is not None:
            self.asking.close()
        for running in self.started:
            running.process.kill()
            running.process.wait()

    def produce(
        self, records: Sequence[tuple[bytes | None, bytes | None]], headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
        failed: list[KafkaError] = []
        for key, value in records:
            producer.produce(
                self.interactions,
                value,
                key,
                headers=list(headers),
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        assert producer.flush(30) == 0
        assert not failed
        self.sent += len(records)

    def read(self, topic: str) -> list[Message]:
        """Every record of a topic, as a read_committed reader sees it; each partition in order."""
        reader = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{self.name}-reader",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,  # the end is told when a fetch comes back empty
                "enable.auto.commit": False,
            }
        )
        found: list[Message] = []
        try:
            partitions = reader.list_topics(topic, timeout=30).topics[topic].partitions
            reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
            unfinished = set(partitions)
            deadline = time.monotonic() + 30
            while unfinished:
                assert time.monotonic() < deadline, f"no end of {topic} within 30 s"
                for message in reader.consume(5_000, 0.05):
                    error = message.error()
                    if error is None:
                        found.append(message)
                    else:
                        assert error.code() == KafkaError._PARTITION_EOF, error
                        unfinished.discard(message.partition())
            return found
        finally:
            reader.close()

    def committed(self) -> int:
        """How many interactions the worker's group has committed."""
        if self.asking is None:
            # read_uncommitted: answered at once even while a transaction with offsets in it is open.
            own = {"bootstrap.servers": self.bootstrap, "group.id": self.name, "isolation.level": "read_uncommitted"}
            self.asking = Consumer(own)
        places = [TopicPartition(self.interactions, number) for number in range(self.partitions)]
        try:
            return sum(max(0, place.offset) for place in self.asking.committed(places, timeout=30))
        except KafkaException as error:
            # A broker's very first group finds its coordinator still being made.
            if error.args[0].code() not in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
                raise
            return 0

    def wait_until(self, committed: float, worker: Running) -> None:
        """Wait until so many interactions are committed, by a worker that lives."""
        deadline = time.monotonic() + WORK_S
        while (found := self.committed()) < committed:
            assert worker.process.poll() is None, f"the worker ended:\n{worker.told()}"
            assert time.monotonic() < deadline, f"{found} of {committed} committed after {WORK_S} s:\n{worker.told()}"
            time.sleep(0.01)

    def export(self) -> pl.DataFrame:
        out = self.folder / f"export-{uuid4().hex}.parquet"
        said = self.rec2pm("state", "export", "--out", out)
        assert said.returncode == 0, said.stderr
        return pl.read_parquet(out).sort("user_id")


@pytest.fixture(scope="module")
def applications(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Application]]:
    made: list[Application] = []

    def make() -> Application:
        made.append(Application(broker.bootstrap, tmp_path_factory.mktemp("application")))
        return made[-1]

    yield make
    for application in made:
        application.close()


def create_topics(application: Application) -> None:
    admin = AdminClient({"bootstrap.servers": application.bootstrap})
    planned = topics.plan(
        application.name, application.interactions, application.recommendations, application.partitions, 1
    )
    assert {outcome.result for outcome in topics.create(admin, planned)} == {"created"}


# --- the journey ---

USERS = [f"user-{number}" for number in range(5)]
JSON_USER, GONE, STRANGER = "päivi", "gone", "stranger"
MALFORMED: list[tuple[bytes | None, bytes, str]] = [
    (None, msgpack.packb({"item": "item-1"}), "key is null"),
    (b"user-0", b"hello", "starts with byte 0x68"),
    (b"user-0", b"\x00\x00\x00\x00\x07abc", "schema id 7"),
    (b"user-0", b'{"ts": 5}', "there is no field `item`"),
]


@dataclass(frozen=True)
class Interaction:
    """A line of the log, as the oracle reads it."""

    user: str
    item: str
    time: int
    partition: int
    offset: int


@dataclass
class Part:
    """What one part of the journey left behind."""

    application: Application
    log: list[Interaction]
    lists: list[Message]
    export: pl.DataFrame
    exit_code: int
    stopped_in_s: float
    worker_log: str
    dead: list[Message] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)
    members_left: int | None = None

    def of(self, user: str) -> list[Interaction]:
        return [each for each in self.log if each.user == user]

    def row(self, user: str) -> dict[str, Any]:
        (row,) = self.export.filter(pl.col("user_id") == user).to_dicts()
        return row


def logged(application: Application) -> list[Interaction]:
    """The interactions that a worker should remember, read from the input topic by other means than a worker's."""
    log: list[Interaction] = []
    bad = {(key, value) for key, value, _ in MALFORMED}
    for message in application.read(application.interactions):
        key, value = message.key(), message.value()
        if (key, value) in bad or key is None:
            continue
        user = key.decode()
        if value is None:
            log = [each for each in log if each.user != user]
            continue
        told = json.loads(value) if value[:1] == b"{" else msgpack.unpackb(value)
        time_ms = told.get("ts", 0)
        if time_ms < 10**12:  # absent, or not plausible
            time_ms = message.timestamp()[1]
        log.append(Interaction(user, str(told["item"]), time_ms, message.partition() or 0, message.offset() or 0))
    return log


def items_of(user: int, start: int, count: int) -> list[str]:
    return [f"item-{1 + (user * 17 + at * 7 + at * at) % 60}" for at in range(start, start + count)]


@pytest.fixture(scope="module")
def runtime(applications: Callable[[], Application], tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime.load(tiny.add(tmp_path_factory.mktemp("oracle")).folder)


@pytest.fixture(scope="module")
def first(applications: Callable[[], Application]) -> Part:
    """Topics, a log, records of every kind; one worker takes them and is stopped."""
    application = applications()
    tiny.add(application.models)
    created = application.rec2pm("topics", "create", "--partitions", PARTITIONS)
    assert created.returncode == 0, created.stderr
    worker = application.start_worker(RECOMMEND=1)

    lines = [
        (user, item, 1_700_000_000 + 10 * at)
        for number, user in enumerate(USERS)
        for at, item in enumerate(items_of(number, 0, 30))
    ]
    log = application.folder / "log.csv"
    pl.DataFrame(lines, schema=["user_id", "item_id", "timestamp"], orient="row").sort("timestamp").write_csv(log)
    produced = application.rec2pm("produce", log)
    assert produced.returncode == 0, produced.stderr
    assert produced.stdout == ""
    application.sent += len(lines)
    application.produce([(GONE.encode(), msgpack.packb({"item": item, "ts": 5})) for item in items_of(9, 0, 13)])
    application.produce([(GONE.encode(), None)])
    application.produce(
        [
            (
                JSON_USER.encode(),
                json.dumps(
                    {"item": item, "type": "view", **({"ts": 1_700_000_000_000 + at} if at % 2 else {})}
                ).encode(),
            )
            for at, item in enumerate(items_of(7, 0, 14))
        ]
    )
    application.produce([(STRANGER.encode(), msgpack.packb({"item": item, "ts": 7})) for item in ("never-seen", 123)])
    application.produce([(key, value) for key, value, _ in MALFORMED], headers=[("trace", b"t-1"), ("trace", b"t-2")])
    application.produce([(b"user-0", msgpack.packb({"item": "item-60", "ts": 1_800_000_000_000}))])
    application.wait_until(application.sent, worker)

    shown = application.rec2pm("user", "show", JSON_USER, "--json")
    assert shown.returncode == 0, shown.stderr
    exported = application.export()
    exit_code, stopped_in_s = worker.stop()
    return Part(
        application,
        logged(application),
        application.read(application.recommendations),
        exported,
        exit_code,
        stopped_in_s,
        worker.log.read_text(),
        dead=application.read(f"{application.name}.dead-letter"),
        shown=json.loads(shown.stdout),
        members_left=members(application),
    )


@pytest.fixture(scope="module")
def second(first: Part) -> Part:
    """More interactions while no worker runs; the next worker on the same folder takes them, and answers in JSON."""
    application = first.application
    application.produce(
        [
            (user.encode(), msgpack.packb({"item": item, "ts": 1_900_000_000_000 + at}))
            for number, user in enumerate(USERS)
            for at, item in enumerate(items_of(number, 30, 20))
        ]
    )
    return resumed(application, OUTPUT_FORMAT="json")


@pytest.fixture(scope="module")
def third(second: Part) -> Part:
    """The state folder is deleted; the next worker has the changelog alone to go by."""
    application = second.application
    shutil.rmtree(application.state)
    application.produce(
        [(b"user-1", msgpack.packb({"item": item, "ts": 2_000_000_000_000})) for item in items_of(1, 50, 11)]
    )
    return resumed(application)


def resumed(application: Application, **settings: object) -> Part:
    worker = application.start_worker(RECOMMEND=1, **settings)
    application.wait_until(application.sent, worker)
    exit_code, stopped_in_s = worker.stop()
    lists, exported = application.read(application.recommendations), application.export()
    return Part(application, logged(application), lists, exported, exit_code, stopped_in_s, worker.log.read_text())


def members(application: Application) -> int | None:
    """Members of the consumer group; None where the broker does not tell."""
    admin = AdminClient({"bootstrap.servers": application.bootstrap})
    try:
        return len(
            admin.describe_consumer_groups([application.name], request_timeout=10)[application.name].result(10).members
        )
    except (KafkaException, TimeoutError):
        return None


def decoded(message: Message) -> dict[str, Any]:
    value = message.value()
    assert value is not None
    told: dict[str, Any] = json.loads(value) if value[:1] == b"{" else msgpack.unpackb(value)
    return told


def memory_after(runtime: Runtime, items: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The preference memory after every full segment of a history, by the artifact alone."""
    rows = np.array([runtime.item_ids.index(item) + 1 for item in items], dtype=np.int64)
    length = runtime.segment_length
    memory = np.zeros((1, runtime.state_floats), np.float32)
    for start in range(0, len(rows) - len(rows) % length, length):
        memory = runtime.fold(memory, rows[None, start : start + length]).memory
    return memory


def list_after(runtime: Runtime, items: Sequence[str], k: int = 10) -> list[str]:
    """The list after the last of a history's items, which is not the last of its segment."""
    rows = np.array([runtime.item_ids.index(item) + 1 for item in items], dtype=np.int64)
    folds = len(rows) // runtime.segment_length
    working = rows[folds * runtime.segment_length :]
    exclude = rows[max(0, folds - KEPT) * runtime.segment_length :]
    ranked = runtime.recommend(memory_after(runtime, items), working[None], np.array([len(working)]), k, exclude[None])
    return [str(runtime.item_ids[row - 1]) for row in ranked.rows[0]]


def test_every_interaction_is_answered_once_with_the_fields_of_the_contract(first: Part) -> None:
    lists = {
        (told["partition"], told["offset"]): (message, told)
        for message in first.lists
        if message.value()
        for told in [decoded(message)]
    }
    assert len(lists) == sum(message.value() is not None for message in first.lists), "no interaction twice"
    totals = Counter[str]()
    for each in first.log:
        totals[each.user] += 1
        message, told = lists.pop((each.partition, each.offset))
        assert list(told) == FIELDS
        assert message.key() == each.user.encode()
        assert message.headers() == [("rec2pm.model", b"tiny@1")]
        assert (told["as_of"], told["taken"], told["folds"]) == (each.time, totals[each.user], totals[each.user] // 12)
        assert told["model"] == "tiny@1"
        assert len(told["items"]) == len(set(told["items"])) == len(told["scores"]) == 10
        assert set(told["items"]) <= set(tiny.IDS)
        assert told["scores"] == sorted(told["scores"], reverse=True)
        assert each.item not in told["items"]
        expected = "memory" if told["folds"] else "popular" if each.user == STRANGER else "working"
        assert told["source"] == expected
    assert {message.key() for message, _ in lists.values()} == {GONE.encode()}, (
        "what came before a null was answered too"
    )
    assert len(lists) == 13


@pytest.mark.parametrize("user", [*USERS, JSON_USER])
def test_the_last_list_of_a_user_is_the_artifacts(first: Part, runtime: Runtime, user: str) -> None:
    told = decoded([message for message in first.lists if message.key() == user.encode()][-1])
    assert told["items"] == list_after(runtime, [each.item for each in first.of(user)])


def test_malformed_records_are_dead_lettered_with_their_reason_and_the_stream_goes_on(first: Part) -> None:
    found = {(message.key(), message.value()): message for message in first.dead}
    assert len(first.dead) == len(MALFORMED)
    for key, value, reason in MALFORMED:
        headers = found[key, value].headers() or []
        assert [name for name, _ in headers] == [
            "trace",
            "trace",
            *(f"__streams.errors.{name}" for name in ("exception", "message", "topic", "partition", "offset")),
            "rec2pm.timestamp",
            "rec2pm.attempts",
        ]
        assert headers[:2] == [("trace", b"t-1"), ("trace", b"t-2")]
        told = {name: (text or b"").decode() for name, text in headers}
        assert told["__streams.errors.exception"] == "MalformedInteraction"
        assert reason in told["__streams.errors.message"]
        assert told["__streams.errors.topic"] == first.application.interactions
        assert told["rec2pm.attempts"] == "1"
        place = int(told["__streams.errors.partition"]), int(told["__streams.errors.offset"])
        assert all((each.partition, each.offset) != place for each in first.log)
    assert first.of("user-0")[-1].item == "item-60", "it came after the malformed records"
    assert first.row("user-0")["taken"] == 31


def test_a_null_value_forgets_the_user_and_withdraws_the_list(first: Part) -> None:
    assert GONE not in first.export["user_id"].to_list()
    mine = [message.value() for message in first.lists if message.key() == GONE.encode()]
    assert mine[-1] is None
    assert None not in mine[:-1]


@pytest.mark.parametrize("part", ["first", "second", "third"])
def test_the_export_is_what_the_log_and_the_artifact_say(
    request: pytest.FixtureRequest, runtime: Runtime, part: str
) -> None:
    left: Part = request.getfixturevalue(part)
    assert dict(left.export.schema) == dict(SCHEMA)
    assert left.export["user_id"].to_list() == sorted({each.user for each in left.log})
    for row in left.export.to_dicts():
        mine = left.of(row["user_id"])
        folds = len(mine) // runtime.segment_length
        assert (row["taken"], row["folds"]) == (len(mine), folds)
        assert row["taken"] == row["folds"] * runtime.segment_length + len(row["working_items"])
        assert row["working_items"] == [each.item for each in mine[folds * runtime.segment_length :]]
        assert row["working_times"] == [each.time for each in mine[folds * runtime.segment_length :]]
        assert (row["as_of"], row["partition"]) == (mine[-1].time, mine[-1].partition)
        assert row["memory_format"] == (runtime.memory_format if folds else "")
        if folds:
            expected = memory_after(runtime, [each.item for each in mine])[0]
            np.testing.assert_allclose(np.array(row["memory"], np.float32), expected, rtol=1e-4, atol=1e-4)
        else:
            assert row["memory"] == []


def test_user_show_tells_the_row_of_the_export(first: Part) -> None:
    mine = first.of(JSON_USER)
    row = first.row(JSON_USER)
    assert {name: value for name, value in first.shown.items() if name != "memory"} == {
        name: value for name, value in row.items() if name != "memory"
    }
    (kept,) = row["kept_segments"]
    assert (kept["number"], kept["items"]) == (0, [each.item for each in mine[:12]])
    assert row["memory_as_of"] == mine[11].time
    assert row["other_memories"] == []
    np.testing.assert_allclose(first.shown["memory"], first.row(JSON_USER)["memory"], rtol=1e-6)


@pytest.mark.parametrize("part", ["first", "second", "third"])
def test_sigterm_is_a_clean_and_quick_stop(request: pytest.FixtureRequest, part: str) -> None:
    left: Part = request.getfixturevalue(part)
    assert left.exit_code == 0, left.worker_log
    assert left.stopped_in_s < 5, "without waiting for the session to end (6 s)"
    assert "stopping signal=SIGTERM" in left.worker_log
    assert "Traceback" not in left.worker_log
    said = [line for line in left.worker_log.splitlines() if "have a time that is not plausible" in line]
    assert len(said) <= 1, "once"


def test_a_stopped_worker_has_left_the_group(first: Part) -> None:
    if first.members_left is None:
        pytest.skip("this broker does not tell a group's members")
    assert first.members_left == 0


def test_the_next_worker_goes_on_from_exactly_there(first: Part, second: Part) -> None:
    answered = Counter(
        (told["partition"], told["offset"])
        for message in second.lists
        if message.value()
        for told in [decoded(message)]
    )
    gone = {
        (told["partition"], told["offset"])
        for message in first.lists
        if message.key() == GONE.encode() and message.value()
        for told in [decoded(message)]
    }
    assert answered == Counter([*((each.partition, each.offset) for each in second.log), *gone])
    assert len(second.log) == len(first.log) + 100


def test_json_is_answered_where_json_is_asked_for(first: Part, second: Part, runtime: Runtime) -> None:
    new = [message for message in second.lists if (message.value() or b"")[:1] == b"{"]
    assert len(new) == 100
    assert not any((message.value() or b"")[:1] == b"{" for message in first.lists)
    for message in new:
        assert list(decoded(message)) == FIELDS
        assert message.headers() == [("rec2pm.model", b"tiny@1")]
    for user in USERS[1:]:
        told = decoded([message for message in new if message.key() == user.encode()][-1])
        assert told["items"] == list_after(runtime, [each.item for each in second.of(user)])


def test_a_worker_without_its_state_folder_restores_it_from_the_changelog(second: Part, third: Part) -> None:
    restored = [line for line in third.worker_log.splitlines() if " restored partition=" in line]
    assert len(restored) == PARTITIONS
    assert any("records=0" not in line for line in restored)
    others = pl.col("user_id") != "user-1"
    assert third.export.filter(others).equals(second.export.filter(others)), "the same, byte for byte"
    row = third.row("user-1")
    assert (row["taken"], row["folds"]) == (61, 5)


# --- wrong use ---


def test_a_worker_without_topics_says_how_to_make_them(applications: Callable[[], Application]) -> None:
    application = applications()
    null_model.write(Registry(application.models), segment_length=10)
    said = application.rec2pm("worker")
    assert said.returncode == 2
    complaints = [line for line in said.stderr.splitlines() if line.startswith("rec2pm: ")]
    assert len(complaints) == 5
    assert all("rec2pm topics create" in line for line in complaints)
    assert "Traceback" not in said.stderr


def test_an_unknown_setting_ends_the_command_before_anything_starts(applications: Callable[[], Application]) -> None:
    said = applications().rec2pm("worker", TOPK=5, RECOMMEND="x")
    assert said.returncode == 2
    assert said.stderr.splitlines() == [
        "rec2pm: REC2PM_TOPK is not a setting (did you mean REC2PM_TOP_K?)",
        "rec2pm: REC2PM_RECOMMEND=x: expected `interaction`, `fold`, or a whole number from 1",
    ]


# --- kill -9 ---

KILLS = 3
LOG = 20_000
SEGMENT = 10


@pytest.mark.isolation
def test_kill_9_at_random_moments_loses_nothing_and_doubles_nothing(
    applications: Callable[[], Application],
) -> None:
    application, rng = applications(), random.Random(20260)
    create_topics(application)
    null_model.write(Registry(application.models), segment_length=SEGMENT)
    users = [f"u{number}".encode() for number in range(300)]
    taken = rng.choices(users, weights=[1 / (1 + rank) for rank in range(300)], k=LOG)
    application.produce(
        [(user, msgpack.packb({"item": rng.randrange(1_200), "ts": at})) for at, user in enumerate(taken)]
    )

    settings = {"RECOMMEND": "fold", "STEP_RECORDS": 100, "KAFKA_SESSION_TIMEOUT_MS": session_ms(1500)}
    killed_at = []
    for kill in range(KILLS):
        worker = application.start_worker(**settings)
        threshold = LOG * (kill + rng.uniform(0.1, 0.9)) / (KILLS + 1)
        application.wait_until(threshold, worker)
        time.sleep(rng.uniform(0, 0.02))  # nothing is waited for: the moment is to be any moment of a step
        assert worker.process.poll() is None, worker.told()
        worker.kill()
        killed_at.append(application.committed())
    assert killed_at == sorted(set(killed_at))
    assert killed_at[-1] < LOG, "the worker was killed in the middle of its work"
    last = application.start_worker(**settings)
    application.wait_until(LOG, last)
    assert last.stop()[0] == 0

    log = logged(application)
    assert len(log) == LOG
    totals = Counter[str]()
    due = []
    for each in log:
        totals[each.user] += 1
        if totals[each.user] % SEGMENT == 0:
            due.append((each.partition, each.offset))
    answered = Counter(
        (told["partition"], told["offset"])
        for message in application.read(application.recommendations)
        for told in [decoded(message)]
    )
    assert {place: times for place, times in answered.items() if times > 1} == {}
    assert set(answered) == set(due)
    rows = {row["user_id"]: row for row in application.export().to_dicts()}
    assert {user: row["taken"] for user, row in rows.items()} == dict(totals)
    for user, row in rows.items():
        mine = [each.item for each in log if each.user == user]
        assert row["working_items"] == mine[row["folds"] * SEGMENT :]


# --- the same without a broker ---


def test_the_driver_does_without_a_broker_what_the_workers_did(third: Part, first: Part, second: Part) -> None:
    """Every record that the three workers took, in the order of each partition: lists, states and dead letters."""
    application = third.application
    records = sorted(
        application.read(application.interactions),
        key=lambda each: (each.timestamp()[1], each.partition(), each.offset()),
    )
    with Driver(application.models, "tiny@1", partitions=PARTITIONS, recommend=1) as driver:
        for at, message in enumerate(records):
            driver.now_ms = message.timestamp()[1]
            offset = driver.send_record(
                message.key(), message.value(), dict(message.headers() or ()), partition=message.partition()
            )
            assert offset == message.offset()
            if at == len(records) // 2:
                driver.crash()
        made = {(each.list.partition, each.list.offset): (each.user, each.list) for each in driver.lists() if each.list}
        published = [each for each in third.lists if each.value() is not None]
        assert len(published) == len(made)
        for message in published:
            told = decoded(message)
            user, again = made[told["partition"], told["offset"]]
            assert user == (message.key() or b"").decode()
            assert list_difference(told, {name: getattr(again, name) for name in FIELDS}) is None
        refused = sorted((each.partition, each.offset, each.error) for each in driver.dead_letters())
        letters = [refusal(message.headers() or []) for message in first.dead]
        assert refused == sorted((why.partition, why.offset, why.exception) for why in letters if why is not None)
        assert len(refused) == len(MALFORMED)
        for row in third.export.to_dicts():
            found = driver.user(row["user_id"])
            assert found is not None
            again = msgspec.to_builtins(found)
            np.testing.assert_allclose(again.pop("memory"), row.pop("memory"), atol=1e-5)
            assert again == row
        assert driver.user(GONE) is None
        assert driver.counts.interactions < len(records), "counts are those of the worker after the crash"
