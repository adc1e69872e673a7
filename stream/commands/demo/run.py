"""The steps of `rec2pm demo`: broker, topics, model, workers, traffic, comparison.

Everything is real, only small. The workers are separate processes. The broker is an embedded one unless a Kafka is
found. The lists that are compared with the popularity list at the end are those that the workers published while the
traffic ran.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

import polars as pl
from confluent_kafka.admin import AdminClient
from rich.console import Console

from model.errors import TrainingImpossible
from model.training import recipe as recipes
from model.training.progress import on_stderr
from model.training.train import train
from model.version.registry import ModelVersion, Registry
from stream.commands.broker import Broker, found_broker
from stream.commands.command_line import REC2PM
from stream.commands.demo.comparison import compare
from stream.commands.demo.log import Log, shown_users, synthetic
from stream.commands.demo.promotion import Promotion, promote_first
from stream.commands.demo.screen import Screen
from stream.commands.demo.serve import check_installed, serve
from stream.commands.demo.settings import (
    APP,
    FIRST_SHARE,
    NEXT_TRAINING_S,
    PARTITIONS,
    PROMOTED_AFTER_S,
    SEGMENT_LENGTH,
    TRAFFIC_S,
    TRAINED_SHARE,
    TRAINING_S,
    WORKERS,
    worker_environ,
)
from stream.commands.demo.traffic import Served, Traffic
from stream.commands.output import counted
from stream.errors import KafkaUnusable
from stream.kafka import topics

_JOIN_S: Final = 90.0


def run_demo(
    log: Log | None, folder: Path, environ: Mapping[str, str], console: Console, *, serves: bool = False
) -> None:
    """Run the demo; all its files are below `folder`.

    Args:
        log: an event log, or None for the synthetic one.
        environ: the environment; `REC2PM_BOOTSTRAP_SERVERS` or `KAFKA_HOME` choose the broker.
        serves: go on at the end, with the view, until somebody interrupts.
    """
    if serves:
        check_installed()
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    played = log or synthetic()
    frame = played.interactions
    users = frame["user_id"].n_unique()
    console.print(
        f"[bold]1. The log[/]  {played.name}: {len(frame):,} interactions of {users:,} users with {frame['item_id'].n_unique():,} items."
    )
    if log is None:
        console.print(
            "   Each user returns to 3 favourite genres and drifts through others; `model/synthetic.py` says how."
        )
    if (leftover := folder / "broker").exists():
        shutil.rmtree(leftover)  # an earlier demo's topics
    with found_broker(environ, leftover, given="REC2PM_BOOTSTRAP_SERVERS", docker=False) as broker:
        description = broker.description.replace(f"{Path.cwd()}/", "")
        console.print(f"[bold]2. The broker[/]  {description}.")
        env = worker_environ(broker, folder, environ)
        _make_topics(broker)
        cut = int(len(frame) * TRAINED_SHARE)
        console.print(
            f"[bold]3. The model[/]  Rec2PM, trained for about a minute on the first {TRAINED_SHARE * FIRST_SHARE:.0%} of the log, by time."
        )
        version = _train(frame.head(int(cut * FIRST_SHARE)), folder)
        console.print(f"   {_trained(version)}")
        newer = _train(frame.head(cut), folder, version)
        console.print(
            f"   {newer.reference} starts from its weights and learns the first {TRAINED_SHARE:.0%}. "
            f"{_memories(version, newer)}"
        )
        promote_first(version.reference, env, folder)
        with started_workers(env, folder) as workers:
            console.print(
                f"[bold]4. The workers[/]  {WORKERS} processes share {PARTITIONS} partitions; their logs are in {folder}.\n"
                f"   First they process the {cut:,} interactions of the past. Then {len(frame) - cut:,} new ones arrive in {TRAFFIC_S:.0f} seconds:"
            )
            promotion = Promotion(newer.reference, broker, env, WORKERS)
            served = _serve(broker, played, cut, workers, promotion, console)
            promotion.tell(served, console)
            compare(played, served, cut, console)
            _finish(version, time.monotonic() - began, console)
            if serves:
                serve(played, cut, shown_users(played, cut), broker, env, folder, console, wall_ms)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _finish(version: ModelVersion, seconds: float, console: Console) -> None:
    console.print(
        f"\nDone in {seconds:.0f} s. The model is {version.uri}; its manifest.json says what it was trained on.\n"
        "[bold]Where to look next[/]\n"
        "  make demo LOG=path.parquet   the same with your own log (columns user_id, item_id, timestamp)\n"
        "  make demo SERVE=1            the same, and at the end a page that follows a user\n"
        "  make verify                  recompute every user's state and every list from the log, and compare\n"
        "  make bench                   measure interactions per second, latency, and the cost of a fold\n"
        "  rec2pm worker --help         every setting\n  README.md                    rec2pm beside your own Kafka\n  ARCHITECTURE.md              how it works"
    )


def _trained(version: ModelVersion) -> str:
    """How good a version is on what came right after its training, in words."""
    training, metrics = version.manifest().training, version.manifest().metrics
    if training is None or metrics is None:
        return "Its manifest does not say how good it is."
    return (
        f"{counted(training.epochs, 'epoch')} in {training.wall_s:.0f} s. Of {metrics.targets:,} later interactions, "
        f"{metrics.hr_at_10:.1%} are in its lists of ten, and {metrics.popularity_hr_at_10:.1%} among ten popular items."
    )


def _make_topics(broker: Broker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    outcomes = topics.create(admin, topics.plan(APP, f"{APP}.interactions", f"{APP}.recommendations", PARTITIONS, 1))
    refused = [f"{outcome.topic.name}: {outcome.reason}" for outcome in outcomes if outcome.result == "refused"]
    existing = [outcome.topic.name for outcome in outcomes if outcome.result == "exists"]
    if refused:
        raise KafkaUnusable("the broker refused to create topics: " + "; ".join(refused))
    if existing:
        raise KafkaUnusable(
            f"the broker already has {', '.join(existing)}, from an earlier demo: delete them, or let the demo start its own broker"
        )


def _memories(version: ModelVersion, newer: ModelVersion) -> str:
    if newer.manifest().memory_format == version.manifest().memory_format:
        return f"It reads the memories of {version.reference} as they are."
    return "It has a memory format of its own: workers rebuild memories from the kept segments."


def _train(history: pl.DataFrame, folder: Path, start_from: ModelVersion | None = None) -> ModelVersion:
    seconds = TRAINING_S if start_from is None else NEXT_TRAINING_S
    settings = [f"segment_length={SEGMENT_LENGTH}", "lr=3e-3", f"max_seconds={seconds}", "validation_targets=1_000"]
    try:
        return train(
            history.lazy(),
            Registry(folder / "models"),
            recipes.changed(recipes.load(recipes.DEFAULT), settings),
            name="demo",
            log_name="demo",
            program_version=metadata.version("rec2pm"),
            clock=time.monotonic,
            start_from=start_from,
            keep_format=start_from is not None,
            unfinished="discard",
            progress=on_stderr,
        )
    except TrainingImpossible as error:
        # The cause is without the advice, which is for the options of `rec2pm train`.
        raise TrainingImpossible(
            f"the demo cannot train on the first {TRAINED_SHARE:.0%} of this log, {len(history)} interactions, with segments of "
            f"{SEGMENT_LENGTH}: {error.__cause__ or error}"
        ) from error


@contextmanager
def started_workers(env: Mapping[str, str], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    started = []
    try:
        for number in range(WORKERS):
            with (folder / f"worker-{number}.log").open("wb") as out:
                started.append(subprocess.Popen([*REC2PM, "worker"], env=dict(env), stdout=out, stderr=out))
        yield started
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()


def _serve(
    broker: Broker,
    log: Log,
    cut: int,
    workers: Sequence[subprocess.Popen[bytes]],
    promotion: Promotion,
    console: Console,
) -> Served:
    served = Served()
    traffic = Traffic(broker, served)
    rows = log.interactions.select("user_id", "item_id", "timestamp").rows()
    shown = shown_users(log, cut)
    screen = Screen(log, served, shown, cut, len(rows), console)
    try:
        for user, item, when in rows[:cut]:
            traffic.send(user, item, when)
        traffic.flush()
        with screen.live():
            _until(cut, traffic, workers, screen, _JOIN_S)
            sent, began, served.in_traffic, promoted = cut, time.monotonic(), True, False
            while sent < len(rows):
                if not promoted and time.monotonic() - began >= min(PROMOTED_AFTER_S, TRAFFIC_S / 4):
                    promotion.begin()
                    promoted = True
                end = min(len(rows), cut + int((time.monotonic() - began) / TRAFFIC_S * (len(rows) - cut)) + 1)
                for user, item, when in rows[sent:end]:
                    traffic.send(user, item, when)
                sent = end
                traffic.read(0.05)
                if screen.is_due():
                    _check(workers)
                    screen.draw(traffic.committed())
            traffic.flush()
            _until(len(rows), traffic, workers, screen, _JOIN_S)
            while promotion.under_way:
                traffic.read(0.1)
                _check(workers)
            settled = time.monotonic() + 1.0
            while time.monotonic() < settled:
                traffic.read(0.1)
            screen.draw(traffic.committed())
    finally:
        traffic.close()
    return served


def _until(
    target: int, traffic: Traffic, workers: Sequence[subprocess.Popen[bytes]], screen: Screen, patience_s: float
) -> None:
    """Read lists until the workers have committed so many interactions.

    Raises:
        KafkaUnusable: they committed none for `patience_s`.
    """
    best, moved = -1, time.monotonic()
    while (committed := traffic.committed()) < target:
        if committed > best:
            best, moved = committed, time.monotonic()
        if time.monotonic() - moved > patience_s:
            raise KafkaUnusable(
                f"the workers processed {committed} of {target} interactions, and then none for {patience_s:.0f} s; see their logs"
            )
        traffic.read(0.1)
        if screen.is_due():
            _check(workers)
            screen.draw(committed)


def _check(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Raise KafkaUnusable if a worker has ended."""
    for worker in workers:
        if worker.poll() is not None:
            raise KafkaUnusable(f"a worker ended with exit code {worker.returncode}; see its log")
