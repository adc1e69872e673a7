"""The three backbones of a network: one block each, under one interface (docs/model-spec.md, "Backbones").

`sasrec` is the post-LN SASRec of the experiments with PerSRec and Rec2PM. `meta` is the SASRec, and `hstu` the HSTU, of
facebookresearch/generative-recommenders.

A block maps rows to rows. `forward` computes all rows of a pass, each from itself and the rows before it. `attend`
computes some rows from others. `attend_to` computes rows from keys and values that exist already. So training, folding
and cached memories are the same arithmetic.

Letters: N rows are computed, from M rows that they look at.
"""

from abc import ABC, abstractmethod
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

BACKBONES: Final = ("sasrec", "meta", "hstu")
REL_BIASES: Final = ("none", "pos", "pos_time")
_CHUNK: Final = 64
"""Rows that an HSTU pass computes at once: scores stay in the cache, and most of the upper triangle is skipped
(docs/model-spec.md, "Cost").
"""
TIME_BUCKETS: Final = 129
"""The last bucket begins at e^(0.301 · 128) seconds, more than any clock says."""


class Block(nn.Module, ABC):
    """What the block of every backbone can do. Masks are boolean, True = sees, and broadcast to (B, H, N, M)."""

    d: int
    heads: int

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """(B, N, d) → (B, N, d). Without a mask, a row sees itself and the rows before it: the fast path.

        `times`: (B, N + 1) int64 epoch ms, the time of each row and of what follows the last row. Only a relative bias
        reads them.
        """

    @abstractmethod
    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of rows (B, M, d), (B, M, d) each: what other rows need of them."""

    @abstractmethod
    def attend_to(self, y: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """(B, N, d) rows against keys and values (B, M, d) → (B, N, d). `causal`: row i sees the first i + 1; N = M."""

    def attend(
        self,
        y: Tensor,
        x: Tensor,
        mask: Tensor | None,
        at: Tensor | None = None,  # noqa: ARG002
        times: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """(B, N, d) rows against other rows (B, M, d) → (B, N, d).

        `at`: (B, N) int64, which of the M rows the N rows are; `times` as in `forward`. Only a relative bias reads
        them.
        """
        keys, values = self.keys_values(x)
        return self.attend_to(y, keys, values, mask, False)

    def split(self, projected: Tensor, parts: int) -> list[Tensor]:
        """(B, N, parts·d), contiguous → as many (B, H, N, d/H) as there are parts."""
        B, N, width, head_d = projected.size(0), projected.size(1), projected.size(2), self.d // self.heads
        size, stride = (B, self.heads, N, head_d), (N * width, head_d, width, 1)
        # One view a part: view, permute and unbind give the same and cost a few per cent of a fold.
        return [projected.as_strided(size, stride, part * self.d) for part in range(parts)]

    def joined(self, attended: Tensor) -> Tensor:
        """(B, H, N, d/H) → (B, N, d)."""
        return attended.transpose(1, 2).reshape(attended.size(0), attended.size(2), self.d)


class PostLNBlock(Block):
    """y = LN(x + O·attention(x)), x' = LN(y + W2·GELU(W1·y)); softmax attention scaled by 1/√(d/H)."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.d, self.heads = d, heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.norm_attention = nn.LayerNorm(d, eps=1e-12)
        self.ffn_in = nn.Linear(d, d)
        self.ffn_out = nn.Linear(d, d)
        self.norm_ffn = nn.LayerNorm(d, eps=1e-12)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, times: Tensor | None = None) -> Tensor:  # noqa: ARG002
        q, k, v = self.split(self.qkv(x), 3)
        return self.finish(x, functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        projected = functional.linear(x, self.qkv.weight[self.d :], self.qkv.bias[self.d :])
        return projected[:, :, : self.d], projected[:, :, self.d :]

    def attend_to(self, y: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        (q,) = self.split(functional.linear(y, self.qkv.weight[: self.d], self.qkv.bias[: self.d]), 1)
        shape = [keys.size(0), keys.size(1), self.heads, self.d // self.heads]
        k, v = keys.view(shape).transpose(1, 2), values.view(shape).transpose(1, 2)
        return self.finish(y, functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block after attention: (B, N, d) residual and (B, H, N, d/H) → (B, N, d)."""
        y = self.norm_attention(x + self.drop(self.out(self.joined(attended))))
        after: Tensor = self.norm_ffn(y + self.drop(self.ffn_out(functional.gelu(self.ffn_in(y)))))
        return after


class MetaBlock(Block):
    """Q = LN(x), y = LN(Q + attention(Q, x, x)), x' = y + W2·ReLU(W1·y).

    Queries are normed; keys and values are not.
    """

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.d, self.heads = d, heads
        self.query = nn.Linear(d, d)
        self.kv = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, d)
        self.norm_query = nn.LayerNorm(d, eps=1e-8, elementwise_affine=False)
        self.norm_attention = nn.LayerNorm(d, eps=1e-8, elementwise_affine=False)
        self.ffn_in = nn.Linear(d, d)
        self.ffn_out = nn.Linear(d, d)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, times: Tensor | None = None) -> Tensor:  # noqa: ARG002
        keys, values = self.keys_values(x)
        return self.attend_to(x, keys, values, mask, mask is None)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        projected = self.kv(x)
        return projected[:, :, : self.d], projected[:, :, self.d :]

    def attend_to(self, y: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        normed = self.norm_query(y)
        (q,) = self.split(self.query(normed), 1)
        shape = [keys.size(0), keys.size(1), self.heads, self.d // self.heads]
        k, v = keys.view(shape).transpose(1, 2), values.view(shape).transpose(1, 2)
        attended = self.out(
            self.joined(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal))
        )
        z = self.norm_attention(normed + self.drop(attended))
        after: Tensor = z + self.drop(self.ffn_out(self.drop(functional.relu(self.ffn_in(z)))))
        return after


class RelativeBias(nn.Module):
    """HSTU's b_ij = p[i - j] + τ[bucket(t_{i+1} - t_j)], j ≤ i, shared by the heads of a layer (docs/model-spec.md,
    "HSTU relative bias").

    Row i uses the time of what comes after it: the model knows when the item that it predicts happens.

    Args:
        reach: how many distances there are, 0 included: rows of a pass are at most `reach` - 1 apart.
        timed: whether there is a time part.
    """

    def __init__(self, reach: int, timed: bool) -> None:
        super().__init__()
        self.reach = reach
        self.position = nn.Parameter(torch.empty(reach))
        self.time = nn.Parameter(torch.empty(TIME_BUCKETS)) if timed else None

    def forward(self, at: Tensor, columns: int, times: Tensor | None) -> Tensor:
        """The bias of rows against the first M rows of a pass. It means nothing where one of those comes after its row.

        Args:
            at: (B, N) int64, which rows; (1, N) if they are the same for the whole batch.
            columns: M.
            times: (B, ≥ M + 1) int64 epoch ms, as in `Block.forward`; not read without a time part.

        Returns:
            (B, 1, N, M); (1, 1, N, M) without a time part, for rows that are the same for the whole batch.
        """
        apart = (at[:, :, None] - torch.arange(columns, device=at.device)).clamp(0, self.reach - 1)  # (B or 1, N, M)
        # index_select: on a CPU the backward pass of indexing takes twice as long, that of an embedding thirty times.
        bias = self.position.index_select(0, apart.flatten()).view(apart.shape)
        if self.time is not None:
            assert times is not None, "this relative bias has a time part: it needs times"
            until = times.gather(1, at.expand(times.size(0), -1) + 1)
            bucket = time_buckets(until[:, :, None] - times[:, None, :columns], self.time.size(0) - 1)
            bias = bias + self.time.index_select(0, bucket.flatten()).view(bucket.shape)
        return bias[:, None]


def time_buckets(ms: Tensor, last: int) -> Tensor:
    """Differences of times, (…) int64 ms → ⌊ln(max(1, |seconds|)) / 0.301⌋, at most `last`, (…) int32: each bucket is
    1.35 times as wide as the one before it."""
    seconds = ms.abs().to(torch.float32).div_(1_000.0)
    return seconds.clamp_(min=1.0).log_().div_(0.301).to(torch.int32).clamp_(max=last)


class HSTUBlock(Block):
    """[U|V|Q|K] = SiLU(LN(x)·W), A = SiLU(QKᵀ + b)/n_ref, x' = x + O·(U ⊙ LN(A·V)); no softmax, no FFN.

    `n_ref` is a constant of the model and never the length of a pass. The size of the attention relative to the eps of
    the norm depends on it, so with the length of a pass, padding and caching would change the function
    (docs/model-spec.md, "Backbones"). `relative` is b; without it b = 0.
    """

    def __init__(self, d: int, heads: int, dropout: float, n_ref: int, relative: RelativeBias | None = None) -> None:
        super().__init__()
        self.d, self.heads, self.n_ref, self.chunk = d, heads, float(n_ref), _CHUNK
        self.uqkv = nn.Linear(d, 4 * d, bias=False)  # in the order U, Q, K, V
        self.out = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d, eps=1e-6, elementwise_affine=False)
        self.drop = nn.Dropout(dropout)
        self.relative = relative

    def forward(self, x: Tensor, mask: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        projected = functional.silu(self.uqkv(self.norm(x)))
        _, q, k, v = self.split(projected, 4)
        at: Tensor | None = None
        if self.relative is not None:
            at = torch.arange(x.size(1), device=x.device)[None]
        return self.finish(x, projected[:, :, : self.d], self.mixed(q, k, v, mask, mask is None, at, times))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        projected = functional.silu(functional.linear(self.norm(x), self.uqkv.weight[2 * self.d :]))
        return projected[:, :, : self.d], projected[:, :, self.d :]

    def attend(
        self,
        y: Tensor,
        x: Tensor,
        mask: Tensor | None,
        at: Tensor | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        keys, values = self.keys_values(x)
        return self.attend_to(y, keys, values, mask, False, at, times)

    def attend_to(
        self,
        y: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        causal: bool,
        at: Tensor | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        projected = functional.silu(functional.linear(self.norm(y), self.uqkv.weight[: 2 * self.d]))
        shape = [keys.size(0), keys.size(1), self.heads, self.d // self.heads]
        k, v = keys.view(shape).transpose(1, 2), values.view(shape).transpose(1, 2)
        return self.finish(
            y, projected[:, :, : self.d], self.mixed(self.split(projected, 2)[1], k, v, mask, causal, at, times)
        )

    def mixed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        causal: bool,
        at: Tensor | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        """A·V: (B, H, N, d/H), (B, H, M, d/H) twice → (B, H, N, d/H).

        Computed as Vᵀ·Aᵀ: a product whose last dimension is the eight columns of a head takes three times as long.
        """
        N = q.size(2)
        v = (v / self.n_ref).transpose(2, 3).contiguous()  # the factor here, because there are fewer values than scores
        corner = torch.ones(self.chunk, self.chunk, device=q.device, dtype=q.dtype).triu() if causal else v
        parts: list[Tensor] = []
        for start in range(0, N, self.chunk):
            end = min(start + self.chunk, N)
            reach = end if causal else k.size(2)
            scores = k[:, :, :reach] @ q[:, :, start:end].transpose(2, 3)  # (B, H, M, N)
            if self.relative is not None:
                assert at is not None, "a relative bias needs to know which rows these are"
                scores = scores + self.relative(at[:, start:end], reach, times).transpose(2, 3)
            weights = functional.silu(scores)
            if causal:
                weights[:, :, start:].mul_(corner[: end - start, : end - start])
            elif mask is not None:
                sees = mask[..., start:end, :] if mask.size(-2) > 1 else mask
                weights = weights.masked_fill(~sees.transpose(-2, -1), 0.0)
            parts.append(v[:, :, :, :reach] @ weights)
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)).transpose(2, 3)

    def finish(self, x: Tensor, u: Tensor, attended: Tensor) -> Tensor:
        """(B, N, d) residual and gate, (B, H, N, d/H) → (B, N, d)."""
        after: Tensor = x + self.out(self.drop(u * self.norm(self.joined(attended))))
        return after


def blocks(
    backbone: str, layers: int, d: int, heads: int, dropout: float, n_ref: int, rel_bias: str = "none", reach: int = 0
) -> nn.ModuleList:
    """A stack of blocks of one backbone. Only `hstu` reads `n_ref`, `rel_bias` and its `reach`."""
    if backbone == "hstu":
        biases = [None if rel_bias == "none" else RelativeBias(reach, rel_bias == "pos_time") for _ in range(layers)]
        return nn.ModuleList([HSTUBlock(d, heads, dropout, n_ref, bias) for bias in biases])
    kind = {"sasrec": PostLNBlock, "meta": MetaBlock}[backbone]
    return nn.ModuleList([kind(d, heads, dropout) for _ in range(layers)])
