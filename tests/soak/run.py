"""One run: a steady load, promotions on a steady beat, and what the workers use meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil
from confluent_kafka.admin import AdminClient

from model.version.registry import ModelVersion
from stream.commands.broker import Broker
from stream.kafka.models_topic import read_models
from stream.promotion.record import Promotion
from tests.crash.feeder import Feeder
from tests.crash.oracle import Verdict, judge
from tests.crash.reading import Kept, ends, observe, places_of
from tests.crash.replay import Rules
from tests.crash.source import Sent
from tests.processes import ROOT, Committed, environ, rec2pm, wait_until
from tests.soak import worker as noting
from tests.soak.program import ProgramVersion
from tests.soak.worker import Note

LISTS, TOP_K, KEEP_SEGMENTS = 5, 10, 5
SERVES_WITHIN_MS = 20_000
TOLERANCE = 1e-4
_STARTS_WITHIN_S = 120.0
_SERVED_WITHIN_S = 180.0
_TAKES_THE_REST_S = 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """`beat_s`: from one promotion to the next. `quiet_s`: without promotions, at the start and at the end."""

    rate: float
    beat_s: float
    quiet_s: float
    workers: int = 2
    partitions: int = 4


class Used(NamedTuple):
    """What a worker's process used right before a promotion."""

    swap: int
    worker: str
    rss_mb: float
    threads: int
    files: int


@dataclass(slots=True)
class Outcome:
    """What happened. Times are ns since the epoch."""

    options: Options
    promoted: list[int] = field(default_factory=list)
    """When each promotion was in Kafka."""
    formats: list[bool] = field(default_factory=list)
    """Of each promotion, whether the version has another memory format than the one before."""
    notes: dict[str, list[Note]] = field(default_factory=dict)
    used: list[Used] = field(default_factory=list)
    began: int = 0
    ended: int = 0
    verdict: Verdict | None = None


