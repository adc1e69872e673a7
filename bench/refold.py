"""Memories of another format, rebuilt in the background while a worker serves. Prints Markdown.

`python -m bench.refold`: users with histories of different lengths go through a worker of one model. Then, under a
steady load, another model with another memory format is promoted for each rate of REC2PM_REFOLD_PER_S. The worker swaps
and rebuilds. Afterwards every user's state is read from the changelog. Where the history is kept whole, the memory must
be the one that folding the log with the new model from scratch gives, within 1e-5.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack
import numpy as np
import polars as pl
import torch
from confluent_kafka import Producer
from numpy.typing import NDArray

from bench import worker_log
from bench.__main__ import machine, sasrec
from bench.started import StartedWorker, as_shipped, wait_until_nobody_is_in
from bench.traffic import Traffic, Waited, waited
from model.version.registry import Registry
from model.version.runtime import Runtime
from state.codec import FOLDED, folded_key, folded_value, preference_key, preference_value, user_of
from state.user import Preference
from stream.commands.broker import found_broker
from stream.kafka.names import changelog_topic
from stream.kafka.partitioner import partition_of
from stream.kafka.read_topic import committed_records
from tests.processes import Committed, rec2pm, wait_until

ITEMS: Final = 3_706
SEGMENT: Final = 50
KEPT: Final = 5
PARTITIONS: Final = 4
SAME: Final = 1e-5
_APP: Final = "refold"
_PATIENCE_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class History:
    """What one user did: item ids and times, epoch ms, oldest first."""

    items: NDArray[np.int64]
    times: NDArray[np.int64]

    @property
    def folds(self) -> int:
        return len(self.items) // SEGMENT


@dataclass(frozen=True, slots=True)
class Refolded:
    """One promotion.

    Attributes:
        per_s: REC2PM_REFOLD_PER_S.
        users: whose memory was rebuilt.
        seconds: from the first partition's beginning to the last one's end.
        whole: users whose history is kept whole; `furthest` is the largest difference of their memories from a fold of
            the whole log.
        before, meanwhile: latency of lists from `produce` to a reader, without and with the background.
    """

    per_s: int
    users: int
    seconds: float
    whole: int
    furthest: float
    before: Waited | None
    meanwhile: Waited | None


def histories(users: int, seed: int = 7) -> dict[str, History]:
    """Users with one to twelve segments of history, in an order that a log would have."""
    rng = np.random.default_rng(seed)
    found = {}
    for user in range(users):
        length = int(rng.integers(SEGMENT, 12 * SEGMENT))
        times = 1_767_225_600_000 + np.cumsum(rng.exponential(90_000, length)).astype(np.int64)
        found[f"u{user}"] = History((rng.zipf(1.3, length) % ITEMS).astype(np.int64), times)
    return found


def from_scratch(runtime: Runtime, log: dict[str, History]) -> dict[str, NDArray[np.float32]]:
    """Each user's memory after folding every segment of the log."""
    memories = {user: np.zeros((1, runtime.state_floats), np.float32) for user in log}
    for turn in range(max(history.folds for history in log.values())):
        now = [user for user, history in log.items() if history.folds > turn]
        rows = np.stack([log[user].items[turn * SEGMENT : (turn + 1) * SEGMENT] + 1 for user in now])
        folded = runtime.fold(np.concatenate([memories[user] for user in now]), rows).memory
        memories.update((user, folded[at : at + 1]) for at, user in enumerate(now))
    return memories


def feed(bootstrap: str, log: dict[str, History]) -> int:
    """Send the log, users mixed; returns the number of interactions."""
    order = sorted((int(time), user, at) for user, history in log.items() for at, time in enumerate(history.times))
    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 2_000_000, "linger.ms": 20})
    for time_ms, user, at in order:
        key = user.encode()
        value = msgpack.packb({"item": int(log[user].items[at]), "ts": time_ms})
        producer.produce(f"{_APP}.in", value, key, partition_of(key, PARTITIONS))
    producer.flush()
    return len(order)


