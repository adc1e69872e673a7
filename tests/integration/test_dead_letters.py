"""Dead letters are listed, shown and replayed: each once, with its original bytes, headers and time, whatever happens
to the replay.
"""

import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from bench import null_model
from model.version.registry import Registry
from stream.commands.dead_letters import send
from stream.commands.dead_letters.choose import Selection, choose
from stream.commands.dead_letters.replay import survey
from stream.commands.output import moment
from stream.errors import Fenced, MalformedInteraction
from stream.kafka import topics
from stream.kafka.record_limits import UNKNOWN, RecordLimits
from stream.wire import Header, dead_letter
from tests.fakes import FakeRecord
from tests.processes import ROOT, environ, read_committed, rec2pm, wait_until, workers

PARTITIONS = 2
SENT_MS = time.time_ns() // 1_000_000 // 1_000 * 1_000 - 3_600_000
"""When the records that were refused happened: an hour ago. Kafka deletes by timestamp, so records of long ago would go
while they are looked at.
"""
TRACED: tuple[Header, ...] = (
    ("traceparent", b"00-ab"),
    ("trace", None),
    ("__streams.errors.topic", b"of somebody else"),
)


@dataclass
class Shop:
    """An application with topics, and letters as a worker would leave them."""

    bootstrap: str
    app: str

    @property
    def kafka(self) -> dict[str, str]:
        return {"bootstrap.servers": self.bootstrap}

    @property
    def dead(self) -> str:
        return topics.dead_letter_topic(self.app)

    @property
    def input(self) -> str:
        return f"{self.app}.in"

    @property
    def env(self) -> dict[str, str]:
        return environ(self.bootstrap, self.app)

    def letters(self, count: int, *, partition: int = 0, attempts: int = 1) -> None:
        """So many letters of different users, all in one partition of the dead letters; record N was at offset N."""
        producer = Producer(self.kafka)
        for at in range(count):
            tried: tuple[Header, ...] = () if attempts == 1 else (("rec2pm.attempts", str(attempts - 1).encode()),)
            record = FakeRecord(b"user-%d" % at, b"bad %d" % at, at % PARTITIONS, at, SENT_MS + at, (*TRACED, *tried))
            refused = dead_letter(record, self.input, MalformedInteraction(f"value number {at}"))
            producer.produce(self.dead, refused.value, refused.key, partition, headers=refused.headers)  # type: ignore[arg-type]
        assert producer.flush(30) == 0

    def arrived(self) -> list[Message]:
        return read_committed(self.bootstrap, self.input)

    def values(self) -> list[bytes | None]:
        return sorted(message.value() or b"" for message in self.arrived())

    def command(self, *arguments: str, exit_code: int = 0) -> str:
        said = rec2pm("dead-letters", *arguments, env=self.env, timeout=60)
        assert (said.returncode, "Traceback" in said.stderr) == (exit_code, False), said.stderr
        return said.stdout or said.stderr

    def replay(self, selection: Selection | None = None, limits: RecordLimits = UNKNOWN, **differently: Any) -> int:
        producer = send.begin(self.kafka, self.app, limits=limits)
        surveyed = survey(self.kafka, self.app, self.dead, self.input, 0, "read_committed")
        plan = choose(surveyed, selection or Selection())
        progress = {"progress": lambda done, of: None}
        return send.send(
            self.kafka, self.app, self.dead, producer, surveyed, plan, limits=limits, **progress, **differently
        ).letters


@pytest.fixture
def shop(bootstrap: str, app: str) -> Shop:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    planned = topics.plan(app, f"{app}.in", f"{app}.out", PARTITIONS, 1)
    assert {outcome.result for outcome in topics.create(admin, planned)} == {"created"}
    return Shop(bootstrap, app)


def test_a_missing_topic_is_one_line_and_wrong_usage(bootstrap: str, app: str) -> None:
    said = rec2pm("dead-letters", "list", env=environ(bootstrap, app), timeout=60)
    assert said.returncode == 2
    (line,) = said.stderr.splitlines()
    assert f"topic {app}.dead-letter cannot be read" in line
    assert "rec2pm topics create" in line


def test_an_empty_topic_has_no_dead_letters(shop: Shop) -> None:
    for command in (["list"], ["replay"], ["replay", "--execute"]):
        assert shop.command(*command) == f"no dead letters in {shop.dead}\n"


