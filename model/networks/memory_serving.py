"""How Rec2PM and Tok-Serial are served. Both fold with the same pass; only their training differs."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.backbone import Block
from model.networks.folded_serving import FoldedRanker
from model.networks.memory_network import MemoryNetwork
from model.networks.network import memory_rows
from model.networks.serving import check_countable


class MemoryServing(FoldedRanker):
    """Rec2PM and Tok-Serial under the contract of `model.networks.serving`.

    The state is the memories of the last folds, (G·C, d), oldest first. With an overlap, ⌈R/d⌉ more rows hold the item
    rows of the tail.
    """

    place: Tensor

    def __init__(self, network: MemoryNetwork, popularity: Tensor) -> None:
        super().__init__(network, popularity)
        self.network = network = copy.deepcopy(network)
        stack = network.stack()
        self.body = nn.ModuleList(stack[:-1])
        self.head: Block = stack[-1]
        self.slots, self.folds_kept, self.item_scale = network.slots, network.folds_kept, network.item_scale
        self.overlap, self.memory_rows = network.overlap, network.folds_kept * network.slots
        self.write_from_memory = network.write_from_memory
        self.rows = self.memory_rows + -(-network.overlap // self.d)
        if network.overlap:
            check_countable(network.shape)
        # The attention kernel is fastest on multiples of 16 rows. HSTU computes in chunks, where this does not matter.
        self.row_multiple = 1 if network.backbone == "hstu" else 16
        age = network.age.detach() if network.folds_kept > 1 else torch.zeros(1, self.d)
        # Slot and age vectors of the memories of G folds, the newest last. With fewer folds only the end is used.
        self.register_buffer(
            "place", network.slot.detach().repeat(self.folds_kept, 1) + age.flip(0).repeat_interleave(self.slots, 0)
        )

    def spec(self) -> dict[str, int]:
        return self.described(self.rows * self.d)

    def initial_memory(self, batch: int) -> Tensor:
        """(B, G·C + ⌈R/d⌉, d)."""
        return torch.zeros(batch, self.rows, self.d)

    def folds_of(self, memory: Tensor) -> Tensor:
        # A written slot is never all zeros.
        return memory[:, : self.memory_rows : self.slots].any(2).sum(1)

    def last(self, memory: Tensor, g: int, items: Tensor, lengths: Tensor) -> Tensor:
        n, before = items.size(1), self.before(g)
        if before + n == 0:
            return torch.zeros(items.size(0), self.d)
        # Padding comes after everything that a user's own rows see, so the causal pass needs no mask until the last
        # block computes one row from all.
        x = self.inputs(memory, g, functional.pad(items, (0, -(before + n) % self.row_multiple)), False)
        for block in self.body:
            x = block(x)
        at = (lengths + (before - 1)).clamp(min=0)  # (B,) the row to rank by
        if items.size(0) == 1:
            end = int(at) + 1
            hidden = self.head.attend(x[:, end - 1 : end], x[:, :end], None)[:, 0]
        else:
            mask = (torch.arange(x.size(1)) <= at[:, None])[:, None, None]  # (B, 1, 1, N)
            hidden = self.head.attend(x[torch.arange(x.size(0)), at][:, None], x, mask)[:, 0]
        if before == 0:
            hidden = hidden * (lengths > 0)[:, None]
        return hidden

    def every(self, memory: Tensor, g: int, items: Tensor) -> Tensor:
        n, before = items.size(1), self.before(g)
        x = self.inputs(memory, g, functional.pad(items, (0, -(before + n) % self.row_multiple)), False)
        for block in self.body:
            x = block(x)
        hidden: Tensor = self.head(x)[:, before : before + n]
        return hidden

    def before(self, g: int) -> int:
        """How many rows come before the items if the memories of g folds are read."""
        return g * self.slots + self.overlap if g else 0

    def inputs(self, memory: Tensor, g: int, items: Tensor, write: bool) -> Tensor:
        """The rows of a pass, (B, N, d): [memory; tail; items; write rows]. Without memory, the first two are left out;
        without `write`, the last.
        """
        B, n, R = items.size(0), items.size(1), self.overlap
        network = self.network
        position = network.position[R:]
        position = position[:n] if n <= self.segment_length else position[torch.arange(n) % self.segment_length]
        rows = [network.item(items) * self.item_scale + position]
        if g:
            if R:
                tail = memory[:, self.memory_rows :].flatten(1)[:, :R].to(torch.int64)
                rows.insert(0, network.item(tail) * self.item_scale + network.position[:R])
            held = memory[:, : g * self.slots]
            rows.insert(0, held * network.read_gain + self.place[self.memory_rows - held.size(1) :])
        if write:
            w = network.write.expand(B, -1, -1)
            rows.append(
                w + memory[:, (g - 1) * self.slots : g * self.slots] * network.read_gain
                if g and self.write_from_memory
                else w
            )
        x: Tensor = network.norm(torch.cat(rows, dim=1))
        return x

    def fold(self, memory: Tensor, g: int, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        B, n, C = items.size(0), items.size(1), self.slots
        x = self.inputs(memory, g, items, True)
        N = x.size(1)
        if int(lengths.min()) == n:
            for block in self.body:
                x = block(x)
            # The last block computes only the row of the last item and the write rows.
            y = self.head.attend(x[:, N - C - 1 :], x, torch.ones(C + 1, N, dtype=torch.bool).tril(N - C - 1))
        else:
            column = torch.arange(N)
            at = N - C - n - 1 + lengths  # (B,) the row of the last item
            real = (column[None, :] <= at[:, None]) | (column[None, :] >= N - C)  # (B, N)
            # A padded row sees itself: a row that sees nothing would be NaN.
            mask = ((real[:, None, :] & (column[None, :] <= column[:, None])) | (column[None, :] == column[:, None]))[
                :, None
            ]
            for block in self.body:
                x = block(x, mask)
            rows = torch.cat([at[:, None], column[None, N - C :].expand(B, -1)], dim=1)  # (B, 1 + C)
            each = torch.arange(B)[:, None]
            y = self.head.attend(x[each, rows], x, mask[each, 0, rows][:, None])
        written = memory_rows(y[:, 1:])
        older = memory[:, max(0, g + 1 - self.folds_kept) * C : g * C]
        kept = [older, written, memory.new_zeros(B, max(0, self.folds_kept - g - 1) * C, self.d)]
        if self.overlap:
            newest = (lengths[:, None] + torch.arange(-self.overlap, 0)).clamp(
                min=0
            )  # the overlap is at most a segment
            tail = items.gather(1, newest.clamp(max=n - 1)).to(torch.float32)
            kept.append(
                functional.pad(tail, (0, (self.rows - self.memory_rows) * self.d - self.overlap)).view(B, -1, self.d)
            )
        return torch.cat(kept, dim=1), y[:, 0]
