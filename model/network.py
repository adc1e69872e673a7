"""Rec2PM-O on a post-LN SASRec backbone, in data order (Rec2PM, arXiv:2602.11605; MODEL.md §2 and §4).

A user's history is cut into segments of L items. Preference memory M is C vectors of width d that stand for all segments folded so far;
folding segment S is one causal pass over [M; S; Q], and the outputs at the C write vectors Q are the next memory.

Training needs no recurrence. Stage 1 (`references`) encodes the whole window once and reads from it what the memory after every segment
should be; stage 2 (`fold`) folds all segments in parallel, each from the reference memory before it.

Item rows: 0 is padding, 1..V the catalogue, V+1 stands for any item outside it. Nothing here draws random numbers except dropout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The network's shape and what its loss depends on; stored in the manifest. Defaults: 4 layers, 4 heads, d=64 (MODEL.md §2)."""

    n_items: int
    segment_length: int
    kind: str = "rec2pm-o"
    backbone: str = "sasrec"
    segments: int = 4
    d: int = 64
    layers: int = 4
    heads: int = 4
    slots: int = 4
    dropout: float = 0.2
    temperature: float = 0.05
    con_weight: float = 1.0

    def __post_init__(self) -> None:
        least = {"n_items": 1, "segment_length": 2, "segments": 2, "d": 1, "layers": 1, "heads": 1, "slots": 1}
        wrong = [f"{name} is {getattr(self, name)}, must be at least {low}" for name, low in least.items() if getattr(self, name) < low]
        if self.heads >= 1 and self.d % self.heads:
            wrong.append(f"d ({self.d}) must be a multiple of heads ({self.heads})")
        if not 0.0 <= self.dropout < 1.0:
            wrong.append(f"dropout is {self.dropout}, must be in [0, 1)")
        if self.temperature <= 0.0:
            wrong.append(f"temperature is {self.temperature}, must be positive")
        if self.con_weight < 0.0:
            wrong.append(f"con_weight is {self.con_weight}, must not be negative")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def oov_row(self) -> int:
        """The row of every item outside the catalogue: read as input, never recommended."""
        return self.n_items + 1


class Block(nn.Module):
    """One post-LN block: y = LN(x + O·attention(x)), x' = LN(y + W2·GELU(W1·y)), softmax attention scaled by 1/√(d/H)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        d = config.d
        self.d, self.heads = d, config.heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.norm_attention = nn.LayerNorm(d, eps=1e-12)
        self.ffn_in = nn.Linear(d, d)
        self.ffn_out = nn.Linear(d, d)
        self.norm_ffn = nn.LayerNorm(d, eps=1e-12)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, d) → (B, N, d). Without a mask, a row sees itself and the rows before it: the fast path."""
        if mask is not None:
            return self.attend(x, x, mask)
        q, k, v = self.heads_of(functional.linear(x, self.qkv.weight, self.qkv.bias), 3)
        return self.finish(x, functional.scaled_dot_product_attention(q, k, v, is_causal=True))

    def attend(self, y: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, R, d) rows against (B, N, d) context → (B, R, d). `mask` is additive and broadcasts to (B, H, R, N)."""
        (q,) = self.heads_of(functional.linear(y, self.qkv.weight[: self.d], self.qkv.bias[: self.d]), 1)
        k, v = self.heads_of(functional.linear(x, self.qkv.weight[self.d :], self.qkv.bias[self.d :]), 2)
        return self.finish(y, functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def heads_of(self, projected: Tensor, parts: int) -> list[Tensor]:
        """(B, N, parts·d) → as many (B, H, N, d/H) as there are parts."""
        B, N, width, head_d = projected.size(0), projected.size(1), projected.size(2), self.d // self.heads
        size, stride = (B, self.heads, N, head_d), (N * width, head_d, width, 1)
        # One view a part: view, permute and unbind give the same and cost a few per cent of a fold. A linear map's output is contiguous.
        return [projected.as_strided(size, stride, part * self.d) for part in range(parts)]

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block after attention: (B, N, d) residual and (B, H, N, d/H) → (B, N, d)."""
        attended = attended.transpose(1, 2).reshape(x.shape)
        y = self.norm_attention(x + self.drop(self.out(attended)))
        after: Tensor = self.norm_ffn(y + self.drop(self.ffn_out(functional.gelu(self.ffn_in(y)))))
        return after


