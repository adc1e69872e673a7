"""Whether a new version reads the memories that an earlier version wrote.

Weights decide what a memory means. A training that starts from a version moves them, so memories of the version are
read less well by the new one. How much less is measured before the new version may claim the memory format of the
version: the same targets are predicted from memories that the new version folded, and from memories that the earlier
one folded. Users of the earlier version then need no new memories.

The earlier version is the one that began the format, not the last one that kept it: the oldest memories of a format are
the ones that are furthest from the newest weights.
"""

import logging
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import ModelError, RecipeInvalid
from model.networks.serving import Ranker
from model.training import validation
from model.training.dataset import Dataset
from model.training.validation import CHUNK, LIST_LENGTH, Rows, Targets
from model.version import artifact
from model.version.manifest import KeptFormat
from model.version.registry import ModelVersion, Registry

logger = logging.getLogger(__name__)

MOST_TARGETS: Final = 10_000
FEWEST_USERS: Final = 100
"""With fewer users the figures say too little."""
LARGEST_DROP: Final = 0.002
LARGEST_SHARE: Final = 0.02
"""The format is not kept if NDCG@10 drops by more than both: this much, and this share of what own memories give."""
REFUSED: Final = (
    "the memory format of %s is not kept: %s. The new version has a format of its own, and workers make new memories from "
    "the kept segments"
)


def check_possible(ranker: Ranker, kind: str, start_from: ModelVersion) -> None:
    """Refuse what cannot be, before any time is spent on training.

    Raises:
        RecipeInvalid: the memories of the version have another form.
    """
    earlier, spec = start_from.manifest(), ranker.spec()
    shape = "x".join(map(str, ranker.initial_memory(1).shape[1:]))
    ours = {"kind": kind, "shape": shape, "segment_length": spec["segment_length"]}
    theirs = {
        "kind": earlier.kind,
        "shape": earlier.memory_format.split("/")[1],
        "segment_length": earlier.segment_length,
    }
    different = [
        f"its {name.replace('_', ' ')} is {theirs[name]}, that of this training is {ours[name]}"
        for name in ours
        if ours[name] != theirs[name]
    ]
    if different:
        raise RecipeInvalid(
            f"the memory format of {start_from.reference} cannot be kept: {'; '.join(different)}. Train without "
            "--keep-memory-format: workers then make new memories from the kept segments"
        )


def kept(ranker: Ranker, data: Dataset, registry: Registry, start_from: ModelVersion, seed: int) -> KeptFormat | None:
    """Measure whether a trained network reads the memories of a version's format, and say what was found.

    Args:
        ranker: the network as it will be served, on the CPU.
        data: loaded with `keep_rows` and the items of the version.
        registry: where the version that began the format is looked for.

    Returns:
        None if the network must have a memory format of its own; the log says why.
    """
    try:
        founder = _founder(registry, start_from)
        earlier = artifact.load(founder.uri, founder.sha256)
    except (ModelError, OSError) as error:
        logger.warning(REFUSED, start_from.reference, f"the version that began the format cannot be read: {error}")
        return None
    rng = np.random.default_rng(seed)
    targets = validation.choose(data, rng, MOST_TARGETS, earlier.manifest.segment_length, with_memory=True)
    users = len(np.unique(targets.user))
    if users < FEWEST_USERS:
        logger.warning(
            REFUSED,
            start_from.reference,
            f"{users} users of the validation part have a memory, and at least {FEWEST_USERS} are needed to compare",
        )
        return None
    own, old = (
        float(found.mean())
        for found in gains(ranker, earlier.program, data, rows_before(data, earlier.item_ids), targets)
    )
    found = (
        f"on {len(targets.user):,} interactions of {users:,} users, NDCG@10 is {own:.4f} with memories of its own and {old:.4f} "
        f"with those of {founder.reference}"
    )
    if too_much_worse(own, old):
        logger.warning(
            REFUSED, start_from.reference, f"{found}, a drop of more than {LARGEST_DROP} and {LARGEST_SHARE:.0%}"
        )
        return None
    logger.info("the memory format of %s is kept: %s", start_from.reference, found)
    return KeptFormat(of=founder.reference, users=users, ndcg_at_10_own=own, ndcg_at_10_kept=old)


