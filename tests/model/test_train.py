import io
import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import model.train as module
from model import dataset, validation
from model.errors import TrainingDiverged, TrainingImpossible
from model.manifest import Metrics
from model.network import Losses
from model.rec2pm import Rec2PM
from model.registry import ModelVersion, Registry
from model.runtime import Runtime
from model.synthetic import SyntheticLog, generate
from model.train import TrainOptions, progress_bar, train
from tests.model import tiny

LOG = generate(SyntheticLog(users=80, items=60, genres=6, interactions_median=40)).interactions
OPTIONS = TrainOptions(name="small", segment_length=10, segments=3, d=16, layers=1, heads=2, slots=2, max_epochs=2, negatives=32)


def _train(root: Path, log: pl.DataFrame = LOG, clock_step: float = 0.001, **changed: object) -> ModelVersion:
    options = TrainOptions(**({name: getattr(OPTIONS, name) for name in OPTIONS.__dataclass_fields__} | changed))
    ticks = itertools.count()
    return train(
        log.lazy(), Registry(root), options, log_name="logs/small.csv", program_version="0", clock=lambda: next(ticks) * clock_step
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return _train(tmp_path_factory.mktemp("registry"))


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
    assert (manifest.training.from_ms, manifest.training.until_ms) == (held_out["timestamp"][0], held_out["timestamp"][-1])
    assert manifest.metrics.targets > 50
    assert manifest.memory_format == f"rec2pm-o/2x16/{manifest.weights_sha256[:12]}"
    assert manifest.config["options"]["lr"] == OPTIONS.lr


def test_the_same_seed_gives_the_same_weights_and_another_others(trained: ModelVersion, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(1234)  # whatever the process has drawn before
        same = _train(tmp_path)
    other = _train(tmp_path, seed=1)
    assert same.manifest().weights_sha256 == trained.manifest().weights_sha256 != other.manifest().weights_sha256
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_is_reported_where_it_is_asked_for(tmp_path: Path) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=160)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "Console", lambda **_: screen)
        bar = progress_bar()
    train(LOG.lazy(), Registry(tmp_path), OPTIONS, log_name="x", program_version="0", clock=lambda: 0.0, progress=bar)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "HR@10" in shown
    assert "popularity" in shown


def test_training_learns(tmp_path: Path) -> None:
    log = generate(SyntheticLog(users=200, items=160, genres=10, favourites=2, interactions_median=40)).interactions
    metrics = _train(tmp_path, log, max_epochs=20, lr=1e-2).manifest().metrics
    assert metrics is not None
    assert metrics.hr_at_10 > 1.5 * metrics.popularity_hr_at_10


def test_training_stops_when_the_time_is_up_and_keeps_the_best(tmp_path: Path) -> None:
    training = _train(tmp_path, clock_step=1.0, max_seconds=40, max_epochs=1_000, patience=1_000).manifest().training
    assert training is not None
    assert training.wall_s <= 50
    assert 1 <= training.epochs < 1_000


def test_training_stops_when_it_brings_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_validate", lambda *_: Metrics(targets=9, hr_at_10=0.1, ndcg_at_10=0.1, popularity_hr_at_10=0.1))
    training = _train(tmp_path, patience=3, max_epochs=50).manifest().training
    assert training is not None
    assert (training.epochs, training.best_epoch) == (3, 0)


def test_a_loss_that_is_no_number_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = torch.tensor(float("nan"))
    monkeypatch.setattr(Rec2PM, "losses", lambda *_: Losses(nan, nan, nan))
    with pytest.raises(TrainingDiverged, match="epoch 1: the loss is nan"):
        _train(tmp_path)
    assert Registry(tmp_path).names() == []


def test_segments_nobody_fills_are_refused_with_a_length_that_works(tmp_path: Path) -> None:
    with pytest.raises(TrainingImpossible, match="no user has more than 5000 interactions") as caught:
        _train(tmp_path, segment_length=5_000)
    suggested = int(str(caught.value).split("--segment-length ")[1].split()[0])
    assert _train(tmp_path, segment_length=suggested, max_epochs=1).manifest().segment_length == suggested


@pytest.mark.parametrize("wrong", [{"segments": 1}, {"batch": 0}, {"validation_share": 0.0}, {"until_share": 1.5}, {"max_seconds": 0.0}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TrainOptions(**wrong)  # type: ignore[arg-type]


def test_validation_ranks_as_the_worker_would(runtime: Runtime) -> None:
    """Every target's rank against folding and recommending through the runtime, one user at a time."""
    L, V = runtime.segment_length, runtime.manifest.n_items
    rng = np.random.default_rng(0)
    lengths = np.array([2, L, L + 1, 2 * L, 3 * L + 5, 2 * L + 1])
    rows = [rng.permutation(V)[:n] + 1 for n in lengths]
    rows[4][3] = rows[5][20] = V + 1
    start = np.concatenate([[0], np.cumsum(lengths)])
    popularity = tiny.popularity().numpy()
    expected, expected_popular = [], []
    for i, history in enumerate(rows):
        past = history[:-1]
        memory = np.zeros((1, runtime.state_floats), np.float32)
        for h in range(len(past) // L):
            folded = runtime.fold(memory, past[None, h * L : (h + 1) * L])
            memory = folded.memory
        working = past[len(past) // L * L :]
        if len(working):
            ranked = runtime.recommend(memory, working[None], np.array([len(working)]), 12, past[None])
        else:
            ranked = runtime.rank(folded.hidden, 12, past[None])
        history[-1] = ranked.rows[0, 9 + i % 2]  # the last hit, and the first miss
        expected.append(10 if i % 2 == 0 else 11)
        expected_popular.append(history[-1] in [row for row in range(1, V + 1) if row not in past][:10])
    data = dataset.Dataset(tuple(tiny.IDS), popularity, np.concatenate(rows), start, np.zeros(6, np.int64), 0, 0)
    targets = validation.Targets(np.arange(6), lengths - 1)
    found = validation.evaluate(tiny.serving(), data, targets)
    assert found.hr_at_10 == pytest.approx(0.5)
    assert found.ndcg_at_10 == pytest.approx(np.mean([1 / np.log2(rank + 1) if rank <= 10 else 0 for rank in expected]))
    assert found.popularity_hr_at_10 == pytest.approx(np.mean(expected_popular))
