"""From the files of a replay to the figures of its report."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.errors import EvaluationImpossible
from model.evaluation import significance
from model.evaluation.replay import baselines
from model.evaluation.replay.divisions import DIVISIONS, Division, window_ms
from model.evaluation.replay.files import Ranking, Replay
from model.evaluation.replay.found import (
    Accuracy,
    Against,
    Beyond,
    Cost,
    Counts,
    Part,
    PerUser,
    Ranked,
    Unknown,
    Window,
)
from model.evaluation.replay.measures import CUTS, HR, MRR, NDCG, UNIT, WORTH, named, sums
from model.evaluation.replay.measures import worth as worth_of
from model.log import Log
from model.log.facts import ties

Values = NDArray[np.float64]

_SHORT = (HR, NDCG, MRR)


def counted(replay: Replay) -> tuple[Counts, dict[str, tuple[int, int]]]:
    """How many interactions count, and for each model how many have no list, and how many it was trained on.

    Raises:
        EvaluationImpossible: no interaction has a list of every model.
    """
    listed = pl.all_horizontal(each.rank.is_not_null() for each in replay.models)
    good = listed & ~replay.leaks
    log = _one(
        replay.log.select(
            pl.len().alias("interactions"),
            pl.col("user_id").n_unique().alias("users"),
            pl.col("item_id").n_unique().alias("items"),
            pl.col("timestamp").min().alias("from_ms"),
            pl.col("timestamp").max().alias("until_ms"),
        )
    )
    row = _one(
        replay.table.select(
            pl.len().alias("asked"),
            (~listed).sum().alias("without_list"),
            (listed & replay.leaks).sum().alias("leaked"),
            good.sum().alias("scored"),
            pl.col("user_id").filter(good).n_unique().alias("scored_users"),
            (good & (pl.col("had") > 0)).sum().alias("repeated"),
            *(each.rank.is_null().sum().alias(f"{each.prefix}none") for each in replay.models),
            *(
                (listed & each.of("leak").fill_null(False)).sum().alias(f"{each.prefix}leaked")
                for each in replay.models
            ),
        )
    )
    if not row["scored"] and not row["leaked"]:
        raise EvaluationImpossible(
            f"none of {row['asked']:,} interactions can be scored, because no user had a list of every model before one. "
            "A list predicts the user's next interaction: the replay needs users with two, and lists often enough"
        )
    of_models = {each.name: (row.pop(f"{each.prefix}none"), row.pop(f"{each.prefix}leaked")) for each in replay.models}
    tied = ties(Log(replay.log, log["interactions"], 0, {}, ()))
    return Counts(**log, tied=tied, **row), of_models


def per_user(rows: pl.LazyFrame, rankings: Sequence[Ranking]) -> pl.DataFrame:
    """A row for each user with the number of their interactions `n`, and sums of the metrics, in units."""
    return rows.group_by("user_id").agg(sums(rankings, _SHORT)).collect(engine="streaming").sort("user_id")


def ranked(
    replay: Replay,
    rows: pl.LazyFrame,
    users: pl.DataFrame,
    counts: Counts,
    of_models: dict[str, tuple[int, int]],
    seed: int,
) -> list[Ranked]:
    """The figures of all rankings over the rows that count."""
    rankings = replay.rankings
    total = _one(rows.select(sums(rankings, list(WORTH))))
    leaking = _one(replay.scored.select(sums(rankings, (HR, NDCG))))
    unknown = _one(rows.select(e for each in rankings for e in _without_unknown(each)))
    accuracy, of_users = _over_users(users, rankings, seed)
    against = _against_first(users, rankings, seed)
    beyond = _beyond(replay, rows, counts)
    parts = _parts(rows, rankings)
    windows = _windows(rows, rankings, counts)
    made = []
    for at, each in enumerate(rankings):
        without_list, leaked = of_models.get(each.name, (0, 0))
        known = max(1, unknown[f"{each.prefix}known"])
        made.append(
            Ranked(
                name=each.name,
                is_model=each.is_model,
                description="" if each.is_model else baselines.DESCRIPTIONS[each.name],
                accuracy=Accuracy(
                    hr={k: _share(total, named(each, f"hr@{k}"), total["n"]) for k in CUTS},
                    ndcg={k: _share(total, named(each, f"ndcg@{k}"), total["n"]) for k in CUTS},
                    mrr=_share(total, named(each, MRR), total["n"]),
                    hr_at_10=accuracy[at][0],
                    ndcg_at_10=accuracy[at][1],
                ),
                per_user=of_users[at],
                beyond=beyond[at],
                against_first=against[at],
                without_list=without_list,
                leaked=leaked,
                with_leaks={
                    "hr_at_10": _share(leaking, named(each, HR), leaking["n"]),
                    "ndcg_at_10": _share(leaking, named(each, NDCG), leaking["n"]),
                },
                unknown=Unknown(
                    interactions=total["n"] - unknown[f"{each.prefix}known"],
                    hr_at_10_without=_share(unknown, named(each, HR), known),
                    ndcg_at_10_without=_share(unknown, named(each, NDCG), known),
                ),
                by=parts[at],
                windows=windows[at],
                cost=_cost(replay.cost(each)) if each.is_model else None,
            )
        )
    return made


def _one(frame: pl.LazyFrame) -> dict[str, Any]:
    return frame.collect(engine="streaming").row(0, named=True)


def _share(row: dict[str, Any], name: str, of: int) -> float:
    return float((row[name] or 0) / UNIT / of)


def _without_unknown(ranking: Ranking) -> list[pl.Expr]:
    known = ranking.of("known").fill_null(False) if ranking.is_model else pl.col("seen") > 0
    return [
        known.sum().alias(f"{ranking.prefix}known"),
        *(worth_of(ranking, metric).filter(known).sum().alias(named(ranking, metric)) for metric in (HR, NDCG)),
    ]


def _over_users(
    users: pl.DataFrame, rankings: Sequence[Ranking], seed: int
) -> tuple[list[list[significance.Estimate]], list[PerUser]]:
    """HR@10 and NDCG@10 of interactions, and the means of users, with intervals over users."""
    weights = users["n"].to_numpy().astype(np.float64)
    added = np.stack([_column(users, each, metric) for each in rankings for metric in _SHORT], axis=1)
    means = added / weights[:, None]
    over_rows = significance.bootstrap(added, weights, seed)
    over_users = significance.bootstrap(means, np.ones(len(weights)), seed)
    medians = np.median(means, axis=0)
    width = len(_SHORT)
    return (
        [over_rows[at : at + 2] for at in range(0, len(over_rows), width)],
        [
            PerUser(
                hr_at_10=over_users[at],
                ndcg_at_10=over_users[at + 1],
                mrr=over_users[at + 2],
                hr_at_10_median=float(medians[at]),
                ndcg_at_10_median=float(medians[at + 1]),
                mrr_median=float(medians[at + 2]),
            )
            for at in range(0, len(over_users), width)
        ],
    )


def _against_first(users: pl.DataFrame, rankings: Sequence[Ranking], seed: int) -> list[Against | None]:
    n = users["n"].to_numpy().astype(np.float64)
    gains = np.stack([_column(users, each, NDCG) / n for each in rankings], axis=1)
    differences = gains[:, 1:] - gains[:, :1]
    if not differences.shape[1]:
        return [None]
    estimates = significance.bootstrap(differences, np.ones(len(n)), seed)
    found = []
    for at, estimate in enumerate(estimates):
        # In units: equal sums are equal, whatever floating-point division makes of them.
        sign = np.sign(users[named(rankings[at + 1], NDCG)].to_numpy() - users[named(rankings[0], NDCG)].to_numpy())
        wins, losses = int((sign > 0).sum()), int((sign < 0).sum())
        p = significance.t_test(differences[:, at])
        sign_p = significance.sign_test(wins, losses)
        found.append(Against(len(n), estimate, p, p, wins, len(n) - wins - losses, losses, sign_p))
    corrected = significance.holm([each.p for each in found])
    return [None, *(replace(each, p_holm=p) for each, p in zip(found, corrected, strict=True))]


def _column(users: pl.DataFrame, ranking: Ranking, metric: str) -> Values:
    return users[named(ranking, metric)].to_numpy().astype(np.float64) / UNIT


def _beyond(replay: Replay, rows: pl.LazyFrame, counts: Counts) -> list[Beyond]:
    """Coverage and novelty of lists, and NDCG@10 without the weight of popular items."""
    known = replay.log.group_by("item_id").agg((pl.col("had") == 0).sum().cast(pl.Int64).alias("users"))
    known = known.collect(engine="streaming").lazy()
    targets = rows.group_by("item_id").agg(sums(replay.rankings, (NDCG,))).collect(engine="streaming").sort("item_id")
    n = targets["n"].to_numpy().astype(np.float64)
    first, third = np.quantile(n, [0.25, 0.75])
    # RecTools draws so many interactions of an item; this is what the draw gives on average.
    capped = np.minimum(1.0, max(1, int(third + 1.5 * (third - first))) / n)
    found = []
    for ranking in replay.rankings:
        gains = targets[named(ranking, NDCG)].to_numpy() / UNIT
        shown = replay.lists(ranking)
        covered = coverage = novelty = None
        if shown is not None:
            listed = shown.join(known, on="item_id", how="left").collect(engine="streaming").sort("item_id")
            times = listed["lists"].to_numpy().astype(np.float64)
            users = listed["users"].fill_null(0).to_numpy()
            covered = len(listed)
            coverage = float((users > 0).sum() / counts.items)
            information = -np.log2(np.maximum(users, 1) / counts.users)
            novelty = float((times * information).sum() / times.sum()) if len(times) else 0.0
        found.append(
            Beyond(
                covered,
                coverage,
                novelty,
                float((gains / n).mean()),
                float((capped * gains).sum() / (capped * n).sum()),
            )
        )
    return found


def _parts(rows: pl.LazyFrame, rankings: Sequence[Ranking]) -> list[dict[str, list[Part]]]:
    """For each ranking, its parts by name of the division."""
    found: list[dict[str, list[Part]]] = [{} for _ in rankings]
    models = [each for each in rankings if each.is_model]
    simple = [each for each in rankings if not each.is_model]
    for division in DIVISIONS:
        groups = [([each, *(simple if at == 0 else [])], each) for at, each in enumerate(models)]
        for of, by in groups if division.own else [(list(rankings), models[0])]:
            numbered = rows.group_by(division.number(by).alias("part")).agg(sums(of, (HR, NDCG)))
            frame = numbered.collect(engine="streaming").drop_nulls("part").sort("part")
            for each in of:
                found[rankings.index(each)][division.name] = _of_division(frame, division, each)
    return found


def _of_division(frame: pl.DataFrame, division: Division, ranking: Ranking) -> list[Part]:
    return [
        Part(
            label=division.labels[row["part"]],
            least=division.least[row["part"]],
            interactions=row["n"],
            hr_at_10=_share(row, named(ranking, HR), row["n"]),
            ndcg_at_10=_share(row, named(ranking, NDCG), row["n"]),
        )
        for row in frame.iter_rows(named=True)
    ]


def _windows(rows: pl.LazyFrame, rankings: Sequence[Ranking], counts: Counts) -> list[list[Window]]:
    width = window_ms(counts.from_ms, counts.until_ms)
    of_windows = rows.group_by((pl.col("timestamp") // width).alias("window")).agg(sums(rankings, (HR, NDCG)))
    frame = of_windows.collect(engine="streaming").sort("window")
    n = frame["n"].to_numpy().astype(np.float64)
    starts = (frame["window"] * width).to_list()
    found = []
    for ranking in rankings:
        hits, gains = (_column(frame, ranking, metric) for metric in (HR, NDCG))
        figures = (hits / n, gains / n, np.cumsum(hits) / np.cumsum(n), np.cumsum(gains) / np.cumsum(n))
        found.append(
            [
                Window(start, int(count), *(float(value) for value in row))
                for start, count, *row in zip(starts, n.tolist(), *(each.tolist() for each in figures), strict=True)
            ]
        )
    return found


def _cost(told: dict[str, Any] | None) -> Cost | None:
    if told is None:
        return None

    def per(amount: float, of: float, scale: float = 1.0) -> float | None:
        return scale * amount / of if of else None

    return Cost(
        ms_per_list=per(told["list_seconds"], told["lists"], 1_000),
        ms_per_fold=per(told["fold_seconds"], told["folds"], 1_000),
        bytes_per_user=per(told["state_bytes"], told["users"]) if "state_bytes" in told else None,
        interactions_per_s=per(told["interactions"], told["seconds"]),
        lists=told["lists"],
        folds=told["folds"],
        users=told["users"],
    )
