"""Tensors of a ViT's block, with queries, keys and values apart or in one layer."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import checked

QUERY_KEY_VALUE = ("q", "k", "v")
_FUSED = "attn.qkv"


def split_block(model: Weights, block: str) -> dict[str, Tensor]:
    """Tensors [*shape] of a block, `blocks.0.`, by their names in it: `attn.qkv.q.weight`.

    In the dtypes that they are kept in, also where they are made of factors.
    """
    tensors: dict[str, Tensor] = {}
    for path in model.shapes:
        if path.startswith(block):
            name, tensor = path.removeprefix(block), checked(model, path).to(model.dtype(path))
            layer, _, kind = name.rpartition(".")
            if layer == _FUSED:
                parts = zip(QUERY_KEY_VALUE, tensor.chunk(3), strict=True)
                tensors |= {f"{_FUSED}.{letter}.{kind}": part for letter, part in parts}
            else:
                tensors[name] = tensor
    return tensors


def fused_block(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same [*shape] with queries, keys and values in one layer: `attn.qkv.weight`."""
    fused = {n: tensor for n, tensor in tensors.items() if not n.startswith(f"{_FUSED}.")}
    for kind in ("weight", "bias"):
        parts = [tensors.get(f"{_FUSED}.{letter}.{kind}") for letter in QUERY_KEY_VALUE]
        present = [part for part in parts if part is not None]
        if present:
            fused[f"{_FUSED}.{kind}"] = torch.cat(present)
    return fused
