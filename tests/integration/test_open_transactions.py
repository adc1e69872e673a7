"""What can be read is told from what there is: an open transaction hides records, and nobody calls that the end.

And what changes around a running worker is noticed while it runs.
"""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import msgpack
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from bench import null_model
from model.version.registry import Registry
from state.codec import working_key, working_value
from stream.errors import BehindOpenTransaction
from stream.kafka import topics
from stream.kafka.read_topic import committed_records, waiting_behind
from tests.processes import ROOT, environ, rec2pm, wait_until, workers

pytestmark = pytest.mark.isolation

ANN = b"ann"


IMPATIENT = """
import stream.kafka.read_topic as read_topic
assert read_topic.committed_records.__kwdefaults__ == {"wait_s": 20.0}
read_topic.WAIT_S = read_topic.committed_records.__kwdefaults__["wait_s"] = 3.0
import stream.kafka.watch as watch
watch.LOOK_EVERY_S, watch.TOPICS_EVERY_S, watch.HELD_BACK_S = 0.1, 0.2, 0.5
from stream.commands.main import main
main()
"""


@dataclass
class Shop:
    bootstrap: str
    app: str
    folder: Path

    @property
    def kafka(self) -> dict[str, str]:
        return {"bootstrap.servers": self.bootstrap}

    @property
    def env(self) -> dict[str, str]:
        folders = {"MODELS": str(self.folder / "models"), "STATE_DIR": str(self.folder / "state")}
        return environ(self.bootstrap, self.app, **folders)

    def create(self) -> None:
        planned = topics.plan(self.app, f"{self.app}.in", f"{self.app}.out", 1, 1)
        assert {outcome.result for outcome in topics.create(AdminClient(self.kafka), planned)} == {"created"}

    @contextmanager
    def somebodys_transaction(self, topic: str) -> Iterator[Producer]:
        """Open on partition 0 within the block, and aborted at its end unless it has ended before."""
        producer = Producer({**self.kafka, "transactional.id": f"{topic}-somebody", "transaction.timeout.ms": 300_000})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, b"never read", b"\x00", 0)
        assert producer.flush(30) == 0
        yield producer
        producer.abort_transaction(30)

    def put(self, topic: str, key: bytes, value: bytes | None) -> None:
        producer = Producer(self.kafka)
        producer.produce(topic, value, key, 0)
        assert producer.flush(30) == 0

    def started(self, *arguments: str) -> "subprocess.Popen[str]":
        """A command that waits for a few seconds, not twenty, for the end of a transaction."""
        command = [sys.executable, "-c", IMPATIENT, *arguments]
        return subprocess.Popen(
            command, env=self.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def alter(self, topic: str, name: str, value: str) -> None:
        changed = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[changed])
        admin = AdminClient(self.kafka)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)


@pytest.fixture
def shop(bootstrap: str, app: str, tmp_path: Path) -> Shop:
    made = Shop(bootstrap, app, tmp_path)
    made.create()
    return made


COMMANDS = {
    "changelog": (["user", "show", "ann"], ["user", "forget", "ann"], ["state", "export", "--out", "users.parquet"]),
    "dead-letter": (["dead-letters", "list"], ["dead-letters", "replay"], ["dead-letters", "show", "0:7"]),
}


@pytest.mark.parametrize("topic", COMMANDS)
def test_no_command_takes_the_records_before_an_open_transaction_for_all(
    shop: Shop, topic: str, tmp_path: Path
) -> None:
    name = f"{shop.app}.{topic}"
    with shop.somebodys_transaction(name):
        shop.put(name, working_key(ANN, 1), working_value([7], [5]))
        said = [
            shop.started(*(str(tmp_path / word) if word.endswith("parquet") else word for word in command))
            for command in COMMANDS[topic]
        ]
        for process in said:
            stdout, stderr = process.communicate(timeout=90)
            assert process.returncode == 1, stdout + stderr
            (line,) = stderr.splitlines()
            assert f"rec2pm: {name}[0]: 2 records (transaction markers among them) from offset 0 on wait behind" in line
            assert "not all could be read within 3 s" in line
            assert f"describe-producers --topic {name} --partition 0" in line
            assert stdout == ""
    assert not (tmp_path / "users.parquet").exists()
    if topic == "changelog":
        assert "interactions remembered  1" in rec2pm("user", "show", "ann", env=shop.env, timeout=60).stdout


