import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.evaluation import offline, ranking_metrics, user_groups
from model.evaluation.compare import Evaluation, EvaluationOptions, evaluate
from model.evaluation.holdout import cut
from model.version.manifest import Training
from model.version.registry import ModelVersion, Registry
from model.version.runtime import Runtime
from tests.model import tiny

L, V = tiny.L, tiny.V


def _log() -> pl.DataFrame:
    """Users with up to 400 interactions, more than README-mode sees; some items no model has; the last user has one
    interaction.
    """
    rng = np.random.default_rng(6)
    lengths = [*rng.integers(2, 90, 30), 400, 260, L + 1, 1]
    user = np.repeat(np.arange(len(lengths)), lengths)
    items = [f"item-{i}" for i in rng.integers(1, V + 15, len(user))]
    return pl.DataFrame({"user_id": user, "item_id": items, "timestamp": rng.integers(0, 10_000, len(user)) * 1_000})


LOG = _log()
LENGTHS = LOG.group_by("user_id").len().sort("user_id")["len"].to_numpy().astype(np.int64)


def _add(root: Path, name: str, ids: list[str], training: Training | None, seed: int) -> ModelVersion:
    serving = tiny.serving(seed)
    return Registry(root).add(serving, replace(tiny.manifest(serving, name), training=training), ids)


def _training(until_ms: int, split: str) -> Training:
    return Training(
        log="log.parquet",
        rows=1,
        users=1,
        items=V,
        from_ms=0,
        until_ms=until_ms,
        split=split,
        seed=0,
        epochs=1,
        best_epoch=1,
        wall_s=1.0,
        samples=1,
    )


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[ModelVersion]:
    """The second knows other items, and names them in another order."""
    root = tmp_path_factory.mktemp("registry")
    return [
        _add(root, "first", tiny.IDS, _training(5_000_000, "by time: the first half"), 0),
        _add(
            root,
            "second",
            [f"item-{i}" for i in range(V + 3, 3, -1)],
            _training(9_999_000, "last out: of the first 100% of the log"),
            1,
        ),
        _add(root, "silent", tiny.IDS, None, 2),
    ]


