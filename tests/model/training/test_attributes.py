"""Attributes of items, from the log to the artifact: they are learned from, survive interruptions and travel to the
next version.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from model.errors import RecipeInvalid, TrainingImpossible, TrainingUnfinished
from model.networks import kinds
from model.networks.config import NetworkConfig
from model.networks.holomamba import HoloMamba
from model.networks.network import Losses
from model.synthetic import SyntheticLog, generate
from model.training import checkpoint
from model.training.checkpoint import Checkpoint
from model.version import artifact
from model.version.registry import ModelVersion
from tests.model.quick import run

LOG = (
    generate(SyntheticLog(users=60, items=60, genres=6, interactions_median=40))
    .with_genres()
    .rename({"genre": "attribute"})
    # The last item of each genre has none.
    .with_columns(pl.when(pl.col("item_id") != pl.col("item_id").max().over("attribute")).then("attribute"))
)
WITH: dict[str, Any] = {"attribute_column": "genre"}
FAST: dict[str, Any] = {"kind": "holomambarec", "max_epochs": 2, "batch": 8}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return run(tmp_path_factory.mktemp("registry"), LOG, how=WITH, **FAST)


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> list[Checkpoint]:
    """The last checkpoint of every training that finishes."""
    seen: list[Checkpoint] = []
    discard = checkpoint.TrainingFolder.discard

    def watched(self: checkpoint.TrainingFolder) -> None:
        seen.append(checkpoint.read(self.checkpoint))
        discard(self)

    monkeypatch.setattr(checkpoint.TrainingFolder, "discard", watched)
    return seen


def _told(attribute: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> pl.DataFrame:
    """Users who meet a signal and then something of the signal's group, again and again. There are as many signals as
    fit, each of them seldom: what group a signal is of is hard to learn from the signal, and easy from its attribute if
    that tells."""
    rng = np.random.default_rng(0)
    users, turns, groups, size, signals = 120, 12, 10, 12, 800
    signal = np.concatenate([rng.permutation(signals)[:turns] for _ in range(users)])
    # Of a group a user never meets the same again, and first its first.
    user = np.repeat(np.arange(users), turns)
    nth = (
        pl.DataFrame({"user": user, "group": signal % groups})
        .select(pl.int_range(pl.len()).over("user", "group"))["literal"]
        .to_numpy()
    )
    pairs = np.stack([signal, signals + signal % groups * size + nth], axis=1).reshape(-1)
    value = attribute(np.repeat(signal % groups, 2)).astype(np.int64)
    times = np.tile(np.arange(2 * turns), users)
    log = pl.DataFrame({"user_id": np.repeat(user, 2), "item_id": pairs, "timestamp": times, "attribute": value})
    return log.with_columns(pl.when(pl.col("item_id") < signals).then("attribute")).sort(
        "timestamp", maintain_order=True
    )


def test_an_attribute_that_tells_what_comes_next_makes_predictions_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items begin nearly alike: a value bound to a vector can be read only by who knows something of the vector.
    Measured: 2.5 times.
    """
    initialise = kinds.initialise

    def alike(network: HoloMamba, generator: torch.Generator) -> None:
        initialise(network, generator)
        with torch.no_grad():
            network.item.weight[1:] += 0.1 * torch.randn(network.d, generator=generator)

    monkeypatch.setattr(kinds, "initialise", alike)
    found = []
    for name, attribute in (("telling", lambda group: group), ("silent", np.zeros_like)):
        options = {"kind": "holomambarec", "max_epochs": 4, "batch": 8, "lr": 3e-3, "min_item_count": 1, "dropout": 0.0}
        metrics = (
            run(tmp_path / name, _told(attribute), how=WITH, segment_length=8, warm_up_steps=0, **options)
            .manifest()
            .metrics
        )
        assert metrics is not None
        found.append(metrics.ndcg_at_10)
    telling, silent = found
    assert telling > 1.7 * silent, found


def test_the_manifest_says_the_column_and_how_many_values_there_are(whole: ModelVersion) -> None:
    config = whole.manifest().config
    assert config["attributes"] == {"column": "genre", "values": 6}
    assert config["network"]["attributes"] == 6


def test_the_artifact_has_items_bound_to_their_attributes(whole: ModelVersion) -> None:
    loaded = artifact.load_weights(whole.uri)
    assert loaded.attributes is not None
    value_of = dict(LOG.drop_nulls().select("item_id", "attribute").rows())
    assert loaded.attributes.by_item(loaded.item_ids) == {
        item: value_of[item] for item in loaded.item_ids if item in value_of
    }
    assert 0 < loaded.attributes.of.count(0) < len(loaded.item_ids)
    config = NetworkConfig.of_table(whole.manifest().config["network"])
    network, bare = kinds.build(config, loaded.attributes.by_row()), kinds.build(config)
    weights = {
        name.removeprefix("network."): value for name, value in loaded.weights.items() if name.startswith("network.")
    }
    for each in (network, bare):
        assert isinstance(each, HoloMamba)
        each.load_state_dict(weights)
        each.eval()
    rows = torch.arange(config.shape.n_items + 2)
    with torch.inference_mode():
        table, without = network.inputs(rows), bare.inputs(rows)  # type: ignore[operator]
    torch.testing.assert_close(loaded.weights["table"], table)
    differs = (table - without).abs().amax(1) > 1e-6
    assert differs.tolist() == [number > 0 for number in loaded.attributes.by_row().tolist()]


class Killed(BaseException):
    """As the end of the process would be: nothing catches it, nothing is written."""


