"""HoloMambaRec: items bound to their attributes, then a selective state space whose state has a constant size
(docs/model-spec.md, "HoloMambaRec").

The vector of an item is bound to that of its attribute by circular convolution, once per item. Each block is pre-norm:
x + Mixer(LN(x)). A Mixer is a causal depthwise convolution of width 4, then the recurrence h' = exp(ΔA)⊙h + (Δu)⊗B,
y = C·h + D⊙u, gated (A, B, C, D and Δ as in Mamba). There are no positions and no segments. The state is the h of each
layer, the last three inputs of its convolution, and the last hidden state.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.config import HoloMambaOptions, Shape
from model.networks.network import Losses, Network
from model.networks.serving import Ranker

CONV = 4
EXPAND = 2


def bind(x: Tensor, y: Tensor) -> Tensor:
    """Circular convolution of (…, d) vectors, divided by √d, so that the result is as large as they are."""
    transformed = torch.fft.rfft(x, norm="ortho") * torch.fft.rfft(y, norm="ortho")
    bound: Tensor = torch.fft.irfft(transformed, n=x.size(-1), norm="ortho")
    return bound


class Mixer(nn.Module):
    """One selective state space, with its norm and residual."""

    def __init__(self, d: int, state_size: int, dropout: float) -> None:
        super().__init__()
        inner, rank = EXPAND * d, -(-d // 16)
        self.inner, self.state_size, self.rank, self.held = inner, state_size, rank, CONV - 1
        self.norm = nn.LayerNorm(d)
        self.into = nn.Linear(d, 2 * inner, bias=False)
        self.conv = nn.Parameter(torch.empty(inner, CONV))
        self.conv_bias = nn.Parameter(torch.empty(inner))
        self.select = nn.Linear(inner, rank + 2 * state_size, bias=False)
        self.step = nn.Linear(rank, inner, bias=False)
        self.a_log = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, d, bias=False)
        self.drop = nn.Dropout(dropout)
        # Δ = softplus of the bias. As in Mamba, it starts evenly spread, in log, over [0.001, 0.1].
        delta = torch.exp(torch.linspace(math.log(1e-3), math.log(0.1), inner))
        self.step_bias = nn.Parameter(delta + torch.log(-torch.expm1(-delta)))

    def forward(self, x: Tensor, real: Tensor, h: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Process items in turn.

        Args:
            x: (B, n, d).
            real: (B, n) bool; where it is False, the step leaves the state as it is.
            h: (B, inner, state_size), the first part of the state.
            before: (B, inner, 3), the second part: the last inputs of the convolution.

        Returns:
            Rows (B, n, d), and the two parts of the state after them.
        """
        n = x.size(1)
        projected = self.into(self.norm(x))
        a, z = projected[:, :, : self.inner], projected[:, :, self.inner :]
        seen = torch.cat([before, a.transpose(1, 2)], dim=2)  # (B, inner, 3 + n)
        u = functional.silu(functional.conv1d(seen, self.conv[:, None], self.conv_bias, groups=self.inner)).transpose(
            1, 2
        )  # (B, n, inner)
        selected = self.select(u)
        delta = functional.softplus(self.step(selected[:, :, : self.rank]) + self.step_bias)
        b, c = selected[:, :, self.rank : self.rank + self.state_size], selected[:, :, self.rank + self.state_size :]
        rate = -self.a_log.exp()  # (inner, state_size)
        delta = delta * real[:, :, None]  # exp(0·A) = 1 and 0·u = 0: such a step changes nothing
        # All but the recurrence is computed for all steps at once.
        keep = (delta[..., None] * rate).exp().unbind(1)  # n times (B, inner, state_size)
        new = ((delta * u)[..., None] * b[:, :, None]).unbind(1)
        states: list[Tensor] = []
        for t in range(n):
            h = torch.addcmul(new[t], keep[t], h)
            states.append(h)
        y = (torch.stack(states, dim=1) @ c[..., None])[..., 0] + self.skip * u
        # Real steps come first, so the last inputs of the convolution are those before the first step that is not real.
        column = real.sum(1)[:, None] + torch.arange(self.held, device=x.device)
        before = seen.gather(2, column[:, None].expand(-1, self.inner, -1))
        return x + self.drop(self.out(y * functional.silu(z))), h, before


