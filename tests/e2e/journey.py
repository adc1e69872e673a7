"""What an operator does from the first day on, with all programs against each other on one Kafka: from a log to lists
over HTTP, and every command in between.
"""

import io
import json
from collections import Counter
from typing import Any, Final

import polars as pl
from confluent_kafka import Producer

from model.synthetic import SyntheticLog, generate
from tests.crash.ports import free_port
from tests.e2e.programs import Program, Programs, events, get, until, wait_for

PARTITIONS: Final = 4
SEGMENT: Final = 20
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")


class Journey:
    """One application from its beginning to the stop of its programs."""

    def __init__(self, programs: Programs, settings: dict[str, str]) -> None:
        self.programs = programs
        self.topic = settings["INTERACTIONS_TOPIC"]
        self.bootstrap = settings["BOOTSTRAP_SERVERS"]
        self.log = generate(SyntheticLog(users=80)).interactions
        self.taken: Counter[str] = Counter(self.log["user_id"].to_list())
        """Of each user, how many interactions were sent."""
        self.view_port, self.metrics_ports = free_port(), (free_port(), free_port())

    def made(self, models: str, extras: tuple[str, ...]) -> None:
        """`models`: the registry that a worker looks into by default. `extras`: those that are installed."""
        written = io.BytesIO()
        self.log.write_csv(written)
        self.programs.put("clicks.csv", written.getvalue())
        self.trains(models, "evaluate" in extras)
        self.sends()

        first = self.worker(0)
        view = self.programs.start("view", "view", "--listen", f"127.0.0.1:{self.view_port}")
        wait_for(view, self.view_port, "/ready")
        self.everybody_has_a_list(first)
        second = self.worker(1)  # takes over two partitions: reads their changelog
        self.every_codec_is_read(first, second)
        user = self.shows_and_streams()
        self.refuses_and_replays()
        assert first.stop() == 0, first.said()
        self.sees(user)  # the other worker goes on alone
        forgotten = self.forgets()
        self.exports(forgotten)

        for program in (second, view):
            assert program.stop() == 0, program.said()
        for program in (first, second, view):
            assert "Traceback" not in program.said(), program.said()
            assert " ERROR " not in program.said(), program.said()

    def trains(self, models: str, evaluates: bool) -> None:
        told = self.programs.run(
            "train", "clicks.csv", "--out", models, "--set", "max_seconds=2", "--set", f"segment_length={SEGMENT}"
        )
        assert told.splitlines()[-1] == "rec2pm@1"
        if evaluates:
            assert "rec2pm@1" in self.programs.run("evaluate", "clicks.csv", "--model", "rec2pm")

    def sends(self) -> None:
        self.programs.run("topics", "create", "--partitions", str(PARTITIONS))
        assert "PASS" in self.programs.run("topics", "check")
        self.programs.run("produce", "clicks.csv")

    def worker(self, number: int) -> Program:
        port = self.metrics_ports[number]
        started = self.programs.start(f"worker-{number}", "worker", METRICS_LISTEN=f"127.0.0.1:{port}")
        wait_for(started, port, "/readyz")
        return started

    def everybody_has_a_list(self, worker: Program) -> None:
        """The last list of everybody knows of every interaction that was sent."""

        def behind() -> list[str]:
            assert worker.process.poll() is None, worker.said()
            return [user for user in self.taken if self.list_of(user).get("taken") != self.taken[user]]

        until(lambda: not behind(), "everybody's newest list is served")
        assert all(self.list_of(user)["folds"] == taken // SEGMENT for user, taken in self.taken.items())

    def every_codec_is_read(self, *workers: Program) -> None:
        until(lambda: all(get(port, "/readyz")[0] == 200 for port in self.metrics_ports), "both workers are ready")
        for codec in CODECS:
            self.acts(f"user-of-{codec}", self.log["item_id"][0], codec)
        for worker in workers:
            self.everybody_has_a_list(worker)

    def shows_and_streams(self) -> str:
        user = self.taken.most_common(1)[0][0]
        with events(self.view_port, f"/recommendations/{user}/stream") as lists:
            assert next(lists)["taken"] == self.taken[user]
            self.acts(user, self.log["item_id"][0])
            assert next(lists)["taken"] == self.taken[user]
        self.sees(user)
        return user

    def sees(self, user: str) -> None:
        """The state of a user, after one more interaction."""
        self.acts(user, self.log["item_id"][1])
        until(lambda: self.list_of(user).get("taken") == self.taken[user], "the interaction is in a list")
        shown = json.loads(self.programs.run("user", "show", user, "--json"))
        assert (shown["taken"], shown["folds"]) == (self.taken[user], self.taken[user] // SEGMENT)

    def refuses_and_replays(self) -> None:
        self.send("somebody", b"not an interaction")
        until(lambda: len(self.letters()) == 1, "the dead letter")
        self.programs.run("dead-letters", "replay", "--execute")
        until(lambda: len(self.letters()) == 2, "the dead letter comes back, for nobody repaired it")
        assert [each["attempts"] for each in self.letters()] == [1, 2]
        assert [each["replayed"] for each in self.letters()] == [True, False]
        self.programs.run("dead-letters", "replay", "--execute")
        until(lambda: len(self.letters()) == 3, "and once more")

    def letters(self) -> list[dict[str, Any]]:
        return sorted(
            map(json.loads, self.programs.run("dead-letters", "list", "--json").splitlines()),
            key=lambda each: each["attempts"],
        )

    def forgets(self) -> str:
        user = self.taken.most_common()[-1][0]
        self.programs.run("user", "forget", user, "--execute")
        until(lambda: get(self.view_port, f"/recommendations/{user}")[0] == 404, "the view forgets too")
        return user

    def exports(self, forgotten: str) -> None:
        self.programs.run("state", "export", "--out", "users.parquet")
        found = pl.read_parquet(io.BytesIO(self.programs.get("users.parquet")))
        del self.taken[forgotten]
        assert dict(found.select("user_id", "taken").iter_rows()) == self.taken

    def list_of(self, user: str) -> dict[str, Any]:
        status, body = get(self.view_port, f"/recommendations/{user}")
        return body if status == 200 else {}

    def acts(self, user: str, item: str, codec: str = "none") -> None:
        # With a field that nobody reads: a client leaves alone what compression would not make smaller.
        self.send(user, json.dumps({"item": item, "note": "a" * 500}).encode(), codec)
        self.taken[user] += 1

    def send(self, user: str, value: bytes, codec: str = "none") -> None:
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random", "compression.type": codec}
        )
        producer.produce(self.topic, value, user)
        assert producer.flush(30) == 0
