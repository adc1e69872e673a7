"""A list that is explained is the one that was made, whatever the cadence and the versions, and its parts add up."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from model.errors import ModelFailed
from model.version.registry import Registry
from model.version.runtime import Runtime
from state.codec import Mark
from state.interaction import NAMED, item_key
from stream.errors import ListUnexplained
from stream.explain.again import Explanation, again
from stream.explain.history import History
from stream.recommender import Recommender
from stream.replay import pool, run
from stream.replay.run import Contender, Options, Turn
from stream.step import Rules
from tests.model import tiny
from tests.same_lists import list_difference
from tests.stream.replay.test_replay import log_of

ROWS = 1500
SWAPS = (0, 600, 1000)
"""Of tiny@1, tiny@2 and tiny@1 again: the first row that each serves."""


@dataclass
class Lived:
    """A log that went through a worker's step, with three swaps to other memory formats."""

    log: pl.DataFrame
    """With partition and offset."""
    lists: list[dict[str, Any]]
    marks: dict[int, list[Mark]]
    load: Callable[[Mark], Recommender]
    rules: Rules

    def history(self, partition: int, offset: int) -> History:
        here = self.log.filter(pl.col("partition") == partition)
        user = here.filter(pl.col("offset") == offset)["user_id"][0]
        mine = here.filter(pl.col("user_id") == user, pl.col("offset") <= offset).sort("offset")
        texts = mine["item_id"].to_list()
        keys = [item_key(text) for text in texts]
        return History(
            partition,
            user.encode(),
            keys,
            mine["timestamp"].to_list(),
            mine["offset"].to_list(),
            {key: text for key, text in zip(keys, texts, strict=True) if key >= NAMED},
        )

    def explained(self, made: dict[str, Any], folder: Path, **changed: Any) -> Explanation:
        partition, offset = made["partition"], made["offset"]
        given = {"history": self.history(partition, offset), "rules": self.rules, "load": self.load, **changed}
        scratch = folder / f"{partition}-{offset}"
        return again(given["history"], self.marks[partition], given["rules"], given["load"], scratch)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, Any], Lived]:
    """What was lived through with a cadence and an exclusion, once for all tests."""
    return cache(lambda cadence, exclude: _lived(tmp_path_factory.mktemp("lived"), cadence, exclude))


Makes = Callable[[Any, Any], Lived]


def _lived(folder: Path, cadence: Any, exclude: Any) -> Lived:
    for seed in (1, 2):
        tiny.add(folder / "models", seed=seed)
    registry, log = Registry(folder / "models"), log_of(ROWS)
    versions = [registry.resolve(name) for name in ("tiny@1", "tiny@2", "tiny@1")]
    starts = [int(log["timestamp"][row]) for row in SWAPS]
    turns = tuple(
        Turn(version, start if start > starts[0] else 0) for version, start in zip(versions, starts, strict=True)
    )
    options = Options(cadence=cadence, exclude=exclude, top_k=6, keep_segments=2, keep_formats=1, partitions=2)
    run.replay(
        log.lazy(),
        [Contender("served", turns)],
        options,
        folder / "out",
        identity={},
        heard=lambda *_: None,
        run=pool.run_in_this_process,
    )
    placed = pl.read_parquet(folder / "out" / "interactions.parquet")
    marks = {}
    for partition in (0, 1):
        here = placed.filter(pl.col("partition") == partition)
        firsts = [here.filter(pl.col("timestamp") >= start)["offset"].min() for start in starts]
        marks[partition] = [
            Mark(version.reference, "", version.manifest().memory_format, int(first), 0)  # type: ignore[arg-type]
            for version, first in zip(versions, firsts, strict=True)
        ]
    loaded = {each.reference: Runtime.load(each.uri) for each in versions}
    lists = pl.read_parquet(folder / "out" / "served" / "recommendations.parquet").to_dicts()
    rules = Rules(1 if cadence == "interaction" else cadence, 6, exclude, 2, 1)
    return Lived(placed, lists, marks, lambda mark: Recommender(loaded[mark.version], mark.promotion), rules)


@pytest.mark.parametrize(("cadence", "exclude"), [("interaction", "kept"), (5, "none"), ("fold", "working")])
def test_every_list_is_made_again(tmp_path: Path, lived: Makes, cadence: Any, exclude: Any) -> None:
    served = lived(cadence, exclude)
    drawn = np.random.default_rng(7).permutation(len(served.lists))[:60]
    rebuilt = 0
    for made in (served.lists[at] for at in drawn):
        found = served.explained(made, tmp_path)
        assert list_difference(made, _fields(found)) is None, made
        assert (found.user, found.version) == (made["user_id"], made["model"])
        assert [each.item for each in found.choices] == found.recommendation.items
        assert len(found.folds) == made["folds"]
        assert sum(len(each.interactions) for each in found.folds) + len(found.newest) == made["taken"]
        rebuilt += found.missing_segments > 0
    assert {made["model"] for made in served.lists} == {"tiny@1", "tiny@2"}
    assert rebuilt > 0


