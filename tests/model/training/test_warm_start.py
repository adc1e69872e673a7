from pathlib import Path

import polars as pl
import pytest
import torch

from model.errors import TrainingImpossible, TrainingUnfinished
from model.networks.rec2pm import Rec2PM
from model.version import artifact
from model.version.registry import ModelVersion
from tests.model.quick import LOG, run


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return run(tmp_path_factory.mktemp("registry"), max_epochs=3)


def _renamed(log: pl.DataFrame) -> pl.DataFrame:
    """The log of another day: some items are gone, some are new."""
    items = sorted(set(log["item_id"]))
    return log.filter(~pl.col("item_id").is_in(items[:5])).with_columns(
        item_id=pl.when(pl.col("item_id").is_in(items[5:10])).then("new-" + pl.col("item_id")).otherwise("item_id")
    )


def _vectors(version: ModelVersion) -> dict[str, torch.Tensor]:
    found = artifact.load_weights(version.uri)
    table = found.weights["network.item.weight"]
    return {str(item): table[row] for row, item in enumerate(found.item_ids, start=1)} | {
        "OOV": table[-1],
        "": table[0],
    }


def test_known_items_keep_their_vectors_and_new_ones_are_added(tmp_path: Path, earlier: ModelVersion) -> None:
    log = _renamed(LOG)
    # A learning rate that moves nothing shows what training starts from.
    version = run(tmp_path, log, how={"start_from": earlier}, lr=1e-30, max_epochs=1)
    before, after = _vectors(earlier), _vectors(version)
    assert before.keys() < after.keys()
    assert {item for item in after if item not in before} == {
        item for item in set(log["item_id"]) if item.startswith("new-")
    }
    for item, vector in before.items():
        torch.testing.assert_close(after[item], vector)
    others = [
        name
        for name in artifact.load_weights(earlier.uri).weights
        if name.startswith("network.") and "item.weight" not in name
    ]
    for name in others:
        torch.testing.assert_close(
            artifact.load_weights(version.uri).weights[name], artifact.load_weights(earlier.uri).weights[name]
        )
    assert version.manifest().config["from"] == "small@1"
    assert version.manifest().memory_format != earlier.manifest().memory_format


def test_a_warm_start_begins_where_the_version_ended(tmp_path: Path, earlier: ModelVersion) -> None:
    cold = run(tmp_path / "cold", lr=1e-30, max_epochs=1).manifest().metrics
    warm = run(tmp_path / "warm", how={"start_from": earlier}, lr=1e-30, max_epochs=1).manifest().metrics
    assert cold is not None
    assert warm == earlier.manifest().metrics
    assert warm is not None
    assert warm.ndcg_at_10 > cold.ndcg_at_10


def test_items_are_known_whatever_type_their_ids_have(tmp_path: Path) -> None:
    numbers = {item: number for number, item in enumerate(sorted(set(LOG["item_id"])), start=100)}
    log = LOG.with_columns(item_id=pl.col("item_id").replace_strict(numbers, return_dtype=pl.Int64))
    first = run(tmp_path, log, max_epochs=1)
    second = run(
        tmp_path, log.with_columns(pl.col("item_id").cast(pl.String)), how={"start_from": first}, lr=1e-30, max_epochs=1
    )
    before, after = _vectors(first), _vectors(second)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[item], after[item]) for item in before)


def test_a_network_of_another_shape_is_no_start(tmp_path: Path, earlier: ModelVersion) -> None:
    with pytest.raises(
        TrainingImpossible,
        match=r"training cannot start from small@1: its blocks\.0\..* has shape \[.*16.*\], that of this recipe has",
    ):
        run(tmp_path, how={"start_from": earlier}, d=32)
    with pytest.raises(TrainingImpossible, match=r"it has no blocks\.1\."):
        run(tmp_path, how={"start_from": earlier}, layers=2)
    assert not (tmp_path / ".training").exists()


def test_a_training_goes_on_only_from_the_version_it_started_from(tmp_path: Path, earlier: ModelVersion) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rec2PM, "losses", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, how={"start_from": earlier}, max_epochs=1)
    with pytest.raises(TrainingUnfinished, match="from was 'small@1' and is None"):
        run(tmp_path, how={"unfinished": "resume"}, max_epochs=1)
    assert run(tmp_path, how={"start_from": earlier, "unfinished": "resume"}, max_epochs=1).version == 1


@pytest.mark.parametrize("kind", ["full", "kv-mask-a", "tok-serial-o", "holomambarec"])
def test_every_kind_can_be_started_from_although_items_come_and_go(tmp_path: Path, kind: str) -> None:
    earlier = run(tmp_path / "earlier", kind=kind, max_epochs=1)
    version = run(tmp_path / "later", _renamed(LOG), how={"start_from": earlier}, kind=kind, lr=1e-30, max_epochs=1)
    before, after = _vectors(earlier), _vectors(version)
    for item in before.keys() & after.keys():
        torch.testing.assert_close(after[item], before[item])
