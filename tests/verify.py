"""Is what the workers leave behind what the log says? `make verify LOG=path.parquet WORKERS=2 KILLS=10`.

Sends a log through real workers on a real broker, kills some of them at random moments if asked to, and then recomputes
everything from the log and the artifact alone: every user's state, and every list.
"""

import argparse
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from model.log import in_time_order, read_log
from model.synthetic import SyntheticLog, generate
from model.version.padding import padded
from model.version.registry import Registry
from model.version.runtime import Runtime
from stream.commands.broker import Broker, found_broker
from tests.processes import (
    Committed,
    WorkerProcess,
    environ,
    read_committed,
    rec2pm,
    recommendation,
    wait_until,
    workers,
)

TOLERANCE = 1e-5
"""Between a memory as the worker folded it and as it is recomputed: batches differ, and with them the order of
additions.
"""
KEPT_SEGMENTS = 5
TOP_K = 10

Published = tuple[str, dict[str, Any]]
"""A user id and the recommendation that they got."""


@dataclass
class Check:
    """One claim, and whether it held."""

    claim: str
    found: str
    holds: bool

    def __str__(self) -> str:
        return f"{'PASS' if self.holds else 'FAIL'}  {self.claim}: {self.found}"


@dataclass
class Expected:
    """One user, recomputed from the log: everything that the worker should have made of them."""

    items: list[str]
    memory: np.ndarray
    lists: list[tuple[list[object], np.ndarray]]
    """Item ids and scores after each fold."""


def run(
    log: Path | str,
    broker: Broker,
    folder: Path,
    *,
    models: Path | None,
    count: int,
    kills: int,
    seed: int,
    partitions: int,
) -> list[Check]:
    """Send the log through workers and check what is left."""
    models = models or _trained(log, folder)
    app = f"verify-{os.getpid()}-{time.time_ns() % 1_000_000}"
    env = environ(
        broker.bootstrap, app, MODELS=str(models), STATE_DIR=str(folder / "state"), RECOMMEND="fold", TOP_K=str(TOP_K)
    )
    _must(rec2pm("topics", "create", "--partitions", str(partitions), env=env))
    frame = in_time_order(read_log(str(log))).collect()
    began = time.monotonic()
    _must(rec2pm("produce", str(log), env=env))
    print(f"produced {len(frame)} interactions in {time.monotonic() - began:.1f} s", flush=True)
    committed = Committed(broker.bootstrap, app, f"{app}.in")
    began = time.monotonic()
    with workers(count, env, folder) as running:
        killed = _kill_at_random(running, committed, len(frame), kills, random.Random(seed))
        wait_until(
            lambda: _alive(running) and committed.total() >= len(frame), 1800, "the committed offsets reach the end"
        )
        print(f"{count} workers took them in {time.monotonic() - began:.1f} s; killed {killed} times", flush=True)
    exported = folder / "state.parquet"
    _must(rec2pm("state", "export", "--out", str(exported), env=env))
    published = read_committed(broker.bootstrap, f"{app}.out")
    lists = [
        ((message.key() or b"").decode(), recommendation(message))
        for message in published
        if message.value() is not None
    ]
    print("recomputing every user from the log and the artifact", flush=True)
    return check(frame, Runtime.load(Registry(models).resolve(None).folder), pl.read_parquet(exported), lists)


def check(log: pl.DataFrame, runtime: Runtime, state: pl.DataFrame, lists: Sequence[Published]) -> list[Check]:
    """Compare what was exported and recommended with what the log and the artifact give."""
    length = runtime.segment_length
    expected = recompute(log, runtime)
    checks = [
        Check(
            "every user of the log is there, once",
            f"{len(state)} of {len(expected)}",
            sorted(state["user_id"]) == sorted(expected),
        ),
        Check(
            "`taken` sums to the interactions",
            f"{state['taken'].sum()} of {len(log)}",
            state["taken"].sum() == len(log),
        ),
    ]
    rows = {row["user_id"]: row for row in state.iter_rows(named=True)}
    broken = sum(row["taken"] != row["folds"] * length + len(row["working_items"]) for row in rows.values())
    checks.append(Check("taken = folds x segment_length + working items", f"{broken} users break it", broken == 0))
    both = rows.keys() & expected.keys()
    wrong = sum(rows[user]["working_items"] != expected[user].items[rows[user]["folds"] * length :] for user in both)
    checks.append(Check("working items are the user's last ones, in order", f"{wrong} users differ", wrong == 0))
    worst = 0.0
    for user in both:
        stored = np.array(rows[user]["memory"], dtype=np.float32)
        same_shape = stored.shape == expected[user].memory.shape
        worst = max(worst, float(np.abs(stored - expected[user].memory).max(initial=0.0)) if same_shape else np.inf)
    checks.append(
        Check(f"preference memories agree to {TOLERANCE}", f"largest difference {worst:.2e}", worst <= TOLERANCE)
    )

    places = [(made["partition"], made["offset"]) for _, made in lists]
    checks.append(
        Check(
            "no list twice",
            f"{len(places) - len(set(places))} doubled of {len(places)}",
            len(places) == len(set(places)),
        )
    )
    folds = sum(len(user.lists) for user in expected.values())
    checks.append(Check("a list for every fold", f"{len(set(places))} of {folds}", len(set(places)) == folds))
    differ = unequal = 0
    far = 0.0
    for user, made in lists:
        ids, scores = expected[user].lists[made["folds"] - 1]
        far = max(far, float(np.abs(np.array(made["scores"], dtype=np.float32) - scores).max()))
        differ += made["items"] != ids
        unequal += made["taken"] != made["folds"] * length
    checks.append(Check("lists say how many interactions they know", f"{unequal} are wrong", unequal == 0))
    # Two items whose scores differ by less than the tolerance may change places.
    checks.append(
        Check("scores agree to 1e-4", f"largest difference {far:.2e}; {differ} lists in another order", far <= 1e-4)
    )
    return checks


