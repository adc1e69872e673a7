"""One run: a steady load, promotions on a steady beat, and what the workers use meanwhile."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
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
    """What a worker's process used right before a promotion, or at a beat without one.

    `swap`: the promotions, or beats, before it.
    """

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
    """Of each promotion, whether the versions of its phase have different memory formats."""
    notes: dict[str, list[Note]] = field(default_factory=dict)
    used: list[Used] = field(default_factory=list)
    unpromoted: list[Used] = field(default_factory=list)
    """The same at each beat of a time without promotions, between the phases: growth that is the load's alone."""
    windows: list[tuple[int, int]] = field(default_factory=list)
    """From when to when promotions and steps count: one for each phase."""
    verdict: Verdict | None = None


def run(
    options: Options,
    broker: Broker,
    folder: Path,
    models: Path,
    first: ModelVersion,
    phases: Sequence[Sequence[ModelVersion]],
    records: Iterator[Sent],
    promote: Callable[[str, str, ModelVersion], Promotion],
    report: Callable[[str], None],
) -> Outcome:
    """Serve the first version, then promote those of each phase one after the other, on the beat.

    Before a phase each of its versions is promoted once: a child process tries a version that the cache has not had,
    which takes longer than a beat.
    """
    app = f"soak-{os.getpid()}-{time.time_ns() % 1_000_000}"
    outcome = Outcome(options)
    env = environ(
        broker.bootstrap,
        app,
        MODELS=str(models),
        MODEL=first.reference,
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
        for number, phase in enumerate(phases):
            if number:
                report(f"{len(phase)} beats without promotions")
                for beat in range(len(phase)):
                    outcome.unpromoted += _usage(beat, running)
                    _pause(options.beat_s, running)
            _try(
                phase, running, partial(promote, broker.bootstrap, app), partial(_served, broker.bootstrap, app), report
            )
            began = time.time_ns()
            _pause(options.quiet_s, running)
            _swap(outcome, running, phase, partial(promote, broker.bootstrap, app), report)
            _pause(options.quiet_s, running)
            outcome.windows.append((began, time.time_ns()))
        outcome.used += _usage(len(outcome.promoted), running)
        feeder.stop()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 2})
        places = places_of(admin, f"{app}.in")
        wait_until(lambda: committed.offsets() == ends(admin, places), _TAKES_THE_REST_S, "everything is taken")
    outcome.notes = {name: noting.read(_notes(folder, name)) for name in running}
    report("the oracle recomputes everything from the input topic")
    served = {each.reference: each for each in (first, *chain.from_iterable(phases))}
    programs = [ProgramVersion(Path(each.uri)) for each in served.values()]
    rules = Rules(
        {each.reference: each for each in programs},
        first.reference,
        programs[0].segment_length,
        LISTS,
        TOP_K,
        KEEP_SEGMENTS,
        tolerance=TOLERANCE,
        serves_within_ms=SERVES_WITHIN_MS,
        in_order=True,
    )
    observed = observe(broker.bootstrap, app, f"{app}.in", f"{app}.out", Kept())
    edges = [0, *(each // 1_000_000 for window in outcome.windows for each in window), time.time_ns() // 1_000_000]
    observed.excused = [*zip(edges[::2], edges[1::2], strict=True)]  # between phases, versions are tried
    outcome.verdict = judge(observed, rules)
    return outcome


def _try(
    phase: Sequence[ModelVersion],
    running: dict[str, subprocess.Popen[bytes]],
    promote: Callable[[ModelVersion], Promotion],
    served: Callable[[Promotion], bool],
    report: Callable[[str], None],
) -> None:
    report("each version is promoted once, so that it is fetched and tried")
    for version in dict.fromkeys(phase):
        promotion = promote(version)
        until = time.monotonic() + _SERVED_WITHIN_S
        while not served(promotion):
            _pause(0.5, running)
            if time.monotonic() > until:
                raise TimeoutError(f"{version.reference} does not serve within {_SERVED_WITHIN_S:.0f} s")


def _swap(
    outcome: Outcome,
    running: dict[str, subprocess.Popen[bytes]],
    phase: Sequence[ModelVersion],
    promote: Callable[[ModelVersion], object],
    report: Callable[[str], None],
) -> None:
    other_format = len({version.manifest().memory_format for version in phase}) > 1
    began = time.monotonic()
    for number, version in enumerate(phase):
        due = began + number * outcome.options.beat_s
        _pause(due - time.monotonic(), running)
        outcome.used += _usage(len(outcome.promoted), running)
        promote(version)
        outcome.promoted.append(time.time_ns())
        outcome.formats.append(other_format)
        if number % 10 == 0:
            report(f"{number} of {len(phase)} promotions, {time.monotonic() - due:.1f} s behind the beat")
    _pause(outcome.options.beat_s, running)


def _served(bootstrap: str, app: str, promotion: Promotion) -> bool:
    """Whether every worker says that it serves this."""
    workers = read_models({"bootstrap.servers": bootstrap}, app).workers.values()
    return bool(workers) and all(report.promotion == promotion.id for report in workers)


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
            yield Used(swap, name, found.memory_info().rss / 2**20, found.num_threads(), _files(process.pid))


def _files(pid: int) -> int:
    """Open files without those of tables: stores have one more each minute, until they are compacted."""
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += each.readlink().suffix != ".sst"
    return found


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
