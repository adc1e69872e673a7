"""Time from the SIGKILL of a worker to its successor's first list for the dead worker's partitions. Prints Markdown.

`python -m bench.takeover`: two workers with two of four partitions each, and a steady light load. One worker is killed
at a random moment. Three successors take turns, with changelogs of several sizes:

    other    the other worker (both are unnamed); it has none of the dead worker's partitions on its disk
    same     a worker with the dead worker's name (REC2PM_WORKER) and state folder, started at once
    emptied  the same, without the state folder

In the end every interaction of the load must have exactly one list.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import changelogs, null_model, worker_log
from bench.__main__ import machine
from bench.changelogs import PARTITIONS, Content
from bench.started import StartedWorker, as_shipped, wait_until_nobody_is_in
from bench.traffic import Seen, Traffic
from bench.worker_log import Line
from model.version.registry import Registry
from stream.commands.broker import found_broker
from tests.processes import rec2pm, wait_until

OTHER, SAME, EMPTIED = "other", "same", "emptied"
MODES = (OTHER, SAME, EMPTIED)
_STEADY_S = 2.0
_NOTICEABLE_S = 1.0
"""Longer than Kafka takes to answer without an open transaction, which is milliseconds."""
_PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Takeover:
    """One takeover. Times are seconds, each from the one before it, for the partition with the first list.

    Attributes:
        started: until the new process logged its start; None if a running worker takes over.
        assigned: until the partition was assigned.
        transaction: how long the restore waited for the dead worker's transaction; None if the log does not show it.
        restored: until its store was complete.
        listed: until a read_committed reader had the first list.
        total: all of it.
        last: from the kill until every partition of the dead worker had a list.
        records: number of records restored, in all partitions of the dead worker.
    """

    started: float | None
    assigned: float
    transaction: float | None
    restored: float
    listed: float
    total: float
    last: float
    records: int


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement, and its round."""

    mode: str
    size: int
    turn: int
    takeover: Takeover


def taken_over(
    killed: float, lost: Sequence[int], logs: Sequence[Sequence[Line]], lists: Sequence[Seen]
) -> Takeover | None:
    """Read a takeover from logs and lists; None while a partition of the dead worker has no list made after the kill.

    Args:
        killed: epoch seconds.
        lost: the partitions of the dead worker.
        logs: of the workers that may have taken over.
        lists: in the order of arrival.

    Raises:
        ValueError: a partition has lists, but no log has it assigned and restored.
    """
    firsts = {one.partition: one.arrived for one in reversed(lists) if one.made >= killed and one.partition in lost}
    if len(firsts) < len(lost):
        return None
    first = min(firsts, key=firsts.__getitem__)
    after = [[line for line in lines if killed - 0.001 <= line.at <= firsts[first]] for lines in logs]
    lines = next((lines for lines in after if worker_log.restored(lines, [first])), [])
    given, whole = worker_log.assigned(lines, [first]), worker_log.restored(lines, [first])
    if given is None or first not in whole:
        raise ValueError(
            f"partition {first} has lists, but no living worker's log has it assigned and restored since the kill"
        )
    starts = [line.at for line in lines if line.event == "worker starts"]
    waited = whole[first].number("waited_s")
    everything = [line for each in logs for line in worker_log.restored(each, lost).values() if line.at >= killed]
    return Takeover(
        started=starts[0] - killed if starts else None,
        assigned=given.at - (starts[0] if starts else killed),
        transaction=waited,
        restored=whole[first].at - given.at - (waited or 0.0),
        listed=firsts[first] - whole[first].at,
        total=firsts[first] - killed,
        last=max(firsts.values()) - killed,
        records=int(sum(line.number("records") or 0 for line in everything)),
    )


