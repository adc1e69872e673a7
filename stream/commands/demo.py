"""`rec2pm demo`: broker, topics, model, traffic, two workers, and what came out: the whole loop in one terminal.

Everything is the real thing, only small: the workers are separate processes, the broker is an embedded one unless a
Kafka is found, and the lists that are compared with the popularity list at the end are the ones that the workers
published while the traffic ran.
"""

import os
import shutil
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from model.log import in_time_order, read_log
from model.synthetic import SyntheticLog, generate
from model.training import recipe as recipes
from model.training.progress import progress_bar
from model.training.train import train
from model.version.registry import ModelVersion, Registry
from stream.commands.broker import Broker, found_broker
from stream.commands.produce import PRODUCER
from stream.errors import KafkaUnusable
from stream.kafka import topics
from stream.wire import Recommendation

APP: Final = "demo"
WORKERS: Final = 2
PARTITIONS: Final = 4
SEGMENT_LENGTH: Final = 20
KEPT_SEGMENTS: Final = 5
TOP_K: Final = 10
TRAINED_SHARE: Final = 0.7
"""The log's first part is trained on and is every user's history; the rest is the traffic that is served."""
TRAINING_S: Final = 55.0
TRAFFIC_S: Final = 60.0
MOST_INTERACTIONS: Final = 120_000
SHOWN_USERS: Final = 3
_JOIN_S: Final = 90.0


@dataclass(slots=True)
class Log:
    """What the demo plays: interactions in time order, and what is known of the items."""

    name: str
    interactions: pl.DataFrame
    titles: Mapping[Any, str]
    genres: Mapping[Any, str]


