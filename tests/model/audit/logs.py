"""A log with nothing to find, logs with one thing planted each, and versions with what a manifest says."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from model.log import Log, open_log
from model.version import manifest as manifests
from model.version import storage
from model.version.manifest import CATALOGUE, MANIFEST, Training
from model.version.registry import ModelVersion
from tests.model.version import made

Row = tuple[Any, Any, Any]

START_MS: Final = 1_700_000_000_000
STEP_MS: Final = 60_000
ROWS: Final = 6000
NOW_MS: Final = START_MS + ROWS * STEP_MS
"""What the clock says: just after the last interaction."""
SPLIT_MS: Final = START_MS + int(ROWS * 0.9) * STEP_MS
ITEMS: Final = 500


def plain(seed: int = 0) -> list[Row]:
    """Interactions of 100 users in time order, none with an item that the user had before."""
    draw = random.Random(seed)
    untouched = [draw.sample(range(ITEMS), ITEMS) for _ in range(100)]
    users = [draw.randrange(100) for _ in range(ROWS)]
    return [(user, untouched[user].pop(), START_MS + place * STEP_MS) for place, user in enumerate(users)]


def shuffled(rows: list[Row]) -> list[Row]:
    return random.Random(1).sample(rows, len(rows))


def by_user(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row[0])


def in_pairs(rows: list[Row]) -> list[Row]:
    """Every interaction at the time of another one of its user."""
    found: dict[Any, list[Row]] = {}
    for user, item, _ in rows:
        mine = found.setdefault(user, [])
        mine.append((user, item, START_MS + len(mine) // 2 * STEP_MS))
    return [row for mine in found.values() for row in mine]


def with_next(rows: list[Row], make: Callable[[Any, Any], Any]) -> list[Row]:
    """Items that are made of the item and the user's next one."""
    coming: dict[Any, Any] = {}
    found = []
    for user, item, ms in reversed(rows):
        found.append((user, make(item, coming.get(user, 0)), ms))
        coming[user] = item
    return found[::-1]


def in_a_round(rows: list[Row]) -> list[Row]:
    """Every user goes through the same round of items."""
    counts: dict[Any, int] = {}
    found = []
    for user, _, ms in rows:
        found.append((user, (user + counts.get(user, 0)) * 7 % 40, ms))
        counts[user] = counts.get(user, 0) + 1
    return found


def opened(rows: list[Row], folder: Path) -> Log:
    path = folder / "log.parquet"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(path)
    return open_log(path)


def version(
    folder: Path, items: list[Any] | None = None, trained: tuple[int, int] | None = None, split: str = "by time"
) -> ModelVersion:
    """A version with a catalogue, and trained on the interactions of a range of times."""
    files = made.files("made", 1)
    catalogue = msgspec.json.encode(list(range(ITEMS)) if items is None else items)
    training = trained and Training(
        log="old.parquet",
        rows=1,
        users=1,
        items=1,
        from_ms=trained[0],
        until_ms=trained[1],
        split=split,
        seed=0,
        epochs=1,
        best_epoch=1,
        wall_s=1.0,
        samples=1,
    )
    manifest = manifests.decode(files[MANIFEST], "made")
    manifest = replace(
        manifest,
        training=training or None,
        files={**manifest.files, CATALOGUE: manifests.facts(catalogue)},
        catalogue_sha256=manifests.facts(catalogue).sha256,
    )
    found = ModelVersion("made", 1, storage.join(str(folder), "made", "1"))
    for name, data in {**files, CATALOGUE: catalogue, MANIFEST: manifests.encode(manifest)}.items():
        storage.write(storage.join(found.uri, name), data)
    return found
