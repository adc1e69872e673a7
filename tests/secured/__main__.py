"""The secured matrix: what rec2pm says of each mistake and of each missing right, and after how many seconds; and that
each command works at each listener with its own rights alone.

`python -m tests.secured` runs it on the Kafka of KAFKA_HOME and writes docs/secured.md.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import Producer

from stream.kafka import rights, topics
from stream.kafka.group_members import group_members
from stream.kafka.names import Names
from stream.kafka.partitioner import partition_of
from tests.crash.ports import free_port
from tests.model import tiny
from tests.processes import REC2PM, WorkerProcess, environ, rec2pm, wait_until
from tests.secured import kafka
from tests.secured.commands import APP, ARGUMENTS, FRESH, NAMES, RUNNING, needed
from tests.secured.kafka import SecuredKafka
from tests.secured.mistakes import LISTENERS, mistakes
from tests.secured.rules import rule

PAGE: Final = Path(__file__).parents[2] / "docs" / "secured.md"
PARTITIONS: Final = 2
WITHIN_S: Final = 10.0
_ENDS_WITHIN_S: Final = 300.0
_SECURED: Final = ("TLS", "MTLS", "SCRAM")
_MOVES: Final = re.compile(
    r"\b[0-9a-f]{8}-?[0-9a-f-]{8,}\b|\b\d{13}\b|\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(Z|,\d{3} INFO)?)?"
)
"""Ids and times, which differ from run to run."""


class Said(NamedTuple):
    """How a command ended."""

    lines: list[str]
    code: int
    seconds: float


class Row(NamedTuple):
    """One row of a table of the page."""

    cells: tuple[str, ...]
    holds: bool


class Matrix:
    """Runs commands against one Kafka."""

    def __init__(self, secured: SecuredKafka, folder: Path) -> None:
        self._kafka, self._folder, self._count = secured, folder, 0

    def env(self, settings: Mapping[str, str], on: Names = NAMES) -> dict[str, str]:
        given = dict(settings)
        return environ(
            given.pop("BOOTSTRAP_SERVERS"),
            on.app,
            **{
                "INTERACTIONS_TOPIC": on.interactions,
                "RECOMMENDATIONS_TOPIC": on.recommendations,
                "MODELS": str(self._folder / "models"),
                "STATE_DIR": str(self._folder / "state"),
                "METRICS_LISTEN": "",
                **given,
            },
        )

    def words(self, arguments: tuple[str, ...]) -> list[str]:
        """What is typed."""
        self._count += 1
        (new := self._folder / f"new-{self._count}").mkdir()
        of_bob = partition_of(b"bob", PARTITIONS)
        places = {"letter": f"{of_bob}:0", "place": f"{of_bob}@0"}
        return [each.format(folder=self._folder, new=new, port=free_port(), **places) for each in arguments]

    def run(self, settings: Mapping[str, str], *arguments: str, on: Names = NAMES) -> Said:
        words, env = self.words(arguments), self.env(settings, on)
        began = time.monotonic()
        ended = rec2pm(*words, env=env, timeout=_ENDS_WITHIN_S)
        seconds = time.monotonic() - began
        output = (ended.stdout + ended.stderr).splitlines()
        lines = [self._same_everywhere(line) for line in output if re.match("rec2pm: |FAIL |WARN |PASS ", line)]
        if "Traceback" in ended.stderr:
            lines = ["Traceback", *lines]
        return Said(lines or [self._same_everywhere(line) for line in output[-1:]], ended.returncode, seconds)

    def _same_everywhere(self, line: str) -> str:
        """Without what differs from run to run."""
        line = re.sub(r"new-\d+", "new", line.replace(str(self._folder), "FOLDER")).removeprefix("rec2pm: ")
        line = _MOVES.sub("…", line)
        for listener, port in self._kafka.ports.items():
            line = line.replace(f":{port}", f":{listener}")
        return line.replace("|", "\\|")

    def mistakes(self) -> Iterator[Row]:
        """Each mistake: `topics check`, and a worker's start."""
        for listener in LISTENERS:
            self._allow_all(listener)
            right = self.run(self._kafka.right(listener), "topics", "check")
            yield Row((listener, "nothing", _seconds(right), "", _told(right)), right.code == 0)
            for each in (mistake for mistake in mistakes(self._kafka) if mistake.listener == listener):
                check = self.run(each.settings, "topics", "check")
                worker = self.run(each.settings, "worker")
                holds = all(
                    len(said.lines) == 1
                    and each.says in said.lines[0]
                    and each.names in said.lines[0]
                    and said.code in (1, 2)
                    and said.seconds < WITHIN_S
                    for said in (check, worker)
                )
                yield Row((listener, each.what, _seconds(check), _seconds(worker), _told(check)), holds)

    def worker_rights(self) -> Iterator[Row]:
        """Each right of a worker missing, at each listener: what `topics check` says."""
        for listener in LISTENERS:
            needed = rights.of_worker(NAMES)
            for lacking in needed:
                self._allow(listener, [each for each in needed if each != lacking])
                said = self.run(self._kafka.right(listener), "topics", "check")
                what = f"{lacking.operation} on {lacking.kind} `{lacking.name}`"
                holds = _about(lacking, said.lines) and said.code == (0 if lacking.optional else 1)
                yield Row((listener, what, _seconds(said), said.lines[0].partition(": allow")[0]), holds)

    def command_rights(self) -> Iterator[Row]:
        """Each right of each other command missing: what the command says."""
        for command, arguments in ARGUMENTS.items():
            having = needed(command, NAMES)
            for lacking in having:
                if command in RUNNING and lacking.kind == "transactional id":
                    continue  # it is asked for by a training that has ended
                self._allow("SCRAM", [each for each in having if each != lacking])
                said = self.run(self._kafka.right("SCRAM"), *arguments)
                what = f"{lacking.operation} on {lacking.kind} `{lacking.name}`"
                told = said.lines[-1].partition(": allow")[0]
                # Without Kafka, versions are listed all the same.
                code = 0 if command == "models list" else 1
                holds = lacking.name.removesuffix("*") in told and said.code == code and "Traceback" not in told
                yield Row((f"`{command}`", what, _seconds(said), told), holds)

    def commands_at_listeners(self) -> Iterator[Row]:
        """Each other command with its own rights alone, at each listener."""
        found: dict[str, list[Said]] = {command: [] for command in ARGUMENTS}
        for listener in _SECURED:
            for command, arguments in ARGUMENTS.items():
                on = self._fresh(f"{command}-{listener}") if command in FRESH else NAMES
                self._allow(listener, needed(command, on))
                settings = self._kafka.right(listener)
                if command in RUNNING:
                    said = self._until_it_is_in(RUNNING[command], settings, arguments)
                else:
                    said = self.run(settings, *arguments, on=on)
                found[command].append(said)
                print(f"     {listener} {command}: {said}", file=sys.stderr, flush=True)
        for command, ended in found.items():
            holds = all(said.code == 0 and "Traceback" not in said.lines for said in ended)
            yield Row((f"`{command}`", *map(_seconds, ended), ended[-1].lines[-1]), holds)

    def _fresh(self, name: str) -> Names:
        """An application that nobody has used."""
        app = re.sub(r"[^a-z]+", "-", name.lower())
        on = Names(app, f"{app}.in", f"{app}.out")
        topics.create(self._kafka.admin, topics.plan(app, on.interactions, on.recommendations, PARTITIONS, 1))
        return on

    def _until_it_is_in(self, group: str, settings: Mapping[str, str], arguments: tuple[str, ...]) -> Said:
        """A command that goes on until it is stopped: it is, once it is in its consumer group."""
        log = self._folder / "running.log"
        began = time.monotonic()
        with log.open("wb") as output:
            command = [*REC2PM, *self.words(arguments)]
            process = subprocess.Popen(command, env=self.env(settings), stdout=output, stderr=output)
        try:
            wait_until(
                lambda: process.poll() is not None or bool(group_members(self._kafka.admin, group)),
                _ENDS_WITHIN_S,
                f"{arguments[0]} is in {group}",
            )
            seconds = time.monotonic() - began
            process.send_signal(signal.SIGTERM)
            code = process.wait(_ENDS_WITHIN_S)
        finally:
            process.kill()
        # The next one at this place waits for nobody.
        wait_until(lambda: not group_members(self._kafka.admin, group), _ENDS_WITHIN_S, f"{group} is empty")
        return Said([self._same_everywhere(line) for line in log.read_text().splitlines()[-1:]], code, seconds)

    @contextmanager
    def served(self) -> Iterator[None]:
        """The application, served by a worker of the administrator, with something for each command."""
        mine = self._kafka.settings_of_administrator
        lines = [
            f"{user},item-{item},{1_700_000_000_000 + item}" for item in range(1, 9) for user in ("bob", "ann", "eve")
        ]
        (self._folder / "first.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
        self._must(mine, "produce", "{folder}/first.csv")
        producer = Producer({**self._kafka.administrator, "partitioner": "murmur2_random"})
        producer.produce(NAMES.interactions, b"not an interaction", b"bob")
        producer.flush(_ENDS_WITHIN_S)
        for version in ("tiny@2", "tiny@1"):
            self._must(mine, "models", "promote", version)
        worker = WorkerProcess("one", self.env(mine), self._folder)
        try:
            wait_until(
                lambda: bool(self.run(mine, "dead-letters", "list", "--json").lines),
                _ENDS_WITHIN_S,
                "a worker has taken what was sent",
            )
            self._must(mine, "state", "export", "--out", "{folder}/users.parquet")
            self._must(mine, "interactions", "export", "--out", "{folder}/history")
            yield
        finally:
            worker.terminate()
            worker.ended(30)

    def _must(self, settings: Mapping[str, str], *arguments: str) -> None:
        said = self.run(settings, *arguments)
        assert said.code == 0, (arguments, said)

    def _allow_all(self, listener: str) -> None:
        self._allow(listener, rights.of_worker(NAMES))

    def _allow(self, listener: str, allowed: list[rights.Right]) -> None:
        principal = self._kafka.principal(listener)
        self._kafka.revoke(principal)
        self._kafka.grant(principal, {rule(each) for each in allowed})


def _seconds(said: Said) -> str:
    return f"{said.seconds:.1f}"


def _told(said: Said) -> str:
    return " ".join(said.lines)


def _about(lacking: rights.Right, lines: list[str]) -> bool:
    """Whether the first line is about this right, and no other is."""
    first = f"no right {lacking.operation} on {lacking.kind} {lacking.name} ({lacking.purpose})"
    return first in lines[0] and sum(line.startswith(("FAIL", "WARN")) for line in lines) == 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.secured", description=__doc__)
    parser.parse_args()
    if not os.environ.get("KAFKA_HOME"):
        sys.exit("KAFKA_HOME is not set: the matrix needs a Kafka that it can start")
    with tempfile.TemporaryDirectory() as name, kafka.running(Path(name) / "kafka", os.environ) as secured:
        folder = Path(name)
        planned = topics.plan(APP, NAMES.interactions, NAMES.recommendations, PARTITIONS, 1)
        topics.create(secured.admin, planned)
        for seed in (1, 2):
            tiny.add(folder / "models", seed=seed, config=tiny.table(segment_length=3))
        (folder / "log.csv").write_text("user_id,item_id,timestamp\nann,item-1,1700000000000\n")
        matrix = Matrix(secured, folder)
        tables = [list(_printed(each)) for each in (matrix.mistakes(), matrix.worker_rights())]
        with matrix.served():
            tables += [list(_printed(each)) for each in (matrix.commands_at_listeners(), matrix.command_rights())]
    PAGE.write_text(page(*tables), encoding="utf-8")
    wrong = [row.cells for table in tables for row in table if not row.holds]
    print(f"{sum(map(len, tables))} cases, {len(wrong)} wrong; written: {PAGE}")
    sys.exit(bool(wrong))


def _printed(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print("ok   " if row.holds else "WRONG", *row.cells, sep=" | ", flush=True)
        yield row


def page(connections: list[Row], worker: list[Row], working: list[Row], commands: list[Row]) -> str:
    """docs/secured.md."""
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"""<!-- Made by `python -m tests.secured`. Change tests/secured/, not this page. -->
# What does rec2pm say when Kafka does not let it in?

Every command says in one line what is wrong and which setting or right to look at. This page shows each case as it
was tried on {day}, on two cores that other programs kept busy, with Apache Kafka 4.3.1 and its authorizer on
(`StandardAuthorizer`; what is not granted is denied). `localhost:TLS` stands for the port of that listener. The seconds
are those of the whole process, the start of Python included. `KAFKA_HOME=… python -m tests.secured` writes this page
again; it computes for ten minutes.
[Operate](operate.md#rights-in-kafka) lists the rights.

| listener | what it asks of a client |
|---|---|
| PLAINTEXT | nothing |
| TLS | to trust Kafka's certificate |
| MTLS | that, and a certificate of its own |
| SCRAM | TLS, a user name and a password (SCRAM-SHA-512) |

## Connections

The line is that of `rec2pm topics check`. A worker says the same.

"""
        + _table(("listener", "what is wrong", "check, s", "worker, s", "line"), connections)
        + """
## A worker's rights, each of them missing

The line is that of `rec2pm topics check`, without the command that grants the right. It ends with exit code 1, or with
0 if the right is optional. A worker's start says the same and ends with exit code 2. Kafka does not tell what is
allowed on transactional ids, so a worker only finds that out at its first transaction, and ends with exit code 1.

"""
        + _table(("listener", "missing right", "s", "line"), worker)
        + """
## The other commands with their rights alone

Each was run by a user who has the rights that [Operate](operate.md#rights-in-kafka) lists for it, and no others. The
line is the last one that it says, with SCRAM. The trainer and the view were stopped when they were in their group.

"""
        + _table(("command", "TLS, s", "MTLS, s", "SCRAM, s", "line"), working)
        + """
## The rights of the other commands, each of them missing

With SCRAM. The exit code is 1; that of `models list` is 0, because the registry needs no Kafka.

"""
        + _table(("command", "missing right", "s", "line"), commands)
    )


def _table(head: tuple[str, ...], rows: list[Row]) -> str:
    lines = [head, ("---",) * len(head), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
