"""Which targets of an evaluation a model has seen in its training."""

import numpy as np

from model.evaluation.holdout import Holdout
from model.version.manifest import LAST_OUT, Manifest


def seen(manifest: Manifest, holdout: Holdout) -> int | None:
    """How many targets the model was trained on, if its manifest says so. A target of the same millisecond as the last
    interaction that it was trained on counts as seen.
    """
    training = manifest.training
    if training is None:
        return None
    known = holdout.target_ms <= training.until_ms
    if training.split.startswith(LAST_OUT):
        # Such a training never sees the last interaction of a user, however early it was.
        last = np.append(holdout.start[1:], len(holdout.items))[holdout.asked] - 1
        known &= holdout.end[holdout.asked] != last
    return int(known.sum())