@dataclass(slots=True)
class Served:
    """What went in and what came out, by user."""

    items: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """Items sent so far, in order."""
    offsets: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Where each of them is in the interactions topic."""
    lists: dict[str, list[Recommendation]] = field(default_factory=lambda: defaultdict(list))
    newest: int = 0
    """Lists received."""
    folds: dict[str, int] = field(default_factory=dict)


def run_demo(log: str | None, folder: Path, environ: Mapping[str, str], console: Console) -> None:
    """Run the demo; everything it leaves is below `folder`.

    Args:
        log: an event log, or None for the synthetic one.
        environ: `REC2PM_BOOTSTRAP_SERVERS` or `KAFKA_HOME` in it choose the broker.
    """
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    played = _synthetic() if log is None else _sampled(log)
    frame = played.interactions
    users = frame["user_id"].n_unique()
    console.print(
        f"[bold]1. The log[/]  {played.name}: {len(frame):,} interactions of {users:,} users with {frame['item_id'].n_unique():,} items."
    )
    if log is None:
        console.print(
            "   Each user keeps coming back to 3 favourite genres and drifts through others; `model/synthetic.py` says how."
        )
    if (leftover := folder / "broker").exists():
        shutil.rmtree(leftover)  # an earlier demo's topics
    with found_broker(environ, leftover, given="REC2PM_BOOTSTRAP_SERVERS", docker=False) as broker:
        console.print(f"[bold]2. The broker[/]  {broker.description}.")
        env = _settings(broker, folder, environ)
        _make_topics(broker)
        cut = int(len(frame) * TRAINED_SHARE)
        console.print(
            f"[bold]3. The model[/]  Rec2PM, trained for about a minute on the first {TRAINED_SHARE:.0%} of the log, by time:"
        )
        version = _train(frame.head(cut), folder)
        with _workers(env, folder) as workers:
            console.print(
                f"[bold]4. The workers[/]  {WORKERS} processes share {PARTITIONS} partitions; their logs are in {folder}.\n"
                f"   First they take the {cut:,} interactions of the past, then {len(frame) - cut:,} new ones come in {TRAFFIC_S:.0f} seconds:"
            )
            served = _serve(broker, played, cut, workers, console)
        _compare(played, served, cut, console)
    console.print(
        f"\nDone in {time.monotonic() - began:.0f} s. The model is {version.folder}; its manifest.json says what it was trained on.\n"
        "[bold]Where to look next[/]\n"
        "  make demo LOG=path.parquet   the same with your interactions (columns user_id, item_id, timestamp)\n"
        "  make verify                  every user's state and every list, recomputed from the log and compared\n"
        "  make bench                   interactions per second, latency, and what a fold costs\n"
        "  rec2pm worker --help         every setting;   README.md: beside your own Kafka;   ARCHITECTURE.md: how it works"
    )


def _synthetic() -> Log:
    made = generate(SyntheticLog())
    items = made.items
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    return Log("synthetic", made.interactions, titles, dict(zip(items["item_id"], items["genre"], strict=True)))


def _sampled(path: str) -> Log:
    """A log, or so many of its users that the demo stays short."""
    frame = in_time_order(read_log(path)).collect()
    name = Path(path).name
    if len(frame) > MOST_INTERACTIONS:
        users = frame["user_id"].unique(maintain_order=True).shuffle(seed=0)
        chosen = users.head(max(2, int(len(users) * MOST_INTERACTIONS / len(frame))))
        frame = frame.filter(pl.col("user_id").is_in(chosen.implode()))
        name += f" (a sample of {len(chosen):,} of {len(users):,} users)"
    return Log(name, frame.with_columns(pl.col("user_id").cast(pl.String)), {}, {})


def _settings(broker: Broker, folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("REC2PM_") or name.startswith("REC2PM_KAFKA_")
    }
    ours = {
        "BOOTSTRAP_SERVERS": broker.bootstrap,
        "APP": APP,
        "INTERACTIONS_TOPIC": f"{APP}.interactions",
        "RECOMMENDATIONS_TOPIC": f"{APP}.recommendations",
        "STATE_DIR": str(folder / f"state-{os.getpid()}"),
        "MODELS": str(folder / "models"),
        "KEEP_SEGMENTS": str(KEPT_SEGMENTS),
        "TOP_K": str(TOP_K),
    }
    return kept | {f"REC2PM_{name}": value for name, value in ours.items()}


def _make_topics(broker: Broker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    outcomes = topics.create(admin, topics.plan(APP, f"{APP}.interactions", f"{APP}.recommendations", PARTITIONS, 1))
    refused = [f"{outcome.topic.name}: {outcome.reason}" for outcome in outcomes if outcome.result == "refused"]
    there = [outcome.topic.name for outcome in outcomes if outcome.result == "exists"]
    if refused:
        raise KafkaUnusable("the broker refused " + "; ".join(refused))
    if there:
        raise KafkaUnusable(
            f"the broker has {', '.join(there)} already, from an earlier demo: delete them, or let the demo start its own broker"
        )


def _train(history: pl.DataFrame, folder: Path) -> ModelVersion:
    settings = [f"segment_length={SEGMENT_LENGTH}", "lr=3e-3", f"max_seconds={TRAINING_S}", "validation_targets=1_000"]
    return train(
        history.lazy(),
        Registry(folder / "models"),
        recipes.changed(recipes.load(recipes.DEFAULT), settings),
        name="demo",
        log_name="demo",
        program_version=metadata.version("rec2pm"),
        clock=time.monotonic,
        unfinished="discard",
        progress=progress_bar,
    )


@contextmanager
def _workers(env: Mapping[str, str], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    started = []
    try:
        for number in range(WORKERS):
            with (folder / f"worker-{number}.log").open("wb") as out:
                started.append(
                    subprocess.Popen([sys.executable, "-m", "stream", "worker"], env=dict(env), stdout=out, stderr=out)
                )
        yield started
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()


class _Traffic:
    """Sends interactions, and reads the lists that come back."""

    def __init__(self, broker: Broker, served: Served) -> None:
        self._served = served
        self._producer = Producer({**PRODUCER, "linger.ms": 5, "bootstrap.servers": broker.bootstrap})
        self._reader = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": f"{APP}-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        self._reader.assign([TopicPartition(f"{APP}.recommendations", number, 0) for number in range(PARTITIONS)])
        # Never joins. AdminClient.list_consumer_group_offsets ends the process when the group's coordinator is not
        # there yet (librdkafka 2.16.0).
        self._group = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": APP,
                "isolation.level": "read_uncommitted",
                "log_level": 3,
            }
        )
        self._places = [TopicPartition(f"{APP}.interactions", number) for number in range(PARTITIONS)]
        self._failed: list[str] = []

    def send(self, user: str, item: Any, time_ms: int) -> None:
        offsets = self._served.offsets[user]

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failed.append(str(error))
            else:
                offsets.append(message.offset() or 0)

        self._served.items[user].append(item)
        while True:
            try:
                self._producer.produce(
                    f"{APP}.interactions",
                    msgspec.msgpack.encode({"item": item, "ts": time_ms}),
                    user.encode(),
                    on_delivery=delivered,
                )
                break
            except BufferError:
                self._producer.poll(0.1)

    def flush(self) -> None:
        self._producer.flush(30)
        if self._failed:
            raise KafkaUnusable(f"the broker did not take {len(self._failed)} interactions: {self._failed[0]}")

    def read(self, wait_s: float) -> None:
        self._producer.poll(0)
        for message in self._reader.consume(5000, wait_s):
            value = message.value()
            if message.error() is None and value is not None:
                made = msgspec.msgpack.decode(value, type=Recommendation)
                user = (message.key() or b"").decode()
                self._served.lists[user].append(made)
                self._served.folds[user] = made.folds
                self._served.newest += 1

    def taken(self) -> int:
        """Interactions that the workers have committed."""
        try:
            return sum(max(place.offset, 0) for place in self._group.committed(self._places, timeout=5))
        except KafkaException:
            return 0

    def close(self) -> None:
        self._reader.close()
        self._group.close()


def _serve(broker: Broker, log: Log, cut: int, workers: Sequence[subprocess.Popen[bytes]], console: Console) -> Served:
    served = Served()
    traffic = _Traffic(broker, served)
    rows = log.interactions.select("user_id", "item_id", "timestamp").rows()
    shown = _shown_users(log, cut)
    screen = _Screen(log, served, shown, cut, len(rows), console)
    try:
        for user, item, when in rows[:cut]:
            traffic.send(user, item, when)
        traffic.flush()
        with screen.live():
            _until(cut, traffic, workers, screen, _JOIN_S)
            sent, began = cut, time.monotonic()
            while sent < len(rows):
                due = min(len(rows), cut + int((time.monotonic() - began) / TRAFFIC_S * (len(rows) - cut)) + 1)
                for user, item, when in rows[sent:due]:
                    traffic.send(user, item, when)
                sent = due
                traffic.read(0.05)
                screen.update(traffic.taken, workers)
            traffic.flush()
            _until(len(rows), traffic, workers, screen, _JOIN_S)
            settled = time.monotonic() + 1.0
            while time.monotonic() < settled:
                traffic.read(0.1)
            screen.update(traffic.taken, workers, force=True)
    finally:
        traffic.close()
    return served


def _until(
    target: int, traffic: _Traffic, workers: Sequence[subprocess.Popen[bytes]], screen: "_Screen", patience_s: float
) -> None:
    """Read lists until the workers have taken so many interactions; patience is with standing still."""
    best, moved = -1, time.monotonic()
    while (taken := traffic.taken()) < target:
        if taken > best:
            best, moved = taken, time.monotonic()
        if time.monotonic() - moved > patience_s:
            raise KafkaUnusable(
                f"the workers took {taken} of {target} interactions and then none for {patience_s:.0f} s; see their logs"
            )
        traffic.read(0.1)
        screen.update(lambda taken=taken: taken, workers)


def _shown_users(log: Log, cut: int) -> list[str]:
    """A few users with a past and with something to come."""
    past = log.interactions.head(cut).group_by("user_id").len()
    coming = log.interactions.tail(len(log.interactions) - cut).group_by("user_id").len(name="coming")
    both = past.join(coming, on="user_id").filter((pl.col("len") >= 3 * SEGMENT_LENGTH) & (pl.col("coming") >= 15))
    chosen = (both if len(both) >= SHOWN_USERS else past).sort("len", "user_id", descending=[True, False])
    return [str(user) for user in chosen["user_id"].gather_every(max(1, len(chosen) // SHOWN_USERS)).head(SHOWN_USERS)]


class _Screen:
    """What is seen while it runs: redrawn in place on a terminal, else one line every few seconds and the users at the
    end.
    """

    def __init__(self, log: Log, served: Served, users: Sequence[str], cut: int, total: int, console: Console) -> None:
        self._log, self._served, self._users, self._cut, self._total, self._console = (
            log,
            served,
            users,
            cut,
            total,
            console,
        )
        self._every_s = 0.5 if console.is_terminal else 5.0
        self._drawn = time.monotonic()
        self._at: list[tuple[float, int]] = [(self._drawn, 0)]
        self._live: Live | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            self._console.print(self._people())
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield

    def update(self, taken: Any, workers: Sequence[subprocess.Popen[bytes]], *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._drawn < self._every_s:
            return
        for worker in workers:
            if worker.poll() is not None:
                raise KafkaUnusable(f"a worker ended with exit code {worker.returncode}; see its log")
        self._drawn = now
        done = taken()
        self._at = [*self._at, (now, done)][-9:]
        (then, before) = self._at[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        phase = "the past" if done < self._cut else "traffic"
        folds = sum(self._served.folds.values())
        line = (
            f"   {phase:>8}  {done:>7,} of {self._total:,} interactions  {rate:>8,.0f}/s   {len(self._served.lists):,} users   "
            f"{folds:,} segments folded   {self._served.newest:,} lists"
        )
        if self._live is not None:
            self._live.update(Group(Text(line, style="bold"), Text(), self._people()), refresh=True)
        else:
            self._console.print(line, soft_wrap=True)

    def _people(self) -> Table:
        table = Table(box=None, padding=(0, 2), show_header=True, title_justify="left")
        table.add_column("user", style="bold", no_wrap=True)
        table.add_column("did last")
        table.add_column("gets now")
        table.add_column("why that is sensible")
        for user in self._users:
            lists = self._served.lists.get(user)
            made = lists[-1] if lists else None
            known = self._served.items[user][: made.taken] if made else []
            table.add_row(
                user,
                "\n".join(self._told(item) for item in reversed(known[-5:])),
                "\n".join(self._told(item) for item in (made.items[:5] if made else ())),
                self._why(known, made),
            )
            table.add_row()
        return table

    def _told(self, item: Any) -> str:
        genre = self._log.genres.get(item)
        return f"{self._log.titles.get(item, item)}" + (f" ({genre})" if genre else "")

    def _why(self, known: Sequence[Any], made: Recommendation | None) -> str:
        if made is None:
            return "no list yet"
        working = made.taken - made.folds * SEGMENT_LENGTH
        said = f"{made.taken} interactions: {made.folds} segments folded into 1 KB,\n{working} in the working memory"
        if not self._log.genres:
            return said
        favourites = [genre for genre, _ in Counter(self._log.genres[item] for item in known).most_common(3)]
        recent = {self._log.genres[item] for item in known[-3:]} - set(favourites)
        listed = Counter(self._log.genres[item] for item in made.items)
        old = sum(listed[genre] for genre in favourites)
        now = sum(listed[genre] for genre in recent)
        said += f"\nall along: {', '.join(favourites)} → {old} of {len(made.items)}"
        return said + (f"\njust now: {', '.join(sorted(recent))} → {now} of {len(made.items)}" if recent else "")


def _compare(log: Log, served: Served, cut: int, console: Console) -> None:
    """Each interaction of the traffic against the last list its user had been given before it, and against the
    popularity list.
    """
    history = log.interactions.head(cut)
    popular = history.group_by("item_id").len().sort("len", "item_id", descending=[True, False])["item_id"].to_list()
    past = dict(history.group_by("user_id").len().iter_rows())
    counted: Counter[tuple[str, str]] = Counter()
    for user, items in served.items.items():
        lists = sorted(served.lists.get(user, []), key=lambda made: made.offset)
        offsets = [made.offset for made in lists]
        for at in range(max(1, past.get(user, 0)), len(items)):
            # The lists that existed before this interaction; ours is the newest of them, whatever the workers' lag was.
            before = bisect_left(offsets, served.offsets[user][at])
            if not before:
                continue
            made = lists[before - 1]
            seen = set(items[max(0, made.folds - KEPT_SEGMENTS) * SEGMENT_LENGTH : made.taken])
            fallback = [item for item in popular[: TOP_K + len(seen)] if item not in seen][:TOP_K]
            group = "with a memory" if made.folds else "without one yet"
            for name in ("all users", f"users {group}"):
                counted[name, "n"] += 1
                counted[name, "ours"] += items[at] in made.items
                counted[name, "popular"] += items[at] in fallback
    table = Table(box=None, padding=(0, 2))
    for column in ("", "interactions", "in the list", "in the popular list", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name in ("all users", "users with a memory", "users without one yet"):
        n, ours, theirs = (counted[name, each] for each in ("n", "ours", "popular"))
        if n:
            ratio = f"{ours / theirs:.1f}x" if theirs else "-"
            table.add_row(name, f"{n:,}", f"{ours:,} ({ours / n:.1%})", f"{theirs:,} ({theirs / n:.1%})", ratio)
    console.print(
        "\n[bold]5. Was it any good?[/]  For each new interaction: was it in the list that the user had before it?"
    )
    console.print("   The popularity list is of the same past, and leaves out the same items of the user's own.\n")
    console.print(table)