def too_much_worse(own: float, old: float) -> bool:
    """Whether NDCG@10 drops too far from own memories to old ones for a format to be kept."""
    return own - old > max(LARGEST_DROP, LARGEST_SHARE * own)


def _founder(registry: Registry, start_from: ModelVersion) -> ModelVersion:
    earlier = start_from.manifest().kept_format
    return start_from if earlier is None else registry.resolve(earlier.of)


def rows_before(data: Dataset, item_ids_before: Any) -> NDArray[np.int64]:
    """The rows of a catalogue for the rows of a dataset, (V + 2,) int64; items that it lacks get its last row."""
    row_of = {str(item): row for row, item in enumerate(item_ids_before, start=1)}
    outside = len(item_ids_before) + 1
    return np.array([0, *(row_of.get(str(item), outside) for item in data.item_ids), outside], np.int64)


def gains(
    ranker: Ranker, earlier: Any, data: Dataset, row_before: NDArray[np.int64], targets: Targets
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG@10 of each target, (N,), read by the new network: from memories that it folded, and from memories that the
    earlier one folded.

    Args:
        earlier: a program or network of the same contract.
        row_before: the item rows of the earlier one, (V + 2,).
        targets: each with at least one fold and one item of working memory.
    """
    found = []
    for at in range(0, len(targets.user), CHUNK):
        chunk = slice(at, at + CHUNK)
        found.append(_ranks(ranker, earlier, data, row_before, targets.user[chunk], targets.position[chunk]))
    ranks = np.concatenate(found)
    return validation.gains_of(ranks[:, 0]), validation.gains_of(ranks[:, 1])


def _ranks(
    ranker: Ranker, earlier: Any, data: Dataset, row_before: NDArray[np.int64], user: Rows, position: Rows
) -> Rows:
    """(B, 2): the rank of each target from own memories and from earlier ones."""
    L = ranker.spec()["segment_length"]
    histories = [data.history(u)[: p + 1].astype(np.int64) for u, p in zip(user, position, strict=True)]
    items = torch.from_numpy(_padded([history[:-1] for history in histories]))
    times = None
    if ranker.spec()["uses_time"]:
        when = [data.history_ms(u)[:p] for u, p in zip(user, position, strict=True)]
        times = torch.from_numpy(_padded(when))
    target = np.array([history[-1] for history in histories])
    folds = torch.from_numpy(position // L)
    lengths = torch.from_numpy(position % L)
    column = (folds * L)[:, None] + torch.arange(int(lengths.max()))
    beyond = torch.arange(int(lengths.max())) >= lengths[:, None]
    column = column.clamp(max=items.size(1) - 1)
    working = items.gather(1, column).masked_fill(beyond, 0)
    since = None if times is None else times.gather(1, column)
    lists = []
    with torch.inference_mode():
        for writer, written in ((ranker, items), (earlier, torch.from_numpy(row_before)[items])):
            memory = _folded(writer, written, times, folds, L)
            best = ranker.recommend(memory, working, lengths, LIST_LENGTH, since, None, items)
            lists.append(validation.rank_of(validation.rows_of(best), target))
    return np.stack(lists, 1)


def _folded(writer: Any, items: Tensor, times: Tensor | None, folds: Tensor, L: int) -> Tensor:
    """The memories after the first `folds` segments, folded one after the other as a worker folds them."""
    memory: Tensor = writer.initial_memory(len(items))
    for h in range(int(folds.max())):
        row = (folds > h).nonzero().flatten()
        segment = slice(h * L, (h + 1) * L)
        when = None if times is None else times[row, segment]
        memory[row], _ = writer.update(memory[row], items[row, segment], torch.full((len(row),), L), when)
    return memory


def _padded(histories: list[NDArray[Any]]) -> NDArray[np.int64]:
    padded = np.zeros((len(histories), max(map(len, histories))), np.int64)
    for i, history in enumerate(histories):
        padded[i, : len(history)] = history
    return padded
