"""What kinds share in serving if their state holds memories of folds: they compute users by their number of folds.

Users with equally many folds have equally many rows before their items. So they are one batch without padding.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from model.networks.serving import Ranker


class FoldedRanker(Ranker):
    """Kinds say how many folds a state holds, and how to fold and encode users who have the same number of folds."""

    folds_kept: int

    @abstractmethod
    def folds_of(self, memory: Tensor) -> Tensor:
        """How many folds' memories each state holds, (B,) int64 in 0..`folds_kept`."""

    @abstractmethod
    def fold(self, memory: Tensor, g: int, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`update` for a batch in which every user has the memories of g folds."""

    @abstractmethod
    def last(self, memory: Tensor, g: int, items: Tensor, lengths: Tensor) -> Tensor:
        """`encode` for a batch in which every user has the memories of g folds."""

    @abstractmethod
    def every(self, memory: Tensor, g: int, items: Tensor) -> Tensor:
        """`encode_prefixes` for a batch in which every user has the memories of g folds."""

    def update(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        folds = self.folds_of(memory)
        g = int(folds[0])
        if bool((folds == g).all()):
            return self.fold(memory, g, items, lengths)
        after, hidden = torch.empty_like(memory), memory.new_empty(memory.size(0), self.d)
        for g in range(self.folds_kept + 1):
            row = (folds == g).nonzero().flatten()
            if row.numel():
                after[row], hidden[row] = self.fold(memory[row], g, items[row], lengths[row])
        return after, hidden

    def encode(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,  # noqa: ARG002
        query_time: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        folds = self.folds_of(memory)
        g = int(folds[0])
        if bool((folds == g).all()):
            return self.last(memory, g, items, lengths)
        hidden = memory.new_empty(memory.size(0), self.d)
        for g in range(self.folds_kept + 1):
            row = (folds == g).nonzero().flatten()
            if row.numel():
                hidden[row] = self.last(memory[row], g, items[row], lengths[row])
        return hidden

    def encode_prefixes(self, memory: Tensor, items: Tensor) -> Tensor:
        if items.size(1) == 0:
            return torch.zeros(items.size(0), 0, self.d)
        folds = self.folds_of(memory)
        g = int(folds[0])
        if bool((folds == g).all()):
            return self.every(memory, g, items)
        hidden = memory.new_empty(memory.size(0), items.size(1), self.d)
        for g in range(self.folds_kept + 1):
            row = (folds == g).nonzero().flatten()
            if row.numel():
                hidden[row] = self.every(memory[row], g, items[row])
        return hidden
