"""Attention with as many channels for queries and keys, and for values, as are left of a head."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import Readers, VitDeclaration


class UnevenAttention(nn.Module):
    """Softmax attention of tokens [batch, n, dim] by heads.

    Args:
        qk_dim: channels of each head's queries and keys.
        v_dim: channels of each head's values.
        scale: of the logits. That of a pruned model stays as it was: head_dim**-0.5 of its parent.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qk_dim: int,
        v_dim: int,
        scale: float,
        *,
        qkv_bias: bool,
        attn_drop: float,
        proj_drop: float,
    ) -> None:
        super().__init__()
        self.num_heads, self.qk_dim, self.v_dim, self.scale = num_heads, qk_dim, v_dim, scale
        self.qk = nn.Linear(dim, 2 * num_heads * qk_dim, bias=qkv_bias)
        self.v = nn.Linear(dim, num_heads * v_dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(num_heads * v_dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """[batch, n, dim] -> [batch, n, dim]"""
        queries, keys = self.qk(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        values = self.v(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=attn_mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
            is_causal=is_causal,
            scale=self.scale,
        )
        outputs: Tensor = self.proj_drop(self.proj(attended.transpose(1, 2).flatten(2)))
        return outputs


class UnevenDeclaration(VitDeclaration):
    """The symmetries of `uneven_vit`."""

    def attention(self, at: str, attention: Any) -> Readers:
        """See the base."""
        if type(attention) is not UnevenAttention:
            return super().attention(at, attention)
        heads, width = attention.num_heads, attention.qk.in_features
        by_head, qk, vo = f"{at}.heads", f"{at}.qk", f"{at}.vo"
        self.groups[by_head] = UnitGroup(heads)
        self.groups[qk] = UnitGroup(attention.qk_dim, "invertible", inside=by_head)
        self.groups[vo] = UnitGroup(attention.v_dim, "invertible", inside=by_head)
        rows = heads * attention.qk_dim
        parts = [("qk", Axis(qk), 0, rows), ("qk", Axis(qk, reads=True), rows, 2 * rows)]
        parts.append(("v", Axis(vo), 0, heads * attention.v_dim))
        for layer, channels, start, stop in parts:
            shape = (heads, (stop - start) // heads, width)
            axes, ends = (Axis(by_head), channels, self.read), {"start": start, "stop": stop}
            self.piece(f"{at}.{layer}.weight", shape, axes, **ends)
            if attention.qk.bias is not None:
                self.piece(f"{at}.{layer}.bias", shape[:2], axes[:2], **ends)
        shape = (width, heads, attention.v_dim)
        self.piece(f"{at}.proj.weight", shape, (self.written, Axis(by_head), Axis(vo, reads=True)))
        self.bias(f"{at}.proj", attention.proj, self.written)
        return [(f"{at}.qk", attention.qk), (f"{at}.v", attention.v)]
