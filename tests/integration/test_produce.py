"""`rec2pm produce --resume`: each interaction once and in order, whatever is killed, on a Kafka with transactions."""

import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import msgpack
import polars as pl
import pytest
from confluent_kafka.admin import AdminClient

from model.times import TimeRule
from stream.commands.command_line import REC2PM
from stream.commands.pace import Pace
from stream.commands.send_log import Rows, Shape
from stream.commands.send_once import RunFile, Sender
from stream.errors import ProduceUnfit
from stream.event import Fields
from stream.kafka import topics
from stream.keys import KeyFormat
from tests.processes import environ, read_committed, wait_until

pytestmark = [pytest.mark.isolation, pytest.mark.timeout(200)]

PARTITIONS = 3
Sent = dict[str, list[tuple[int, int]]]
"""User → items and times in their order."""


class Shop:
    def __init__(self, bootstrap: str, app: str, folder: Path) -> None:
        self.bootstrap, self.app, self.folder = bootstrap, app, folder
        self.env = environ(bootstrap, app)
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        topics.create(self.admin, topics.plan(app, f"{app}.in", f"{app}.out", PARTITIONS, 1))

    def log(self, rows: int) -> str:
        chosen = random.Random(rows)
        frame = pl.DataFrame(
            {
                "user_id": [f"user-{chosen.randrange(20)}" for _ in range(rows)],
                "item_id": list(range(rows)),
                # Some at the same time: their order is that of the file.
                "timestamp": sorted(1_700_000_000_000 + chosen.randrange(4 * rows) for _ in range(rows)),
            }
        )
        path = self.folder / f"{rows}.parquet"
        frame.write_parquet(path)
        return str(path)

    def expected(self, log: str) -> Sent:
        sent: Sent = defaultdict(list)
        for user, item, ms in pl.read_parquet(log).iter_rows():
            sent[user].append((item, ms))
        return sent

    def sent(self) -> Sent:
        found: Sent = defaultdict(list)
        for message in read_committed(self.bootstrap, f"{self.app}.in"):
            value = msgpack.unpackb(message.value() or b"")
            found[(message.key() or b"").decode()].append((value["item"], value["ts"]))
        return found

    def produce(self, log: str, *options: str, kill_at: str = "") -> "subprocess.CompletedProcess[str]":
        module = [sys.executable, "-P", "-m", "tests.integration.killed_at"] if kill_at else REC2PM
        return subprocess.run(
            [*module, "produce", log, "--resume", str(self.folder / "run.json"), *options],
            env={**self.env, "KILL_AT": kill_at},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def shop(bootstrap: str, app: str, tmp_path: Path) -> Shop:
    return Shop(bootstrap, app, tmp_path)


def test_whatever_call_a_kill_is_beside_each_interaction_arrives_once_and_in_order(shop: Shop) -> None:
    log = shop.log(12_000)
    # The place is not committed; it is, and the file does not say so; a range is not committed; it is.
    for kill_at in ("before 3", "after 3", "before 3", "after 3"):
        said = shop.produce(log, kill_at=kill_at)
        assert said.returncode == -signal.SIGKILL, said.stderr

    said = shop.produce(log)

    assert said.returncode == 0, said.stderr
    assert "5000 of 12000 interactions were sent before" in said.stderr
    assert shop.sent() == shop.expected(log)


def test_kills_at_any_time_change_nothing(shop: Shop) -> None:
    log, chosen = shop.log(3000), random.Random(7)
    # Slow enough that the kills come long before the end.
    command = [*REC2PM, "produce", log, "--resume", str(shop.folder / "run.json"), "--rate", "200"]
    for _ in range(2):
        before = sum(map(len, shop.sent().values()))
        process = subprocess.Popen(command, env=shop.env, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda before=before: sum(map(len, shop.sent().values())) > before, 120, "sending")  # type: ignore[misc]
            time.sleep(chosen.random() / 4)
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()

    said = shop.produce(log)

    assert said.returncode == 0, said.stderr
    assert shop.sent() == shop.expected(log)


def test_a_run_whose_place_kafka_forgot_is_not_begun_again(shop: Shop) -> None:
    rows = Rows(pl.scan_parquet(shop.log(10)), shape=Shape(Fields(), TimeRule()), keys=KeyFormat(), limit=None)
    kafka = {"bootstrap.servers": shop.bootstrap}
    with closing(RunFile(shop.folder / "run.json")) as file:
        for sent in (10, 0):
            sender = Sender(kafka, shop.app, file, file.run(rows, f"{shop.app}.in", ""))
            assert sender.send(rows, Pace(), time.monotonic, time.sleep, lambda done, of: None) == sent
        groups = [each.group_id for each in shop.admin.list_consumer_groups().result(30).valid]
        (group,) = [each for each in groups if each.startswith(f"{shop.app}.produce-")]
        shop.admin.delete_consumer_groups([group])[group].result(30)

        with pytest.raises(ProduceUnfit, match="Kafka no longer has the place in the log"):
            Sender(kafka, shop.app, file, file.run(rows, f"{shop.app}.in", ""))

    assert sum(map(len, shop.sent().values())) == 10
