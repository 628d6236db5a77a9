"""Faster forward passes: the same function of the same weights, with less work."""

from types import MethodType
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.training._onednn_linear import OneDNNLinear, linear, use_onednn
from vitarium.training._recomputed_mlp import recompute_frozen
from vitarium.training.options import TrainOptions


def optimize_forward(
    model: nn.Module, options: TrainOptions, *, blocks_are_read: bool = False
) -> None:
    """Let a model do only what its output needs, in the way that is fast; its weights stay.

    Where the class token alone is read, the last block computes that token alone: about 7 % less
    work for 12 blocks (not with `blocks_are_read`: an objective reads all tokens of every block).
    In bf16 on CPUs attention is computed by plain matrix products, which there beat the fused
    kernel (ViT-S at 224 pixels: 1.18 times the images a second). In fp32 on CPUs linear layers are
    computed by oneDNN where that is faster. Half of the frozen MLPs compute hidden units again
    in backward, which saves memory. torch.compile gets it as it is.
    """
    if options.compiled:
        return
    if torch.device(options.device).type == "cpu" and options.precision == "bf16":
        for module in model.modules():
            if isinstance(module, Attention):
                vars(module)["fused_attn"] = False  # final for TorchScript alone
    if not blocks_are_read and _reads_class_token_alone(model):
        # no method of the model itself: the two would hold each other, long after training
        model.__class__ = _ReadsClassTokenAlone
    if options.linear_kernel == "onednn":
        use_onednn(model)
    if not options.stacked:
        recompute_frozen(model)


def optimize_companions(companions: nn.Module, options: TrainOptions) -> None:
    """The same for what an objective brings beside the model."""
    if not options.compiled and options.linear_kernel == "onednn":
        use_onednn(companions)


def _reads_class_token_alone(model: nn.Module) -> bool:
    """Whether it is timm's plain ViT, with class token, without anything random inside."""
    if type(model) is not VisionTransformer or type(model.blocks[-1]) is not Block:
        return False
    last = model.blocks[-1]
    dropped = [m.p for m in last.modules() if isinstance(m, nn.Dropout)]
    return (
        model.global_pool == "token"
        and model.attn_pool is None
        and type(last.attn) is Attention
        and isinstance(last.attn.qkv, nn.Linear)
        and last.attn.gate is None
        and not any(dropped)
        and isinstance(last.drop_path1, nn.Identity)
    )


class _ReadsClassTokenAlone(VisionTransformer):
    def forward(self, x: Tensor, *more: Any, **named: Any) -> Any:
        if more or named:
            return super().forward(x, *more, **named)
        last: Any = self.blocks[-1]
        last.forward = MethodType(_class_token, last)
        try:
            return super().forward(x)
        finally:
            del last.forward  # whoever asks for all tokens gets them


def _class_token(self: Any, tokens: Tensor) -> Tensor:
    """A block's output for the first token: [batch, n, width] -> [batch, 1, width]"""
    token = tokens[:, :1] + self.ls1(_attended(self.attn, self.norm1(tokens)))
    return token + self.ls2(self.mlp(self.norm2(token)))


def _attended(attn: Any, tokens: Tensor) -> Tensor:
    """What the first token gathers from all: [batch, n, width] -> [batch, 1, width]"""
    query, key, value = _query_keys_values(attn, tokens)
    query, key = attn.q_norm(query), attn.k_norm(key)
    if attn.fused_attn:
        attended = F.scaled_dot_product_attention(query, key, value)
    else:
        attended = ((query * attn.scale) @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    batch = len(tokens)
    return attn.proj(attn.norm(attended.transpose(1, 2).reshape(batch, 1, attn.attn_dim)))


def _query_keys_values(attn: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[batch, n, width] -> of the first token [batch, heads, 1, head_dim], of all [.., n, ..]"""
    batch, count, _ = tokens.shape
    heads = (attn.num_heads, attn.head_dim)
    if type(attn.qkv) not in (nn.Linear, OneDNNLinear):  # it computes with more than its weight
        query, key, value = attn.qkv(tokens).reshape(batch, count, 3, *heads).unbind(2)
        return query[:, :1].transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    product = linear if type(attn.qkv) is OneDNNLinear else F.linear
    sizes, bias = (attn.attn_dim, 2 * attn.attn_dim), attn.qkv.bias
    of_query, of_rest = attn.qkv.weight.split(sizes)
    query_bias, rest_bias = (None, None) if bias is None else bias.split(sizes)
    query = product(tokens[:, :1], of_query, query_bias).reshape(batch, 1, *heads).transpose(1, 2)
    rest = product(tokens, of_rest, rest_bias).reshape(batch, count, 2, *heads)
    key, value = rest.permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value