def test_what_is_left_out_is_what_the_user_had_and_would_be_in_the_list(tmp_path: Path, lived: Makes) -> None:
    served = lived("interaction", "kept")
    seen = 0
    for made in served.lists[::60]:
        found = served.explained(made, tmp_path)
        had = {each.item for part in found.folds for each in part.interactions} | {each.item for each in found.newest}
        listed = {*found.recommendation.items}
        for each in found.left_out:
            assert each.item in had
            assert each.item not in listed
            assert each.rank <= len(listed) + len(found.left_out)
        seen += len(found.left_out)
        everything = sorted([each.rank for each in found.left_out])
        assert len(set(everything)) == len(everything)
    assert seen > 5


def test_ranks_by_one_part_of_the_history_are_those_of_a_user_who_has_nothing_else(
    tmp_path: Path, lived: Makes
) -> None:
    served = lived("interaction", "none")
    made = next(
        each for each in reversed(served.lists) if each["source"] == "memory" and each["taken"] > each["folds"] * tiny.L
    )
    found = served.explained(made, tmp_path)
    newest = served.history(made["partition"], made["offset"])
    count = made["taken"] - made["folds"] * tiny.L
    alone = History(
        newest.partition,
        newest.user,
        *(each[-count:] for each in (newest.items, newest.times, newest.offsets)),
        newest.names,
    )
    rules = Rules(1, tiny.V, "none", 2, 1)
    expected = served.explained(made, tmp_path / "alone", history=alone, rules=rules).recommendation.items
    assert [each.newest_rank for each in found.choices] == [expected.index(each.item) + 1 for each in found.choices]
    assert {each.memory_rank for each in found.choices} != {each.newest_rank for each in found.choices}


def test_without_a_list_the_one_that_the_user_had_is_named(tmp_path: Path, lived: Makes) -> None:
    served = lived(5, "none")
    made = next(each for each in served.lists if each["taken"] == 10)
    later = served.log.filter(pl.col("user_id") == made["user_id"], pl.col("offset") > made["offset"]).sort("offset")[
        "offset"
    ][0]
    with pytest.raises(
        ListUnexplained, match=f"no list was made after interaction 11 .* the list of offset {made['offset']}"
    ):
        served.explained({**made, "offset": later}, tmp_path)
    first = served.log.filter(pl.col("user_id") == made["user_id"]).sort("offset")["offset"][0]
    with pytest.raises(ListUnexplained, match=r"interaction 1 .*the user had none"):
        served.explained({**made, "offset": first}, tmp_path)


class Fails(Recommender):
    """Fails on a segment or a list with one item."""

    def __init__(self, model: Any, item: int) -> None:
        super().__init__(model)
        self.item = item

    def fold(self, before: Any, segments: Any, as_of: Any, times: Any = None) -> Any:
        self._refuse(segments)
        return super().fold(before, segments, as_of, times)

    def recommend(self, queries: Any, k: int) -> Any:
        self._refuse([each.items for each in queries])
        return super().recommend(queries, k)

    def _refuse(self, packed: list[bytes]) -> None:
        if any(self.item in np.frombuffer(each, np.int64) for each in packed):
            raise ModelFailed("this item")


def test_an_interaction_that_the_model_fails_on_is_named_and_remembered_nowhere(tmp_path: Path, lived: Makes) -> None:
    served = lived("interaction", "none")
    made = next(each for each in served.lists if each["taken"] == 2 * tiny.L + 3)
    history = served.history(made["partition"], made["offset"])
    failing = 4
    items = [*history.items[:failing], item_key("nasty"), *history.items[failing + 1 :]]
    changed = History(
        history.partition,
        history.user,
        items,
        history.times,
        history.offsets,
        {**history.names, item_key("nasty"): "nasty"},
    )

    def load(mark: Mark) -> Recommender:
        return Fails(served.load(mark).model, item_key("nasty"))

    found = served.explained(made, tmp_path, history=changed, load=load)
    assert found.failed == [history.offsets[failing]]
    assert found.recommendation.taken == made["taken"] - 1
    assert "nasty" not in {each.item for part in found.folds for each in part.interactions}
    last = History(
        history.partition,
        history.user,
        [*history.items[:-1], item_key("nasty")],
        history.times,
        history.offsets,
        {**history.names, item_key("nasty"): "nasty"},
    )
    with pytest.raises(ListUnexplained, match="fails on this interaction, so it is a dead letter: this item"):
        served.explained(made, tmp_path / "last", history=last, load=load)


def _fields(found: Explanation) -> dict[str, Any]:
    made = found.recommendation
    return {name: getattr(made, name) for name in made.__struct_fields__}