class Pair:
    """Two workers with two partitions each; the first will be killed."""

    def __init__(self, env: dict[str, str], folder: Path, mode: str) -> None:
        self._env, self._folder, self._mode = env, folder, mode
        folder.mkdir()
        self._starts = 0
        self.killed = False
        self.first = self._started(0)
        try:
            self.first.watched_until_ready(_PATIENCE_S)
            if mode == SAME:
                # Closing a store flushes it to disk, so the same records need no second restore.
                self.first.stop()
                self.first = self._started(0)
                self.first.watched_until_ready(_PATIENCE_S)
            self.second = self._started(1)
        except BaseException:
            self.first.stop()
            raise
        wait_until(self._shared, _PATIENCE_S, "both workers have two partitions and are ready")

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self.first.stop()
        self.second.stop()

    def _state(self, number: int) -> Path:
        return self._folder / f"state-{number}"

    def _started(self, number: int) -> StartedWorker:
        self._starts += 1
        env = {**self._env, "REC2PM_STATE_DIR": str(self._state(number))}
        return StartedWorker(
            env, self._folder / f"w{number}-{self._starts}.log", None if self._mode == OTHER else f"w{number}"
        )

    def _shared(self) -> bool:
        each = [
            worker_log.owned(worker_log.read(worker.log)) for worker in (self.first, self.second) if worker.must_run()
        ]
        return [len(one) for one in each] == [2, 2] and self.first.ready() and self.second.ready()

    def must_run(self) -> bool:
        """True while both run, else the error. If the other takes over, the first is not checked after its kill."""
        return (self.killed or self.first.must_run()) and self.second.must_run()

    def kill(self) -> tuple[float, list[int], list[Path]]:
        """Kill the first, and start its successor if it has one: time, partitions, logs of the possible successors."""
        lost = sorted(worker_log.owned(worker_log.read(self.first.log)))
        killed = time.time()
        self.first.kill()
        if self._mode == OTHER:
            self.killed = True
            return killed, lost, [self.second.log]
        if self._mode == EMPTIED:
            self._state(0).rename(self._folder / "lost")
        self.first = self._started(0)
        return killed, lost, [self.first.log, self.second.log]


def measured(
    bootstrap: str, folder: Path, env: dict[str, str], app: str, mode: str, rate: float, chance: random.Random
) -> Takeover:
    """Measure one kill."""
    with (
        Pair(env, folder, mode) as pair,
        Traffic(bootstrap, f"{app}.in", f"{app}.out", partitions=PARTITIONS, rate=rate) as traffic,
    ):
        wait_until(lambda: pair.must_run() and traffic.everywhere(), 60, "every partition has lists")
        time.sleep(_STEADY_S + chance.uniform(0, 0.5))  # at a moment that does not depend on the steps
        killed, lost, logs = pair.kill()
        found: list[Takeover] = []

        def over() -> bool:
            pair.must_run()
            takeover = taken_over(killed, lost, [worker_log.read(log) for log in logs], traffic.seen())
            if takeover is not None:
                found.append(takeover)
            return takeover is not None

        wait_until(over, _PATIENCE_S, "the dead worker's partitions have lists again")
        traffic.stop_sending()
        wait_until(traffic.complete, _PATIENCE_S, "a list for every interaction")
    wait_until_nobody_is_in(bootstrap, app)
    return found[0]


def rounds(
    bootstrap: str, folder: Path, sizes: Sequence[int], repeats: int, rate: float, seed: int, session_ms: int | None
) -> list[Round]:
    """Run every successor with every size once a round; the order is reversed each round."""
    null_model.write(Registry(folder / "models"), changelogs.FOLDED_EVERY)
    chance = random.Random(seed)
    envs = {}
    for size in sizes:
        app = f"takeover-{size}"
        envs[size] = env = as_shipped(bootstrap, app, session_ms, MODELS=str(folder / "models"), MODEL="null")
        changelogs.create(bootstrap, [f"{app}.changelog"])
        if (made := rec2pm("topics", "create", "--partitions", str(PARTITIONS), env=env)).returncode:
            raise RuntimeError(made.stderr)
        if size:
            print(f"  writing {2 * size:,} records", file=sys.stderr)
            changelogs.write(bootstrap, Content("small", 2 * size), f"{app}.changelog", None)
    plan = [(size, mode) for size in sizes for mode in MODES]
    runs = []
    for turn in range(repeats):
        for size, mode in plan if turn % 2 == 0 else plan[::-1]:
            takeover = measured(
                bootstrap, folder / f"{size}-{mode}-{turn}", envs[size], f"takeover-{size}", mode, rate, chance
            )
            print(f"  round {turn}: {size:>9,} records, {mode:<8} {takeover.total:6.2f} s", file=sys.stderr)
            runs.append(Round(mode, size, turn, takeover))
    return runs


