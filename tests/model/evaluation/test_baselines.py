"""Both baselines against counting by hand."""

import itertools
from collections import Counter

import numpy as np
import polars as pl
import pytest

from model.evaluation.baselines import baselines
from model.evaluation.holdout import Holdout, cut


@pytest.fixture(scope="module", params=["last-out", "time"])
def holdout(request: pytest.FixtureRequest) -> Holdout:
    rng = np.random.default_rng(3)
    n = 900
    log = pl.DataFrame(
        {"user_id": rng.integers(0, 60, n), "item_id": rng.zipf(1.4, n) % 40, "timestamp": rng.integers(0, 500, n)}
    )
    return cut(log.lazy(), request.param, 0.8)


def _by_hand(holdout: Holdout, last: bool, user: int) -> list[int]:
    histories = [holdout.history(u).tolist() for u in range(len(holdout.start))]
    popular = Counter(item for history in histories for item in history)
    mine = histories[user]
    follows = Counter(
        b for history in histories for a, b in itertools.pairwise(history) if last and mine and a == mine[-1]
    )
    by_id = {item: holdout.item_ids[item] for item in popular}
    return sorted((i for i in popular if i not in mine), key=lambda i: (-follows[i], -popular[i], by_id[i]))


@pytest.mark.parametrize("name", ["popularity", "last item"])
def test_a_baseline_is_what_counting_says(holdout: Holdout, name: str) -> None:
    baseline = next(each for each in baselines(holdout) if each.name == name)
    for user in range(len(holdout.start)):
        want = _by_hand(holdout, name == "last item", user)
        history = holdout.history(user)
        for target in range(len(holdout.item_ids)):
            listed = baseline.ask(history, target)
            assert listed.first.tolist() == want[:10]
            assert listed.rank == (want.index(target) + 1 if target in want else np.inf)
