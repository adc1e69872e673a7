"""A log through real workers on a real broker: some are killed at random moments, and versions are promoted while
interactions come.
"""

import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from model.log import in_time_order, read_log
from model.version.registry import ModelVersion, Registry
from stream.commands.broker import Broker
from stream.kafka.marks import marks
from stream.kafka.models_topic import read_models
from stream.promotion.record import Promotion
from tests import as_served
from tests.processes import Committed, WorkerProcess, each_committed, environ, rec2pm, workers
from tests.promoting import promote
from tests.verify.check import Check

TOP_K: Final = 10
KEEP_SEGMENTS: Final = 5
KEEP_FORMATS: Final = 1
_PROMOTED_AT: Final = 0.8
"""A version is promoted when this share of what was sent is taken: the rest and the next interactions meet it."""
_STALLS_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a log is taken. `cadence` is REC2PM_RECOMMEND."""

    workers: int = 2
    kills: int = 0
    partitions: int = 4
    cadence: str = "1"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Lived:
    """What a run left behind."""

    env: Mapping[str, str]
    """The settings of its workers."""
    topic: str
    """With the interactions."""
    options: Options
    versions: Sequence[ModelVersion]
    """In the order in which they were to serve."""
    log: pl.DataFrame
    """user_id, item_id, timestamp, and `version`: which served where the interaction is in the topic."""
    lists: pl.DataFrame
    """As `tests.as_served.published` has them."""
    state: pl.DataFrame
    """As `rec2pm state export` writes it."""
    checks: Sequence[Check]
    """Of the run itself."""


def must(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)} ended with {done.returncode}:\n{done.stderr}")


def live(log: Path | str, broker: Broker, folder: Path, models: Path, options: Options) -> Lived:
    """Send a log through workers.

    Args:
        models: a registry with one model. Its first version serves at the start, each other one is promoted on the way,
            and at last the first one again.

    Raises:
        RuntimeError: a worker ended by itself.
        TimeoutError: the workers take nothing more.
    """
    versions = _versions(models)
    app = f"verify-{time.time_ns()}"
    env = environ(
        broker.bootstrap,
        app,
        MODELS=str(models),
        MODEL=versions[0].reference,
        STATE_DIR=str(folder / "state"),
        RECOMMEND=options.cadence,
        TOP_K=str(TOP_K),
        KEEP_SEGMENTS=str(KEEP_SEGMENTS),
        KEEP_FORMATS=str(KEEP_FORMATS),
    )
    must(rec2pm("topics", "create", "--partitions", str(options.partitions), env=env))
    frame = in_time_order(read_log(str(log))).collect()
    committed = Committed(broker.bootstrap, app, f"{app}.in")
    with workers(options.workers, env, folder) as running:
        began = time.monotonic()
        run = _Run(broker.bootstrap, app, env, folder, committed, running, _moments(options, len(frame)))
        run.serve(frame, versions)
        print(
            f"{options.workers} workers took {len(frame)} interactions in {time.monotonic() - began:.1f} s; "
            f"killed {options.kills} times; {len(versions) - 1} promotions",
            flush=True,
        )
    exported = folder / "state.parquet"
    must(rec2pm("state", "export", "--out", str(exported), env=env))
    served = _served(broker.bootstrap, app, options.partitions)
    return Lived(
        env=env,
        topic=f"{app}.in",
        options=options,
        versions=versions,
        log=_with_versions(frame, _places(broker.bootstrap, f"{app}.in"), served),
        lists=as_served.published(each_committed(broker.bootstrap, f"{app}.out")),
        state=pl.read_parquet(exported),
        checks=[_each_served(served, versions)],
    )


def _versions(models: Path) -> list[ModelVersion]:
    registry = Registry(models)
    found = registry.versions(registry.resolve(None).name)
    return [*found, found[0]] if len(found) > 1 else found


def _moments(options: Options, records: int) -> list[float]:
    """After how many interactions a worker is killed."""
    chosen = random.Random(options.seed)
    return sorted(chosen.uniform(0.05, 0.95) * records for _ in range(options.kills))


@dataclass(slots=True)
class _Run:
    bootstrap: str
    app: str
    env: Mapping[str, str]
    folder: Path
    committed: Committed
    running: list[WorkerProcess]
    moments: list[float]
    sent: int = 0

    def serve(self, log: pl.DataFrame, versions: Sequence[ModelVersion]) -> None:
        """Send as many interactions under each version, half of them before every worker serves it."""
        borders = np.linspace(0, len(log), 2 * len(versions) + 1).astype(int).tolist()
        for number, version in enumerate(versions):
            begin, middle, end = borders[2 * number : 2 * number + 3]
            promotion: Promotion | None = None
            if number:
                self.until(lambda: self.committed.total() >= _PROMOTED_AT * self.sent, "most of what was sent is taken")
                kind = "rollback" if version in versions[:number] else "promote"
                promotion = promote(self.bootstrap, self.app, version, kind=kind)  # type: ignore[arg-type]
                print(f"{version.reference} is promoted after {self.committed.total()} interactions", flush=True)
            self.send(log[begin:middle])
            if promotion is not None:
                self.until(lambda asked=promotion: self.serves(asked), f"every worker serves {version.reference}")  # type: ignore[misc]
            self.send(log[middle:end])
        self.until(lambda: self.committed.total() >= self.sent, "everything is taken")

    def send(self, log: pl.DataFrame) -> None:
        path = self.folder / "piece.parquet"
        log.write_parquet(path)
        must(rec2pm("produce", str(path), env=self.env))
        self.sent += len(log)

    def serves(self, promotion: Promotion) -> bool:
        """Whether every worker says that it serves this."""
        reports = read_models({"bootstrap.servers": self.bootstrap}, self.app).workers
        return all(worker.name in reports and reports[worker.name].promotion == promotion.id for worker in self.running)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait, and kill workers when their moment has come."""
        most, deadline = -1, 0.0
        chosen = random.Random(len(self.moments))
        while True:
            total = self.committed.total()
            if total > most:
                most, deadline = total, time.monotonic() + _STALLS_S
            self._all_run()
            if self.moments and total >= self.moments[0]:
                del self.moments[0]
                # Off the beat of the commits that were just seen.
                time.sleep(chosen.uniform(0, 0.3))
                worker = chosen.choice(self.running)
                worker.kill()
                worker.start()
            elif holds():
                return
            elif time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not {_STALLS_S:.0f} s after the last of {most} interactions was taken")
            else:
                time.sleep(0.05)

    def _all_run(self) -> None:
        for worker in self.running:
            if not worker.running():
                raise RuntimeError(
                    f"worker {worker.name} ended with {worker.process.returncode}:\n{worker.log.read_text()[-3000:]}"
                )


