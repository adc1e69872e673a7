"""Cost of exactly-once: the worker with its transactions, and the same worker without. Prints Markdown.

`python -m bench.guarantee` measures a backlog and a light load with the null model; the programs take turns. Without
transactions (bench.at_least_once) a step waits until its records are delivered, and then commits its offsets with the
consumer. One variant waits for the commit, the other does not.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench import journey, null_model
from bench.__main__ import machine, rounds, worker
from bench.journey import PARTITIONS, Program
from bench.started import StartedWorker, as_shipped
from bench.traffic import Traffic, Waited, waited
from model.synthetic import SyntheticLog, generate
from model.version.registry import Registry
from stream.commands.broker import found_broker
from tests.processes import REC2PM, rec2pm, wait_until

SEGMENT_LENGTH = 50
EXACTLY, AT_LEAST, ASYNCHRONOUS = "transactions", "without", "without, offsets not waited for"
COMMANDS = {
    EXACTLY: [*REC2PM, "worker"],
    AT_LEAST: [sys.executable, "-m", "bench.at_least_once"],
    ASYNCHRONOUS: [sys.executable, "-m", "bench.at_least_once", "--asynchronous"],
}
_WARM_S = 2.0


@dataclass(frozen=True, slots=True)
class Light:
    """One run with a light load."""

    program: str
    turn: int
    latency: Waited
    worker_cores: float
    """CPU seconds of the worker per second."""
    broker_cores: float


def programs(models: Path) -> list[Program]:
    """The worker as the other benchmarks start it, and without transactions."""
    ours = worker(EXACTLY, models, "null", SEGMENT_LENGTH)
    return [replace(ours, name=name, command=instead(ours.command, command)) for name, command in COMMANDS.items()]


def instead(command: str, other: Sequence[str]) -> str:
    """A command line that creates the topics and then becomes another program instead of the worker.

    Raises:
        ValueError: `command` is not such a command line.
    """
    start = f"exec {' '.join(COMMANDS[EXACTLY])}"
    if command.count(start) != 1:
        raise ValueError(f"expected `{start}` once in `{command}`")
    return command.replace(start, f"exec {' '.join(other)}")


def light(bootstrap: str, folder: Path, models: Path, program: str, turn: int, rate: float, seconds: float) -> Light:
    """Measure one worker under a light load."""
    app = f"light-{list(COMMANDS).index(program)}-{turn}"
    env = as_shipped(bootstrap, app, MODELS=str(models), MODEL="null", STATE_DIR=str(folder / app))
    if (made := rec2pm("topics", "create", "--partitions", str(PARTITIONS), env=env)).returncode:
        raise RuntimeError(made.stderr)
    broker = journey._listener(bootstrap)
    with StartedWorker(env, folder / f"{app}.log", command=COMMANDS[program]) as process:
        process.watched_until_ready()
        with Traffic(bootstrap, f"{app}.in", f"{app}.out", partitions=PARTITIONS, rate=rate) as traffic:
            wait_until(lambda: process.must_run() and traffic.everywhere(), 60, "every partition has lists")
            time.sleep(_WARM_S)
            before, broker_before = process.usage(), _cpu_s(broker)
            time.sleep(seconds)
            after, broker_after = process.usage(), _cpu_s(broker)
            traffic.stop_sending()
            wait_until(traffic.complete, 60, "a list for every interaction")
            latency = waited(one for one in traffic.seen() if before.at <= one.sent < after.at)
    if latency is None:
        raise RuntimeError(f"{program}: no list in {seconds:g} s")
    took = after.at - before.at
    return Light(program, turn, latency, (after.cpu_s - before.cpu_s) / took, (broker_after - broker_before) / took)


def _cpu_s(process: psutil.Process | None) -> float:
    times = None if process is None else process.cpu_times()
    return 0.0 if times is None else float(times.user + times.system)


def lights(bootstrap: str, folder: Path, models: Path, repeats: int, rate: float, seconds: float) -> list[Light]:
    """Run every program once a round; the order is reversed each round."""
    runs = []
    for turn in range(repeats):
        for program in list(COMMANDS) if turn % 2 == 0 else list(COMMANDS)[::-1]:
            run = light(bootstrap, folder, models, program, turn, rate, seconds)
            print(
                f"  round {turn}: {program:<32} p50 {run.latency.p50:6.1f} ms, p99 {run.latency.p99:6.1f} ms",
                file=sys.stderr,
            )
            runs.append(run)
    return runs


def light_table(runs: Sequence[Light]) -> list[str]:
    """Medians, and the ratios of p50 and p99 to those with transactions in the same round."""
    exactly = {run.turn: run.latency for run in runs if run.program == EXACTLY}
    lines = [
        "| program | p50 ms | ÷ transactions | p99 ms | ÷ transactions | p99.9 ms | worker, cores | broker, cores | lists |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for program in dict.fromkeys(run.program for run in runs):
        mine = [run for run in runs if run.program == program]
        p50, p99, p999 = (
            statistics.median(getattr(run.latency, name) for run in mine) for name in ("p50", "p99", "p999")
        )
        half, most = (
            statistics.median(getattr(run.latency, name) / getattr(exactly[run.turn], name) for run in mine)
            for name in ("p50", "p99")
        )
        cores, broker = (
            statistics.median(getattr(run, name) for run in mine) for name in ("worker_cores", "broker_cores")
        )
        lines.append(
            f"| {program} | {p50:.1f} | {half:.2f} | {p99:.1f} | {most:.2f} | {p999:.1f} | {cores:.2f} | {broker:.2f} "
            f"| {sum(run.latency.lists for run in mine):,} |"
        )
    return lines


def report(asked: argparse.Namespace, folder: Path, bootstrap: str) -> str:
    models = folder / "models"
    null_model.write(Registry(models), SEGMENT_LENGTH)
    log = generate(SyntheticLog(users=6_040, interactions_median=130.0, interactions_spread=0.8)).interactions
    load = journey.interleaved(log, asked.records, SEGMENT_LENGTH)
    print("backlog", file=sys.stderr)
    backlog = rounds(bootstrap, folder, programs(models), {(SEGMENT_LENGTH, None): load}, asked.rounds)
    print("light load", file=sys.stderr)
    quiet = lights(bootstrap, folder, models, asked.rounds, asked.rate, asked.seconds)
    arguments = f"--records {asked.records} --rate {asked.rate:g} --seconds {asked.seconds:g} --rounds {asked.rounds}"
    return "\n".join(
        [
            "# What exactly-once costs",
            "",
            f"Printed by `python -m bench.guarantee {arguments}`. {machine()}.",
            "Broker: Kafka, on the same machine, one copy of each topic.",
            "",
            (
                "The same worker with its transactions and, only in this benchmark, without. Without them a step waits until its records are delivered, "
                "and commits its offsets with the consumer; it waits for the answer or does not. A crash would publish the step twice. Null model, one process, "
                f"{PARTITIONS} partitions; medians of {asked.rounds} interleaved rounds, ratios within a round."
            ),
            "",
            f"A backlog of {load.records:,} interactions of the synthetic log, users mixed at random, a list per fold:",
            "",
            *journey.table(backlog, EXACTLY),
            "",
            f"{asked.rate:g} interactions a second with a list for each, from `produce` to a read_committed reader:",
            "",
            *light_table(quiet),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.guarantee", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=500_000, help="interactions of the backlog")
    parser.add_argument("--rate", type=float, default=200, help="interactions per second of the light load")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of each run with the light load")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        if broker.kind == "embedded":
            raise SystemExit(
                "transactions are measured on a real Kafka: set KAFKA_HOME to an unpacked Kafka download, or REC2PM_TEST_BOOTSTRAP"
            )
        print(report(asked, Path(scratch), broker.bootstrap))


if __name__ == "__main__":
    main()