def _evaluate(versions: list[ModelVersion], **options: object) -> Evaluation:
    return evaluate(
        LOG.lazy(), versions, EvaluationOptions(**options), log_name="logs/log.parquet", progress=lambda *_: None
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(versions: list[ModelVersion]) -> Evaluation:
    """In several portions, as many users are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline, "USERS", 8)
        return _evaluate(versions)


@pytest.mark.parametrize(("at", "window"), [(0, None), (1, 200)])
def test_ranks_are_those_of_asking_one_user_at_a_time(
    found: Evaluation, versions: list[ModelVersion], at: int, window: int | None
) -> None:
    """Every hit of the models, recomputed from the log: fold the window from its first item, leave out what is in it,
    find the target.
    """
    assert found.modes[at].window == window
    rows_of = LOG.with_row_index().sort("timestamp", "index")
    for version, ranking in zip(versions, found.modes[at].rankings, strict=False):
        runtime = Runtime.load(version.folder)
        ranks = []
        for user in range(LOG["user_id"].max() + 1):  # type: ignore[operator]
            items = rows_of.filter(pl.col("user_id") == user)["item_id"].to_list()
            known = {item: row for row, item in enumerate(runtime.item_ids, start=1)}
            rows = np.array([known.get(item, V + 1) for item in items], np.int64)
            history = rows[:-1] if window is None else rows[:-1][-window:]
            states = offline.fold(runtime, [history])
            listed = offline.rank(runtime, states, [history], V).rows[0].tolist()
            seen = set(history.tolist())
            listed = [row for row in listed if row not in seen]
            ranks.append(listed.index(rows[-1]) + 1.0 if rows[-1] in listed else np.inf)
        told = np.array(ranks)
        for k in ranking_metrics.CUTS:
            assert ranking.hr[k].value == pytest.approx(ranking_metrics.hits(told, k).mean())
            assert ranking.ndcg[k].value == pytest.approx(ranking_metrics.gains(told, k).mean())
        assert ranking.mrr.value == pytest.approx(ranking_metrics.reciprocals(told).mean())
        for group, part in zip(ranking.by_history, user_groups.by_history(LENGTHS - 1), strict=True):
            assert group.ndcg_at_10.value == pytest.approx(ranking_metrics.gains(told[part.users], 10).mean())


def test_a_model_that_goes_by_time_is_told_when_the_target_happens_in_readme_mode_alone(tmp_path: Path) -> None:
    """One log, and the same with every target a year later: in the stream nobody could know."""
    version = tiny.add(tmp_path, config=tiny.config("full", "pos_time"))
    plain = tiny.add(tmp_path, "plain", config=tiny.config("full", "pos"))
    last = pl.col("timestamp") == pl.col("timestamp").max().over("user_id")
    log = LOG.with_columns(timestamp=pl.int_range(pl.len()) * 60_000)
    delayed = log.with_columns(
        timestamp=pl.when(last).then(pl.col("timestamp") + 31_536_000_000).otherwise("timestamp")
    )
    soon, late = (
        evaluate(each.lazy(), [version, plain], EvaluationOptions(), log_name="x", progress=lambda *_: None)
        for each in (log, delayed)
    )
    (stream, readme), (stream_late, readme_late) = (
        [[ranking.mrr.value for ranking in mode.rankings[:2]] for mode in each.modes] for each in (soon, late)
    )
    assert stream == stream_late
    assert readme[0] != readme_late[0]
    assert readme[1] == readme_late[1]
    assert [subject.uses_time for subject in soon.subjects] == [True, False]
    assert soon.subjects[0].probes == late.subjects[0].probes


def test_readme_mode_ranks_what_is_older_than_its_window(versions: list[ModelVersion]) -> None:
    """The target is an item of long ago: stream-mode leaves it out, README-mode can hit it."""
    items = ["item-7", *(f"item-{10 + i % 40}" for i in range(300)), "item-7"]
    other = [f"item-{1 + i % 50}" for i in range(30)]
    log = pl.DataFrame(
        {"user_id": [1] * 302 + [2] * 30, "item_id": items + other, "timestamp": [*range(302), *range(30)]}
    )
    found = evaluate(log.lazy(), versions[:1], EvaluationOptions(), log_name="x", progress=lambda *_: None)
    assert found.asked.repeated == 1
    stream, readme = (mode.rankings[0].by_history for mode in found.modes)
    assert (stream[-1].label, stream[-1].hr_at_10.value) == ("200–499", 0.0)
    long_ago = {mode.name: mode.rankings[1].mrr.value for mode in found.modes}  # popularity
    assert long_ago["readme"] > long_ago["stream"]
    assert readme[-1].targets == 1


def test_all_are_asked_about_the_same_targets(found: Evaluation) -> None:
    rankings = [ranking for mode in found.modes for ranking in mode.rankings]
    assert {ranking.targets for ranking in rankings} == {found.asked.targets} == {34}
    assert [ranking.name for ranking in found.modes[0].rankings] == [
        "first@1",
        "second@1",
        "silent@1",
        "popularity",
        "last item",
    ]
    assert found.asked.sha256 == cut(LOG.lazy(), "last-out").target_sha256()
    assert found.asked.without_history == 1
    for ranking in rankings:
        assert sum(group.targets for group in ranking.by_history) == 34
        assert 0 < ranking.covered <= ranking.catalogue


def test_targets_outside_a_catalogue_are_counted_and_missed(found: Evaluation, versions: list[ModelVersion]) -> None:
    last = LOG.with_row_index().sort("timestamp", "index").group_by("user_id").last()["item_id"].to_list()
    for subject, version in zip(found.subjects, versions, strict=True):
        known = set(Runtime.load(version.folder).item_ids)
        assert subject.outside == sum(item not in known for item in last)
        ranking = next(each for each in found.modes[0].rankings if each.name == subject.reference)
        assert ranking.hr[200].value * 34 <= 34 - subject.outside
    assert found.subjects[0].outside != found.subjects[1].outside


def test_a_model_trained_on_the_targets_is_found_out(found: Evaluation, versions: list[ModelVersion]) -> None:
    """Trained by time until 5,000 s: what is no later. Trained on all but everybody's last: nothing of these. No
    training: not known.
    """
    last_ms = LOG.group_by("user_id").agg(pl.col("timestamp").max())["timestamp"]
    assert [subject.saw for subject in found.subjects] == [int((last_ms <= 5_000_000).sum()), 0, None]
    assert found.subjects[0].saw
    by_time = _evaluate(versions, split="time", at=0.5)
    holdout = cut(LOG.lazy(), "time", 0.5)
    is_last = holdout.end[holdout.asked] == np.append(holdout.start[1:], len(LOG))[holdout.asked] - 1
    assert by_time.subjects[1].saw == int((~is_last & (holdout.target_ms <= 9_999_000)).sum()) > 0


def test_models_are_compared_with_the_first_and_corrected_for_how_many_there_are(found: Evaluation) -> None:
    for mode in found.modes:
        pairs = [ranking.against_first for ranking in mode.rankings]
        assert pairs[0] is None
        for ranking, pair in zip(mode.rankings[1:], pairs[1:], strict=True):
            assert pair is not None
            assert pair.ndcg_at_10.value == pytest.approx(ranking.ndcg[10].value - mode.rankings[0].ndcg[10].value)
            assert pair.only_second - pair.only_first == round(
                34 * (ranking.hr[10].value - mode.rankings[0].hr[10].value)
            )
            assert pair.ndcg_p <= pair.ndcg_p_holm <= 1
        least = min((pair for pair in pairs if pair is not None), key=lambda pair: pair.ndcg_p)
        assert least.ndcg_p_holm == pytest.approx(min(1.0, 4 * least.ndcg_p))


def test_groups_follow_each_models_grid_within_the_window(found: Evaluation) -> None:
    for mode in found.modes:
        seen = LENGTHS - 1 if mode.window is None else np.minimum(LENGTHS - 1, mode.window)
        ranking = mode.rankings[0]
        assert {group.label: group.targets for group in ranking.by_folds} == {
            p.label: len(p.users) for p in user_groups.by_folds(seen // L)
        }
        assert {group.label: group.targets for group in ranking.by_position} == {
            p.label: len(p.users) for p in user_groups.by_position(seen, L)
        }
        assert mode.rankings[-1].by_folds == []
    assert found.modes[0].rankings[0].by_folds != found.modes[1].rankings[0].by_folds


def test_progress_ends_where_it_said(versions: list[ModelVersion]) -> None:
    told: list[tuple[int, int]] = []
    evaluate(
        LOG.lazy(), versions[:2], EvaluationOptions(), log_name="x", progress=lambda done, of: told.append((done, of))
    )
    assert told[-1][0] == told[-1][1]
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(told))


def test_users_are_drawn_and_baselines_still_count_everybody(versions: list[ModelVersion], found: Evaluation) -> None:
    some = _evaluate(versions[:1], users=10, seed=3)
    assert (some.asked.targets, some.asked.users_in_log) == (10, 34)
    assert some.asked.sha256 != found.asked.sha256
    assert some.modes[0].rankings[1].catalogue == found.modes[0].rankings[-1].catalogue


def test_the_same_arguments_give_the_same_numbers(versions: list[ModelVersion]) -> None:
    assert _evaluate(versions[:1], users=20) == _evaluate(versions[:1], users=20)


@pytest.mark.parametrize("wrong", [{"at": 0.0}, {"at": 1.0}, {"users": 0}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        EvaluationOptions(**wrong)  # type: ignore[arg-type]
