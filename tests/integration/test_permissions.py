"""A Kafka that allows only what docs/operate.md lists: with it everything works, and without any of it one line says
what is missing.
"""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from uuid import uuid4

import msgpack
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec

from bench import null_model
from model.version.registry import Registry
from stream.commands.command_line import REC2PM
from stream.kafka import rights, topics
from stream.kafka.connect import connected
from stream.kafka.names import Names, reader_group, worker_id
from stream.kafka.partitioner import partition_of
from stream.kafka.rights import Right
from stream.kafka.shown_topics import topics_found
from stream.kafka.topic_problems import check, check_transactions
from tests.crash.ports import free_port
from tests.integration.test_broker import until
from tests.processes import WorkerProcess, environ, rec2pm
from tests.secured.kafka import USER, SecuredKafka
from tests.secured.rules import rule

pytestmark = pytest.mark.isolation

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
SEGMENT = 3
PRINCIPAL = f"User:{USER}"


@dataclass
class Shop:
    """An application on a Kafka that knows its user by name and password."""

    kafka: SecuredKafka
    app: str
    folder: Path

    @property
    def names(self) -> Names:
        return Names(self.app, f"{self.app}.in", f"{self.app}.out")

    @property
    def env(self) -> dict[str, str]:
        settings = self.kafka.right("SCRAM")
        bootstrap = settings.pop("BOOTSTRAP_SERVERS")
        return environ(
            bootstrap,
            self.app,
            MODELS=str(self.folder / "models"),
            STATE_DIR=str(self.folder / "state"),
            METRICS_LISTEN="",
            **settings,
        )

    def allow(self, *needed: Right) -> None:
        """Allow this and nothing else."""
        self.kafka.revoke(PRINCIPAL)
        self.also_allow(*needed)

    def also_allow(self, *needed: Right) -> None:
        """Allow this too: workers that run must not lose a right for a moment."""
        self.kafka.grant(PRINCIPAL, {rule(right) for right in needed})

    def create(self) -> None:
        """The topics, made by the administrator."""
        names = self.names
        planned = topics.plan(self.app, names.interactions, names.recommendations, PARTITIONS, 1)
        assert {outcome.result for outcome in topics.create(self.kafka.admin, planned)} == {"created"}

    def run(self, *arguments: str, code: int | None = 0) -> str:
        """A command's output. No traceback, whatever it ends with."""
        said = rec2pm(*arguments, env=self.env, timeout=90)
        assert "Traceback" not in said.stderr, said.stderr
        assert code is None or said.returncode == code, (said.stdout, said.stderr)
        return said.stdout + said.stderr

    def send(self, user: str, *values: bytes) -> None:
        """Records from elsewhere, with the administrator's rights."""
        producer = Producer({**self.kafka.administrator, "partitioner": "murmur2_random"})
        for value in values:
            producer.produce(self.names.interactions, value, user.encode())
        assert producer.flush(30) == 0

    def records(self, topic: str) -> int:
        """How many offsets the topic has used, the markers of transactions included."""
        places = {TopicPartition(topic, number): OffsetSpec.latest() for number in range(PARTITIONS)}
        return sum(future.result(30).offset for future in self.kafka.admin.list_offsets(places).values())

    def taken(self, user: str) -> int:
        said = self.run("user", "show", user, code=None)
        found = re.search(r"interactions remembered +(\d+)", said)
        return int(found[1]) if found else 0


def interaction(item: int) -> bytes:
    return msgpack.packb({"item": item, "ts": 1_700_000_000_000 + item})  # type: ignore[no-any-return]


