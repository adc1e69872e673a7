"""The contract that a worker calls (docs/model-spec.md, "Serving contract"), and the part that all kinds share:
ranking.

TorchScript takes every method. Every method is a pure function of its arguments and the weights: no counters, no random
numbers, nothing kept. The state, called memory, is float32 that only the model understands. If it is all zeros, or a
hidden state is, nothing is known about the user. Item rows are right-padded with 0.

A model whose `spec()["uses_time"]` is 1 uses the times of interactions, and its state holds them. The others read no
times. A model that uses time also answers without times. It then takes the items to be as old as the newest item in the
memory; if the memory is empty, as the query; and in `update`, which has no query, to have time 0.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.config import Shape
from model.networks.network import Network

LARGEST_ROW = 1 << 24
"""float32 counts exactly up to here. A state is floats, and some of them are item rows."""


class Ranker(nn.Module, ABC):
    """A trained network with the tensors that ranking needs. Kinds say what their state is: `spec`, `initial_memory`,
    `update`, `encode`, `encode_prefixes`.

    Args:
        network: the trained network. It is copied, so it can be trained further.
        popularity: (V + 1,) float32, how popular each item row is; index 0 is not used.
    """

    directions: Tensor
    popularity: Tensor

    def __init__(self, network: Network, popularity: Tensor) -> None:
        super().__init__()
        shape = network.shape
        self.n_items, self.d, self.segment_length = shape.n_items, shape.d, shape.segment_length
        items = functional.normalize(network.item.weight.detach()[: shape.n_items + 1], dim=1, eps=1e-6)
        self.register_buffer("directions", items.t().contiguous())  # (d, V + 1): unit item vectors
        self.register_buffer("popularity", popularity.clone())

    @abstractmethod
    def spec(self) -> dict[str, int]:
        """What a caller must know before the first call."""

    @abstractmethod
    def initial_memory(self, batch: int) -> Tensor:
        """The memory of unknown users, (B, …) float32, all zeros."""

    @abstractmethod
    def update(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fold exactly the given items into preference memory.

        Args:
            memory: (B, …) float32; all zeros for a user who has none yet.
            items: (B, n) int64 item rows. More than one segment (n > L) is computed in one pass, which is slow.
            lengths: (B,) int64, each in 1..n.
            times: (B, n) int64, when each item happened, epoch ms; read if `uses_time`.

        Returns:
            The memory after the items, (B, …), and the hidden state of the last item, (B, d). `recommend` ranks by this
            state if the query has the time of that item.
        """

    @abstractmethod
    def encode(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,
        query_time: Tensor | None = None,
    ) -> Tensor:
        """The hidden state to rank by after preference memory and working memory, (B, d). Zeros: nothing is known."""

    @abstractmethod
    def encode_prefixes(self, memory: Tensor, items: Tensor) -> Tensor:
        """The hidden states to rank by after every prefix of the working memory, in one pass.

        Args:
            memory: (B, …) float32; all zeros for a user who has none yet.
            items: (B, n) int64 item rows, n ≤ L.

        Returns:
            (B, n, d). Row i is what `encode` gives for the first i + 1 items. It means nothing where one of those is
            padding, and where they are more than `longest_prefix`.
        """

    def longest_prefix(self, memory: Tensor) -> Tensor:
        """The most working items for which `encode_prefixes` gives what `encode` gives, (B,) int64; 0: none."""
        return torch.full((memory.size(0),), self.segment_length)

    def described(self, state_floats: int, uses_time: bool = False) -> dict[str, int]:
        """The `spec` of a kind with such a state."""
        return {
            "n_items": self.n_items,
            "d": self.d,
            "segment_length": self.segment_length,
            "state_floats": state_floats,
            "uses_time": int(uses_time),
        }

    def recommend(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        k: int,
        times: Tensor | None = None,
        query_time: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best items after preference memory and working memory. A user with neither gets the popular items.

        Args:
            memory: (B, …) float32; all zeros for a user who has none yet.
            items: (B, n) int64 item rows, n ≤ L.
            lengths: (B,) int64, each in 0..n.
            k: length of the lists, at most V.
            times: (B, n) int64, when each item happened, epoch ms; read if `uses_time`.
            query_time: (B,) int64 epoch ms, when the recommended item will happen; read if `uses_time`. None: the time
                of the last item, which is the best that a stream knows.
            exclude: (B, e) int64 item rows that must not be recommended; 0 = none.

        Returns:
            Item rows (B, k) int64 in 1..V and scores (B, k) float32. Scores descend; of equal scores the lower row
            comes first. An excluded row is in a list only if no other items are left, with score -inf.
        """
        return self.rank(self.encode(memory, items, lengths, times, query_time), k, exclude)

    def rank(self, hidden: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The k best items after a hidden state (B, d) that `update` returned; otherwise as `recommend`."""
        scores = self.scores(hidden)  # (B, V + 1)
        if exclude is not None:
            scores = scores.scatter(1, exclude.masked_fill(exclude > self.n_items, 0), float("-inf"))
        scores = scores[:, 1:]
        k = min(k, self.n_items)
        best, index = scores.topk(min(k + 1, self.n_items), dim=1)
        # topk leaves the order of equal scores open. If two of the best are equal, or the last of them equals the next
        # one, sort stably.
        tied = best[:, 1:] == best[:, :-1]
        best, index = best[:, :k], index[:, :k]
        if bool(tied.any()):
            row = tied.any(1).nonzero().flatten()
            sorted_scores, sorted_index = scores[row].sort(dim=1, descending=True, stable=True)
            best, index = best.clone(), index.clone()
            best[row], index[row] = sorted_scores[:, :k], sorted_index[:, :k]
        return index + 1, best

    def scores(self, hidden: Tensor) -> Tensor:
        """The scores of all item rows, (B, V + 1): cosines with the hidden states (B, d), or popularity where those are
        zero. Column 0 means nothing.
        """
        norm = hidden.norm(2, 1, True)
        scores = torch.mm(hidden / norm.clamp_min(1e-6), self.directions)
        if float(norm.min()) == 0.0:
            scores = torch.where(norm == 0.0, self.popularity, scores)
        return scores


def check_countable(shape: Shape) -> None:
    """Refuse a catalogue that is too large to keep its rows in a state.

    Raises:
        ValueError: float32 cannot count so far.
    """
    if shape.oov_row >= LARGEST_ROW:
        raise ValueError(
            f"a catalogue of {shape.n_items} items is too large for item rows as float32: at most {LARGEST_ROW - 2}"
        )
