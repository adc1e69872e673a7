"""A log that one version predicts best: what each user did next is the first item of that version's list."""

import numpy as np
import polars as pl

from model.evaluation import offline
from model.version.runtime import Runtime

BEFORE = 9
"""Interactions of each user before the one that is predicted: so the newest tenth of the log are the targets."""


def predicted_by(runtime: Runtime, users: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    V = runtime.manifest.n_items
    histories = [rng.permutation(V)[:BEFORE] + 1 for _ in range(users)]
    first = offline.rank(runtime, offline.fold(runtime, histories), histories, 1).rows
    rows = np.concatenate([np.array(histories), first], axis=1)  # (users, BEFORE + 1)
    return pl.DataFrame(
        {
            "user_id": np.repeat([f"user-{number}" for number in range(users)], BEFORE + 1),
            "item_id": [str(runtime.item_ids[row - 1]) for row in rows.ravel().tolist()],
            "timestamp": np.tile(np.arange(BEFORE + 1), users) * 86_400_000 + 1_700_000_000_000,
        }
    )
