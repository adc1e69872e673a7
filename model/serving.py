"""Rec2PM-O as the worker calls it: the contract of MODEL.md §6, written so that TorchScript takes it.

Every method is a pure function of its arguments and the weights: no counters, no random numbers, nothing kept. An all-zero memory, and an
all-zero hidden state, mean that nothing is known about the user. Item rows are right-padded with 0.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network import Block, Rec2PM

CONTRACT = ("spec", "initial_memory", "update", "recommend", "rank", "query", "score")
"""The methods every artifact has, whatever kind of model it is."""


class Serving(nn.Module):
    """A trained network with what ranking needs baked in.

    Args:
        network: the trained network; copied, so it can be trained further.
        popularity: (V + 1,) float32, how popular each item row is; index 0 is not used.
    """

    directions: Tensor
    popularity: Tensor

    def __init__(self, network: Rec2PM, popularity: Tensor) -> None:
        super().__init__()
        config = network.config
        self.network = network = copy.deepcopy(network)
        self.body = nn.ModuleList(list(network.blocks)[:-1])
        self.head: Block = network.blocks[-1]  # type: ignore[assignment]
        self.n_items, self.d, self.slots, self.segment_length = config.n_items, config.d, config.slots, config.segment_length
        items = functional.normalize(network.item.weight.detach()[: config.n_items + 1], dim=1, eps=1e-6)
        self.register_buffer("directions", items.t().contiguous())  # (d, V + 1): unit item vectors
        self.register_buffer("popularity", popularity.clone())
        self.requires_grad_(False).eval()

    def spec(self) -> dict[str, int]:
        """What a caller has to know before the first call; `min_recent` 0: a list can come from memory alone."""
        return {
            "abi": 1,
            "n_items": self.n_items,
            "d": self.d,
            "segment_length": self.segment_length,
            "min_recent": 0,
            "state_floats": self.slots * self.d,
            "uses_time": 0,
            "uses_history": 0,
            "needs_fold": 1,
        }

    def initial_memory(self, batch: int) -> Tensor:
        """The memory of users nothing is known about, (B, C, d) float32."""
        return torch.zeros(batch, self.slots, self.d)

    def update(self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Fold exactly the given items into preference memory.

        Args:
            memory: (B, C, d) float32; all zeros for a user who has none yet.
            items: (B, n) int64 item rows. More than one segment (n > L) is compressed in one pass, a slow way to rebuild a memory.
            lengths: (B,) int64, each in 1..n.
            times: part of the contract, not read by this model.

        Returns:
            The memory after the items, (B, C, d), and the last item's hidden state, (B, d).
        """
        known = memory.flatten(1).any(1)
        if bool(known.all()):
            return self.fold(memory, items, lengths)
        if not bool(known.any()):
            return self.fold(None, items, lengths)
        written, hidden = torch.empty_like(memory), memory.new_empty(memory.size(0), self.d)
        for row in (known.nonzero().flatten(), (~known).nonzero().flatten()):
            part = memory[row] if bool(known[row[0]]) else None
            part_written, part_hidden = self.fold(part, items[row], lengths[row])
            written[row], hidden[row] = part_written, part_hidden
        return written, hidden

    def recommend(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        k: int,
        times: Tensor | None = None,  # noqa: ARG002
        query_time: Tensor | None = None,  # noqa: ARG002
        exclude: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best items after preference memory and working memory.

        A user with memory and no items is ranked by the last memory slot's hidden state, which is trained to predict the first item of the
        next segment. A user with neither gets the most popular items.

        Args:
            memory: (B, C, d) float32; all zeros for a user who has none yet.
            items: (B, n) int64 item rows, n ≤ L.
            lengths: (B,) int64, each in 0..n.
            k: length of the lists; cut to V.
            times, query_time: part of the contract, not read by this model.
            exclude: (B, e) int64 item rows that must not be recommended; 0 = none.

        Returns:
            Item rows (B, k) int64 in 1..V and scores (B, k) float32: score descending, row ascending where scores are equal. An excluded
            row comes out only where the catalogue is exhausted, with score -inf.
        """
        return self.rank(self.encode(memory, items, lengths), k, exclude)

    def rank(self, hidden: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The k best items after a hidden state (B, d), as `update` returned it; otherwise as `recommend`."""
        scores = self.scores(hidden)  # (B, V + 1)
        if exclude is not None:
            scores = scores.scatter(1, exclude.masked_fill(exclude > self.n_items, 0), float("-inf"))
        scores = scores[:, 1:]
        k = min(k, self.n_items)
        best, index = scores.topk(min(k + 1, self.n_items), dim=1)
        # topk leaves the order of equal scores open: wherever two of the best are equal, or the last of them equals the next, sort stably.
        tied = best[:, 1:] == best[:, :-1]
        best, index = best[:, :k], index[:, :k]
        if bool(tied.any()):
            row = tied.any(1).nonzero().flatten()
            sorted_scores, sorted_index = scores[row].sort(dim=1, descending=True, stable=True)
            best, index = best.clone(), index.clone()
            best[row], index[row] = sorted_scores[:, :k], sorted_index[:, :k]
        return index + 1, best

    def query(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,  # noqa: ARG002
        query_time: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """The direction items are ranked by, (B, d) unit norm, for an index outside; zeros where nothing is known."""
        return functional.normalize(self.encode(memory, items, lengths), dim=1, eps=1e-6)

    def score(self, memory: Tensor, items: Tensor, lengths: Tensor, candidates: Tensor) -> Tensor:
        """Scores of (B, m) int64 candidate rows, (B, m) float32, equal to those `recommend` gives; -inf for rows outside 1..V."""
        scores = self.scores(self.encode(memory, items, lengths))
        outside = (candidates < 1) | (candidates > self.n_items)
        return scores.gather(1, candidates.masked_fill(outside, 0)).masked_fill(outside, float("-inf"))

    def scores(self, hidden: Tensor) -> Tensor:
        """Cosines of hidden states (B, d) with all item rows, or popularity where nothing is known: (B, V + 1), column 0 meaningless."""
        norm = hidden.norm(2, 1, True)
        scores = torch.mm(hidden / norm.clamp_min(1e-6), self.directions)
        if float(norm.min()) == 0.0:
            scores = torch.where(norm == 0.0, self.popularity, scores)
        return scores

    def encode(self, memory: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        """The hidden state after the last item, or after the last memory slot where there is no item: (B, d); zeros where neither is."""
        known = memory.flatten(1).any(1)
        if bool(known.all()):
            return self.last(memory, items, lengths)
        if not bool(known.any()):
            return self.last(None, items, lengths)
        hidden = memory.new_empty(memory.size(0), self.d)
        for row in (known.nonzero().flatten(), (~known).nonzero().flatten()):
            part = memory[row] if bool(known[row[0]]) else None
            hidden[row] = self.last(part, items[row], lengths[row])
        return hidden

    def last(self, memory: Tensor | None, items: Tensor, lengths: Tensor) -> Tensor:
        """`encode` for a batch in which everybody (memory) or nobody (None) has a memory."""
        n = items.size(1)
        before = 0 if memory is None else self.slots
        if before + n == 0:
            return torch.zeros(items.size(0), self.d)
        # The attention kernel is fastest on multiples of 16 rows. Padding comes after everything a user's own rows may see, so the causal
        # pass needs no mask until the last row looks at all of them.
        x = self.inputs(memory, functional.pad(items, (0, -(before + n) % 16)), False)
        for block in self.body:
            x = block(x)
        at = (lengths + (before - 1)).clamp(min=0)  # (B,) the row to rank by
        if items.size(0) == 1:
            end = int(at) + 1
            hidden = self.head.attend(x[:, end - 1 : end], x[:, :end], None)[:, 0]
        else:
            mask = additive(torch.arange(x.size(1)) <= at[:, None])[:, None, None]  # (B, 1, 1, N)
            hidden = self.head.attend(x[torch.arange(x.size(0)), at][:, None], x, mask)[:, 0]
        if memory is None:
            hidden = hidden * (lengths > 0)[:, None]
        return hidden

    def inputs(self, memory: Tensor | None, items: Tensor, write: bool) -> Tensor:
        """`network.read`, `embed` and `write_rows` in one: [M; S; Q] as input rows, (B, N, d), leaving out what is not asked for."""
        B, n = items.size(0), items.size(1)
        network = self.network
        position = network.position[:n] if n <= self.segment_length else network.position[torch.arange(n) % self.segment_length]
        rows = [network.item(items) + position]
        if memory is not None:
            rows.insert(0, memory * network.read_gain + network.slot)
        if write:
            rows.append(network.write.expand(B, -1, -1))
        x: Tensor = network.norm(torch.cat(rows, dim=1))
        return x

    def fold(self, memory: Tensor | None, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`update` for a batch in which everybody (memory) or nobody (None) has a memory."""
        B, n, C = items.size(0), items.size(1), self.slots
        x = self.inputs(memory, items, True)
        N = x.size(1)
        if int(lengths.min()) == n:
            for block in self.body:
                x = block(x)
            # Only the last item's row and the write rows leave the last block.
            y = self.head.attend(x[:, N - C - 1 :], x, torch.full((C + 1, N), float("-inf")).triu(N - C))
        else:
            column = torch.arange(N)
            at = N - C - n - 1 + lengths  # (B,) the last item's row
            real = (column[None, :] <= at[:, None]) | (column[None, :] >= N - C)  # (B, N)
            # A padded row keeps itself in sight: a row that sees nothing would be NaN.
            allowed = (real[:, None, :] & (column[None, :] <= column[:, None])) | (column[None, :] == column[:, None])  # (B, N, N)
            mask = additive(allowed)[:, None]
            for block in self.body:
                x = block(x, mask)
            rows = torch.cat([at[:, None], column[None, N - C :].expand(B, -1)], dim=1)  # (B, 1 + C)
            each = torch.arange(B)[:, None]
            y = self.head.attend(x[each, rows], x, mask[each, 0, rows][:, None])
        return self.network.written(y[:, 1:]), y[:, 0]


def additive(allowed: Tensor) -> Tensor:
    """A boolean mask as what is added to attention scores."""
    return torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
