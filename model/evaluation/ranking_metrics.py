"""Next-item metrics as functions of ranks: one target a user, rank 1 the best, infinity for a target that is not in the
list at all.

With one relevant item, HR@K is recall@K, and NDCG@K = 1 / log2(rank + 1) for ranks up to K (docs/model-spec.md,
"Evaluation protocol").
"""

import numpy as np
from numpy.typing import NDArray

CUTS = (1, 10, 50, 200)
"""The K of HR@K and NDCG@K."""

Values = NDArray[np.float64]


def hits(ranks: Values, k: int) -> Values:
    """1 where the target is among the first k, else 0."""
    return (ranks <= k).astype(np.float64)


def gains(ranks: Values, k: int) -> Values:
    """Each user's NDCG@k."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def reciprocals(ranks: Values) -> Values:
    """Each user's reciprocal rank, over the whole list; their mean is the MRR."""
    return 1.0 / ranks