def _killed_at(steps: int) -> Callable[..., Losses]:
    losses, counted = HoloMamba.losses, iter(range(steps))

    def some(self: HoloMamba, *batch: torch.Tensor) -> Losses:
        if next(counted, None) is None:
            raise Killed
        return losses(self, *batch)

    return some


def test_training_that_was_killed_goes_on_with_the_same_attributes(tmp_path: Path, whole: ModelVersion) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(HoloMamba, "losses", _killed_at(7))
        with pytest.raises(Killed):
            run(tmp_path, LOG, how=WITH, checkpoint_minutes=1e-9, **FAST)
    resume = WITH | {"unfinished": "resume"}
    with pytest.raises(TrainingUnfinished, match=r"attributes\.column was 'genre' and is 'mood'"):
        run(tmp_path, LOG, how=resume | {"attribute_column": "mood"}, **FAST)
    with pytest.raises(TrainingUnfinished, match="log_sha256 was"):
        run(tmp_path, LOG.with_columns(pl.col("attribute").fill_null("comedy")), how=resume, **FAST)
    with pytest.raises(TrainingUnfinished, match=r"attributes was .* and is None"):
        run(tmp_path, LOG.drop("attribute"), how={"unfinished": "resume"}, **FAST)
    resumed = run(tmp_path, LOG, how=resume, checkpoint_minutes=1e-9, **FAST)
    assert resumed.manifest().weights_sha256 == whole.manifest().weights_sha256


def test_two_processes_learn_what_one_does(tmp_path: Path, finished: list[Checkpoint]) -> None:
    alike = {**FAST, "dropout": 0.0, "batch": 6, "max_epochs": 1, "lr": 1e-2, "warm_up_steps": 0}
    for name, devices in (("one", 1), ("two", 2)):
        run(tmp_path / name, LOG, how=WITH | {"clock": time.monotonic, "devices": devices}, **alike)
    one, two = (last.network for last in finished)
    assert finished[0].learned_steps > 10
    for name in ("attribute.weight", "binding", "item.weight"):
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0)


def _genres(version: ModelVersion) -> dict[str, torch.Tensor]:
    loaded = artifact.load_weights(version.uri)
    assert loaded.attributes is not None
    table = loaded.weights["network.attribute.weight"]
    assert len(table) == len(loaded.attributes.values) + 1
    return {str(value): table[row] for row, value in enumerate(loaded.attributes.values, start=1)}


def test_values_that_a_version_knows_keep_their_vectors_and_new_ones_are_added(
    tmp_path: Path, whole: ModelVersion
) -> None:
    first, second, *_ = sorted(LOG["attribute"].drop_nulls().unique())
    gone, renamed = pl.col("attribute") == first, pl.col("attribute") == second
    log = LOG.with_columns(
        pl.when(gone).then(None).when(renamed).then(pl.lit("aaa new")).otherwise("attribute").alias("attribute")
    ).with_columns(
        item_id=pl.when(pl.int_range(pl.len()) % 7 == 0).then("new-" + pl.col("item_id")).otherwise("item_id")
    )
    # A learning rate that moves nothing shows what training starts from.
    version = run(tmp_path, log, how=WITH | {"start_from": whole}, kind="holomambarec", lr=1e-30, max_epochs=1)
    before, after = _genres(whole), _genres(version)
    assert after.keys() == before.keys() | {"aaa new"}
    for value, vector in before.items():
        torch.testing.assert_close(after[value], vector)
    assert next(iter(after)) == "aaa new", "rows move, vectors go with them"
    assert version.manifest().config["attributes"] == {"column": "genre", "values": 7}
    known = artifact.load_weights(version.uri)
    assert known.attributes is not None
    value_of = known.attributes.by_item(known.item_ids)
    earlier = artifact.load_weights(whole.uri)
    assert earlier.attributes is not None
    for item, value in earlier.attributes.by_item(earlier.item_ids).items():
        # An item that this log gives no value keeps the one it had.
        assert value_of[item] == ("aaa new" if value == second else value)


def test_a_version_with_attributes_is_no_start_without_them_but_one_without_is_a_start_for_some(
    tmp_path: Path, whole: ModelVersion
) -> None:
    with pytest.raises(
        TrainingImpossible,
        match=r"training cannot start from small@1 without attributes: .* column 'genre'.*--attribute-column",
    ):
        run(tmp_path, LOG.drop("attribute"), how={"start_from": whole}, **FAST)
    bare = run(tmp_path / "bare", LOG.drop("attribute"), **FAST)
    assert bare.manifest().config["attributes"] is None
    version = run(tmp_path / "bare", LOG, how=WITH | {"start_from": bare}, kind="holomambarec", lr=1e-30, max_epochs=1)
    assert len(_genres(version)) == 6
    before, after = (artifact.load_weights(each.uri) for each in (bare, version))
    row_of = {item: row for row, item in enumerate(after.item_ids, start=1)}
    for row, item in enumerate(before.item_ids, start=1):
        torch.testing.assert_close(
            after.weights["network.item.weight"][row_of[item]], before.weights["network.item.weight"][row]
        )


def test_kinds_that_read_no_attributes_and_columns_without_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeInvalid, match="attribute column 'genre': rec2pm-o reads no attributes; holomambarec does"
    ):
        run(tmp_path, LOG, how=WITH)
    with pytest.raises(TrainingImpossible, match="column 'genre' has no value for any item"):
        run(tmp_path, LOG.with_columns(attribute=pl.lit(None, pl.String)), how=WITH, **FAST)
    assert not (tmp_path / ".training").exists()