def measured(
    bootstrap: str,
    env: dict[str, str],
    folder: Path,
    log: dict[str, History],
    reference: str,
    per_s: int,
    calm_s: float,
    rate: float,
) -> Refolded:
    """Promote a version under load, and look at every user's state when the background has ended."""
    env = {**env, "REC2PM_RECOMMEND": "interaction", "REC2PM_REFOLD_PER_S": str(per_s)}
    log_file = folder / f"worker-{per_s}.log"
    with (
        StartedWorker(env, log_file) as worker,
        Traffic(bootstrap, f"{_APP}.in", f"{_APP}.out", partitions=PARTITIONS, rate=rate) as traffic,
    ):
        worker.watched_until_ready(_PATIENCE_S)
        wait_until(traffic.everywhere, 60, "every partition has lists")
        time.sleep(3)
        began = time.time()
        time.sleep(calm_s)
        calm = time.time()
        said = rec2pm("models", "promote", reference, "--force", "--why", "bench.refold", env=env)
        if said.returncode:
            raise RuntimeError(said.stdout + said.stderr)

        def ends() -> list[worker_log.Line]:
            return [line for line in worker_log.read(log_file) if line.event == "refold ends"]

        wait_until(lambda: worker.must_run() and len(ends()) >= PARTITIONS, _PATIENCE_S, "the background has ended")
        begun = min(line.at for line in worker_log.read(log_file) if line.event == "refold begins")
        ended = max(line.at for line in ends())
        traffic.stop_sending()
        wait_until(traffic.complete, _PATIENCE_S, "a list for every interaction")
        lists = traffic.seen()
        rebuilt = int(sum(line.number("rebuilt") or 0 for line in ends()))
    wait_until_nobody_is_in(bootstrap, _APP)
    whole, furthest = compared(env, folder, log, reference)
    return Refolded(
        per_s,
        rebuilt,
        ended - begun,
        whole,
        furthest,
        waited(one for one in lists if began <= one.sent < calm),
        waited(one for one in lists if begun <= one.sent < ended),
    )


def compared(env: dict[str, str], folder: Path, log: dict[str, History], reference: str) -> tuple[int, float]:
    """How many users have a whole history, and the largest difference of one of their memories.

    Raises:
        RuntimeError: a user is not there, or is marked as something else than the log says.
    """
    out = folder / "states.parquet"
    if (said := rec2pm("state", "export", "--out", str(out), env=env)).returncode:
        raise RuntimeError(said.stderr)
    version = Registry(Path(env["REC2PM_MODELS"])).resolve(reference)
    if version.folder is None:
        raise RuntimeError(f"{reference} is in no folder")
    runtime = Runtime.load(version.folder)
    expected = from_scratch(runtime, log)
    states = {row["user_id"]: row for row in pl.read_parquet(out).iter_rows(named=True) if row["user_id"] in log}
    whole, furthest = 0, 0.0
    for user, history in log.items():
        row = states.get(user)
        told = None if row is None else (row["taken"], row["folds"], row["memory_format"], row["missing_segments"])
        should = len(history.items), history.folds, runtime.memory_format, max(0, history.folds - KEPT)
        if row is None or told != should:
            raise RuntimeError(f"{user}: {told}, expected {should}")
        if history.folds <= KEPT:
            whole += 1
            furthest = max(furthest, float(np.abs(np.array(row["memory"], np.float32) - expected[user][0]).max()))
    return whole, furthest


def kept_bytes(bootstrap: str, log: dict[str, History]) -> tuple[float, float, float]:
    """Bytes of keys and values that a user's kept segments take in the changelog, what they would take with times, and
    what a preference memory takes, each in the mean over the users of the log.
    """
    stored: dict[bytes, int] = {}
    for number in range(PARTITIONS):
        for message in committed_records(
            {"bootstrap.servers": bootstrap, "group.id": "refold-reader"}, changelog_topic(_APP), number
        ):
            key, value = message.key() or b"", message.value()
            if user_of(key)[1][:1] == FOLDED:
                stored[key] = 0 if value is None else len(key) + len(value)
    timed = 0
    for user, history in log.items():
        for number in range(max(0, history.folds - KEPT), history.folds):
            part = slice(number * SEGMENT, (number + 1) * SEGMENT)
            value = folded_value(history.items[part].tolist(), history.times[part].tolist())
            timed += len(folded_key(user.encode(), number)) + len(value)
    memory = Preference("rec2pm-o/4x64/0123456789abcdef", SEGMENT, 5, 1_767_225_600_000, bytes(4 * 256))
    return (
        sum(stored.values()) / len(log),
        timed / len(log),
        len(preference_key(b"u1000")) + len(preference_value(memory)),
    )