def recompute(log: pl.DataFrame, runtime: Runtime) -> dict[str, Expected]:
    """Every user from the log alone: no worker, no store, no Kafka."""
    length, oov = runtime.segment_length, runtime.oov_row
    rows_of = {item: row for row, item in enumerate(runtime.item_ids, start=1)}
    expected: dict[str, Expected] = {}
    for chunk in _batches(log.group_by("user_id", maintain_order=True).agg("item_id", "timestamp").iter_rows(), 256):
        rows = [np.array([rows_of.get(item, oov) for item in items], dtype=np.int64) for _, items, _ in chunk]
        times = [np.array(each, dtype=np.int64) for _, _, each in chunk]
        memory = np.zeros((len(chunk), runtime.state_floats), dtype=np.float32)
        lists: list[list[tuple[list[object], np.ndarray]]] = [[] for _ in chunk]
        for turn in range(max(len(each) // length for each in rows)):
            now = [at for at, each in enumerate(rows) if len(each) // length > turn]
            here = slice(turn * length, (turn + 1) * length)
            when = np.stack([times[at][here] for at in now]) if runtime.uses_time else None
            folded = runtime.fold(memory[now], np.stack([rows[at][here] for at in now]), when)
            memory[now] = folded.memory
            exclude = [rows[at][max(0, turn + 1 - KEPT_SEGMENTS) * length : (turn + 1) * length] for at in now]
            exclude = [each[each != oov] for each in exclude]
            ranked = runtime.rank(folded.hidden, TOP_K, padded(exclude))
            for at, best, scores in zip(now, ranked.rows, ranked.scores, strict=True):
                lists[at].append(([runtime.item_ids[row - 1] for row in best], scores))
        for at, (user, items, _) in enumerate(chunk):
            folds = len(items) // length
            expected[str(user)] = Expected(
                [str(item) for item in items], memory[at] if folds else np.empty(0, np.float32), lists[at]
            )
    return expected


def _batches(rows: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while batch := list(islice(rows, size)):
        yield batch


def _kill_at_random(
    running: list[WorkerProcess], committed: Committed, records: int, kills: int, chosen: random.Random
) -> int:
    """SIGKILL a worker at each of so many random moments of the run, and start it again under its name. Returns how
    often it happened.
    """
    moments = sorted(chosen.uniform(0.05, 0.95) * records for _ in range(kills))
    done = 0
    for moment in moments:
        wait_until(
            lambda moment=moment: _alive(running) and committed.total() >= moment, 600, "the next moment to kill at"
        )  # type: ignore[misc]
        worker = chosen.choice(running)
        # Off the beat of the commits that were just seen.
        time.sleep(chosen.uniform(0, 0.3))
        worker.kill()
        worker.start()
        done += 1
    return done


def _alive(running: list[WorkerProcess]) -> bool:
    """True; a worker that ended by itself is an error at once."""
    for worker in running:
        if not worker.running():
            raise RuntimeError(
                f"worker {worker.name} ended with {worker.process.returncode}:\n{worker.log.read_text()[-3000:]}"
            )
    return True


def _trained(log: Path | str, folder: Path) -> Path:
    """A registry with a model trained on the log, briefly: what it recommends is not the question here."""
    began = time.monotonic()
    models = folder / "models"
    _must(rec2pm("train", str(log), "--out", str(models), "--set", "max_seconds=60", env=environ("", "train")))
    print(f"trained {Registry(models).resolve(None).reference} in {time.monotonic() - began:.0f} s", flush=True)
    return models


def _must(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)} ended with {done.returncode}:\n{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", help="Parquet, CSV or JSON lines; default: the synthetic log")
    parser.add_argument(
        "--models", type=Path, help="a registry with one model (default: one is trained for about a minute)"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0, help="how often a worker is killed (SIGKILL) and started again")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-verify-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        folder = Path(scratch)
        log = asked.log
        if log is None:
            log = folder / "synthetic.parquet"
            generate(SyntheticLog()).interactions.write_parquet(log)
        print(f"broker: {broker.description}; seed {asked.seed}", flush=True)
        checks = run(
            log,
            broker,
            folder,
            models=asked.models,
            count=asked.workers,
            kills=asked.kills,
            seed=asked.seed,
            partitions=asked.partitions,
        )
    for each in checks:
        print(each)
    sys.exit(0 if all(each.holds for each in checks) else 1)


if __name__ == "__main__":
    main()
