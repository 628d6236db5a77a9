"""Queries, keys and values by heads, with timm's names, for what replaces softmax attention."""

from typing import Any

from torch import Tensor, nn

from vitarium.core.errors import InvalidInput


class Heads(nn.Module):
    """Base of an attention by heads: tokens [batch, n, dim] -> the same.

    `qkv`, `proj`, `attn_drop` and `proj_drop` are those of timm's Attention, so the weights of a
    `vit` fit. A subclass says how values are mixed (`attend`).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        **norms: Any,
    ) -> None:
        super().__init__()
        if norms.get("qk_norm") or norms.get("scale_norm"):
            raise TypeError(f"{type(self).__name__} has no norms of queries, keys or outputs")
        self.num_heads, self.head_dim, self.attn_dim = num_heads, dim // num_heads, dim
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self, tokens: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        refuse_masks(self, attn_mask, is_causal)
        return self.mix(tokens)

    def mix(self, tokens: Tensor) -> Tensor:
        """[batch, n, dim] -> the same."""
        batch, count, dim = tokens.shape
        split = self.qkv(tokens).reshape(batch, count, 3, self.num_heads, self.head_dim)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.attend(query, key, value).transpose(1, 2).reshape(batch, count, dim)
        outputs: Tensor = self.proj_drop(self.proj(mixed))
        return outputs

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[batch, heads, n, head_dim] each -> the same."""
        raise NotImplementedError


def refuse_masks(module: nn.Module, attn_mask: Tensor | None, is_causal: bool) -> None:
    """timm's blocks hand on masks of attention, bool or float [n, n]. Raises InvalidInput."""
    if attn_mask is not None or is_causal:
        raise InvalidInput(f"{type(module).__name__} takes no masks: leave attn_mask, is_causal")


NO_PROBABILITIES = "attn_drop_rate drops probabilities, which {} never computes; use proj_drop_rate"
"""For `mismatches`."""
