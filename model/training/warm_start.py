"""Daily retraining: a new network that starts with the weights of an earlier version."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model.errors import TrainingImpossible
from model.version import artifact
from model.version.attributes import Attributes
from model.version.registry import ModelVersion

ITEMS, ATTRIBUTES = "item.weight", "attribute.weight"
BY_ROW = (ITEMS, ATTRIBUTES)
"""Tables that may have more or fewer rows than those of the earlier version."""


def copy_into(
    network: nn.Module,
    item_ids: Sequence[int | str],
    version: ModelVersion,
    attributes: Attributes | None = None,
) -> int:
    """Give a network the weights of a version. Items and attribute values that the version knows get their rows; other
    rows stay as they are.

    Args:
        network: with `config.n_items` + 2 item rows.
        item_ids: the items of the network's rows 1..V. `42` and `"42"` are the same item.
        attributes: those of the network, if it has any.

    Returns:
        How many of the items the version knows.

    Raises:
        TrainingImpossible: the network of the version has another shape.
        What `artifact.load_weights` raises.
    """
    earlier = artifact.load_weights(version.uri, version.sha256)
    there = {
        name.removeprefix("network."): tensor for name, tensor in earlier.weights.items() if name.startswith("network.")
    }
    wanted = network.state_dict()
    strange = _differences(there, wanted)
    if strange:
        raise TrainingImpossible(f"training cannot start from {version.reference}: {'; '.join(strange)}")
    items, known = _with_known_rows(wanted[ITEMS], item_ids, there[ITEMS], earlier.item_ids)
    items[-1] = there[ITEMS][-1]  # the last row of both stands for items outside the catalogue
    tables = {ITEMS: items}
    if ATTRIBUTES in wanted:
        values, values_before = (() if each is None else each.values for each in (attributes, earlier.attributes))
        tables[ATTRIBUTES], _ = _with_known_rows(wanted[ATTRIBUTES], values, there[ATTRIBUTES], values_before)
    network.load_state_dict({**there, **tables})
    return known


def _with_known_rows(
    table: Tensor, ids: Sequence[int | str], table_before: Tensor, ids_before: Sequence[int | str]
) -> tuple[Tensor, int]:
    """The table of `ids`, whose rows are 1, 2, …, with the rows of an earlier table for ids that both have; and how
    many those are.
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
    found = [f"it has no {name}" for name in sorted(wanted.keys() - there.keys())]
    found += [
        f"it has {name}, which the network of this recipe does not have"
        for name in sorted(there.keys() - wanted.keys())
    ]
    for name in sorted(wanted.keys() & there.keys()):
        shape, expected = (list(tensors[name].shape)[1 if name in BY_ROW else 0 :] for tensors in (there, wanted))
        if shape != expected:
            found.append(
                f"its {name} has shape {list(there[name].shape)}, that of this recipe has {list(wanted[name].shape)}"
            )
    return found
