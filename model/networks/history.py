"""Full and Trunc: one causal pass over the newest items, without a memory (docs/model-spec.md, "Full and truncated
history").

Full sees as many items as a training window, T. Trunc sees as many as a segment, L. They keep what every sequential
recommender keeps of a user: the item rows, and their times if the network uses time. Under the contract this is a state
like any other, so the worker serves them like the other kinds.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.backbone import Block, blocks
from model.networks.config import HistoryOptions, Shape
from model.networks.network import BlockNetwork, Losses
from model.networks.serving import LARGEST_ROW, Ranker, check_countable


class History(BlockNetwork):
    """One causal pass over the newest `window` items; positions count from the oldest of them."""

    def __init__(self, shape: Shape, options: HistoryOptions, window: int) -> None:
        super().__init__(shape, options, window)
        self.window, self.uses_time = window, options.uses_time
        self.blocks = blocks(
            options.backbone,
            shape.layers,
            shape.d,
            options.heads,
            shape.dropout,
            shape.window,
            options.rel_bias,
            window,
        )

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:
        if items.size(1) > self.window:  # Trunc cuts a window into windows of one segment
            negatives = negatives.reshape(-1, self.window, negatives.size(2)) if negatives.dim() > 1 else negatives
            items, targets = items.view(-1, self.window), targets.view(-1, self.window)
            # The last target of a short window is the first item of the next one, with its time.
            times = None if times is None else times.unfold(1, self.window + 1, self.window).flatten(0, 1)
        x = self.embed(items)
        for block in self.stack():
            x = block(x, None, times)
        next_item = self.next_item_loss(x, targets, negatives)
        return Losses(next_item, next_item, next_item.new_zeros(()))


class HistoryServing(Ranker):
    """The newest W item rows as state, (W,) float32, oldest first, zeros where there are none yet. W is T or L.

    If the network uses time, the times of the items follow: (3·W,) in all. float32 counts exactly only to 2²⁴, so a
    time is two numbers: how many whole 2²⁴ ms (4.7 hours), and the remaining ms. This is exact up to 2⁴⁸ ms, the year
    10889. Later times are read as that one.
    """

    position: Tensor

    def __init__(self, network: History, popularity: Tensor) -> None:
        super().__init__(network, popularity)
        check_countable(network.shape)
        self.network = network = copy.deepcopy(network)
        stack = network.stack()
        self.body = nn.ModuleList(stack[:-1])
        self.head: Block = stack[-1]
        self.window, self.item_scale = network.window, network.item_scale
        self.uses_time = network.uses_time
        self.floats = 3 * self.window if self.uses_time else self.window
        self.time_unit = LARGEST_ROW
        # The attention kernel is fastest on multiples of 16 rows. HSTU computes in chunks, where this does not matter.
        self.row_multiple = 1 if network.backbone == "hstu" else 16
        self.register_buffer(
            "position", functional.pad(network.position.detach(), (0, 0, 0, -self.window % self.row_multiple))
        )

    def spec(self) -> dict[str, int]:
        return self.described(self.floats, self.uses_time)

    def initial_memory(self, batch: int) -> Tensor:
        """(B, W), or (B, 3·W) with times."""
        return torch.zeros(batch, self.floats)

    def update(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        newest, count, when = self.newest(memory, items, lengths, times, None)
        after = functional.pad(newest, (0, self.window - newest.size(1))).to(torch.float32)
        if when is not None:
            kept = functional.pad(when[:, :-1].masked_fill(newest == 0, 0), (0, self.window - newest.size(1)))
            high = kept.div(self.time_unit, rounding_mode="floor")
            after = torch.cat([after, high.to(torch.float32), (kept - high * self.time_unit).to(torch.float32)], dim=1)
        return after, self.last(newest, count, when)

    def encode(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,
        query_time: Tensor | None = None,
    ) -> Tensor:
        newest, count, when = self.newest(memory, items, lengths, times, query_time)
        return self.last(newest, count, when)

    def newest(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None, query_time: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The newest W items of each user and the time of the query.

        Returns:
            Their rows, (B, n) int64 right-padded. How many there are, (B,). If the network uses time, their times,
            (B, n + 1) int64 ms: every column after a user's last item has the time of the query.
        """
        held = (memory[:, : self.window] != 0).sum(1)
        count = (held + lengths).clamp(max=self.window)
        # (B, n), counted from the oldest item of the state.
        position = (held + lengths - count)[:, None] + torch.arange(int(count.max()))
        ours = torch.cat([memory[:, : self.window].to(torch.int64), items], dim=1)
        column = torch.where(position < held[:, None], position, position - held[:, None] + self.window).clamp(
            max=ours.size(1) - 1
        )
        padding = torch.arange(position.size(1)) >= count[:, None]
        rows = ours.gather(1, column).masked_fill(padding, 0)
        if not self.uses_time:
            return rows, count, None
        parts = memory[:, self.window :].to(torch.int64)
        kept = parts[:, : self.window] * self.time_unit + parts[:, self.window :]  # (B, W)
        if times is None:
            times = kept.gather(1, (held - 1).clamp(min=0)[:, None])
            if query_time is not None:
                times = torch.where(held[:, None] > 0, times, query_time[:, None])
            times = times.expand(items.size(0), items.size(1))
        furthest = self.time_unit * self.time_unit - 1
        when = torch.cat([kept, times.clamp(-furthest, furthest)], dim=1).gather(1, column)
        if query_time is None:
            query = when.gather(1, (count - 1).clamp(min=0)[:, None]) if when.size(1) else count[:, None]
        else:
            query = query_time.clamp(-furthest, furthest)[:, None]
        return rows, count, torch.cat([torch.where(padding, query, when), query], dim=1)

    def last(self, items: Tensor, lengths: Tensor, times: Tensor | None) -> Tensor:
        """The hidden state of each user's last item: (B, n) int64, (B,) and (B, n + 1) → (B, d). Zeros without
        items.
        """
        if items.size(1) == 0:
            return torch.zeros(items.size(0), self.d)
        # Padding comes after everything that a user's own rows see, so the causal pass needs no mask until the last
        # block computes one row from all.
        x = self.inputs(items)
        width = x.size(1)
        for block in self.body:
            x = block(x, None, times)
        at = (lengths - 1).clamp(min=0)
        if items.size(0) == 1:
            end = int(at) + 1
            hidden = self.head.attend(x[:, end - 1 : end], x[:, :end], None, at[:, None], times)[:, 0]
        else:
            mask = (torch.arange(width) <= at[:, None])[:, None, None]  # (B, 1, 1, N)
            hidden = self.head.attend(x[torch.arange(items.size(0)), at][:, None], x, mask, at[:, None], times)[:, 0]
        return hidden * (lengths > 0)[:, None]

    def inputs(self, items: Tensor) -> Tensor:
        """Item rows as input rows, (B, n) → (B, N, d), N a multiple of `row_multiple`."""
        width = items.size(1) + (-items.size(1)) % self.row_multiple
        items = functional.pad(items, (0, width - items.size(1)))
        x: Tensor = self.network.norm(self.network.item(items) * self.item_scale + self.position[:width])
        return x

    def longest_prefix(self, memory: Tensor) -> Tensor:
        # An item that does not fit into the window moves the others to other positions. With times, the row of an item
        # goes by when the next one happened, and for the last item that is the time of the query.
        if self.uses_time:
            return torch.zeros(memory.size(0), dtype=torch.int64)
        return self.window - (memory[:, : self.window] != 0).sum(1)

    def encode_prefixes(self, memory: Tensor, items: Tensor) -> Tensor:
        n = items.size(1)
        if n == 0:
            return torch.zeros(items.size(0), 0, self.d)
        held = (memory[:, : self.window] != 0).sum(1)
        newest, _, _ = self.newest(memory, items, torch.full_like(held, n), None, None)
        x = self.inputs(newest)
        for block in self.network.blocks:
            x = block(x)
        at = (held[:, None] + torch.arange(n)).clamp(max=x.size(1) - 1)  # (B, n)
        return x.gather(1, at[:, :, None].expand(-1, -1, self.d))