class Rec2PM(nn.Module):
    """The network as it is trained. `model.serving.Serving` answers requests with the same weights."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        d = config.d
        self.config = config
        self.segment_length, self.slots, self.d = config.segment_length, config.slots, d
        self.item = nn.Embedding(config.n_items + 2, d, padding_idx=0)
        self.position = nn.Parameter(torch.empty(config.segment_length, d))
        self.slot = nn.Parameter(torch.empty(config.slots, d))
        self.write = nn.Parameter(torch.empty(config.slots, d))
        # A memory is read at unit scale times this gain, so that slot vectors and content start at comparable sizes (MODEL.md §4.3).
        self.read_gain = nn.Parameter(torch.tensor(0.2))
        self.norm = nn.LayerNorm(d, eps=1e-12)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])

    def read(self, memory: Tensor) -> Tensor:
        """Preference memory as input rows, (B, C, d) → (B, C, d). No dropout: it would be noise in what is remembered."""
        rows: Tensor = self.norm(memory * self.read_gain + self.slot)
        return rows

    def embed(self, items: Tensor) -> Tensor:
        """Item rows as input rows, (B, n) int64 → (B, n, d). Positions start again at every segment, since a stream has no last one."""
        n = items.size(1)
        if n <= self.segment_length:
            position = self.position[:n]
        else:
            position = self.position[torch.arange(n, device=items.device) % self.segment_length]
        rows: Tensor = self.drop(self.norm(self.item(items) + position))
        return rows

    def write_rows(self, batch: int) -> Tensor:
        """The write vectors as input rows, (B, C, d)."""
        rows: Tensor = self.norm(self.write)
        return rows.expand(batch, -1, -1)

    def written(self, rows: Tensor) -> Tensor:
        """Outputs at the write rows as a memory; never all zeros, which is how an empty memory is told from a written one."""
        return functional.layer_norm(rows, (self.d,), eps=1e-6)

    def references(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1: encode whole histories, and what the memory after each of their segments should be (MODEL.md §4.2).

        Item rows are causal and never see a write row, so they stay a plain encoding of the history. The write rows of segment h see all
        items up to the end of h and the earlier rows of their own group.

        Args:
            items: (B, K·L) int64, oldest first, right-padded. A memory whose segment is not full is meaningless.

        Returns:
            Item hidden states (B, K·L, d) and reference memories (B, K, C, d).
        """
        B, T = items.size(0), items.size(1)
        K, C, L = T // self.segment_length, self.slots, self.segment_length
        group = torch.arange(K * C, device=items.device) // C
        sees_item = torch.arange(T, device=items.device)[None, :] // L <= group[:, None]  # (K·C, T)
        sees_write = (group[:, None] == group[None, :]).tril()  # (K·C, K·C)
        mask = torch.cat([sees_item, sees_write], dim=1)

        x = self.embed(items)  # (B, T, d)
        w = self.write_rows(B).repeat(1, K, 1)  # (B, K·C, d)
        for block in self.blocks:
            assert isinstance(block, Block)
            q, k, v = block.heads_of(block.qkv(x), 3)
            q_w, k_w, v_w = block.heads_of(block.qkv(w), 3)
            attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            keys, values = torch.cat([k, k_w], dim=2), torch.cat([v, v_w], dim=2)  # (B, H, T + K·C, d/H)
            attended_w = functional.scaled_dot_product_attention(q_w, keys, values, attn_mask=mask)
            x, w = block.finish(x, attended), block.finish(w, attended_w)
        return x, self.written(w).view(B, K, C, self.d)

    def fold(self, memory: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 2: fold segments, each given the memory before it.

        Args:
            memory: (P, C, d) float32, not empty.
            items: (P, L) int64, oldest first, right-padded. The memory after a segment that is not full is meaningless.

        Returns:
            Hidden states of the last memory slot and of the items, (P, 1 + L, d), and the memories after the segments, (P, C, d).
        """
        C = self.slots
        x = torch.cat([self.read(memory), self.embed(items), self.write_rows(items.size(0))], dim=1)  # (P, C + L + C, d)
        for block in self.blocks:
            x = block(x)
        return x[:, C - 1 : -C], self.written(x[:, -C:])


def initialise(network: Rec2PM, generator: torch.Generator) -> None:
    """Tables, linear maps and learned vectors N(0, 0.02), biases 0, norms 1 and 0; padding stays the zero vector."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif name != "read_gain":
                parameter.normal_(0.0, 0.02, generator=generator)
        network.item.weight[0].zero_()
