"""The secured matrix: what rec2pm says of each mistake and of each missing right, and after how many seconds.

`python -m tests.secured` runs it on the Kafka of KAFKA_HOME and writes docs/secured.md.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from bench import null_model
from model.version.registry import Registry
from stream.kafka import rights, topics
from stream.kafka.names import Names
from tests.crash.ports import free_port
from tests.processes import environ, rec2pm
from tests.secured import kafka
from tests.secured.kafka import SecuredKafka
from tests.secured.mistakes import LISTENERS, mistakes
from tests.secured.rules import rule

PAGE: Final = Path(__file__).parents[2] / "docs" / "secured.md"
APP: Final = "shop"
NAMES: Final = Names(APP, "clicks", "recommendations")
WITHIN_S: Final = 10.0
_ENDS_WITHIN_S: Final = 90.0
_ARGUMENTS: Final = {
    "produce": ("produce", "{folder}/log.csv"),
    "user show": ("user", "show", "ann"),
    "state export": ("state", "export", "--out", "{folder}/users.parquet"),
    "user forget --execute": ("user", "forget", "ann", "--execute", "--wait", "1"),
    "dead-letters list": ("dead-letters", "list"),
    "dead-letters replay --execute": ("dead-letters", "replay", "--execute"),
    "view": ("view", "--listen", "127.0.0.1:{port}"),
}


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
        self._kafka, self._folder = secured, folder

    def run(self, settings: Mapping[str, str], *arguments: str) -> Said:
        given = dict(settings)
        env = environ(
            given.pop("BOOTSTRAP_SERVERS"),
            APP,
            **{
                "INTERACTIONS_TOPIC": NAMES.interactions,
                "RECOMMENDATIONS_TOPIC": NAMES.recommendations,
                "MODELS": str(self._folder / "models"),
                "STATE_DIR": str(self._folder / "state"),
                "METRICS_LISTEN": "",
                **given,
            },
        )
        words = [each.format(folder=self._folder, port=free_port()) for each in arguments]
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
        line = line.replace(str(self._folder), "FOLDER").removeprefix("rec2pm: ")
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
        for command, arguments in _ARGUMENTS.items():
            needed = rights.of_view(NAMES, "view") if command == "view" else rights.COMMANDS[command](NAMES)
            for lacking in needed:
                self._allow("SCRAM", [each for each in needed if each != lacking])
                said = self.run(self._kafka.right("SCRAM"), *arguments)
                what = f"{lacking.operation} on {lacking.kind} `{lacking.name}`"
                holds = len(said.lines) == 1 and lacking.name in said.lines[0] and said.code == 1
                told = said.lines[0].partition(": allow")[0]
                yield Row((f"`{command}`", what, _seconds(said), told), holds)

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
        planned = topics.plan(APP, NAMES.interactions, NAMES.recommendations, 2, 1)
        topics.create(secured.admin, planned)
        null_model.write(Registry(folder / "models"), segment_length=3)
        (folder / "log.csv").write_text("user_id,item_id,timestamp\nann,1,1700000000000\n")
        matrix = Matrix(secured, folder)
        tables = [list(_printed(each)) for each in (matrix.mistakes(), matrix.worker_rights(), matrix.command_rights())]
    PAGE.write_text(page(*tables), encoding="utf-8")
    wrong = [row.cells for table in tables for row in table if not row.holds]
    print(f"{sum(map(len, tables))} cases, {len(wrong)} wrong; written: {PAGE}")
    sys.exit(bool(wrong))


def _printed(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print("ok   " if row.holds else "WRONG", *row.cells, sep=" | ", flush=True)
        yield row


def page(connections: list[Row], worker: list[Row], commands: list[Row]) -> str:
    """docs/secured.md."""
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return (
        f"""<!-- Made by `python -m tests.secured`. Change tests/secured/, not this page. -->
# What does rec2pm say when Kafka does not let it in?

Every command says in one line what is wrong and which setting or right to look at. This page shows each case as it
was tried on {day}, on a shared machine with two cores, with Apache Kafka 4.3.1 and its authorizer on
(`StandardAuthorizer`; what is not granted is denied). `localhost:TLS` stands for the port of that listener. The seconds
are those of the whole process, the start of Python included. `KAFKA_HOME=… python -m tests.secured` writes this page
again.
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
## The rights of the other commands, each of them missing

With SCRAM. The exit code is 1.

"""
        + _table(("command", "missing right", "s", "line"), commands)
    )


def _table(head: tuple[str, ...], rows: list[Row]) -> str:
    lines = [head, ("---",) * len(head), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