@pytest.fixture
def shop(secured: SecuredKafka, app: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(secured, app, tmp_path)
    made.create()
    null_model.write(Registry(tmp_path / "models"), segment_length=SEGMENT)
    yield made
    secured.revoke(PRINCIPAL)


@pytest.fixture(scope="module")
def shown(secured: SecuredKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One for tests that change nothing but the rights."""
    made = Shop(secured, f"test-{uuid4().hex[:12]}", tmp_path_factory.mktemp("shown"))
    made.create()
    null_model.write(Registry(made.folder / "models"), segment_length=SEGMENT)
    yield made
    secured.revoke(PRINCIPAL)


def test_with_exactly_the_rights_of_the_page_everything_works(shop: Shop) -> None:
    """Start, step, dead letter, second worker (rebalance), kill and restore; forget and replay beside a worker; then
    every other command with its own rights alone.
    """
    names = shop.names
    shop.allow(*rights.of_worker(names))
    assert shop.run("topics", "check").splitlines()[-1].startswith("PASS")
    with ExitStack() as stack:
        one = WorkerProcess("one", shop.env, shop.folder)
        stack.callback(one.kill)
        shop.send("ann", *[interaction(item) for item in range(7)])
        shop.send("bob", b"not an interaction", *[interaction(item) for item in range(4)])
        until(lambda: shop.records(names.recommendations) > 1, 90, "the first worker has written lists")
        until(lambda: shop.records(f"{shop.app}.dead-letter") > 1, 90, "and a dead letter")
        two = WorkerProcess("two", shop.env, shop.folder)
        stack.callback(two.kill)
        until(lambda: "restored partition" in two.log.read_text(), 90, "the second worker has restored a partition")
        one.kill()
        one.start()

        shop.also_allow(*rights.of_states(names))
        shop.send("ann", interaction(8))
        until(lambda: shop.taken("ann") == 8, 90, "they go on after a kill")
        shop.also_allow(*rights.of_user_forget(names, execute=True))
        assert "forgotten" in shop.run("user", "forget", "bob", "--execute")
        assert one.running(), one.log.read_text()[-2000:]
        assert two.running(), two.log.read_text()[-2000:]
        assert "AUTHORIZATION" not in one.log.read_text() + two.log.read_text()

    log = shop.folder / "log.csv"
    log.write_text("user_id,item_id,timestamp\nann,3,1700000100000\n")
    for command, arguments, says in (
        ("user show", ("user", "show", "ann"), "interactions remembered"),
        (
            "explain",
            ("explain", f"{partition_of(b'ann', PARTITIONS)}@0"),
            "user ann: the list after item 0",
        ),
        ("state export", ("state", "export", "--out", str(shop.folder / "users.parquet")), "exported 1 users"),
        ("user forget", ("user", "forget", "ann"), "would send a null value"),
        ("dead-letters list", ("dead-letters", "list"), "1 dead letter"),
        ("dead-letters replay", ("dead-letters", "replay"), "would replay 1 dead letter"),
        ("dead-letters replay --execute", ("dead-letters", "replay", "--execute"), "replayed 1 dead letter"),
        ("produce", ("produce", str(log)), "produced 1 interactions"),
        ("produce --resume", ("produce", str(log), "--resume", str(shop.folder / "run")), "produced 1 interactions"),
        ("interactions export", ("interactions", "export", "--out", str(shop.folder / "out")), "exported "),
    ):
        shop.allow(*rights.COMMANDS[command](names))
        assert says in shop.run(*arguments), command
    fresh = Shop(shop.kafka, f"{shop.app}-b", shop.folder)
    fresh.create()
    for command, says in (("state import", "nothing was written"), ("state import --execute", "imported 1 user")):
        fresh.allow(*rights.COMMANDS[command](fresh.names))
        options = [word for word in command.split() if word.startswith("--")]
        assert says in fresh.run("state", "import", str(shop.folder / "users.parquet"), "--position", "end", *options)
    fresh.allow(*rights.COMMANDS["reset --execute"](fresh.names))
    assert "done" in fresh.run("reset", "--execute")
    shop.allow(*rights.of_view(names, "view"))
    assert serves(shop, "/recommendations/ann") == 200
    shop.allow(*rights.of_view_users(names, "view"))
    assert serves(shop, "/users/ann", "--users") == 200
    for lacking in set(rights.of_view_users(names, "view")) - set(rights.of_view(names, "view")):
        shop.allow(*(each for each in rights.of_view_users(names, "view") if each != lacking))
        refused = rec2pm("view", "--users", "--listen", f"127.0.0.1:{free_port()}", env=shop.env, timeout=60)
        assert (refused.returncode, lacking.line() in refused.stderr) == (1, True), (lacking, refused.stderr)


def serves(shop: Shop, about: str, *options: str) -> int:
    """The status with which a view answers about a user, once it is ready."""
    pytest.importorskip("faust")
    port = free_port()
    log = (shop.folder / "view.log").open("wb")
    view = subprocess.Popen(
        [*REC2PM, "view", "--listen", f"127.0.0.1:{port}", *options], env=shop.env, stdout=log, stderr=log
    )

    def answer(path: str) -> int:
        assert view.poll() is None, (shop.folder / "view.log").read_text()
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return int(response.status)
        except URLError as error:
            return getattr(error, "code", 0)

    try:
        until(lambda: answer("/ready") == 200, 90, "the view is ready")
        return answer(about)
    finally:
        view.send_signal(signal.SIGTERM)
        view.wait(30)
        log.close()


def test_topics_are_created_with_the_rights_of_the_page(secured: SecuredKafka, app: str, tmp_path: Path) -> None:
    shop = Shop(secured, app, tmp_path)
    try:
        shop.allow(*rights.of_topics_create(shop.names), *rights.of_worker(shop.names))
        said = shop.run("topics", "create", "--partitions", "3")
        assert said.count("created ") == 5
        assert said.count(": 3 partitions, replication 1, ") == 4
        shop.allow(*rights.of_topics_create(shop.names)[1:])
        assert shop.run("topics", "create", code=1).count("exists ") == 5, "there is nothing to create"
    finally:
        secured.revoke(PRINCIPAL)


def test_a_topic_that_may_not_be_created_names_the_right(secured: SecuredKafka, app: str, tmp_path: Path) -> None:
    said = Shop(secured, app, tmp_path).run("topics", "create", code=1)
    assert said.count("\nrefused ") == 4
    assert f"no right Create on topic {app}.changelog" in said


@pytest.mark.parametrize("at", range(len(rights.of_worker(Names("a", "b", "c")))))
def test_the_check_names_each_right_that_a_worker_lacks(shown: Shop, at: int) -> None:
    """In this process: a process for each right takes too long. `python -m tests.secured` starts them."""
    needed = rights.of_worker(shown.names)
    lacking = needed.pop(at)
    shown.allow(*needed)
    options = shown.kafka.client("SCRAM")
    names = shown.names
    found = check(connected(options), shown.app, names.interactions, names.recommendations)
    found += check_transactions(options, shown.app)
    lines = [problem.line for problem in found]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"no right {lacking.operation} on {lacking.kind} {lacking.name} ({lacking.purpose})")
    assert "kafka-acls.sh --bootstrap-server HOST:PORT --add" in lines[0]
    assert found[0].severity == ("warning" if lacking.optional else "error")


def test_a_worker_without_a_right_says_which_and_takes_nothing(shown: Shop) -> None:
    needed = [right for right in rights.of_worker(shown.names) if right.name != f"{shown.app}.changelog"]
    shown.allow(*needed)
    said = rec2pm("worker", env=shown.env, timeout=90)
    assert said.returncode == 2
    complaints = [line for line in said.stderr.splitlines() if line.startswith("rec2pm: ")]
    assert [line.partition(" (")[0] for line in complaints] == [
        f"rec2pm: no right Read on topic {shown.app}.changelog",
        f"rec2pm: no right Write on topic {shown.app}.changelog",
    ]


def test_a_worker_without_its_transactional_id_says_so(shown: Shop) -> None:
    shown.allow(*[right for right in rights.of_worker(shown.names) if right.kind != "transactional id"])
    said = rec2pm("worker", env=shown.env, timeout=90)
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    last = said.stderr.splitlines()[-1]
    assert "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" in last
    assert "kafka-acls.sh --add" in last


COMMANDS = {
    "user show": ("user", "show", "ann"),
    "user forget --execute": ("user", "forget", "ann", "--execute"),
    "dead-letters replay --execute": ("dead-letters", "replay", "--execute"),
    "trainer --promote": ("trainer", "--promote"),
}


def test_a_reset_without_rights_removes_nothing(shown: Shop) -> None:
    """Kafka shows no group that may not be seen: without its right the offsets would stay, and the state would go."""
    topics_only = [right for right in rights.COMMANDS["reset --execute"](shown.names) if right.kind == "topic"]
    shown.allow(*topics_only)
    said = shown.run("reset", "--execute", code=1)
    assert f"no right Describe on group {shown.app} (seeing who is in it)" in said
    assert f"no right Delete on group {shown.app} (removing its offsets)" in said
    assert f"{shown.app}.changelog" in topics_found(shown.kafka.admin)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_rights_names_every_one_in_a_line(shown: Shop, command: str) -> None:
    shown.allow()
    said = shown.run(*COMMANDS[command], code=1).splitlines()
    needed = [right for right in rights.COMMANDS[command](shown.names) if right.kind != "transactional id"]
    assert said == [f"rec2pm: {right.line()}" for right in needed]


def test_one_prefix_covers_an_application_and_no_other_one() -> None:
    """The page says: the group `shop`, and everything with the prefix `shop.`."""
    on = Names("shop", "shop.in", "shop.out")
    named = {right.name for command in rights.COMMANDS.values() for right in command(on)}
    assert {name for name in named if not name.startswith("shop.")} == {"shop"}
    for other in ("shop2", "shop-eu", "shopping"):
        assert not worker_id(other, "one").startswith("shop.")
        assert not reader_group(other).startswith("shop.")


def test_the_page_lists_the_rights_of_every_command() -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    for line in rights_table():
        assert line in page, f"docs/operate.md lacks the line: {line}"


def rights_table() -> list[str]:
    """The rows of the table: command, resource, operations."""
    on = Names("APP", "INTERACTIONS", "RECOMMENDATIONS")
    rows = []
    for command, needs in rights.COMMANDS.items():
        by_resource: dict[tuple[str, str], list[str]] = {}
        for right in needs(on):
            operation = f"{right.operation} (optional)" if right.optional else right.operation
            by_resource.setdefault((right.kind, right.name), []).append(operation)
        for (kind, name), operations in by_resource.items():
            rows.append(f"| `{command}` | {kind} | `{name}` | {', '.join(operations)} |")
    return rows
