"""How fast a log goes through models without Kafka, beside a live worker and beside encoding histories anew. Prints
Markdown.

`python -m bench.replay`: the first interactions of a log, in the order of time, with a list after each. The live worker
reads them from a topic of a real Kafka, 4 partitions, one process, `REC2PM_RECOMMEND=1`. The replay has one process and
two; its time is from the first interaction to the last file, without the report. Encoding anew is what one does without
a memory: the newest items of the user go through the same backbone for every list. It is measured on a sample.

`--memory 1000000 10000000` instead: generated logs of so many interactions, with a tenth as many users, and the peak of
resident memory of the replay's processes.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import psutil
import torch
from confluent_kafka.admin import AdminClient

from bench import journey, null_model
from bench.__main__ import SEGMENT_LENGTH, machine, sasrec, worker
from model.log import in_time_order, read_log
from model.networks import kinds
from model.networks.config import NetworkConfig
from model.networks.network import initialise
from model.synthetic import SyntheticLog, generate
from model.version.registry import Registry
from model.version.runtime import Runtime
from stream.commands.broker import found_broker
from stream.replay import pool, run
from stream.replay.ordered import usual_partitions
from stream.replay.run import Contender, Options, Turn
from tests.model import tiny

DEPTH: Final = 100
SAMPLE: Final = 400
"""Lists that are made by encoding anew."""


def options(partitions: int = 16, depth: int = DEPTH) -> Options:
    return Options(
        cadence="interaction",
        exclude="kept",
        top_k=10,
        keep_segments=5,
        keep_formats=1,
        partitions=partitions,
        depth=depth,
    )


def replayed(
    log: pl.LazyFrame, models: Path, model: str, out: Path, jobs: int, depth: int = DEPTH, partitions: int = 16
) -> float:
    """Replay a log; returns the seconds."""
    version = Registry(models).resolve(model)
    began = time.monotonic()
    run.replay(
        log,
        [Contender("model", (Turn(version),))],
        options(partitions, depth),
        out,
        identity={},
        heard=lambda *_: None,
        run=lambda tasks, heard: pool.run_here(tasks, jobs, heard),
    )
    return time.monotonic() - began


def anew(log: pl.DataFrame, items: list[int | str], newest: int, folder: Path) -> float:
    """Seconds for one list that is made from the newest items of a user, all of which are encoded."""
    config = NetworkConfig.of_table({"kind": "trunc", "n_items": len(items), "segment_length": newest})
    network = kinds.build(config)
    initialise(network, torch.Generator().manual_seed(0))
    made = kinds.serving(network, torch.linspace(1, 0, len(items) + 1))
    runtime = Runtime.load(Registry(folder).add(made, tiny.manifest(made, f"newest-{newest}", "trunc"), items).uri)
    torch.set_num_threads(1)
    places = log.select(taken=pl.int_range(1, pl.len() + 1).over("user_id"))["taken"].to_numpy()
    drawn = np.random.default_rng(0)
    lengths = np.minimum(drawn.choice(places, SAMPLE), newest)
    rows = drawn.integers(1, len(items), (SAMPLE, newest))
    memory, exclude = np.zeros((SAMPLE, runtime.state_floats), np.float32), np.zeros((SAMPLE, 0), np.int64)
    times = []
    for _ in range(3):
        began = time.monotonic()
        runtime.recommend(memory, rows, lengths, DEPTH, exclude)
        times.append(time.monotonic() - began)
    return statistics.median(times) / SAMPLE


def speed(asked: argparse.Namespace, folder: Path) -> str:
    source = in_time_order(read_log(asked.log)).collect() if asked.log else generate(SyntheticLog()).interactions
    log = source.head(asked.interactions)
    items = source["item_id"].unique().sort().to_list()
    models = folder / "models"
    null_model.write(Registry(models), 50)
    sasrec(models, items)
    users = log["user_id"].cast(pl.String).to_list()
    load = journey.Load(f"in-order-{len(log)}", users, log["item_id"].to_list(), log["timestamp"].to_list(), 0)
    found: dict[tuple[str, str], list[float]] = {}

    def note(program: str, model: str, rate: float) -> None:
        print(f"  {program:<28} {model:<12} {rate:>9,.0f}/s", file=sys.stderr)
        found.setdefault((program, model), []).append(rate)

    with found_broker(os.environ, folder) as broker:
        if broker.kind == "embedded":
            raise SystemExit("the live worker is measured on a real Kafka: set KAFKA_HOME, or REC2PM_TEST_BOOTSTRAP")
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 3})
        topic = journey.load(broker.bootstrap, admin, load)
        for turn in range(asked.rounds):
            for model, name, length in (("null model", "null", 50), ("SASRec-4L", "sasrec-4l", SEGMENT_LENGTH)):
                program = worker(f"live {name}", models, name, length, RECOMMEND="1")
                note(
                    "live worker", model, journey.measure(broker.bootstrap, folder, program, topic, len(log), turn).rate
                )
                for jobs in (1, 2):
                    out = folder / f"{name}-{jobs}-{turn}"
                    note(f"replay, --jobs {jobs}", model, len(log) / replayed(log.lazy(), models, name, out, jobs))
                out = folder / f"{name}-10-{turn}"
                note("replay, --jobs 1, ranks to 10", model, len(log) / replayed(log.lazy(), models, name, out, 1, 10))
            for newest in (200, 1000):
                note(
                    f"newest {newest:,} items anew", "SASRec-4L", 1 / anew(log, items, newest, folder / f"anew-{turn}")
                )
    medians = {key: statistics.median(rates) for key, rates in found.items()}
    lines = ["| | model | interactions/s | ÷ live worker |", "|---|---|---:|---:|"]
    for (program, model), rate in medians.items():
        lines.append(f"| {program} | {model} | {rate:,.0f} | {rate / medians['live worker', model]:.2f} |")
    name = Path(asked.log).name if asked.log else "the synthetic log"
    return "\n".join(
        [
            f"{len(log):,} interactions of {log['user_id'].n_unique():,} users ({name}), a list after each; medians of {asked.rounds} rounds.",
            "",
            *lines,
        ]
    )


def memory(asked: argparse.Namespace, folder: Path) -> str:
    models = folder / "models"
    null_model.write(Registry(models), 50)
    lines = ["| interactions | users | seconds | peak RSS of all processes, MB |", "|---:|---:|---:|---:|"]
    for rows in asked.memory:
        path = folder / f"log-{rows}.parquet"
        generated(rows, path)
        seconds, peak = watched(
            lambda path=path, rows=rows: replayed(
                pl.scan_parquet(path), models, "null", folder / str(rows), 1, 10, usual_partitions(rows)
            )
        )
        lines.append(f"| {rows:,} | {rows // 10:,} | {seconds:.0f} | {peak:.0f} |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(["The null model, `--jobs 1`, the usual `--partitions`.", "", *lines])


def generated(rows: int, path: Path) -> None:
    """A log in the order of time, written in pieces."""
    drawn, piece = np.random.default_rng(0), 500_000
    parts = path.with_suffix("")
    parts.mkdir()
    for number, start in enumerate(range(0, rows, piece)):
        count = min(piece, rows - start)
        pl.DataFrame(
            {
                "user_id": drawn.integers(0, rows // 10, count),
                "item_id": (drawn.pareto(0.8, count) * 20).astype(np.int64) % 20_000,
                "timestamp": 1_700_000_000_000 + 50 * np.arange(start, start + count),
            }
        ).write_parquet(parts / f"{number:05d}.parquet")
    pl.scan_parquet(parts / "*.parquet").sink_parquet(path)


def watched(work: Callable[[], float]) -> tuple[float, float]:
    """What `work` returns, and the peak of the resident memory of this process and its children meanwhile, MB."""
    peak, ended = 0.0, threading.Event()

    def look() -> None:
        nonlocal peak
        me = psutil.Process()
        while not ended.wait(0.2):
            together = 0
            for each in (me, *me.children(recursive=True)):
                try:
                    together += each.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, together / 2**20)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        seconds = work()
    finally:
        ended.set()
        thread.join()
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log", help="default: a synthetic log")
    parser.add_argument("--interactions", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="+", help="measure memory with logs of so many interactions")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch:
        text = memory(asked, Path(scratch)) if asked.memory else speed(asked, Path(scratch))
    print("\n".join(["# Replay", "", f"Printed by `python -m bench.replay`. {machine()}.", "", text]))


if __name__ == "__main__":
    main()
