from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from model.errors import ModelNotFound, TrainerMissing, TrainingDiverged, TrainingImpossible
from model.networks import serving
from model.networks.network import Losses
from model.networks.rec2pm import Rec2PM
from model.synthetic import SyntheticLog, generate
from model.training import dataset, validation
from model.training import train as module
from model.version.manifest import Metrics
from model.version.registry import ModelVersion, Registry
from model.version.runtime import Runtime
from tests.model import tiny
from tests.model.quick import LOG, recipe, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return run(tmp_path_factory.mktemp("registry"))


def test_training_writes_a_version_the_worker_can_use(trained: ModelVersion) -> None:
    runtime = Runtime.load(trained.folder)
    assert (trained.reference, runtime.segment_length, runtime.state_floats) == ("small@1", 10, 32)
    assert set(runtime.item_ids) <= set(LOG["item_id"])
    folded = runtime.fold(np.zeros((1, 32), np.float32), np.arange(1, 11)[None])
    assert np.isfinite(runtime.rank(folded.hidden, 5, np.zeros((1, 0), np.int64)).scores).all()


def test_the_manifest_says_what_was_trained_on_and_how_well_it_did(trained: ModelVersion) -> None:
    manifest = trained.manifest()
    assert manifest.training is not None
    assert manifest.metrics is not None
    held_out = LOG.head(len(LOG) - round(len(LOG) * 0.1))
    assert (manifest.training.log, manifest.training.rows, manifest.training.epochs) == ("small.csv", len(held_out), 2)
    assert (manifest.training.from_ms, manifest.training.until_ms) == (
        held_out["timestamp"][0],
        held_out["timestamp"][-1],
    )
    assert manifest.metrics.targets > 50
    assert manifest.memory_format == f"rec2pm-o/2x16/{manifest.weights_sha256[:12]}"
    assert manifest.config["training"]["lr"] == recipe().training.lr
    assert manifest.config["network"]["d"] == 16
    assert manifest.config["recipe"]["name"] == "rec2pm-o-sasrec-small"


def test_the_same_seed_gives_the_same_weights_and_another_others(trained: ModelVersion, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(1234)  # whatever the process has drawn before
        same = run(tmp_path)
    other = run(tmp_path, seed=1)
    assert same.manifest().weights_sha256 == trained.manifest().weights_sha256 != other.manifest().weights_sha256
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns(tmp_path: Path) -> None:
    log = generate(SyntheticLog(users=200, items=160, genres=10, favourites=2, interactions_median=40)).interactions
    metrics = run(tmp_path, log, max_epochs=10, batch=8, lr=1e-2).manifest().metrics
    assert metrics is not None
    assert metrics.hr_at_10 > 1.5 * metrics.popularity_hr_at_10


def test_training_stops_when_the_time_is_up_and_keeps_the_best(tmp_path: Path) -> None:
    training = run(tmp_path, clock_step=1.0, max_seconds=40, max_epochs=1_000, patience=1_000).manifest().training
    assert training is not None
    assert training.wall_s <= 50
    assert 1 <= training.epochs < 1_000


def test_training_stops_when_it_brings_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        validation, "evaluate", lambda *_: Metrics(targets=9, hr_at_10=0.1, ndcg_at_10=0.1, popularity_hr_at_10=0.1)
    )
    training = run(tmp_path, patience=3, max_epochs=50).manifest().training
    assert training is not None
    assert (training.epochs, training.best_epoch) == (3, 0)


def test_a_loss_that_is_no_number_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Rec2PM.losses
    monkeypatch.setattr(Rec2PM, "losses", lambda *its: _times(losses(*its), float("nan")))
    with pytest.raises(TrainingDiverged, match="epoch 1, step 1: the loss is not a number: next item nan"):
        run(tmp_path)
    assert Registry(tmp_path).names() == []


def _times(losses: Losses, factor: float) -> Losses:
    return Losses(losses.total * factor, losses.next_item * factor, losses.consistency)


def test_segments_nobody_fills_are_refused_with_a_length_that_works(tmp_path: Path) -> None:
    with pytest.raises(TrainingImpossible, match="no user has more than 5000 interactions") as caught:
        run(tmp_path, segment_length=5_000)
    assert "This log can be trained on with --set segment_length=" in str(caught.value)
    suggested = int(str(caught.value).split("segment_length=")[1].split()[0])
    assert run(tmp_path, segment_length=suggested, max_epochs=1).manifest().segment_length == suggested


@pytest.mark.parametrize("kind", ["full", "trunc", "holomambarec"])
def test_a_kind_that_does_not_learn_from_folds_learns_from_segments_nobody_fills(tmp_path: Path, kind: str) -> None:
    assert run(tmp_path, kind=kind, segment_length=500, segments=1, max_epochs=1).manifest().segment_length == 500


