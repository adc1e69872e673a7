"""A network that folds segments into a preference memory: what Rec2PM and Tok-Serial share in training.

A user's history is cut into segments of L items. Preference memory stands for all segments folded so far. A fold is one
causal pass over [memory; tail; segment; write rows], and the outputs at the C write rows are the new memory. The O
kinds keep the memory of the last fold, the A kinds those of the last few. The tail is the newest `overlap` items that
are folded already.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.config import MemoryOptions, Shape
from model.networks.network import SlotNetwork, memory_rows


class MemoryNetwork(SlotNetwork):
    """Reading, writing and folding. A subclass says how they are trained."""

    preset = ("read_gain",)

    def __init__(self, shape: Shape, options: MemoryOptions, folds_kept: int) -> None:
        super().__init__(shape, options, folds_kept, options.overlap)
        self.overlap, self.write_from_memory = options.overlap, options.write_from_memory
        self.slot = nn.Parameter(torch.empty(options.slots, shape.d))
        # A memory has unit scale. Times this gain, it starts about as large as the slot vectors
        # (docs/model-spec.md, "Rec2PM").
        self.read_gain = nn.Parameter(torch.tensor(0.2))
        if folds_kept > 1:
            self.age = nn.Parameter(torch.empty(folds_kept, shape.d))

    def read(self, memory: Tensor) -> Tensor:
        """Memories of G folds, the newest last, as input rows: (P, G·C, d) → (P, G·C, d). Without dropout, which would
        be noise in a memory.
        """
        G = memory.size(1) // self.slots
        place = self.slot.repeat(G, 1)
        if self.folds_kept > 1:
            place = place + self.age[:G].flip(0).repeat_interleave(self.slots, 0)
        rows: Tensor = self.norm(memory * self.read_gain + place)
        return rows

    def write_rows(self, batch: int, memory: Tensor | None = None) -> Tensor:
        """The write rows as input, (P, C, d). With `write_from_memory`, the newest of the memories (P, G·C, d) is added
        to them.
        """
        if self.write_from_memory and memory is not None and memory.size(1):
            rows: Tensor = self.norm(self.write + memory[:, -self.slots :] * self.read_gain)
            return rows
        return super().write_rows(batch)

    def fold(self, memory: Tensor, tail: Tensor, items: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Fold segments, each from the memories before it and the tail of the segment before it.

        Args:
            memory: (P, G·C, d) float32, the newest fold last.
            tail: (P, R) int64 item rows; (P, 0) without an overlap or without a memory.
            items: (P, L) int64, oldest first, right-padded. The memory after a segment that is not full means nothing.
            present: (P, G·C) bool, which rows of `memory` hold something; None: all of them.

        Returns:
            Hidden states (P, 1 + L, d): of the last row before the items, which predicts the first item, and of the
            items. Without memory the first of these rows is missing. And the memories after the segments, (P, C, d).
        """
        C, m, before = self.slots, memory.size(1), memory.size(1) + tail.size(1)
        parts = [
            self.read(memory),
            self.embed(tail),
            self.embed(items, self.overlap),
            self.write_rows(items.size(0), memory),
        ]
        x = torch.cat(parts, dim=1)  # (P, m + R + L + C, d)
        mask: Tensor | None = None
        if present is not None:
            N = x.size(1)
            row = torch.arange(N, device=x.device)
            held = functional.pad(present, (0, N - m), value=True)  # (P, N)
            mask = ((row[None, :] <= row[:, None]) & (held[:, None, :] | (row[None, :] == row[:, None])))[
                :, None
            ]  # (P, 1, N, N)
        for block in self.stack():
            x = block(x, mask)
        return x[:, max(before - 1, 0) : -C], memory_rows(x[:, -C:])
