"""Full and Trunc: a causal pass over the newest items, no memory (SASRec, HSTU; MODEL.md §4.7).

Full sees the whole training window, Trunc one segment's worth. What they keep of a user is what every sequential recommender keeps: the item
rows themselves. Under the contract that is a state like any other, so the worker serves them as it serves the rest.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.backbone import Block, blocks
from model.network import Losses, Network, NetworkConfig
from model.serving import Ranker, check_countable


class History(Network):
    """One causal pass over a window; positions count from the oldest item of it."""

    def __init__(self, config: NetworkConfig) -> None:
        window = config.window if config.kind == "full" else config.segment_length
        super().__init__(config, window)
        self.window = window
        self.blocks = blocks(config.backbone, config.layers, config.d, config.heads, config.dropout, config.window)

    def stack(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor) -> Losses:
        if items.size(1) > self.window:  # Trunc: every window is as many short ones
            negatives = negatives.reshape(-1, self.window, negatives.size(2)) if negatives.dim() > 1 else negatives
            items, targets = items.view(-1, self.window), targets.view(-1, self.window)
        x = self.embed(items)
        for block in self.stack():
            x = block(x)
        next_item = self.next_item_loss(x, targets, negatives)
        return Losses(next_item, next_item, next_item.new_zeros(()))


class HistoryServing(Ranker):
    """The newest item rows as state, (W,) float32, oldest first, zeros where there are none yet."""

    position: Tensor

    def __init__(self, network: History, popularity: Tensor) -> None:
        super().__init__(network, popularity)
        check_countable(network.config)
        self.network = network = copy.deepcopy(network)
        stack = network.stack()
        self.body = nn.ModuleList(stack[:-1])
        self.head: Block = stack[-1]
        self.window, self.item_scale = network.window, network.item_scale
        # The attention kernel is fastest on multiples of 16 rows; HSTU's chunks have no such preference.
        self.row_multiple = 1 if network.config.backbone == "hstu" else 16
        self.register_buffer("position", functional.pad(network.position.detach(), (0, 0, 0, -self.window % self.row_multiple)))

    def spec(self) -> dict[str, int]:
        return self.described(self.window, 0)

    def initial_memory(self, batch: int) -> Tensor:
        """(B, W)."""
        return torch.zeros(batch, self.window)

    def update(self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        newest, taken = self.newest(memory, items, lengths)
        after = functional.pad(newest, (0, self.window - newest.size(1))).to(torch.float32)
        return after, self.last(newest, taken)

    def encode(self, memory: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        newest, taken = self.newest(memory, items, lengths)
        return self.last(newest, taken)

    def newest(self, memory: Tensor, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The newest W item rows of each user, (B, n) int64 right-padded, and how many there are, (B,)."""
        held = (memory != 0).sum(1)
        taken = (held + lengths).clamp(max=self.window)
        place = (held + lengths - taken)[:, None] + torch.arange(int(taken.max()))  # (B, n) counted from the oldest held
        ours = torch.cat([memory.to(torch.int64), items], dim=1)
        column = torch.where(place < held[:, None], place, place - held[:, None] + self.window)
        rows = ours.gather(1, column.clamp(max=ours.size(1) - 1))
        return rows.masked_fill(torch.arange(place.size(1)) >= taken[:, None], 0), taken

    def last(self, items: Tensor, lengths: Tensor) -> Tensor:
        """The hidden state of each user's last item, (B, n) int64 and (B,) → (B, d); zeros where there is none."""
        n = items.size(1)
        if n == 0:
            return torch.zeros(items.size(0), self.d)
        # Padding comes after everything a user's own rows may see, so the causal pass needs no mask until the last row looks at all of them.
        width = n + (-n) % self.row_multiple
        items = functional.pad(items, (0, width - n))
        x = self.network.norm(self.network.item(items) * self.item_scale + self.position[:width])
        for block in self.body:
            x = block(x)
        at = (lengths - 1).clamp(min=0)
        if items.size(0) == 1:
            end = int(at) + 1
            hidden = self.head.attend(x[:, end - 1 : end], x[:, :end], None)[:, 0]
        else:
            mask = (torch.arange(width) <= at[:, None])[:, None, None]  # (B, 1, 1, N)
            hidden = self.head.attend(x[torch.arange(items.size(0)), at][:, None], x, mask)[:, 0]
        return hidden * (lengths > 0)[:, None]
