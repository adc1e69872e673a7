"""A whole replay: the log in order, the shards through the models, the tables joined.

Everything is in one folder. `work/` has what is not finished and what a run that was killed goes on with. It goes at
the end. `work/plan.json` says what the replay is of: another replay does not go on there.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import polars as pl

from model.audit import Finding, audit
from model.evaluation.replay import baselines
from model.evaluation.replay.histories import Rule
from model.log import Log
from model.version.cache import Cache
from model.version.registry import ModelVersion, Registry
from stream.errors import ReplayUnfinished
from stream.interactions.pieces import Origin
from stream.policy import Cadence
from stream.replay import pool
from stream.replay.joined import join, join_model
from stream.replay.ordered import prepare
from stream.replay.task import Serves, Task
from stream.state_rows import Facts

logger = logging.getLogger(__name__)

PLAN: Final = "plan.json"
INTERACTIONS: Final = "interactions.parquet"


class Turn(msgspec.Struct, frozen=True):
    """A version, and from which time (epoch ms) and which offset on it serves."""

    version: ModelVersion
    from_ms: int = 0
    from_offset: int = 0
    promotion: str = ""


class Contender(msgspec.Struct, frozen=True):
    """One line of the report: a version, or versions that serve one after the other."""

    name: str
    """Of its folder in the results."""
    turns: tuple[Turn, ...]
    """The first one serves from the beginning on."""
    memory: bool = True
    """False: every list is made from the newest items alone."""
    of_partition: Mapping[int, tuple[Turn, ...]] = {}
    """Partitions where other turns hold, as the marks of workers say."""

    def turns_of(self, partition: int) -> tuple[Turn, ...]:
        return self.of_partition.get(partition) or self.turns

    def all_turns(self) -> Iterator[Turn]:
        yield from self.turns
        for turns in self.of_partition.values():
            yield from turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator decides. The first five are the settings of a worker."""

    cadence: Cadence
    exclude: Literal["none", "working", "kept"]
    top_k: int
    keep_segments: int
    keep_formats: int
    partitions: int = 16
    depth: int = 100
    chunk: int = 2000


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has written."""

    rows: int
    costs: Mapping[str, Mapping[str, float]]
    """By the name of the contender: what its cost.json has."""


def replay(
    log: pl.LazyFrame,
    contenders: Sequence[Contender],
    options: Options,
    out: Path,
    *,
    identity: Mapping[str, Any],
    begin_ms: int | None = None,
    origin: Origin | None = None,
    heard: Callable[[str, int, int], None],
    run: Callable[[Sequence[Task], pool.Heard], None],
) -> Replayed:
    """Replay a log, or go on with it.

    Args:
        log: user_id, item_id, timestamp (epoch ms), in the order of the file; partition and offset if Kafka had them.
        out: the folder of the results.
        identity: what else the results depend on: the hash of the log, and what was left out of it.
        begin_ms: interactions from this time on count; None: all do.
        origin: where the whole log came from, so that an application can go on behind its states; None: from no topic.
        heard: called with what is done, how much of it, and all of it.
        run: runs tasks (`stream.replay.pool`).

    Raises:
        ReplayUnfinished: the folder has another replay.
        What `run` raises.
        ModelError: a version cannot be had or loaded.
    """
    work = out / "work"
    _same_plan(work, {**identity, "from": begin_ms, **_described(contenders, options)})
    shards = _prepared(log, work, options.partitions, begin_ms, lambda done, of: heard("order", done, of))
    rows = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in shards)
    cache = Cache(work / "models", keep=1 + sum(1 for each in contenders for _ in each.all_turns()))
    tasks = [
        task
        for number, contender in enumerate(contenders)
        for task in _tasks(number, contender, shards, options, work, cache)
    ]
    total, done = rows * len(contenders), 0

    def replayed(more: int) -> None:
        nonlocal done
        done += more
        heard("replay", done, total)

    run(tasks, replayed)
    join(shards, out / INTERACTIONS)
    costs = {
        contender.name: join_model(
            [work / "shards" / str(number) / shard.stem for shard in shards],
            out / contender.name,
            _facts(contender, origin),
        )
        for number, contender in enumerate(contenders)
    }
    return Replayed(rows, costs)


def _facts(contender: Contender, origin: Origin | None) -> Facts:
    """What the states of a contender have in common."""
    length = next(contender.all_turns()).version.manifest().segment_length
    return Facts(length) if origin is None else Facts(length, origin.topic, origin.topic_id, origin.until())


def contenders(registry: str, references: Sequence[str]) -> list[Contender]:
    """The versions that the references mean, each once.

    Raises:
        ModelError: a version is not there.
    """
    found = Registry(registry)
    versions = {version.reference: version for version in map(found.resolve, references)}
    return [Contender(reference, (Turn(version),)) for reference, version in versions.items()]


def without_memory(contender: Contender) -> Contender:
    """The same versions, whose lists are made from the newest items alone."""
    return Contender(f"{contender.name} without memory", contender.turns, False, contender.of_partition)


def write_baselines(out: Path, options: Options, first: Contender, progress: Callable[[int, int], None]) -> None:
    """Write the ranks in the lists of the baselines, which leave out what those of a worker leave out."""
    length = next(first.all_turns()).version.manifest().segment_length
    baselines.write(ordered(out), out, Rule(options.exclude, length, options.keep_segments), progress=progress)


def head(
    out: Path, contenders: Sequence[Contender], options: Options, identity: Mapping[str, Any], begin_ms: int | None
) -> dict[str, Any]:
    """What was run, for readers; it is written to replay.json too."""
    libraries = ("rec2pm", "torch", "numpy", "polars", "scipy", "matplotlib")
    said = {
        "log_sha256": identity["log"],
        "users": identity["users"][0],
        "from": begin_ms,
        "to": identity["to"],
        **{name: getattr(options, name) for name in ("cadence", "exclude", "top_k", "keep_segments", "partitions")},
        "models": {
            each.name: {turn.version.reference: turn.version.digest() for turn in each.all_turns()}
            for each in contenders
        },
        "libraries": {name: metadata.version(name) for name in libraries},
    }
    (out / "replay.json").write_text(json.dumps(said, indent=1) + "\n")
    return said


def audited(log: Log, contenders: Sequence[Contender], begin_ms: int | None, now_ms: int) -> list[Finding]:
    """What the audit of a log says, with what the versions have seen of it before they serve.

    Args:
        begin_ms: interactions from this time on count; None: all do.
        now_ms: what the clock says, epoch ms.
    """
    turns = [turn for each in contenders for turn in each.all_turns()]
    first = {turn.version.reference: turn for turn in sorted(turns, key=lambda turn: -turn.from_ms)}
    return audit(
        log,
        versions=[turn.version for turn in first.values()],
        begin_ms=begin_ms,
        now_ms=now_ms,
        serves_from={reference: turn.from_ms for reference, turn in first.items()},
    )


def folder_of(what: Any) -> str:
    """A name for a folder that belongs to something: any values that JSON has."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def ordered(out: Path) -> pl.LazyFrame:
    """The log of a replay that is not closed yet, in the order of time."""
    return pl.scan_parquet(out / "work" / "log" / "ordered" / "*.parquet")


