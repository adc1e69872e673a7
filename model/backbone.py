"""The three backbones a model can stand on: one block each, under one interface.

`sasrec` is the post-LN SASRec of PerSRec's and Rec2PM's experiments, `meta` the SASRec and `hstu` the HSTU of
facebookresearch/generative-recommenders (MODEL.md §1, §2). A block maps rows (B, N, d) to rows. It can be asked for all rows, each seeing
itself and those before it (`forward`), for some rows against others (`attend`), and against keys and values that were computed before
(`attend_to`): training, folding and cached memories are the same arithmetic.
"""

from abc import ABC, abstractmethod
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

BACKBONES: Final = ("sasrec", "meta", "hstu")
_CHUNK: Final = 52
"""Query rows of an HSTU pass at once: scores stay in cache and the upper triangle is mostly skipped (MODEL.md §7)."""


class Block(nn.Module, ABC):
    """What every backbone's block can do. Masks are boolean, True = sees, and broadcast to (B, H, R, M)."""

    d: int
    heads: int

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, d) → (B, N, d). Without a mask, a row sees itself and the rows before it: the fast path."""

    @abstractmethod
    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of rows (B, N, d), (B, N, d) each: what later rows need of them."""

    @abstractmethod
    def attend_to(self, y: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """(B, R, d) rows against keys and values (B, M, d) → (B, R, d). `causal`: row i sees the first i + 1, R = M."""

    def attend(self, y: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, R, d) rows against context rows (B, N, d) → (B, R, d)."""
        keys, values = self.keys_values(x)
        return self.attend_to(y, keys, values, mask, False)

    def split(self, projected: Tensor, parts: int) -> list[Tensor]:
        """(B, N, parts·d), contiguous → as many (B, H, N, d/H) as there are parts."""
        B, N, width, head_d = projected.size(0), projected.size(1), projected.size(2), self.d // self.heads
        size, stride = (B, self.heads, N, head_d), (N * width, head_d, width, 1)
        # One view a part: view, permute and unbind give the same and cost a few per cent of a fold.
        return [projected.as_strided(size, stride, part * self.d) for part in range(parts)]

    def joined(self, attended: Tensor) -> Tensor:
        """(B, H, R, d/H) → (B, R, d)."""
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

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
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
    """Q = LN(x), y = LN(Q + attention(Q, x, x)), x' = y + W2·ReLU(W1·y): queries are normed, keys and values are not."""

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

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
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
        attended = self.out(self.joined(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)))
        z = self.norm_attention(normed + self.drop(attended))
        after: Tensor = z + self.drop(self.ffn_out(self.drop(functional.relu(self.ffn_in(z)))))
        return after


class HSTUBlock(Block):
    """[U|V|Q|K] = SiLU(LN(x)·W), A = SiLU(QKᵀ)/n_ref, x' = x + O·(U ⊙ LN(A·V)); no softmax, no FFN.

    `n_ref` is a constant of the model and never the length of a pass: the attention's size relative to the norm's eps depends on it, so
    with the length padding and caching would change the function (MODEL.md §1.1).
    """

    def __init__(self, d: int, heads: int, dropout: float, n_ref: int) -> None:
        super().__init__()
        self.d, self.heads, self.n_ref, self.chunk = d, heads, float(n_ref), _CHUNK
        self.uqkv = nn.Linear(d, 4 * d, bias=False)  # in the order U, Q, K, V
        self.out = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d, eps=1e-6, elementwise_affine=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        projected = functional.silu(self.uqkv(self.norm(x)))
        _, q, k, v = self.split(projected, 4)
        return self.finish(x, projected[:, :, : self.d], self.mixed(q, k, v, mask, mask is None))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        projected = functional.silu(functional.linear(self.norm(x), self.uqkv.weight[2 * self.d :]))
        return projected[:, :, : self.d], projected[:, :, self.d :]

    def attend_to(self, y: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        projected = functional.silu(functional.linear(self.norm(y), self.uqkv.weight[: 2 * self.d]))
        shape = [keys.size(0), keys.size(1), self.heads, self.d // self.heads]
        k, v = keys.view(shape).transpose(1, 2), values.view(shape).transpose(1, 2)
        return self.finish(y, projected[:, :, : self.d], self.mixed(self.split(projected, 2)[1], k, v, mask, causal))

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """A·V: (B, H, R, d/H), (B, H, M, d/H) twice → (B, H, R, d/H)."""
        R = q.size(2)
        v = v / self.n_ref  # here, because there are fewer values than scores
        parts: list[Tensor] = []
        for start in range(0, R, self.chunk):
            end = min(start + self.chunk, R)
            reach = end if causal else k.size(2)
            weights = functional.silu(q[:, :, start:end] @ k[:, :, :reach].transpose(2, 3))
            if causal:
                weights[:, :, :, start:].tril_()
            elif mask is not None:
                weights = weights.masked_fill(~(mask[..., start:end, :] if mask.size(-2) > 1 else mask), 0.0)
            parts.append(weights @ v[:, :, :reach])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def finish(self, x: Tensor, u: Tensor, attended: Tensor) -> Tensor:
        """(B, N, d) residual and gate, (B, H, N, d/H) → (B, N, d)."""
        after: Tensor = x + self.out(self.drop(u * self.norm(self.joined(attended))))
        return after


def blocks(backbone: str, layers: int, d: int, heads: int, dropout: float, n_ref: int) -> nn.ModuleList:
    """A stack of blocks of one backbone; `n_ref` matters to `hstu` alone."""
    if backbone == "hstu":
        return nn.ModuleList([HSTUBlock(d, heads, dropout, n_ref) for _ in range(layers)])
    kind = {"sasrec": PostLNBlock, "meta": MetaBlock}[backbone]
    return nn.ModuleList([kind(d, heads, dropout) for _ in range(layers)])
