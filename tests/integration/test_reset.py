"""`rec2pm reset`: what is the application's goes, what is another's or the input's stays, and nothing goes unasked."""

from pathlib import Path
from subprocess import Popen as Process

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from bench import null_model
from model.version.registry import Registry
from stream.commands.broker import Broker
from stream.commands.command_line import REC2PM
from stream.commands.main import main
from stream.kafka import topics
from stream.kafka.shown_topics import topics_found
from stream.worker_name import claim
from tests.integration.test_broker import until
from tests.processes import Committed, environ

PARTITIONS = 2


class Shop:
    """An application with states, lists, offsets and a folder, and another one whose name begins with the same."""

    def __init__(self, broker: Broker, app: str, folder: Path) -> None:
        self.app, self.folder, self.bootstrap = app, folder, broker.bootstrap
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        self.env = environ(
            broker.bootstrap,
            app,
            MODELS=str(folder / "models"),
            STATE_DIR=str(folder / "state"),
            METRICS_LISTEN="",
            RECOMMEND="1",
        )
        null_model.write(Registry(folder / "models"), segment_length=3)
        for name in (app, f"{app}.eu"):
            topics.create(self.admin, topics.plan(name, f"{name}.in", f"{name}.out", PARTITIONS, 1))
        for group in (f"{app}.view-a", f"{app}.eu", f"{app}.eu.trainer"):
            consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group})
            consumer.commit(offsets=[TopicPartition(f"{app}.in", 0, 0)], asynchronous=False)
            consumer.close()

    def send(self, count: int) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"})
        for at in range(count):
            producer.produce(f"{self.app}.in", b'{"item": %d}' % (at % 3 + 1), b"user-%d" % (at % 5))
        assert producer.flush(30) == 0

    def worker(self) -> Process:
        """A worker without a name: Kafka lets it go at once."""
        with (self.folder / "worker.log").open("ab") as log:
            return Process([*REC2PM, "worker"], env=self.env, stdout=log, stderr=log)

    def taken(self) -> int:
        return Committed(self.bootstrap, self.app, f"{self.app}.in").total()

    def topics(self) -> set[str]:
        return {name for name in topics_found(self.admin) if name.startswith(self.app)}

    def groups(self) -> set[str]:
        listed = self.admin.list_consumer_groups().result(20)
        return {each.group_id for each in listed.valid if each.group_id.startswith(self.app)}

    def reset(self, *options: str) -> tuple[int, str]:
        return self.command("reset", *options)

    def command(self, *arguments: str) -> tuple[int, str]:
        said = CliRunner().invoke(main, arguments, env=self.env)
        return said.exit_code, said.output


@pytest.fixture
def shop(broker: Broker, app: str, tmp_path: Path) -> Shop:
    if broker.kind == "embedded":
        pytest.skip("the embedded broker has no groups to list and delete")
    return Shop(broker, app, tmp_path)


def test_everything_of_the_application_goes_when_nobody_works_on_it_and_it_begins_anew(shop: Shop) -> None:
    app = shop.app
    others = {f"{app}.eu.{each}" for each in ("in", "out", "changelog", "dead-letter", "models")}
    own = {f"{app}.{each}" for each in ("out", "changelog", "dead-letter", "models")}
    worker = shop.worker()
    try:
        shop.send(40)
        until(lambda: shop.taken() >= 40, 60, "the worker has taken all")
        code, said = shop.reset("--execute")
        assert code == 2, said
        assert f"group {app} has 1 member: w-" in said
        assert "runs on this machine" not in said, "the first reason is enough"
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
    code, said = shop.reset()
    assert code == 0, said
    assert said.splitlines()[-1] == "nothing was removed: add --execute to remove it"
    assert shop.topics() == {f"{app}.in"} | own | others
    lines = [line.removeprefix("would remove ") for line in said.splitlines()[:-1]]
    code, said = shop.reset("--execute")
    assert code == 0, said
    assert [line.removeprefix("removes ") for line in said.splitlines()[:-1]] == lines
    assert shop.topics() == {f"{app}.in"} | others
    assert shop.groups() == {f"{app}.eu", f"{app}.eu.trainer"}
    assert not (shop.folder / "state" / app).exists()
    assert (shop.folder / "models").exists()
    code, said = shop.reset("--execute")
    assert (code, said.splitlines()[0]) == (0, "there is nothing of this application")

    assert shop.command("topics", "create", "--partitions", str(PARTITIONS))[0] == 0
    worker = shop.worker()
    try:
        until(lambda: shop.taken() >= 40, 60, "a worker begins with the first interaction again")
        assert "interactions remembered  8" in shop.command("user", "show", "user-1")[1]
    finally:
        worker.terminate()
        worker.wait(30)
    assert shop.reset("--execute", "--interactions")[0] == 0
    assert shop.topics() == others


def test_a_worker_that_kafka_does_not_know_of_is_known_by_its_folder(shop: Shop) -> None:
    """It waits for its first version, or for Kafka: it is in no group."""
    held = claim(shop.folder / "state" / shop.app / "slots", "w7")
    code, said = shop.reset("--execute")
    assert code == 2, said
    assert "worker w7 runs on this machine: stop it first" in said
    assert f"{shop.app}.changelog" in shop.topics()
    held.release()
    assert shop.reset("--execute")[0] == 0