def test_the_letters_that_can_be_read_are_listed_and_the_rest_is_counted(shop: Shop) -> None:
    name = f"{shop.app}.dead-letter"
    shop.put(name, b"ann", b"by hand")
    with shop.somebodys_transaction(name):
        process = shop.started("dead-letters", "list")
        stdout, stderr = process.communicate(timeout=90)
    assert process.returncode == 1, stderr
    assert f"1 dead letter in {name}" in stdout
    assert "1 records (transaction markers among them) from offset 1 on wait behind an open transaction" in stderr


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_a_reader_waits_for_the_end_of_a_transaction_and_then_has_everything(shop: Shop, end: str) -> None:
    name = f"{shop.app}.changelog"
    shop.put(name, b"a", b"before")
    producer = Producer({**shop.kafka, "transactional.id": name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(name, b"within", b"b", 0)
    assert producer.flush(30) == 0
    shop.put(name, b"c", b"after")
    for start in (0, 1, 2, 3, 9):
        with pytest.raises(BehindOpenTransaction):
            list(committed_records(shop.kafka, name, 0, start, wait_s=0.2))
    assert waiting_behind(shop.kafka, name, 0, 0) is None
    assert "2 records" in str(waiting_behind(shop.kafka, name, 0, 2))
    finish = producer.commit_transaction if end == "commit" else producer.abort_transaction
    ending = threading.Timer(1.5, finish, [30])
    ending.start()
    began = time.monotonic()
    values = [message.value() for message in committed_records(shop.kafka, name, 0, wait_s=30)]
    assert values == [b"before", *([b"within"] if end == "commit" else []), b"after"]
    assert 1.0 < time.monotonic() - began < 15
    ending.join()
    assert waiting_behind(shop.kafka, name, 0, 2) is None


def test_a_user_who_is_not_forgotten_because_the_input_is_held_back_is_told_so(shop: Shop) -> None:
    null_model.write(Registry(shop.folder / "models"), segment_length=10)
    with shop.somebodys_transaction(f"{shop.app}.in"), workers(1, shop.env, shop.folder):
        said = rec2pm("user", "forget", "ann", "--execute", "--wait", "1", env=shop.env, timeout=90)
    assert said.returncode == 1
    assert f"{shop.app}.in[0]: 2 records (transaction markers among them) from offset 0 on wait behind" in said.stderr


def test_a_running_worker_says_once_what_changed_around_it_and_once_that_it_is_over(shop: Shop) -> None:
    null_model.write(Registry(shop.folder / "models"), segment_length=10)
    log, env = shop.folder / "worker.log", {**shop.env, "REC2PM_METRICS_LISTEN": "127.0.0.1:0"}
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, "worker"], env=env, cwd=ROOT, stdout=output, stderr=output
        )

    def said(pattern: str) -> int:
        return len(re.findall(pattern, log.read_text()))

    def metrics() -> str:
        (port,) = re.findall(r"metrics at http://127.0.0.1:(\d+)/metrics", log.read_text())
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read(), "utf-8")

    def wait_for(pattern: str) -> None:
        wait_until(lambda: said(pattern) > 0, 60, f"{pattern}: {log.read_text()[-2000:]}")
        time.sleep(0.8)  # more looks: nothing is said twice
        assert said(pattern) == 1

    changelog, dead, source = f"{shop.app}.changelog", f"{shop.app}.dead-letter", f"{shop.app}.in"
    try:
        wait_until(lambda: said("restored partition=0") > 0, 60, "the worker runs")
        shop.alter(changelog, "cleanup.policy", "delete")
        shop.alter(dead, "max.message.bytes", "1000")
        wait_for(rf"ERROR .*changed while the worker runs: topic {changelog} has cleanup.policy=delete")
        assert said(rf"changed while the worker runs: topic {dead} has max.message.bytes=1000") == 1
        shop.alter(changelog, "cleanup.policy", "compact")
        wait_for(f"{changelog} is right again")
        admin = AdminClient(shop.kafka)
        admin.delete_topics([dead])[dead].result(30)
        wait_for(rf"changed while the worker runs: topic {dead} .* is missing")
        again = NewTopic(dead, 1, 1, config={"max.message.bytes": "2000000"})
        admin.create_topics([again])[dead].result(30)
        wait_for(f"{dead} is right again")
        with shop.somebodys_transaction(source) as producer:
            shop.put(source, b"ann", msgpack.packb({"item": 1, "ts": 1_700_000_000_000}))
            wait_for(rf"WARNING .*input waits topic={source} partition=0: 2 records .* from offset 0 on")
            assert f"describe-producers --topic {source} --partition 0" in log.read_text()
            assert 'rec2pm_input_held_back_records{partition="0"} 2.0' in metrics()
            producer.commit_transaction(30)
            wait_for(rf"input goes on topic={source} partition=0 after=\d+ s")
            producer.begin_transaction()
        assert worker.poll() is None
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        assert time.monotonic() - began < 10
    finally:
        worker.kill()
        worker.wait()
    assert log.stat().st_size < 20_000, "a look that finds nothing says nothing"
