"""What networks share while they are trained: the item table, input rows, and what a loss is made of.

Item rows: 0 is padding, 1..V the catalogue, V + 1 stands for any item outside it. Nothing here draws random numbers
except dropout.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.backbone import Block, blocks
from model.networks.config import BlockOptions, Shape, SlotOptions


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars. Training minimises `total`. `consistency` is 0 for kinds without such a loss."""

    total: Tensor
    next_item: Tensor
    consistency: Tensor


class Network(nn.Module, ABC):
    """A network in training."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.d, self.segment_length = shape.d, shape.segment_length
        self.item = nn.Embedding(shape.n_items + 2, shape.d, padding_idx=0)
        self.drop = nn.Dropout(shape.dropout)

    @abstractmethod
    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:
        """The loss of a batch of windows.

        Args:
            items: (B, K·L) int64 item rows, oldest first, right-padded with 0.
            targets: (B, K·L) int64, the item after each; 0 where there is none to predict.
            negatives: int64 item rows, (J,) shared by all positions, or (B, K·L, J).
            times: (B, K·L + 1) int64 epoch ms, each item's and that of the last target; of networks whose
                options use time.
        """

    def stage(self, epoch: int) -> None:
        """Called before each epoch, which count from 1, for kinds that are trained in stages."""

    def next_item_loss(self, rows: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        """Mean cross entropy of cosine logits over temperature, with sampled negatives.

        Args:
            rows: (…, d) hidden states.
            targets: (…) int64, 0 where nothing is predicted.
            negatives: (J,) int64 shared by all rows, or (…, J). A negative that equals the target is left out of that
                row.
        """
        predicts = targets != 0
        targets = targets[predicts]
        z = functional.normalize(rows[predicts], dim=1, eps=1e-6)
        wanted = (z * self.directions(targets)).sum(1, keepdim=True)  # (rows, 1)
        if negatives.dim() == 1:
            others = z @ self.directions(negatives).t()  # (rows, J)
        else:
            negatives = negatives[predicts]
            # The table is normed before the lookup, because there are many more negatives than items.
            table = functional.normalize(self.item.weight, dim=1, eps=1e-6)
            others = torch.einsum("rd,rnd->rn", z, functional.embedding(negatives, table))
        others = others.masked_fill(targets[:, None] == negatives, float("-inf"))
        logits = torch.cat([wanted, others], dim=1) / self.shape.temperature
        return functional.cross_entropy(logits, torch.zeros_like(targets))

    def directions(self, items: Tensor) -> Tensor:
        """Unit item vectors, (…) int64 → (…, d)."""
        return functional.normalize(self.item(items), dim=-1, eps=1e-6)


def memory_rows(rows: Tensor) -> Tensor:
    """Output rows (…, d) as a memory. They are normed, so never all zeros: an all-zero memory means that there is
    none.
    """
    return functional.layer_norm(rows, [rows.size(-1)], eps=1e-6)


class BlockNetwork(Network):
    """A network of attention blocks, `blocks`. `positions`: how many places of a pass have a position of their own."""

    def __init__(self, shape: Shape, options: BlockOptions, positions: int) -> None:
        super().__init__(shape)
        self.backbone = options.backbone
        self.position = nn.Parameter(torch.empty(positions, shape.d))
        # post-LN SASRec norms its input. The others scale the item vectors instead.
        self.norm: nn.Module = nn.LayerNorm(shape.d, eps=1e-12) if options.backbone == "sasrec" else nn.Identity()
        self.item_scale = 1.0 if options.backbone == "sasrec" else math.sqrt(shape.d)

    def stack(self) -> list[Block]:
        """The blocks, first to last."""
        return list(self.blocks)  # type: ignore[arg-type]

    def embed(self, items: Tensor, first: int = 0) -> Tensor:
        """Item rows as input rows, (B, n) int64 → (B, n, d). The first has position `first`."""
        rows: Tensor = self.drop(
            self.norm(self.item(items) * self.item_scale + self.position[first : first + items.size(1)])
        )
        return rows


class SlotNetwork(BlockNetwork):
    """A network whose folds are written by C learned vectors, the write rows.

    Positions start again at every segment, because a stream has no last one. `overlap`: how many more positions there
    are, before those of a segment.
    """

    def __init__(self, shape: Shape, options: SlotOptions, folds_kept: int, overlap: int = 0) -> None:
        super().__init__(shape, options, overlap + shape.segment_length)
        self.slots, self.folds_kept = options.slots, folds_kept
        self.write = nn.Parameter(torch.empty(options.slots, shape.d))
        self.blocks = blocks(options.backbone, shape.layers, shape.d, options.heads, shape.dropout, shape.window)

    def write_rows(self, batch: int) -> Tensor:
        """The write rows as input, (B, C, d)."""
        rows: Tensor = self.norm(self.write)
        return rows.expand(batch, -1, -1)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the parameters: tables, linear maps and learned vectors N(0, 0.02), convolutions U(±1/√width), biases 0,
    norms 1 and 0. Padding is the zero vector.

    Parameters that a network names in `preset` keep the values that it gave them. Those that it names in `factors` are
    N(0, 1), because others are multiplied by them.
    """
    preset, factors = getattr(network, "preset", ()), getattr(network, "factors", ())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.rpartition(".")[2] in preset:
                continue
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif name.endswith("conv"):
                bound = parameter.size(-1) ** -0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.normal_(0.0, 1.0 if name in factors else 0.02, generator=generator)
        for module in network.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()


def full_segments(items: Tensor, L: int) -> Tensor:
    """(B, K·L) item rows, right-padded with 0 → (B, K): which segments have all L items."""
    last: Tensor = items.view(len(items), -1, L)[:, :, -1] != 0
    return last


def begun_segments(items: Tensor, L: int) -> Tensor:
    """(B, K·L) item rows, right-padded with 0 → (B, K): which segments have an item."""
    first: Tensor = items.view(len(items), -1, L)[:, :, 0] != 0
    return first
