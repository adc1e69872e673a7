"""Tok-Serial: the passes of Rec2PM, trained one after another through their own memories."""

import torch
from torch import Tensor

from model.networks.config import Shape, TokSerialOptions
from model.networks.memory_network import MemoryNetwork
from model.networks.network import Losses, begun_segments


class TokSerial(MemoryNetwork):
    """The passes of Rec2PM, trained through their own memories, segment after segment. O is as in RMT, A as in
    AutoCompressors.

    Windows grow by a segment every few epochs: without this curriculum the first memories are noise for too long
    (docs/model-spec.md, "Tok-Serial").
    """

    def __init__(self, shape: Shape, options: TokSerialOptions, folds_kept: int) -> None:
        super().__init__(shape, options, folds_kept)
        self.curriculum_epochs, self.depth = options.curriculum_epochs, shape.segments

    def stage(self, epoch: int) -> None:
        self.depth = min(self.shape.segments, 1 + (epoch - 1) // self.curriculum_epochs)

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:  # noqa: ARG002
        L = self.segment_length
        K = min(items.size(1) // L, self.depth)
        segments, following = items.view(len(items), -1, L), targets.view(len(items), -1, L)
        each = negatives.view(len(items), -1, L, negatives.size(2)) if negatives.dim() > 1 else negatives
        begun = begun_segments(items, L)
        memories: list[Tensor] = []
        rows, wanted, drawn = [], [], []
        for h in range(K):
            # Only users who have an item in this segment are folded: later segments of shorter windows are padding.
            here = begun[:, h]
            before = [memory[here] for memory in memories[-self.folds_kept :]]
            memory = (
                torch.cat(before, dim=1) if before else items.new_zeros(int(here.sum()), 0, self.d, dtype=torch.float32)
            )
            tail = segments[here, h - 1, L - self.overlap :] if h else segments[here, 0, :0]
            hidden, written = self.fold(memory, tail, segments[here, h])
            after = written.new_zeros(len(items), self.slots, self.d).index_put((here.nonzero().flatten(),), written)
            memories.append(after)
            target = following[here, h]
            if h:
                target = torch.cat([following[here, h - 1, -1:], target], dim=1)
            rows.append(hidden.flatten(0, 1))
            wanted.append(target.flatten())
            if negatives.dim() > 1:
                mine = each[here, h] if not h else torch.cat([each[here, h - 1, -1:], each[here, h]], dim=1)
                drawn.append(mine.flatten(0, 1))
        next_item = self.next_item_loss(torch.cat(rows), torch.cat(wanted), torch.cat(drawn) if drawn else negatives)
        return Losses(next_item, next_item, next_item.new_zeros(()))
