"""The attributes of a catalogue's items, as a version keeps them: one value each, a genre or a brand.

Values keep the type they have in the log: strings or integers. `42` and `"42"` are the same value, as they are the same
item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Value = int | str


@dataclass(frozen=True, slots=True)
class Attributes:
    """`values[of[i] - 1]` is the value of the item of row i + 1; `of[i]` is 0 where the item has none."""

    values: tuple[Value, ...]
    of: tuple[int, ...]  # (V,)

    def by_row(self) -> Tensor:
        """The number of each item row's value, (V + 2,) int64: 0 for padding and for items outside the catalogue."""
        return torch.tensor([0, *self.of, 0])

    def by_item(self, item_ids: Sequence[Value]) -> dict[str, Value]:
        """The values of the items that have one, by the items' texts."""
        return {str(item): self.values[number - 1] for item, number in zip(item_ids, self.of, strict=True) if number}
