"""KV-Mask (PerSRec): the memory of a segment is the keys and values, in every layer, of C learned tokens behind it
(docs/model-spec.md, "KV-Mask").

A later segment sees its own items and the tokens of the last fold (O) or of the last few folds (A), never older items.
Two defects of the published code are not copied. Here attention is scaled by a constant, not by the length of a pass.
And the last item of a segment predicts the next item, not a token.
"""

import copy

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.folded_serving import FoldedRanker
from model.networks.network import Losses, SlotNetwork


class KVMask(SlotNetwork):
    """KV-Mask in training. It computes all segments of a window together, layer by layer: the tokens of a layer depend
    only on the layer below.
    """

    def hidden(self, items: Tensor) -> Tensor:
        """Hidden states of items, (B, K·L) int64 right-padded → (B, K·L, d)."""
        B, L, C, G = items.size(0), self.segment_length, self.slots, self.folds_kept
        K = items.size(1) // L
        x = torch.cat([self.embed(items.view(B * K, L)), self.write_rows(B * K)], dim=1)  # (B·K, L + C, d)
        fold = torch.arange(K, device=items.device)
        # Segment h sees the tokens of the G segments before it. The columns are all tokens of the window, in order.
        earlier = (fold[None, :] < fold[:, None]) & (fold[None, :] >= fold[:, None] - G)  # (K, K)
        causal = torch.ones(L + C, L + C, dtype=torch.bool, device=items.device).tril()
        seen = earlier.repeat_interleave(C, 1)[:, None].expand(K, L + C, K * C)
        mask = torch.cat([seen, causal.expand(K, L + C, L + C)], dim=2).repeat(B, 1, 1)[
            :, None
        ]  # (B·K, 1, L + C, K·C + L + C)
        for block in self.stack():
            keys, values = block.keys_values(x)
            k, v = (
                each[:, L:].reshape(B, 1, K * C, self.d).expand(B, K, K * C, self.d).flatten(0, 1)
                for each in (keys, values)
            )
            x = block.attend_to(x, torch.cat([k, keys], dim=1), torch.cat([v, values], dim=1), mask, False)
        return x[:, :L].reshape(B, K * L, self.d)

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:  # noqa: ARG002
        next_item = self.next_item_loss(self.hidden(items), targets, negatives)
        return Losses(next_item, next_item, next_item.new_zeros(()))


class CacheServing(FoldedRanker):
    """KV-Mask under the contract: the state is the keys and values of the tokens, (2·layers, G·C, d), oldest fold
    first.

    A memory alone has no row to rank by. Without an item in working memory the list is the popular items.
    """

    def __init__(self, network: KVMask, popularity: Tensor) -> None:
        super().__init__(network, popularity)
        self.network = copy.deepcopy(network)
        self.slots, self.folds_kept, self.item_scale = network.slots, network.folds_kept, network.item_scale
        self.layers = len(network.stack())

    def spec(self) -> dict[str, int]:
        return self.described(2 * self.layers * self.folds_kept * self.slots * self.d)

    def initial_memory(self, batch: int) -> Tensor:
        """(B, 2·layers, G·C, d)."""
        return torch.zeros(batch, 2 * self.layers, self.folds_kept * self.slots, self.d)

    def folds_of(self, memory: Tensor) -> Tensor:
        # Keys are never all zeros.
        return memory[:, 0, :: self.slots].any(2).sum(1)

    def last(self, memory: Tensor, g: int, items: Tensor, lengths: Tensor) -> Tensor:
        B, n, m = items.size(0), items.size(1), g * self.slots
        if n == 0:
            return torch.zeros(B, self.d)
        held = memory[:, :, :m]  # (B, 2·layers, g·C, d)
        x = self.inputs(items)
        at = (lengths - 1).clamp(min=0)  # (B,) the row to rank by
        mask = torch.cat([torch.ones(n, m, dtype=torch.bool), torch.ones(n, n, dtype=torch.bool).tril()], dim=1)
        row = torch.arange(B)
        for layer, block in enumerate(self.network.blocks):
            keys, values = block.keys_values(x)  # type: ignore[operator]
            k, v = torch.cat([held[:, 2 * layer], keys], dim=1), torch.cat([held[:, 2 * layer + 1], values], dim=1)
            if layer < self.layers - 1:
                x = block.attend_to(x, k, v, mask, False)  # type: ignore[operator]
            else:  # only the last item's row leaves the last block
                visible = (torch.arange(m + n) <= (m + at)[:, None])[:, None, None]
                x = block.attend_to(x[row, at][:, None], k, v, visible, False)  # type: ignore[operator]
        return x[:, 0] * (lengths > 0)[:, None]

    def every(self, memory: Tensor, g: int, items: Tensor) -> Tensor:
        n, m = items.size(1), g * self.slots
        x = self.inputs(items)
        mask = torch.cat([torch.ones(n, m, dtype=torch.bool), torch.ones(n, n, dtype=torch.bool).tril()], dim=1)
        for layer, block in enumerate(self.network.blocks):
            keys, values = block.keys_values(x)  # type: ignore[operator]
            k = torch.cat([memory[:, 2 * layer, :m], keys], dim=1)
            v = torch.cat([memory[:, 2 * layer + 1, :m], values], dim=1)
            x = block.attend_to(x, k, v, mask, False)  # type: ignore[operator]
        return x

    def inputs(self, items: Tensor) -> Tensor:
        """Item rows as input rows, (B, n) → (B, n, d)."""
        n = items.size(1)
        network = self.network
        position = (
            network.position[:n]
            if n <= self.segment_length
            else network.position[torch.arange(n) % self.segment_length]
        )
        x: Tensor = network.norm(network.item(items) * self.item_scale + position)
        return x

    def fold(self, memory: Tensor, g: int, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        B, n, C = items.size(0), items.size(1), self.slots
        m = g * C
        held = memory[:, :, :m]
        x = torch.cat([self.inputs(items), self.network.norm(self.network.write).expand(B, -1, -1)], dim=1)
        N = n + C
        column = torch.arange(N)
        real = (column[None, :] < lengths[:, None]) | (column[None, :] >= n)  # (B, N)
        own = (real[:, None, :] & (column[None, :] <= column[:, None])) | (column[None, :] == column[:, None])
        mask = functional.pad(own, (m, 0), value=True)[:, None]  # (B, 1, N, m + N)
        kept: list[Tensor] = []
        row = torch.arange(B)
        hidden = x[:, 0]
        for layer, block in enumerate(self.network.blocks):
            keys, values = block.keys_values(x)  # type: ignore[operator]
            kept.append(keys[:, n:])
            kept.append(values[:, n:])
            k, v = torch.cat([held[:, 2 * layer], keys], dim=1), torch.cat([held[:, 2 * layer + 1], values], dim=1)
            if layer < self.layers - 1:
                x = block.attend_to(x, k, v, mask, False)  # type: ignore[operator]
            else:
                hidden = block.attend_to(
                    x[row, lengths - 1][:, None], k, v, mask[row, 0, lengths - 1][:, None, None], False
                )[:, 0]  # type: ignore[operator]
        written = torch.stack(kept, dim=1)  # (B, 2·layers, C, d)
        drop, free = max(0, g + 1 - self.folds_kept) * C, max(0, self.folds_kept - g - 1) * C
        return torch.cat(
            [held[:, :, drop:], written, memory.new_zeros(B, 2 * self.layers, free, self.d)], dim=2
        ), hidden