def close(out: Path) -> None:
    """Remove what only a replay needs that is not finished."""
    shutil.rmtree(out / "work")


def sha256_of(files: Sequence[Path]) -> str:
    """One hash of the bytes of files, in this order."""
    together = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            together.update(hashlib.file_digest(file, "sha256").digest())
    return together.hexdigest()


def _described(contenders: Sequence[Contender], options: Options) -> dict[str, Any]:
    return {
        "options": {name: getattr(options, name) for name in options.__slots__},
        "models": [
            [
                each.name,
                each.memory,
                *([turn.version.digest(), turn.from_ms, turn.from_offset] for turn in each.all_turns()),
            ]
            for each in contenders
        ],
    }


def _same_plan(work: Path, plan: Mapping[str, Any]) -> None:
    """Note what the folder has, or compare it with what was noted."""
    work.mkdir(parents=True, exist_ok=True)
    path, text = work / PLAN, json.dumps(plan, indent=1, sort_keys=True)
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(path)
        return
    before = json.loads(path.read_text())
    if differing := sorted(name for name in plan if before.get(name) != json.loads(text)[name]):
        raise ReplayUnfinished(
            f"{work.parent} has a replay that was not finished, of another {' and '.join(differing)}. --discard begins anew, "
            "or name another folder with --out"
        )


def _prepared(
    log: pl.LazyFrame, work: Path, partitions: int, begin_ms: int | None, progress: Callable[[int, int], None]
) -> list[Path]:
    """The shards, made once."""
    folder, mark = work / "log", work / "log" / "whole"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        prepare(log, folder, partitions, begin_ms, progress)
        mark.touch()
    return sorted((folder / "shards").iterdir())


def _tasks(
    number: int, contender: Contender, shards: Sequence[Path], options: Options, work: Path, cache: Cache
) -> Iterator[Task]:
    copies = {turn.version.uri: str(cache.fetch(turn.version)) for turn in contender.all_turns()}
    for shard in shards:
        partition = int(shard.stem)
        yield Task(
            partition=partition,
            shard=str(shard),
            out=str(work / "shards" / str(number) / shard.stem),
            serves=tuple(
                Serves(copies[turn.version.uri], turn.version.digest(), turn.promotion, turn.from_ms, turn.from_offset)
                for turn in contender.turns_of(partition)
            ),
            memory=contender.memory,
            cadence=options.cadence,
            exclude=options.exclude,
            top_k=options.top_k,
            depth=max(options.depth, options.top_k),
            keep_segments=options.keep_segments,
            keep_formats=options.keep_formats,
            chunk=options.chunk,
        )
