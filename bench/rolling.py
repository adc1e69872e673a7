"""A rolling restart under a steady load: how long each partition is silent, and how long lists take. Prints Markdown.

`python -m bench.rolling`: three workers, six partitions. SIGTERM stops one worker after the other. Each starts again
with its state folder; the next is stopped when it is ready (/readyz). `named` workers keep their name (REC2PM_WORKER);
`unnamed` ones are new members of the group each time. The two take turns. In the end every interaction must have
exactly one list.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import changelogs, null_model, worker_log
from bench.__main__ import machine
from bench.changelogs import Content
from bench.started import StartedWorker, as_shipped, wait_until_nobody_is_in
from bench.traffic import Seen, Traffic, Waited, silences, waited
from model.version.registry import Registry
from stream.commands.broker import found_broker
from tests.processes import rec2pm, wait_until

NAMED, UNNAMED = "named", "unnamed"
WORKERS, PARTITIONS = 3, 6
WINDOWS = ("before", "during", "after")
_WARM_S = 3.0
"""Seconds of load before anything is measured."""
_PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Moments:
    """Epoch seconds: the load is steady, the first worker is stopped, the last one is ready again, the load ends."""

    steady: float
    began: float
    ended: float
    last: float

    def windows(self) -> dict[str, tuple[float, float]]:
        return dict(
            zip(WINDOWS, ((self.steady, self.began), (self.began, self.ended), (self.ended, self.last)), strict=True)
        )


@dataclass(frozen=True, slots=True)
class Rolled:
    """One rolling restart.

    Attributes:
        restart_s: the longest absence of a worker, from SIGTERM to ready.
        assigned: number of partition assignments during the restarts.
        records: number of records restored during the restarts.
        silent: by window, each partition's longest time without a list, seconds.
        latency: by window.
    """

    members: str
    turn: int
    roll_s: float
    restart_s: float
    assigned: int
    records: int
    silent: dict[str, list[float]]
    latency: dict[str, Waited]


class Crew:
    """Three workers with two partitions each."""

    def __init__(self, env: dict[str, str], folder: Path, members: str) -> None:
        self._env, self._folder, self._members = env, folder, members
        self._starts = 0
        self.workers: list[StartedWorker] = []
        self.logs: list[Path] = []

    def start(self, number: int) -> StartedWorker:
        self._starts += 1
        env = {**self._env, "REC2PM_STATE_DIR": str(self._folder / f"state-{number}")}
        log = self._folder / f"w{number}-{self._starts}.log"
        self.logs.append(log)
        return StartedWorker(env, log, f"w{number}" if self._members == NAMED else None)

    def shared(self) -> bool:
        """True if each worker has two partitions and reads their records."""
        each = [len(worker_log.owned(worker_log.read(worker.log))) for worker in self.workers if worker.must_run()]
        return each == [PARTITIONS // WORKERS] * WORKERS and all(worker.ready() for worker in self.workers)

    def restart(self, number: int) -> float:
        """Restart a worker; the seconds until it is ready again."""
        began = time.time()
        code = self.workers[number].stop()
        if code != 0:
            raise RuntimeError(
                f"{self.workers[number].log.name}: SIGTERM ended it with {code}:\n{self.workers[number].log.read_text()[-2000:]}"
            )
        self.workers[number] = self.start(number)
        self.workers[number].watched_until_ready(_PATIENCE_S)
        return time.time() - began


@contextmanager
def crew(env: dict[str, str], folder: Path, members: str) -> Iterator[Crew]:
    folder.mkdir()
    with ExitStack() as running:
        found = Crew(env, folder, members)
        running.callback(lambda: [worker.stop() for worker in found.workers])
        for number in range(WORKERS):
            found.workers.append(found.start(number))
        wait_until(
            found.shared, _PATIENCE_S, f"{WORKERS} workers have {PARTITIONS // WORKERS} partitions each and are ready"
        )
        yield found


def rolled(
    bootstrap: str, folder: Path, env: dict[str, str], app: str, members: str, turn: int, rate: float, calm_s: float
) -> Rolled:
    """Measure one rolling restart, with a calm time before and after it."""
    with (
        crew(env, folder, members) as found,
        Traffic(bootstrap, f"{app}.in", f"{app}.out", partitions=PARTITIONS, rate=rate) as traffic,
    ):
        wait_until(traffic.everywhere, 60, "every partition has lists")
        time.sleep(_WARM_S)
        steady = time.time()
        time.sleep(calm_s)
        began = time.time()
        restarts = [found.restart(number) for number in range(WORKERS)]
        ended = time.time()
        time.sleep(calm_s)
        traffic.stop_sending()
        moments = Moments(steady, began, ended, time.time())
        wait_until(traffic.complete, _PATIENCE_S, "a list for every interaction")
        lists = traffic.seen()
    wait_until_nobody_is_in(bootstrap, app)
    lines = [line for log in found.logs for line in worker_log.read(log) if began <= line.at <= ended]
    return Rolled(
        members=members,
        turn=turn,
        roll_s=ended - began,
        restart_s=max(restarts),
        assigned=sum(len(line.numbers("assigned")) for line in lines if line.event.startswith("partitions")),
        records=int(sum(line.number("records") or 0 for line in lines if line.event == "restored")),
        silent=silent(lists, moments),
        latency=latency(lists, moments),
    )


def silent(lists: Sequence[Seen], moments: Moments) -> dict[str, list[float]]:
    return {name: silences(lists, PARTITIONS, *window) for name, window in moments.windows().items()}


def latency(lists: Sequence[Seen], moments: Moments) -> dict[str, Waited]:
    """Latency of lists read before the restarts, of interactions sent after them, and of the rest, which met them."""
    steady = [one for one in lists if one.sent >= moments.steady]
    windows = {
        "before": [one for one in steady if one.arrived < moments.began],
        "during": [one for one in steady if one.sent < moments.ended and one.arrived >= moments.began],
        "after": [one for one in steady if one.sent >= moments.ended and one.arrived >= moments.began],
    }
    found = {name: waited(each) for name, each in windows.items()}
    return {name: each for name, each in found.items() if each is not None}


def rounds(
    bootstrap: str, folder: Path, records: int, repeats: int, rate: float, calm_s: float, session_ms: int | None
) -> list[Rolled]:
    """Run named and unnamed workers in turn; the order is reversed each round."""
    null_model.write(Registry(folder / "models"), changelogs.FOLDED_EVERY)
    app = "rolling"
    env = as_shipped(bootstrap, app, session_ms, MODELS=str(folder / "models"), MODEL="null", RECOMMEND="interaction")
    changelogs.create(bootstrap, [f"{app}.changelog"], PARTITIONS)
    if (made := rec2pm("topics", "create", "--partitions", str(PARTITIONS), env=env)).returncode:
        raise RuntimeError(made.stderr)
    if records:
        print(f"  writing {records:,} records", file=sys.stderr)
        changelogs.write(bootstrap, Content("small", records, PARTITIONS), f"{app}.changelog", None)
    runs = []
    for turn in range(repeats):
        for members in (NAMED, UNNAMED) if turn % 2 == 0 else (UNNAMED, NAMED):
            run = rolled(bootstrap, folder / f"{members}-{turn}", env, app, members, turn, rate, calm_s)
            print(
                f"  round {turn}: {members:<8} {run.roll_s:5.1f} s, longest silence {max(run.silent['during']):5.2f} s",
                file=sys.stderr,
            )
            runs.append(run)
    return runs


def tables(runs: Sequence[Rolled]) -> list[str]:
    """Medians over the rounds: of silences, and of lists' times."""
    lines = [
        "| members | roll, s | longest restart, s | longest silence, s: worst partition (before) | its min..max | median partition | partitions assigned | records restored |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    by_members = {
        members: [run for run in runs if run.members == members]
        for members in dict.fromkeys(run.members for run in runs)
    }
    for members, mine in by_members.items():
        worst = [max(run.silent["during"]) for run in mine]
        calm = statistics.median(max(run.silent["before"]) for run in mine)
        lines.append(
            f"| {members} | {statistics.median(run.roll_s for run in mine):.1f} | {statistics.median(run.restart_s for run in mine):.1f} "
            f"| {statistics.median(worst):.2f} ({calm:.2f}) | {min(worst):.2f}..{max(worst):.2f} "
            f"| {statistics.median(statistics.median(run.silent['during']) for run in mine):.2f} "
            f"| {statistics.median(run.assigned for run in mine):.0f} | {statistics.median(run.records for run in mine):,.0f} |"
        )
    lines += [
        "",
        "| members | interactions | p50 ms | p99 ms | p99.9 ms | worst ms | lists |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for members, mine in by_members.items():
        for window in WINDOWS:
            each = [run.latency[window] for run in mine if window in run.latency]
            figures = [
                statistics.median(getattr(one, name) for one in each) for name in ("p50", "p99", "p999", "worst")
            ]
            lines.append(
                f"| {members} | {window} | {' | '.join(f'{figure:,.1f}' for figure in figures)} | {sum(one.lists for one in each):,} |"
            )
    return lines


def report(asked: argparse.Namespace, runs: Sequence[Rolled]) -> str:
    arguments = f"--records {asked.records} --rate {asked.rate:g} --calm {asked.calm:g} --rounds {asked.rounds}"
    if asked.session_ms is not None:
        arguments += f" --session-ms {asked.session_ms}"
    lines = [
        "# A rolling restart",
        "",
        f"Printed by `python -m bench.rolling {arguments}`. {machine()}.",
        "Broker: Kafka, on the same machine.",
        "",
        (
            f"{WORKERS} workers, {PARTITIONS} partitions with {asked.records:,} changelog records, null model, {asked.rate:g} interactions a second with a list for each. "
            "Each worker is stopped by SIGTERM and started again with its state folder when the one before is ready. "
            f"Medians of {asked.rounds} interleaved rounds. A silence is the time between two lists of one partition, as a read_committed reader has them. "
            "Latency: from `produce` to that reader; of lists read before the first stop, of interactions sent after the last worker is ready, and of all between. Every interaction had exactly one list in the end."
        ),
        "",
        *tables(runs),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.rolling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=60_000, help="in the changelog, before anything else happens")
    parser.add_argument("--rate", type=float, default=300, help="interactions a second")
    parser.add_argument("--calm", type=float, default=10, help="seconds before and after the restarts")
    parser.add_argument("--session-ms", type=int, help="the workers' session.timeout.ms (default: theirs)")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        if broker.kind == "embedded":
            raise SystemExit(
                "a rolling restart is measured on a real Kafka: set KAFKA_HOME to an unpacked Kafka download, or REC2PM_TEST_BOOTSTRAP"
            )
        runs = rounds(
            broker.bootstrap, Path(scratch), asked.records, asked.rounds, asked.rate, asked.calm, asked.session_ms
        )
    print(report(asked, runs))


if __name__ == "__main__":
    main()
