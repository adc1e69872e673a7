"""Interactions per second of a program that reads a topic, and what they cost: for the worker and for its peers.

The input topic is filled once. Every run reads it with a new group and an empty state folder. Each partition starts
with the first segment of one primer user, so that the first output record marks the start of the work. The rate is
records / (time when the committed offsets reach the end − the broker's time of that first output). The start of the
process and the joining of the group do not count. CPU is that of the process tree.
"""

import re
import shlex
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import polars as pl
import psutil
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.processes import Committed, read_committed

PARTITIONS = 4
_SAMPLE_S = 0.05


@dataclass(frozen=True)
class Load:
    """An input: user ids, item ids and times, in the order of sending."""

    name: str
    users: list[str]
    items: list[Any]
    times: list[int]
    primer: int
    """Records of the primer user at the start of each partition: one segment."""
    value: Callable[[str, Any, int], bytes] = lambda user, item, when: msgpack.packb({"item": item, "ts": when})
    """The value of a record, from user, item and time."""

    @property
    def records(self) -> int:
        return len(self.users) + self.primer * PARTITIONS


@dataclass(frozen=True)
class Program:
    """A command line with {bootstrap} {group} {input} {output} {state}, run in its own empty folder."""

    name: str
    command: str
    segment_length: int = 50
    records: int | None = None
    """None: the default. A slow program gets fewer."""


@dataclass(frozen=True)
class Run:
    """One run of one program."""

    program: str
    round: int
    rate: float
    cpu_s_per_million: float
    rss_mb: float
    other_load: float
    """Share of the machine's cores used by others than program, broker and benchmark."""
    changelog_records: float
    """Per interaction, like the bytes."""
    changelog_bytes: float
    outputs: int


def interleaved(log: pl.DataFrame, records: int, primer: int) -> Load:
    """A log with its users mixed at random. The order of each user stays; their bursts are gone, as in real traffic."""
    frame = log.head(records - primer * PARTITIONS)
    order = (
        frame.select(drawn=pl.col("user_id").shuffle(seed=7))
        .with_row_index("at")
        .with_columns(k=pl.int_range(pl.len()).over("drawn"))
    )
    frame = (
        frame.with_columns(k=pl.int_range(pl.len()).over("user_id"))
        .join(order, left_on=["user_id", "k"], right_on=["drawn", "k"])
        .sort("at")
    )
    users = frame["user_id"].cast(pl.String).to_list()
    return Load(
        f"interleaved-{len(frame)}-{primer}", users, frame["item_id"].to_list(), frame["timestamp"].to_list(), primer
    )


def occasional(users: int, records: int, primer: int) -> Load:
    """News readers: many users with a handful of clicks each, in short sessions spread over the whole log."""
    rng = np.random.default_rng(7)
    records -= primer * PARTITIONS
    chosen = rng.permutation(
        np.concatenate([np.arange(users), rng.integers(0, users, max(0, records - users))])[:records]
    )
    items = (rng.pareto(0.8, records) * 20).astype(np.int64) % 20_000
    times = 1_767_225_600_000 + np.sort(rng.integers(0, 30 * 86_400_000, records))
    return Load(
        f"occasional-{records}-{primer}",
        [f"u{user:06d}" for user in chosen.tolist()],
        items.tolist(),
        times.tolist(),
        primer,
    )


def load(bootstrap: str, admin: AdminClient, given: Load) -> str:
    """Write an input to a topic, once; returns its name."""
    topic = f"bench.{given.name}"
    if topic in admin.list_topics(timeout=10).topics:
        return topic
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"})])[topic].result()
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "enable.idempotence": True,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 1 << 20,
        }
    )
    for at in range(given.primer):
        for partition in range(PARTITIONS):
            user = f"primer-{partition}"
            producer.produce(topic, given.value(user, at, given.times[0]), user.encode(), partition)
    producer.flush()
    for user, item, when in zip(given.users, given.items, given.times, strict=True):
        producer.produce(topic, given.value(user, item, when), user.encode())
    producer.flush()
    return topic


