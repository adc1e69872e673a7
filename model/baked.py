"""A trained block as it is served: the same function of its input in fewer operations.

A bias that is only ever added to a row before a layer norm reads it is moved into the layer norm the row comes from, so that residual, bias
and matrix product are one operation. What a block expects of the rows it gets is therefore its `shift`: rows = true rows + shift.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network import Block


class BakedBlock(nn.Module):
    """`block`, for inference. `shift_after` is the shift of the block its rows go to next, None for the last.

    Rows are two-dimensional here, (B·N, d): the shape matrix products want, without a view around each.
    """

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    norm_attention: Tensor
    norm_attention_bias: Tensor
    ffn_in: Tensor
    ffn_in_bias: Tensor
    ffn_out: Tensor
    norm_ffn: Tensor
    norm_ffn_bias: Tensor

    def __init__(self, block: Block, shift_after: Tensor | None) -> None:
        super().__init__()
        self.d, self.heads, self.head_d = block.d, block.heads, block.d // block.heads
        self.eps = block.norm_ffn.eps
        after = torch.zeros(block.d) if shift_after is None else shift_after
        weights = {
            "qkv": block.qkv.weight.t(),
            "qkv_bias": block.qkv.bias - block.qkv.weight @ shift(block),
            "out": block.out.weight.t(),
            "norm_attention": block.norm_attention.weight,
            "norm_attention_bias": block.norm_attention.bias + block.ffn_out.bias,
            "ffn_in": block.ffn_in.weight.t(),
            "ffn_in_bias": block.ffn_in.bias - block.ffn_in.weight @ block.ffn_out.bias,
            "ffn_out": block.ffn_out.weight.t(),
            "norm_ffn": block.norm_ffn.weight,
            "norm_ffn_bias": block.norm_ffn.bias + after,
        }
        for name, tensor in weights.items():
            self.register_buffer(name, tensor.detach().clone(memory_format=torch.contiguous_format))
        self.register_buffer("q", self.qkv[:, : self.d].contiguous(), persistent=False)
        self.register_buffer("q_bias", self.qkv_bias[: self.d].contiguous(), persistent=False)
        self.register_buffer("kv", self.qkv[:, self.d :].contiguous(), persistent=False)
        self.register_buffer("kv_bias", self.qkv_bias[self.d :].contiguous(), persistent=False)

    def forward(self, x: Tensor, B: int, mask: Tensor | None = None) -> Tensor:
        """(B·N, d) → (B·N, d). Without a mask, a row sees itself and the rows before it: the fast path."""
        qkv = torch.addmm(self.qkv_bias, x, self.qkv)
        q, k, v = self.head_view(qkv, B, 0), self.head_view(qkv, B, 1), self.head_view(qkv, B, 2)
        if mask is None:
            return self.finish(x, functional.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self.finish(x, functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def attend(self, y: Tensor, x: Tensor, B: int, mask: Tensor | None) -> Tensor:
        """(B·R, d) rows against (B·N, d) context → (B·R, d). `mask` is additive and broadcasts to (B, H, R, N)."""
        q = self.head_view(torch.addmm(self.q_bias, y, self.q), B, 0)
        kv = torch.addmm(self.kv_bias, x, self.kv)
        k, v = self.head_view(kv, B, 0), self.head_view(kv, B, 1)
        return self.finish(y, functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def head_view(self, projected: Tensor, B: int, part: int) -> Tensor:
        """Columns part·d … (part + 1)·d of (B·N, parts·d) as (B, H, N, d/H)."""
        N, width = projected.size(0) // B, projected.size(1)
        return projected.as_strided((B, self.heads, N, self.head_d), (N * width, self.head_d, width, 1), part * self.d)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block after attention: (B·N, d) rows and (B, H, N, d/H) → (B·N, d)."""
        a = attended.transpose(1, 2).reshape(x.shape)
        y = functional.layer_norm(torch.addmm(x, a, self.out), (self.d,), self.norm_attention, self.norm_attention_bias, self.eps)
        hidden = functional.gelu(torch.addmm(self.ffn_in_bias, y, self.ffn_in))
        return functional.layer_norm(y.addmm_(hidden, self.ffn_out), (self.d,), self.norm_ffn, self.norm_ffn_bias, self.eps)


def shift(block: Block) -> Tensor:
    """What has to be added to a block's rows before they reach its baked form, (d,)."""
    return block.out.bias.detach()
