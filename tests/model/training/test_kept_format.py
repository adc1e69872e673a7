import logging
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from model.errors import RecipeInvalid, TrainingUnfinished
from model.synthetic import SyntheticLog, generate
from model.training import dataset, kept_format, validation
from model.version.registry import ModelVersion
from model.version.runtime import Runtime
from tests.model import tiny
from tests.model.quick import run

LOG = generate(SyntheticLog(users=260, items=60, genres=6, interactions_median=40)).interactions
NOTHING_LEARNED = {"lr": 1e-30, "max_epochs": 1}
"""A learning rate that moves nothing."""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return run(tmp_path_factory.mktemp("registry"), LOG, max_epochs=3, batch=8, lr=1e-2)


def _next_day(log: pl.DataFrame) -> pl.DataFrame:
    """The log with some items that are new, and without some others."""
    items = sorted(set(log["item_id"]))
    return log.filter(~pl.col("item_id").is_in(items[:5])).with_columns(
        item_id=pl.when(pl.col("item_id").is_in(items[5:10])).then("new-" + pl.col("item_id")).otherwise("item_id")
    )


def _warm(root: Path, start_from: ModelVersion, log: pl.DataFrame = LOG, **changed: object) -> ModelVersion:
    return run(root, log, how={"start_from": start_from, "keep_format": True}, **changed)


def test_known_items_keep_their_rows_and_new_ones_come_after_them(earlier: ModelVersion, tmp_path: Path) -> None:
    version = _warm(tmp_path, earlier, _next_day(LOG), **NOTHING_LEARNED)
    before, after = Runtime.load(earlier.uri), Runtime.load(version.folder)
    assert after.item_ids[: len(before.item_ids)] == before.item_ids
    assert {str(item)[:4] for item in after.item_ids[len(before.item_ids) :]} == {"new-"}


def test_memories_that_are_read_as_well_keep_their_format(earlier: ModelVersion, tmp_path: Path) -> None:
    manifest = _warm(tmp_path, earlier, **NOTHING_LEARNED).manifest()
    assert manifest.memory_format == earlier.manifest().memory_format
    kept = manifest.kept_format
    assert kept is not None
    assert kept.of == "small@1"
    assert kept.users >= 100
    assert kept.ndcg_at_10_own == kept.ndcg_at_10_kept > 0
    assert manifest.config["keep_memory_format"] is True


def test_a_format_is_not_kept_if_memories_are_read_worse_and_both_figures_are_said(
    earlier: ModelVersion, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_format, "too_much_worse", lambda own, old: own == old)
    with caplog.at_level(logging.WARNING):
        manifest = _warm(tmp_path, earlier, **NOTHING_LEARNED).manifest()
    assert manifest.kept_format is None
    assert manifest.memory_format.endswith(manifest.weights_sha256[:12])
    (said,) = [record.getMessage() for record in caplog.records if "memory format" in record.getMessage()]
    assert said.startswith("the memory format of small@1 is not kept: on ")
    found = re.search(r"NDCG@10 is (0\.\d{4}) with memories of its own and (0\.\d{4}) with those of small@1", said)
    assert found is not None
    assert found[1] == found[2] != "0.0000"


@pytest.mark.parametrize(
    ("own", "old", "refused"),
    [
        (0.1000, 0.1000, False),
        (0.1000, 0.1500, False),
        (0.1000, 0.0981, False),  # 0.0019
        (0.1000, 0.0979, True),
        (0.4000, 0.3930, False),  # 1.75 %
        (0.4000, 0.3910, True),
        (0.0100, 0.0085, False),
        (0.0100, 0.0075, True),
        (0.0, 0.0, False),
    ],
)
def test_a_drop_is_too_large_if_it_is_so_by_itself_and_as_a_share(own: float, old: float, refused: bool) -> None:
    assert kept_format.too_much_worse(own, old) is refused


def test_the_oldest_version_of_a_format_is_what_memories_are_measured_of(
    earlier: ModelVersion, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    second = _warm(Path(earlier.uri).parent.parent, earlier, **NOTHING_LEARNED)
    third = _warm(Path(earlier.uri).parent.parent, second, **NOTHING_LEARNED)
    kept = third.manifest().kept_format
    assert kept is not None
    assert (kept.of, third.manifest().memory_format) == ("small@1", earlier.manifest().memory_format)
    # Without the first version its memories cannot be made.
    with caplog.at_level(logging.WARNING):
        alone = _warm(tmp_path, third, **NOTHING_LEARNED)
    assert alone.manifest().kept_format is None
    assert "the version that began the format cannot be read: " in caplog.text


def test_too_few_users_say_too_little(
    earlier: ModelVersion, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_format, "FEWEST_USERS", 1_000)
    with caplog.at_level(logging.WARNING):
        assert _warm(tmp_path, earlier, **NOTHING_LEARNED).manifest().kept_format is None
    assert "users of the validation part have a memory, and at least 1000 are needed to compare" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"segment_length": 11}, "its segment length is 10, that of this training is 11"),
        ({"slots": 3}, "its shape is 2x16, that of this training is 3x16"),
        ({"kind": "tok-serial-o"}, "its kind is rec2pm-o, that of this training is tok-serial-o"),
    ],
)
def test_memories_of_another_form_are_refused_before_any_time_is_spent(
    earlier: ModelVersion, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeInvalid, match="the memory format of small@1 cannot be kept: ") as caught:
        _warm(tmp_path, earlier, **changed)
    assert message in str(caught.value)