def _served(bootstrap: str, app: str, partitions: int) -> pl.DataFrame:
    """partition, offset, version: what the marks say, in their order."""
    rows = [
        (number, mark.offset, mark.version)
        for number in range(partitions)
        for mark in marks({"bootstrap.servers": bootstrap}, app, number)
    ]
    return pl.DataFrame(rows, {"partition": pl.Int32, "offset": pl.Int64, "version": pl.String}, orient="row")


def _places(bootstrap: str, topic: str) -> pl.DataFrame:
    """user_id, partition, offset of each record, a partition in the order of offsets."""
    users, partitions, offsets = [], [], []
    for message in each_committed(bootstrap, topic):
        users.append((message.key() or b"").decode())
        partitions.append(message.partition())
        offsets.append(message.offset())
    columns = {"user_id": users, "partition": partitions, "offset": offsets}
    return pl.DataFrame(columns, {"user_id": pl.String, "partition": pl.Int32, "offset": pl.Int64})


def _with_versions(log: pl.DataFrame, places: pl.DataFrame, served: pl.DataFrame) -> pl.DataFrame:
    """The log with the version that served each interaction. A user's n-th record is their n-th interaction."""
    nth = pl.int_range(pl.len()).over("user_id").alias("nth")
    places = places.sort("offset").join_asof(served.sort("offset"), on="offset", by="partition", check_sortedness=False)
    return (
        log.with_columns(pl.col("user_id").cast(pl.String), nth)
        .join(places.with_columns(nth), on=["user_id", "nth"], how="left", maintain_order="left")
        .drop("nth")
    )


def _each_served(served: pl.DataFrame, versions: Sequence[ModelVersion]) -> Check:
    asked = [version.reference for version in versions]
    found = served.group_by("partition", maintain_order=True).agg(pl.col("version")).rows()
    others = [f"partition {number}: {', then '.join(names)}" for number, names in found if names != asked]
    said = others[0] if others else f"{len(found)} partitions, each {', then '.join(asked)}"
    return Check("each version served each partition that has interactions, in this order", said, not others)
