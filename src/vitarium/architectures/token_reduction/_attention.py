"""timm's attention, with what the reduction of tokens is decided by."""

from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Tensor
from torch.nn import functional as F


class Attended(NamedTuple):
    """Of tokens [batch, n, width]."""

    outputs: Tensor
    """[batch, n, width]"""
    queries: Tensor
    """[batch, heads, n, head_dim]"""
    keys: Tensor
    """[batch, heads, n, head_dim]"""


def attend(attention: Any, tokens: Tensor, bias: Tensor | None = None) -> Attended:
    """What a timm `Attention` computes of normed tokens [batch, n, width].

    bias: added to the logits, [batch, 1, 1, n]. Without one the operations are timm's own.
    """
    batch, count, _ = tokens.shape
    qkv = attention.qkv(tokens).reshape(batch, count, 3, attention.num_heads, attention.head_dim)
    queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    rate = attention.attn_drop.p if attention.training else 0.0
    mixed = F.scaled_dot_product_attention(queries, keys, values, bias, dropout_p=rate)
    outputs = attention.proj(mixed.transpose(1, 2).reshape(batch, count, attention.attn_dim))
    return Attended(attention.proj_drop(outputs), queries, keys)


def class_attention(attention: Any, attended: Attended) -> Tensor:
    """How much the first token attends to each, the mean over heads: [batch, n], with sum 1."""
    logits = attended.queries[:, :, :1] @ attended.keys.transpose(-2, -1) * attention.scale
    return logits.float().softmax(-1).mean(1).squeeze(1)


class AttendingBlock(Block):
    """timm's block in two steps, between which tokens may be reduced."""

    def attended(self, tokens: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Attended]:
        """Tokens [batch, n, width] after the residual of attention, and what it computed."""
        attended = attend(self.attn, self.norm1(tokens), bias)
        return tokens + self.drop_path1(self.ls1(attended.outputs)), attended

    def transformed(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, n, width] after the residual of the MLP."""
        residual: Tensor = self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
        return tokens + residual


def gathered(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens [batch, n, width] by their numbers [batch, m] -> [batch, m, width]"""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def parted(tokens: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Class token and registers, and the others: [batch, prefix, width], [batch, n, width]"""
    first, rest = torch.tensor_split(tokens, (prefix,), dim=1)
    return first, rest