def measure(bootstrap: str, folder: Path, program: Program, topic: str, records: int, turn: int) -> Run:
    """Run a program on a filled topic."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})
    group = f"bench-{re.sub('[^a-z0-9]+', '-', program.name.lower())}-{turn}-{time.time_ns() % 10**9}"
    output, state = f"out-{group}", folder / group
    state.mkdir(parents=True)
    admin.create_topics([NewTopic(output, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})])[
        output
    ].result()
    before = set(admin.list_topics(timeout=10).topics)
    given = {"bootstrap": bootstrap, "group": group, "input": topic, "output": output, "state": state}
    committed = Committed(bootstrap, group, topic)
    samples: list[tuple[float, float]] = []
    machine, mine = psutil.cpu_times(), psutil.Process().cpu_times()
    broker = _listener(bootstrap)
    broker_before = broker.cpu_times() if broker else None
    began = time.time()
    with (folder / f"{group}.log").open("wb") as log:
        process = subprocess.Popen(
            shlex.split(program.command.format(**given)), stdout=log, stderr=log, cwd=state, start_new_session=True
        )
    peak = 0
    try:
        while committed.total() < records:
            cpu, rss = _usage(process.pid)
            samples.append((time.time(), cpu))
            peak = max(peak, rss)
            if process.poll() is not None or time.time() - began > 900:
                raise RuntimeError(
                    f"{program.name} did not finish: exit code {process.returncode}; {(folder / f'{group}.log').read_text()[-2000:]}"
                )
            time.sleep(_SAMPLE_S)
        ended = time.time()
        samples.append((ended, _usage(process.pid)[0]))
        now, me = psutil.cpu_times(), psutil.Process().cpu_times()
        broker_after = broker.cpu_times() if broker else None
    finally:
        _stop(process)
    outputs = read_committed(bootstrap, output)
    first = min(message.timestamp()[1] for message in outputs) / 1000
    spent = samples[-1][1] - min(samples, key=lambda sample: abs(sample[0] - first))[1]
    others = _busy(now) - _busy(machine) - samples[-1][1] - (_own(me) - _own(mine))
    if broker_before and broker_after:
        others -= _own(broker_after) - _own(broker_before)
    written = [name for name in admin.list_topics(timeout=10).topics if name not in before and group in name]
    changelog = [message for name in written if "changelog" in name for message in read_committed(bootstrap, name)]
    size = sum(len(message.key() or b"") + len(message.value() or b"") for message in changelog)
    run = Run(
        program=program.name,
        round=turn,
        rate=records / (ended - first),
        cpu_s_per_million=spent / records * 1e6,
        rss_mb=peak / 2**20,
        other_load=max(0.0, others) / (ended - began) / (psutil.cpu_count() or 1),
        changelog_records=len(changelog) / records,
        changelog_bytes=size / records,
        outputs=len(outputs),
    )
    shutil.rmtree(state, ignore_errors=True)
    for name in [output, *written]:
        try:
            admin.delete_topics([name])[name].result()
        except KafkaException:
            continue
    return run


def table(runs: Sequence[Run], base: str) -> list[str]:
    """Medians, and the ratio of rates to `base` within each round. On shared machines, rates drift more than ratios."""
    lines = [
        f"| program | interactions/s | min..max | ÷ {base} | CPU s per million | peak RSS MB | changelog B | changelog records | other load |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    by_round = {(run.program, run.round): run for run in runs}
    for name in dict.fromkeys(run.program for run in runs):
        mine = [run for run in runs if run.program == name]
        rates = [run.rate for run in mine]
        ratios = [run.rate / by_round[base, run.round].rate for run in mine if (base, run.round) in by_round]

        def median(field: str, mine: Sequence[Run] = mine) -> float:
            return statistics.median(getattr(run, field) for run in mine)

        ratio = f"{statistics.median(ratios):.2f}" if ratios else "–"
        lines.append(
            f"| {name} | {statistics.median(rates):,.0f} | {min(rates):,.0f}..{max(rates):,.0f} | {ratio} | {median('cpu_s_per_million'):.1f} | "
            f"{median('rss_mb'):.0f} | {median('changelog_bytes'):.1f} | {median('changelog_records'):.3f} | {median('other_load'):.2f} |"
        )
    return lines


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    # Other processes that the command started, for example a JVM behind a shell, are in its session.
    subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)


def _usage(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process tree."""
    cpu, rss = 0.0, 0
    try:
        top = psutil.Process(pid)
        tree = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0, 0
    for each in tree:
        try:
            cpu += _own(each.cpu_times())
            rss += each.memory_info().rss
        except psutil.Error:
            continue
    return cpu, rss


def _listener(bootstrap: str) -> psutil.Process | None:
    port = int(bootstrap.rsplit(":", 1)[1])
    for connection in psutil.net_connections("tcp"):
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid
        ):
            return psutil.Process(connection.pid)
    return None


def _own(times: Any) -> float:
    return float(times.user + times.system)


def _busy(times: Any) -> float:
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))