def test_a_training_that_keeps_a_format_is_not_resumed_as_one_that_does_not(
    earlier: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(kept_format, "kept", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _warm(tmp_path, earlier, max_epochs=1)
    with pytest.raises(TrainingUnfinished, match="keep_memory_format was True and is None"):
        run(tmp_path, LOG, how={"start_from": earlier, "unfinished": "resume"}, max_epochs=1)
    version = run(tmp_path, LOG, how={"start_from": earlier, "keep_format": True, "unfinished": "resume"}, max_epochs=1)
    assert version.manifest().config["keep_memory_format"] is True


@pytest.mark.parametrize(("kind", "backbone"), [("rec2pm-o", "overlap"), ("full", "pos_time"), ("kv-mask-a", "sasrec")])
def test_memories_of_another_version_are_read_as_a_worker_reads_them(tmp_path: Path, kind: str, backbone: str) -> None:
    """Every target against two runtimes, one user at a time: one folds, the other reads."""
    config = tiny.config(kind, backbone)
    reader, writer = (Runtime.load(tiny.add(tmp_path, config=config, seed=seed).uri) for seed in (0, 1))
    L, V = reader.segment_length, reader.manifest.n_items
    rng = np.random.default_rng(0)
    lengths = np.array([L + 2, 2 * L, 3 * L + 5, 2 * L + 2, 4 * L])
    rows = [rng.permutation(V)[:n] + 1 for n in lengths]
    rows[2][3] = rows[3][20] = V + 1
    start = np.concatenate([[0], np.cumsum(lengths)])
    times = 1_700_000_000_000 + 86_400_000 * np.arange(start[-1]) ** 2
    row_before = np.concatenate([[0], rng.permutation(V) + 1, [V + 1]])  # the other catalogue has another order
    expected = np.zeros((len(rows), 2))
    for i, history in enumerate(rows):
        past, when = history[:-1], times[start[i] : start[i + 1] - 1]
        for j, (folder, seen) in enumerate(((reader, past), (writer, row_before[past]))):
            memory = np.zeros((1, reader.state_floats), np.float32)
            for h in range(len(past) // L):
                here = slice(h * L, (h + 1) * L)
                memory = folder.fold(memory, seen[None, here], when[None, here] if folder.uses_time else None).memory
            working = past[len(past) // L * L :]
            new = when[None, -len(working) :] if reader.uses_time else None
            ranked = reader.recommend(memory, working[None], np.array([len(working)]), 10, past[None], new)
            if j == 0:
                history[-1] = ranked.rows[0, 2 + i]  # a hit somewhere in the list
            found = np.flatnonzero(ranked.rows[0] == history[-1])
            expected[i, j] = 1 / np.log2(found[0] + 2) if len(found) else 0.0
    data = dataset.Dataset(
        tuple(tiny.IDS),
        tiny.popularity().numpy(),
        np.concatenate(rows),
        start,
        np.zeros(len(rows), np.int64),
        0,
        0,
        times,
    )
    targets = validation.Targets(np.arange(len(rows)), lengths - 1)
    found = kept_format.gains(
        tiny.serving(config=config), tiny.serving(seed=1, config=config), data, row_before, targets
    )
    np.testing.assert_allclose(np.stack(found, 1), expected)
    assert (expected[:, 0] != expected[:, 1]).any()


def test_rows_of_an_earlier_catalogue_are_found_by_text() -> None:
    data = dataset.Dataset(("b", 42, "new"), *[np.zeros(1)] * 4, 0, 0)  # type: ignore[arg-type]
    assert kept_format.rows_before(data, ("a", "b", "42")).tolist() == [0, 2, 3, 4, 4]


def test_targets_with_a_memory_have_a_fold_and_a_working_memory(earlier: ModelVersion) -> None:
    data = dataset.load(LOG.lazy(), min_item_count=1)
    chosen = validation.choose(data, np.random.default_rng(0), 10_000, 10, with_memory=True)
    every = validation.choose(data, np.random.default_rng(0), 10_000, 10)
    wanted = {(u, p) for u, p in zip(every.user.tolist(), every.position.tolist(), strict=True) if p > 10 and p % 10}
    assert {*zip(chosen.user.tolist(), chosen.position.tolist(), strict=True)} == wanted
    assert len(wanted) > 100
    assert torch.get_num_threads() == 1
