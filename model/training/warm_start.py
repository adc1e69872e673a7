"""Daily retraining: a new network that begins with what an earlier version knows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from model.errors import TrainingImpossible
from model.version import artifact
from model.version.attributes import Attributes

ITEMS, ATTRIBUTES = "item.weight", "attribute.weight"
BY_ROW = (ITEMS, ATTRIBUTES)
"""Tables whose rows may be more or fewer."""


def copy_into(
    network: nn.Module,
    item_ids: Sequence[int | str],
    version: Path,
    reference: str,
    attributes: Attributes | None = None,
) -> int:
    """Give a network the weights of a version; known items and attribute values keep their rows' weights, other rows
    stay as they are.

    Args:
        network: with `config.n_items` + 2 item rows.
        item_ids: of its rows 1..V. `42` and `"42"` are the same item.
        version: the version's model.pt.
        attributes: the network's, if it has any.

    Returns:
        How many of the items were known.

    Raises:
        TrainingImpossible: the version's network has another shape.
        ArtifactUnreadable, ManifestUnknown, ManifestMismatch: as `artifact.load`.
    """
    earlier = artifact.load_weights(version)
    there = {
        name.removeprefix("network."): tensor for name, tensor in earlier.weights.items() if name.startswith("network.")
    }
    wanted = network.state_dict()
    strange = _differences(there, wanted)
    if strange:
        raise TrainingImpossible(f"{reference} cannot be started from: {'; '.join(strange)}")
    items, known = _with_known_rows(wanted[ITEMS], item_ids, there[ITEMS], earlier.item_ids)
    items[-1] = there[ITEMS][-1]  # of items outside the catalogue, the last one in both
    tables = {ITEMS: items}
    if ATTRIBUTES in wanted:
        values, values_before = (() if each is None else each.values for each in (attributes, earlier.attributes))
        tables[ATTRIBUTES], _ = _with_known_rows(wanted[ATTRIBUTES], values, there[ATTRIBUTES], values_before)
    network.load_state_dict({**there, **tables})
    return known


def _with_known_rows(
    table: Tensor, ids: Sequence[int | str], table_before: Tensor, ids_before: Sequence[int | str]
) -> tuple[Tensor, int]:
    """A table whose rows 1, 2, … are of these ids, with the rows of another where its ids are the same; and how many
    they are.
    """
    row_of = {str(each): row for row, each in enumerate(ids_before, start=1)}
    rows = [(row, row_of[str(each)]) for row, each in enumerate(ids, start=1) if str(each) in row_of]
    known, of = (
        torch.tensor([row for row, _ in rows], dtype=torch.int64),
        torch.tensor([row for _, row in rows], dtype=torch.int64),
    )
    table = table.clone()
    table[known] = table_before[of]
    return table, len(rows)


def _differences(there: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    told = [f"it has no {name}" for name in sorted(wanted.keys() - there.keys())]
    told += [f"it has {name}, this recipe's network has not" for name in sorted(there.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & there.keys()):
        found, expected = (list(tensors[name].shape)[1 if name in BY_ROW else 0 :] for tensors in (there, wanted))
        if found != expected:
            told.append(f"its {name} has shape {list(there[name].shape)}, this recipe's has {list(wanted[name].shape)}")
    return told