class HoloMamba(Network):
    """HoloMambaRec as it is trained.

    Args:
        attribute_of: (V + 2,) int64 in 0..`attributes`, the attribute of each item row; 0 for none.
    """

    attribute_of: Tensor
    preset = ("a_log", "skip", "step_bias", "binding")
    # N(0, 1) instead of N(0, 0.02): what is bound then starts as large as the item alone, and is not lost beside it.
    factors = ("attribute.weight",)

    def __init__(self, shape: Shape, options: HoloMambaOptions, attribute_of: Tensor | None = None) -> None:
        super().__init__(shape)
        self.state_size = options.state_size
        self.attribute = nn.Embedding(options.attributes + 1, shape.d, padding_idx=0)
        self.binding = nn.Parameter(torch.tensor(0.5))
        self.input_norm = nn.LayerNorm(shape.d)
        self.mixers = nn.ModuleList([Mixer(shape.d, options.state_size, shape.dropout) for _ in range(shape.layers)])
        if attribute_of is None:
            attribute_of = torch.zeros(shape.n_items + 2, dtype=torch.int64)
        # It comes from the log and is not learned: a network with more items has another one.
        self.register_buffer("attribute_of", attribute_of, persistent=False)

    def inputs(self, items: Tensor) -> Tensor:
        """Item rows bound to their attributes, (…) int64 → (…, d)."""
        vectors = self.item(items)
        rows: Tensor = self.input_norm(vectors + self.binding * bind(vectors, self.attribute(self.attribute_of[items])))
        return rows

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:  # noqa: ARG002
        x, real = self.drop(self.inputs(items)), items != 0
        for mixer in self.mixers:
            h = x.new_zeros(len(x), mixer.inner, mixer.state_size)
            x, _, _ = mixer(x, real, h, x.new_zeros(len(x), mixer.inner, CONV - 1))
        next_item = self.next_item_loss(x, targets, negatives)
        return Losses(next_item, next_item, next_item.new_zeros(()))


class RecurrentServing(Ranker):
    """HoloMambaRec under the contract: a flat state, and the input rows of all items computed beforehand."""

    table: Tensor

    def __init__(self, network: HoloMamba, popularity: Tensor) -> None:
        super().__init__(network, popularity)
        self.network = network = copy.deepcopy(network)
        with torch.no_grad():
            self.register_buffer("table", network.inputs(torch.arange(network.shape.oov_row + 1)))
        del network.attribute_of  # the table has it; TorchScript would keep it as a weight
        self.inner, self.state_size, self.held = EXPAND * self.d, network.state_size, CONV - 1
        self.layer_floats = self.inner * (self.state_size + self.held)
        self.floats = len(network.mixers) * self.layer_floats + self.d

    def spec(self) -> dict[str, int]:
        return self.described(self.floats)

    def initial_memory(self, batch: int) -> Tensor:
        """(B, S): h and the inputs of the convolution of each layer, then the last hidden state."""
        return torch.zeros(batch, self.floats)

    def update(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        B, n = items.size(0), items.size(1)
        hidden = memory[:, self.floats - self.d :]
        if n == 0:
            return memory, hidden
        x, parts = self.passed(memory, items, torch.arange(n) < lengths[:, None])
        hidden = torch.where((lengths > 0)[:, None], x[torch.arange(B), (lengths - 1).clamp(min=0)], hidden)
        parts.append(hidden)
        return torch.cat(parts, dim=1), hidden

    def passed(self, memory: Tensor, items: Tensor, real: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Hidden states (B, n, d) after each of the items, and the state of each layer after the real ones."""
        x = self.table[items]
        parts: list[Tensor] = []
        start = 0
        for mixer in self.network.mixers:
            state = memory[:, start : start + self.layer_floats].view(-1, self.inner, self.state_size + self.held)
            x, h, before = mixer(x, real, state[:, :, : self.state_size], state[:, :, self.state_size :])
            parts.append(torch.cat([h, before], dim=2).flatten(1))
            start += self.layer_floats
        return x, parts

    def encode(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,  # noqa: ARG002
        query_time: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        return self.update(memory, items, lengths, None)[1]

    def encode_prefixes(self, memory: Tensor, items: Tensor) -> Tensor:
        if items.size(1) == 0:
            return torch.zeros(items.size(0), 0, self.d)
        return self.passed(memory, items, torch.ones(items.size(0), items.size(1), dtype=torch.bool))[0]