def test_the_list_tells_the_newest_letters_and_counts_all_of_them_by_reason(shop: Shop) -> None:
    shop.letters(5)
    shop.letters(2, partition=1, attempts=3)
    lines = shop.command("list", "--limit", "3").splitlines()
    head, *rows = lines[:4]
    assert head.split()[:2] == ["LETTER", "REFUSED"]
    assert [row.split()[0] for row in rows] == ["0:4", "1:0", "1:1"]
    assert f"{shop.input}[1]@1" in rows[-1]
    assert {row.index("value number") for row in rows} == {head.index("REASON")}, "the columns are aligned"
    assert lines[4:] == [
        "",
        f"7 dead letters in {shop.dead}, 0 replayed; the newest 3 are shown:",
        "  7  value number N",
    ]
    parsed = [json.loads(line) for line in shop.command("list", "--json").splitlines()]
    assert [each["place"] for each in parsed] == ["0:0", "0:1", "0:2", "0:3", "0:4", "1:0", "1:1"]
    assert {
        name: parsed[-1][name]
        for name in ("topic", "partition", "offset", "timestamp", "attempts", "reason", "replayed")
    } == {
        "topic": shop.input,
        "partition": 1,
        "offset": 1,
        "timestamp": SENT_MS + 1,
        "attempts": 3,
        "reason": "value number 1",
        "replayed": False,
    }


def test_a_letter_is_shown_for_people_for_programs_and_as_the_bytes_it_is(shop: Shop) -> None:
    shop.letters(2)
    shown = shop.command("show", "0:1")
    assert "value number 1" in shown
    assert "text (5 bytes): bad 1" in shown
    assert f"sent {moment(SENT_MS)} UTC" in shown
    parsed = json.loads(shop.command("show", "0:1", "--json"))
    assert base64.b64decode(parsed["value"]) == b"bad 1"
    assert parsed["headers"] == [[name, value and base64.b64encode(value).decode()] for name, value in TRACED]
    assert shop.command("show", "0:1", "--raw") == "bad 1"
    assert "has no dead letter 0:2" in shop.command("show", "0:2", exit_code=1)
    assert "has no dead letter 9:0" in shop.command("show", "9:0", exit_code=1)
    assert "PARTITION:OFFSET" in shop.command("show", "one", exit_code=2)


def test_a_letter_goes_back_with_its_bytes_its_headers_and_its_time_to_where_it_was(shop: Shop) -> None:
    shop.letters(3, attempts=2)
    assert shop.replay() == 3
    arrived = {message.value(): message for message in shop.arrived()}
    assert sorted(arrived) == [b"bad 0", b"bad 1", b"bad 2"]
    for at in range(3):
        message = arrived[b"bad %d" % at]
        assert (message.key(), message.partition()) == (b"user-%d" % at, at % PARTITIONS)
        assert message.timestamp()[1] == SENT_MS + at
        assert message.headers() == [*TRACED, ("rec2pm.attempts", b"2")]


