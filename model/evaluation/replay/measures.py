"""Metrics as sums over rows of a replay. What a rank is worth is defined in `ranking_metrics` alone.

Sums are of integers, `UNIT` for 1: they do not depend on the order of rows, so a report does not depend on threads.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.evaluation import ranking_metrics
from model.evaluation.replay.baselines import LISTED
from model.evaluation.replay.files import Ranking

UNIT: Final = 2**32
"""Sums of two billion rows fit into 64 bits, and a row is exact to 10 digits."""

CUTS: Final = (1, 5, 10, 20, 50, 100)
"""The k of HR@k and NDCG@k."""

HR, NDCG, MRR = "hr@10", "ndcg@10", "mrr"
_METRICS: Final[Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    **{f"hr@{k}": partial(ranking_metrics.hits, k=k) for k in CUTS},
    **{f"ndcg@{k}": partial(ranking_metrics.gains, k=k) for k in CUTS},
    MRR: ranking_metrics.reciprocals,
}
WORTH: Final[Mapping[str, NDArray[np.int64]]] = {
    name: np.append(0, np.rint(UNIT * metric(np.arange(1.0, LISTED + 1)))).astype(np.int64)
    for name, metric in _METRICS.items()
}
"""What each rank is worth by each metric, in units: index 0 is an item that is not in the list."""


def worth(ranking: Ranking, metric: str) -> pl.Expr:
    """The metric of each row, in units. A missing list counts like one without the item."""
    values = WORTH[metric]
    return (
        ranking.rank.fill_null(0)
        .cast(pl.Int16)
        .replace_strict(pl.Series(range(len(values)), dtype=pl.Int16), pl.Series(values), return_dtype=pl.Int64)
    )


def sums(rankings: Sequence[Ranking], metrics: Sequence[str]) -> list[pl.Expr]:
    """Aggregations: the number of rows as `n`, and the sum of each metric of each ranking, in units, as `named`."""
    return [
        pl.len().cast(pl.Int64).alias("n"),
        *(worth(each, metric).sum().alias(named(each, metric)) for each in rankings for metric in metrics),
    ]


def named(ranking: Ranking, metric: str) -> str:
    return f"{ranking.prefix}{metric}"