def test_a_catalogue_that_a_state_cannot_count_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LARGEST_ROW", 20)
    with pytest.raises(TrainingImpossible, match="too large for item rows as float32: at most 18"):
        run(tmp_path, kind="full")


@pytest.mark.parametrize(("kind", "backbone"), [("rec2pm-o", "sasrec"), ("full", "pos_time")])
def test_validation_ranks_as_the_worker_would(tmp_path: Path, kind: str, backbone: str) -> None:
    """Every target's rank against folding and recommending through the runtime, one user at a time, told no query
    time.
    """
    config = tiny.config(kind, backbone)
    runtime = Runtime.load(tiny.add(tmp_path, config=config).folder)
    L, V = runtime.segment_length, runtime.manifest.n_items
    rng = np.random.default_rng(0)
    lengths = np.array([2, L, L + 1, 2 * L, 3 * L + 5, 2 * L + 1])
    rows = [rng.permutation(V)[:n] + 1 for n in lengths]
    rows[4][3] = rows[5][20] = V + 1
    start = np.concatenate([[0], np.cumsum(lengths)])
    popularity = tiny.popularity().numpy()
    times = 1_700_000_000_000 + 86_400_000 * np.arange(start[-1]) ** 2
    expected, expected_popular = [], []
    for i, history in enumerate(rows):
        past, when = history[:-1], times[start[i] : start[i + 1] - 1] if runtime.uses_time else None
        memory = np.zeros((1, runtime.state_floats), np.float32)
        for h in range(len(past) // L):
            here = slice(h * L, (h + 1) * L)
            folded = runtime.fold(memory, past[None, here], None if when is None else when[None, here])
            memory = folded.memory
        working = past[len(past) // L * L :]
        if len(working):
            new = None if when is None else when[None, -len(working) :]
            ranked = runtime.recommend(memory, working[None], np.array([len(working)]), 12, past[None], new)
        else:
            ranked = runtime.rank(folded.hidden, 12, past[None])
        history[-1] = ranked.rows[0, 9 + i % 2]  # the last hit, and the first miss
        expected.append(10 if i % 2 == 0 else 11)
        expected_popular.append(history[-1] in [row for row in range(1, V + 1) if row not in past][:10])
    data = dataset.Dataset(tuple(tiny.IDS), popularity, np.concatenate(rows), start, np.zeros(6, np.int64), 0, 0, times)
    targets = validation.Targets(np.arange(6), lengths - 1)
    found = validation.evaluate(tiny.serving(config=config), data, targets)
    assert found.hr_at_10 == pytest.approx(0.5)
    assert found.ndcg_at_10 == pytest.approx(np.mean([1 / np.log2(rank + 1) if rank <= 10 else 0 for rank in expected]))
    assert found.popularity_hr_at_10 == pytest.approx(np.mean(expected_popular))


def test_a_recipe_can_hold_out_everybodys_last_interactions(tmp_path: Path) -> None:
    training = run(tmp_path, split="last-out", max_epochs=1).manifest().training
    assert training is not None
    counts = LOG.group_by("user_id").len()["len"]
    assert training.rows == (counts - 2).clip(lower_bound=0).sum()
    assert training.split.startswith("last out")


def test_a_log_with_no_next_item_to_learn_or_nobody_to_validate_on_is_refused(tmp_path: Path) -> None:
    early = LOG.group_by("user_id", maintain_order=True).head(15).with_columns(timestamp=pl.col("timestamp") - 10**11)
    late = pl.DataFrame({"user_id": "new", "item_id": LOG["item_id"][0], "timestamp": [LOG["timestamp"].max()]})
    with pytest.raises(TrainingImpossible, match="no user of the validation part has a history"):
        run(tmp_path, pl.concat([early, late]), validation_share=1 / (len(early) + 1))
    assert list(tmp_path.glob(".training/*")) == []


def test_a_name_no_model_can_have_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="cannot be the name of a model"):
        run(tmp_path, how={"name": "../x"})
    assert list(tmp_path.iterdir()) == []


def test_what_has_to_be_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.util, "find_spec", lambda name: None if name == "lightning_fabric" else name)
    with pytest.raises(TrainerMissing, match=r"lightning_fabric: pip install '\.\[train\]'"):
        run(tmp_path)


def test_scalars_are_kept_under_the_version_they_led_to(tmp_path: Path) -> None:
    version = run(tmp_path, max_epochs=3)
    (events,) = (tmp_path / ".tensorboard" / "small" / str(version.version)).iterdir()
    written = events.read_bytes()
    for name in (b"validation/ndcg_at_10", b"loss/next_item", b"epoch_loss/consistency", b"gradient_norm"):
        assert name in written
    assert Registry(tmp_path).names() == ["small"]
