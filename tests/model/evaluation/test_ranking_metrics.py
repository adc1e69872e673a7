"""Metrics of ranks agree with torchmetrics' on the lists that have these ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_normalized_dcg, retrieval_reciprocal_rank

from model.evaluation import ranking_metrics

V = 300


@settings(max_examples=30, deadline=None)
@given(rank=st.integers(1, V))
def test_a_users_metrics_are_those_of_torchmetrics(rank: int) -> None:
    scores = torch.arange(V, 0, -1).float()
    relevant = torch.zeros(V, dtype=torch.int64)
    relevant[rank - 1] = 1
    ranks = np.array([float(rank)])
    for k in ranking_metrics.CUTS:
        assert ranking_metrics.hits(ranks, k)[0] == retrieval_hit_rate(scores, relevant, top_k=k).item()
        assert ranking_metrics.gains(ranks, k)[0] == pytest.approx(
            retrieval_normalized_dcg(scores, relevant, top_k=k).item(), abs=1e-5
        )
    assert ranking_metrics.reciprocals(ranks)[0] == pytest.approx(
        retrieval_reciprocal_rank(scores, relevant).item(), abs=1e-6
    )


def test_a_target_that_is_in_no_list_counts_as_nothing() -> None:
    missed = np.array([np.inf, 1.0])
    for values in (
        ranking_metrics.hits(missed, 200),
        ranking_metrics.gains(missed, 200),
        ranking_metrics.reciprocals(missed),
    ):
        assert values.tolist() == [0.0, 1.0]


def test_the_cut_itself_is_inside() -> None:
    assert ranking_metrics.hits(np.array([10.0, 11.0]), 10).tolist() == [1.0, 0.0]
    assert ranking_metrics.gains(np.array([10.0, 11.0]), 10).tolist() == pytest.approx([1 / np.log2(11), 0.0])