def rounds(
    bootstrap: str, folder: Path, asked: argparse.Namespace
) -> tuple[list[Refolded], tuple[float, float, float], int]:
    log = histories(asked.users)
    references = [sasrec(folder / "models", list(range(ITEMS)), SEGMENT, seed) for seed in range(1 + len(asked.rates))]
    env = as_shipped(
        bootstrap,
        _APP,
        MODELS=str(folder / "models"),
        MODEL=references[0],
        STATE_DIR=str(folder / "state"),
        KEEP_SEGMENTS=str(KEPT),
        RECOMMEND="fold",
    )
    if (made := rec2pm("topics", "create", "--partitions", str(PARTITIONS), env=env)).returncode:
        raise RuntimeError(made.stderr)
    sent = feed(bootstrap, log)
    print(f"  {sent:,} interactions of {len(log):,} users", file=sys.stderr)
    with StartedWorker(env, folder / "first.log") as worker:
        committed = Committed(bootstrap, _APP, f"{_APP}.in")
        wait_until(lambda: worker.must_run() and committed.total() >= sent, _PATIENCE_S, "the log is in the state")
    wait_until_nobody_is_in(bootstrap, _APP)
    cost = kept_bytes(bootstrap, log)
    runs = []
    for reference, per_s in zip(references[1:], asked.rates, strict=True):
        run = measured(bootstrap, env, folder, log, reference, per_s, asked.calm, asked.rate)
        print(f"  {per_s}/s: {run.users} users in {run.seconds:.1f} s, furthest {run.furthest:.1e}", file=sys.stderr)
        runs.append(run)
    return runs, cost, sent


def report(asked: argparse.Namespace, runs: Sequence[Refolded], cost: tuple[float, float, float], sent: int) -> str:
    arguments = (
        f"--users {asked.users} --rate {asked.rate:g} --calm {asked.calm:g} --rates {' '.join(map(str, asked.rates))}"
    )
    kept, timed, memory = cost
    lines = [
        "# A refold",
        "",
        f"Printed by `python -m bench.refold {arguments}`. {machine()}.",
        "Broker: Kafka, on the same machine.",
        "",
        (
            f"{sent:,} interactions of {asked.users:,} users, segments of {SEGMENT}, the newest {KEPT} kept; SASRec, 4 layers. One worker, "
            f"{PARTITIONS} partitions. A version with another memory format is promoted under a load of {asked.rate:g} interactions a second, each of "
            "a new user, with a list for each. Latency: from `produce` to a read_committed reader."
        ),
        "",
        "| REC2PM_REFOLD_PER_S | users rebuilt | seconds | users/s | histories kept whole | largest difference | p50 / p99 ms before | p50 / p99 ms meanwhile |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        (
            f"| {run.per_s:,} | {run.users:,} | {run.seconds:.1f} | {run.users / run.seconds:,.0f} | {run.whole:,} | {run.furthest:.1e} "
            f"| {_latency(run.before)} | {_latency(run.meanwhile)} |"
        )
        for run in runs
    ]
    lines += [
        "",
        f"A user's kept segments take {kept:,.0f} bytes in the mean, {timed:,.0f} with their times; a preference memory takes {memory:,.0f}.",
        "",
    ]
    return "\n".join(lines)


def _latency(found: Waited | None) -> str:
    return "–" if found is None else f"{found.p50:.0f} / {found.p99:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.refold", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=100, help="interactions a second meanwhile")
    parser.add_argument("--calm", type=float, default=20, help="seconds of load before each promotion")
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 1_000], help="values of REC2PM_REFOLD_PER_S")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # as a worker does
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        if broker.kind == "embedded":
            raise SystemExit(
                "a refold is measured on a real Kafka: set KAFKA_HOME to an unpacked Kafka download, or REC2PM_TEST_BOOTSTRAP"
            )
        runs, cost, sent = rounds(broker.bootstrap, Path(scratch), asked)
    print(report(asked, runs, cost, sent))
    if (furthest := max(run.furthest for run in runs)) > SAME:
        raise SystemExit(
            f"a rebuilt memory is {furthest:.1e} from the one that the whole log gives, more than {SAME:g}"
        )


if __name__ == "__main__":
    main()