def test_a_letter_whose_partition_is_gone_goes_by_key(bootstrap: str, app: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics.create(admin, topics.plan(app, f"{app}.in", f"{app}.out", 1, 1))
    shop = Shop(bootstrap, app)
    shop.letters(2)
    assert shop.replay() == 2
    assert [message.partition() for message in shop.arrived()] == [0, 0]


def test_a_preview_tells_what_would_be_sent_and_sends_nothing(shop: Shop) -> None:
    shop.letters(2)
    shop.letters(1, partition=1, attempts=3)
    for arguments in (["replay"], ["replay", "--dry-run"]):
        lines = shop.command(*arguments).splitlines()
        assert lines == [
            f"would replay 2 dead letters to {shop.input}",
            "  2  value number N",
            "not sent:",
            "  1  refused too often (--max-attempts)",
            "nothing was sent: add --execute to send",
        ]
    assert shop.arrived() == []


def test_a_replay_that_is_run_twice_sends_once(shop: Shop) -> None:
    shop.letters(5)
    assert shop.command("replay", "--execute").startswith(f"replayed 5 dead letters to {shop.input}")
    assert shop.command("replay", "--execute").splitlines() == [
        "nothing to replay",
        "not sent:",
        "  5  already replayed (--again sends them once more)",
    ]
    assert shop.values() == [b"bad %d" % at for at in range(5)]
    assert "5 replayed" in shop.command("list")
    shop.letters(1)
    assert shop.replay() == 1, "what came later is still to be sent"
    assert shop.values().count(b"bad 0") == 2


def test_a_replay_in_several_transactions_sends_every_letter_once(shop: Shop) -> None:
    shop.letters(7)
    shop.letters(4, partition=1)
    assert shop.replay(batch_letters=2) == 11
    assert shop.replay() == 0
    assert len(shop.arrived()) == 11


@pytest.mark.isolation  # the embedded broker keeps no metadata of an offset, without which all letters before one that was sent count as sent
def test_letters_are_replayed_by_place_or_by_reason_in_any_order(shop: Shop) -> None:
    shop.letters(6)
    assert shop.command("replay", "0:3", "0:1", "--execute").startswith("replayed 2 dead letters")
    assert shop.values() == [b"bad 1", b"bad 3"]
    assert "already replayed" in shop.command("replay", "0:3", "--execute")
    assert shop.replay(Selection(reason="number 5")) == 1
    assert shop.replay(Selection(limit=1)) == 1
    assert shop.values() == [b"bad 0", b"bad 1", b"bad 3", b"bad 5"]
    assert shop.replay() == 2
    assert shop.values() == [b"bad %d" % at for at in range(6)]


def test_again_sends_a_letter_that_was_replayed_once_more_and_needs_to_know_which(shop: Shop) -> None:
    shop.letters(2)
    assert shop.replay() == 2
    assert "--again needs PARTITION:OFFSET or --reason" in shop.command("replay", "--again", "--execute", exit_code=2)
    assert shop.command("replay", "0:1", "--again", "--execute").startswith("replayed 1 dead letter to")
    assert shop.values() == [b"bad 0", b"bad 1", b"bad 1"]


def test_a_place_without_a_letter_stops_the_replay_before_anything_is_sent(shop: Shop) -> None:
    shop.letters(1)
    assert "has no dead letter 0:9" in shop.command("replay", "0:0", "0:9", "--execute", exit_code=1)
    assert shop.arrived() == []


@pytest.mark.parametrize("elsewhere", ["{app}.before", "{app}.changelog", "{app}.out", "{app}.dead-letter", ""])
def test_a_letter_goes_back_to_the_interactions_topic_only_whatever_its_header_says(shop: Shop, elsewhere: str) -> None:
    named = elsewhere.format(app=shop.app)
    shop.letters(1)
    producer = Producer(shop.kafka)
    refused = dead_letter(FakeRecord(b"ann", b"?"), named, MalformedInteraction("no"))
    producer.produce(shop.dead, refused.value, refused.key, headers=refused.headers)  # type: ignore[arg-type]
    assert producer.flush(30) == 0
    before = sorted(read_committed(shop.bootstrap, f"{shop.app}.changelog"), key=repr)
    for arguments in (["replay"], ["replay", "--execute"]):
        said = shop.command(*arguments)
        assert "1  not from REC2PM_INTERACTIONS_TOPIC, the only topic that a replay writes to" in said
        assert f"1 dead letter to {shop.input}\n" in said
    assert shop.values() == [b"bad 0"]
    assert before == read_committed(shop.bootstrap, f"{shop.app}.changelog") == []


@pytest.mark.isolation
def test_a_record_that_is_no_dead_letter_is_told_and_never_sent(shop: Shop) -> None:
    producer = Producer(shop.kafka)
    producer.produce(shop.dead, b"by hand", b"ann", 0)
    assert producer.flush(30) == 0
    shop.letters(1)
    assert "not a dead letter of rec2pm" in shop.command("list")
    assert "not a dead letter of rec2pm" in shop.command("show", "0:0")
    assert shop.replay() == 1
    assert shop.values() == [b"bad 0"]


KILLED = """
import os, signal, sys
from stream.commands.dead_letters import send
from stream.commands.dead_letters.choose import Selection, choose
from stream.commands.dead_letters.replay import survey

kafka, app, dead = {{"bootstrap.servers": sys.argv[1]}}, sys.argv[2], sys.argv[3]
into = sys.argv[4]
batches = iter(range(100))
def die():
    if next(batches) == {batch}:
        os.kill(os.getpid(), signal.SIGKILL)

producer = send.begin(kafka, app)
surveyed = survey(kafka, app, dead, into, 0, "read_committed")
send.send(kafka, app, dead, producer, surveyed, choose(surveyed, Selection()),
    progress=lambda done, of: None, batch_letters=2, before_commit=die)
"""


@pytest.mark.isolation
@pytest.mark.parametrize("batch", [0, 1])
def test_a_replay_that_is_killed_between_sending_and_noting_sends_once(shop: Shop, batch: int) -> None:
    shop.letters(5)
    program = [sys.executable, "-c", KILLED.format(batch=batch), shop.bootstrap, shop.app, shop.dead, shop.input]
    killed = subprocess.run(program, env=dict(os.environ), cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert "5 dead letters" in shop.command("list"), "an open transaction is waited for by nobody"
    assert shop.replay() == 5 - 2 * batch
    assert shop.values() == [b"bad %d" % at for at in range(5)]


@pytest.mark.isolation
def test_of_two_replays_at_a_time_the_second_goes_on_and_a_letter_is_sent_once(shop: Shop) -> None:
    shop.letters(3)
    with pytest.raises(Fenced, match="another replay"):
        shop.replay(before_commit=lambda: shop_replays(shop, 3))
    assert shop.values() == [b"bad %d" % at for at in range(3)]


@pytest.mark.isolation
def test_a_letter_that_the_topic_refuses_is_noticed_before_the_commit_which_would_wait_for_those_behind_it(
    shop: Shop,
) -> None:
    shop.letters(1)
    producer = Producer(shop.kafka)
    record = FakeRecord(b"ann", random.Random(0).randbytes(3000), 0, 9, SENT_MS)
    large = dead_letter(record, shop.input, MalformedInteraction("no"))
    producer.produce(shop.dead, large.value, large.key, 0, headers=large.headers)  # type: ignore[arg-type]
    assert producer.flush(30) == 0
    shop.letters(1)
    limit = ConfigEntry("max.message.bytes", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, shop.input, incremental_configs=[limit])
    admin = AdminClient(shop.kafka)
    admin.incremental_alter_configs([resource])[resource].result(30)
    commits: list[int] = []
    assert shop.replay(limits=RecordLimits(1000, None, 1000), before_commit=lambda: commits.append(1)) == 2
    assert commits == [1]
    assert shop.values() == [b"bad 0", b"bad 0"]


def shop_replays(shop: Shop, count: int) -> None:
    assert shop.replay() == count


@pytest.mark.isolation
def test_a_refused_record_comes_back_with_a_higher_count_until_the_cap(shop: Shop, tmp_path: Path) -> None:
    null_model.write(Registry(tmp_path / "models"), segment_length=10)
    settings = environ(shop.bootstrap, shop.app, MODELS=str(tmp_path / "models"), STATE_DIR=str(tmp_path / "state"))
    producer = Producer(shop.kafka)
    headers: list[tuple[str, str | bytes | None]] = [("traceparent", b"00-ab"), ("trace", None)]
    producer.produce(shop.input, b"\xffnot an interaction", b"ann", 1, headers=headers, timestamp=SENT_MS)
    assert producer.flush(30) == 0
    with workers(1, settings, tmp_path):
        for attempts in (1, 2, 3):
            wait_until(
                lambda count=attempts: len(read_committed(shop.bootstrap, shop.dead)) == count,
                60,
                f"refused {attempts} times",
            )  # type: ignore[misc]
            newest = max(
                (json.loads(line) for line in shop.command("list", "--json").splitlines()),
                key=lambda parsed: parsed["attempts"],
            )
            assert (newest["attempts"], newest["timestamp"], newest["partition"]) == (attempts, SENT_MS, 1)
            said = shop.command("replay", "--execute")
            assert ("replayed 1 dead letter to" in said) == (attempts < 3)
            assert ("refused too often" in said) == (attempts == 3)
        shown = json.loads(shop.command("show", newest["place"], "--json"))
        assert base64.b64decode(shown["value"]) == b"\xffnot an interaction"
        assert [name for name, _ in shown["headers"]] == ["traceparent", "trace"]
        # Repaired by hand, under the same key: what is remembered says at which time, for lack of another.
        producer.produce(shop.input, msgpack.packb({"item": 7}), b"ann", 1, timestamp=newest["timestamp"])
        assert producer.flush(30) == 0
        wait_until(lambda: shown_user(shop.env).get("taken") == 1, 60, "the repaired interaction is remembered")
    assert shown_user(shop.env)["as_of"] == SENT_MS


def shown_user(env: Mapping[str, str]) -> dict[str, Any]:
    said = rec2pm("user", "show", "ann", "--json", env=env, timeout=60)
    parsed: dict[str, Any] = json.loads(said.stdout or "{}")
    return parsed