def table(runs: Sequence[Round]) -> list[str]:
    """Medians of each part. The parts of one run add up to its total; the medians need not."""
    lines = [
        "| successor | records in the dead one's partitions | first list, s | min..max | process | assigned | transaction | restore | list | all partitions, s | records restored | waited for a transaction | by the other |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size, mode in dict.fromkeys((run.size, run.mode) for run in runs):
        mine = [run.takeover for run in runs if (run.size, run.mode) == (size, mode)]
        totals = [one.total for one in mine]
        parts = [
            _median([getattr(one, name) for one in mine])
            for name in ("started", "assigned", "transaction", "restored", "listed")
        ]
        lines.append(
            f"| {mode} | {size:,} | {statistics.median(totals):.2f} | {min(totals):.2f}..{max(totals):.2f} | {' | '.join(parts)} "
            f"| {statistics.median(one.last for one in mine):.2f} | {statistics.median(one.records for one in mine):,.0f} "
            f"| {_waited([one.transaction for one in mine])} | {sum(one.started is None for one in mine)} of {len(mine)} |"
        )
    return lines


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.2f}" if known else "–"


def _waited(seconds: Sequence[float | None]) -> str:
    """How many workers were killed with a transaction open."""
    known = [each for each in seconds if each is not None]
    return f"{sum(each >= _NOTICEABLE_S for each in known)} of {len(known)}" if known else "–"


def report(asked: argparse.Namespace, runs: Sequence[Round]) -> str:
    arguments = (
        f"--sizes {','.join(map(str, asked.sizes))} --rate {asked.rate:g} --rounds {asked.rounds} --seed {asked.seed}"
    )
    if asked.session_ms is not None:
        arguments += f" --session-ms {asked.session_ms}"
    lines = [
        "# Takeover",
        "",
        f"Printed by `python -m bench.takeover {arguments}`. {machine()}.",
        "Broker: Kafka, on the same machine.",
        "",
        (
            f"Two workers with two of {PARTITIONS} partitions each, null model, {asked.rate:g} interactions a second with a list for each; one worker is killed (SIGKILL) at a random "
            "moment. Seconds until a read_committed reader has the first list of one of its partitions that was made after the kill; of that partition, "
            "until: the new process has loaded its model (`process`); the partition is assigned to the successor (of `other`: after the dead one's session has ended); "
            "the dead one's transaction is out of the way; the store is whole; the list is read. "
            f"The last two columns: runs whose restore waited {_NOTICEABLE_S:g} s or more, the dead one having been in a transaction; and runs in which the other worker had the first list, "
            "as it has when a session ends before the new process joins. "
            f"Medians of {asked.rounds} interleaved rounds. `other`: the other, unnamed worker. `same`: the same name, started again at once. "
            "`emptied`: the same, its state folder gone. Every interaction had exactly one list in the end."
        ),
        "",
        *table(runs),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.takeover", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=[0, 100_000],
        help="changelog records in the dead one's two partitions, by commas",
    )
    parser.add_argument("--rate", type=float, default=100, help="interactions a second")
    parser.add_argument("--session-ms", type=int, help="the workers' session.timeout.ms (default: theirs)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments of the kills")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        if broker.kind == "embedded":
            raise SystemExit(
                "a takeover is measured on a real Kafka: set KAFKA_HOME to an unpacked Kafka download, or REC2PM_TEST_BOOTSTRAP"
            )
        runs = rounds(
            broker.bootstrap, Path(scratch), asked.sizes, asked.rounds, asked.rate, asked.seed, asked.session_ms
        )
    print(report(asked, runs))


def _sizes(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    main()
