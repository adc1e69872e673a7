"""Daily retraining: a new network that begins with what an earlier version knows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from model import artifact
from model.errors import TrainingImpossible

ITEMS = "item.weight"


def copy_into(network: nn.Module, item_ids: Sequence[int | str], version: Path, reference: str) -> int:
    """Give a network the weights of a version; known items keep their rows' weights, other rows stay as they are.

    Args:
        network: with `config.n_items` + 2 item rows.
        item_ids: of its rows 1..V. `42` and `"42"` are the same item.
        version: the version's model.pt.

    Returns:
        How many of the items were known.

    Raises:
        TrainingImpossible: the version's network has another shape.
        ArtifactUnreadable, ManifestUnknown, ManifestMismatch: as `artifact.load`.
    """
    earlier = artifact.load_weights(version)
    there = {name.removeprefix("network."): tensor for name, tensor in earlier.weights.items() if name.startswith("network.")}
    wanted = network.state_dict()
    strange = _differences(there, wanted)
    if strange:
        raise TrainingImpossible(f"{reference} cannot be started from: {'; '.join(strange)}")
    row_of = {str(item): row for row, item in enumerate(earlier.item_ids, start=1)}
    rows = [(row, row_of[str(item)]) for row, item in enumerate(item_ids, start=1) if str(item) in row_of]
    known, of = torch.tensor([row for row, _ in rows], dtype=torch.int64), torch.tensor([row for _, row in rows], dtype=torch.int64)
    items = wanted[ITEMS].clone()
    items[known] = there[ITEMS][of]
    items[-1] = there[ITEMS][-1]  # of items outside the catalogue, the last one in both
    network.load_state_dict({**there, ITEMS: items})
    return len(rows)


def _differences(there: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    told = [f"it has no {name}" for name in sorted(wanted.keys() - there.keys())]
    told += [f"it has {name}, this recipe's network has not" for name in sorted(there.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & there.keys()):
        # Items may be more or fewer.
        found, expected = (list(tensors[name].shape)[1 if name == ITEMS else 0 :] for tensors in (there, wanted))
        if found != expected:
            told.append(f"its {name} has shape {list(there[name].shape)}, this recipe's has {list(wanted[name].shape)}")
    return told
