"""Next-item metrics as functions of ranks: one target per user, rank 1 the best, infinity for a target that is not in
the list.

With one relevant item, HR@k is recall@k, and NDCG@k = 1 / log2(rank + 1) for ranks up to k (docs/model-spec.md,
"Evaluation protocol").
"""

import numpy as np
from numpy.typing import NDArray

CUTS = (1, 10, 50, 200)
"""The k of HR@k and NDCG@k."""

Values = NDArray[np.float64]


def hits(ranks: Values, k: int) -> Values:
    """1 where the target is among the first k, else 0."""
    return (ranks <= k).astype(np.float64)


def gains(ranks: Values, k: int) -> Values:
    """NDCG@k of each user."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def reciprocals(ranks: Values) -> Values:
    """The reciprocal rank of each user, over the whole list. Their mean is the MRR."""
    return 1.0 / ranks