def run(
    options: Options,
    broker: Broker,
    folder: Path,
    models: Path,
    order: Sequence[ModelVersion],
    records: Iterator[Sent],
    promote: Callable[[str, str, ModelVersion], Promotion],
    report: Callable[[str], None],
) -> Outcome:
    """Serve the first version of `order`, then promote the others one after the other on the beat.

    Each version is promoted once before that. A child process tries a version when it is promoted for the first time,
    which takes longer than a beat; so this is measured apart.
    """
    app = f"soak-{os.getpid()}-{time.time_ns() % 1_000_000}"
    outcome = Outcome(options)
    env = environ(
        broker.bootstrap,
        app,
        MODELS=str(models),
        MODEL=order[0].reference,
        STATE_DIR=str(folder / "state"),
        RECOMMEND=str(LISTS),
        TOP_K=str(TOP_K),
        KEEP_SEGMENTS=str(KEEP_SEGMENTS),
        METRICS_LISTEN="",
    )
    made = rec2pm("topics", "create", "--partitions", str(options.partitions), env=env)
    if made.returncode:
        raise RuntimeError(made.stderr)
    feeder = Feeder(broker.bootstrap, f"{app}.in", records, options.rate)
    with _workers(options.workers, env, folder) as running:
        committed = Committed(broker.bootstrap, app, f"{app}.in")
        feeder.start()
        wait_until(
            lambda: len(committed.offsets()) > 0 and committed.total() > 0, _STARTS_WITHIN_S, "workers take records"
        )
        wait_until(
            lambda: all(_steps(folder, name) for name in running), _STARTS_WITHIN_S, "each worker has done a step"
        )
        report("each version is promoted once, so that it is fetched and tried")
        for version in [*dict.fromkeys(order[1:]), order[0]]:
            promotion = promote(broker.bootstrap, app, version)
            wait_until(lambda made=promotion.id: _served(broker.bootstrap, app, made), _SERVED_WITHIN_S, "it serves")  # type: ignore[misc]
        outcome.began = time.time_ns()
        _pause(options.quiet_s, running)
        _swap(outcome, running, order, lambda version: promote(broker.bootstrap, app, version), report)
        _pause(options.quiet_s, running)
        outcome.used += _usage(len(order) - 1, running)
        outcome.ended = time.time_ns()
        feeder.stop()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 2})
        places = places_of(admin, f"{app}.in")
        wait_until(lambda: committed.offsets() == ends(admin, places), _TAKES_THE_REST_S, "everything is taken")
    outcome.notes = {name: noting.read(_notes(folder, name)) for name in running}
    report("the oracle recomputes everything from the input topic")
    programs = [ProgramVersion(Path(each.uri)) for each in {each.reference: each for each in order}.values()]
    rules = Rules(
        {each.reference: each for each in programs},
        order[0].reference,
        programs[0].segment_length,
        LISTS,
        TOP_K,
        KEEP_SEGMENTS,
        tolerance=TOLERANCE,
        serves_within_ms=SERVES_WITHIN_MS,
        in_order=True,
    )
    observed = observe(broker.bootstrap, app, f"{app}.in", f"{app}.out", Kept())
    observed.excused = [(0, outcome.began // 1_000_000)]  # before that, versions are tried
    outcome.verdict = judge(observed, rules)
    return outcome


def _swap(
    outcome: Outcome,
    running: dict[str, subprocess.Popen[bytes]],
    order: Sequence[ModelVersion],
    promote: Callable[[ModelVersion], object],
    report: Callable[[str], None],
) -> None:
    began = time.monotonic()
    for number, version in enumerate(order[1:]):
        due = began + number * outcome.options.beat_s
        _pause(due - time.monotonic(), running)
        outcome.used += _usage(number, running)
        promote(version)
        outcome.promoted.append(time.time_ns())
        outcome.formats.append(version.manifest().memory_format != order[number].manifest().memory_format)
        if number % 10 == 0:
            report(f"{number} of {len(order) - 1} promotions, {time.monotonic() - due:.1f} s behind the beat")
    _pause(outcome.options.beat_s, running)


def _served(bootstrap: str, app: str, promotion: str) -> bool:
    """Whether every worker says that it serves this."""
    workers = read_models({"bootstrap.servers": bootstrap}, app).workers.values()
    return bool(workers) and all(report.promotion == promotion for report in workers)


def _pause(seconds: float, running: dict[str, subprocess.Popen[bytes]]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))
        for name, process in running.items():
            if process.poll() is not None:
                raise RuntimeError(f"worker {name} ended with {process.returncode}")


def _usage(swap: int, running: dict[str, subprocess.Popen[bytes]]) -> Iterator[Used]:
    for name, process in running.items():
        found = psutil.Process(process.pid)
        with found.oneshot():
            yield Used(swap, name, found.memory_info().rss / 2**20, found.num_threads(), found.num_fds())


def _notes(folder: Path, name: str) -> Path:
    return folder / f"{name}.steps"


def _steps(folder: Path, name: str) -> bool:
    path = _notes(folder, name)
    return path.exists() and path.stat().st_size > 0


@contextmanager
def _workers(count: int, env: dict[str, str], folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for number in range(count):
            name = f"w{number}"
            own = {"REC2PM_WORKER": name, noting.VARIABLE: str(_notes(folder, name))}
            with (folder / f"{name}.log").open("ab") as log:
                running[name] = subprocess.Popen(
                    [sys.executable, "-m", "tests.soak.worker"], cwd=ROOT, env={**env, **own}, stdout=log, stderr=log
                )
        yield running
        for process in running.values():
            process.terminate()
        codes = {name: process.wait(60) for name, process in running.items()}
        if any(codes.values()):
            raise RuntimeError(f"SIGTERM ended the workers with {codes}, expected 0; logs are in {folder}")
    finally:
        for process in running.values():
            process.kill()
            process.wait()
