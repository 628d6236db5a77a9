"""Relevance of a plain ViT's layers for what it predicts, by layer-wise relevance propagation.

Chefer, Gur and Wolf 2021, arXiv 2012.09838, Sec. 3: relevance starts as 1 at the explained logit
and goes back layer by layer; each layer shares what it receives among its inputs by how much they
contributed, so that the sum stays the same. Activations, norms, softmax and layer scales pass it.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_STABILIZER = 1e-9

Record = Callable[[str, Tensor], None]
"""Takes a layer's name and the relevance [b, ..., out_features] of its outputs."""


def layer_relevance(model: Any, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """Positive relevance that each linear layer receives for these classes, float64 [b] by layer.

    Args:
        model: a plain ViT of timm in eval mode, as `plain_factors` takes them.
        images: [b, in_chans, h, w].
        classes: int64 [b], the explained logits.

    Layers are named as modules, e.g. `blocks.0.attn.qkv`; `patch_embed.proj` receives what its
    patches do after the position embeddings have taken their share.
    """
    received: dict[str, Tensor] = {}

    def record(name: str, relevance: Tensor) -> None:
        received[name] = relevance.clamp(min=0).flatten(1).sum(1)

    propagate(model, images, classes, record)
    return received


@torch.no_grad()
def propagate(model: Any, images: Tensor, classes: Tensor, record: Record) -> Tensor:
    """Relevance of the embedded patches [b, patches, width], float64; see `layer_relevance`.

    `record` is told what every layer receives, from the last to the first.
    """
    double = deepcopy(model).double()
    streams = [_embedded(double, images.double())]
    for block in double.blocks:
        streams.append(block(streams[-1]))
    features = double.forward_head(double.norm(streams[-1]), pre_logits=True)
    relevance = F.one_hot(classes, double.head.out_features).double()
    record("head", relevance)
    relevance = _through_pool(
        double, streams[-1], through_linear(features, double.head.weight, relevance)
    )
    for number in reversed(range(len(double.blocks))):
        relevance = _through_block(
            double.blocks[number], streams[number], relevance, f"blocks.{number}", record
        )
    patches = double.patch_embed(images.double())
    prefix = streams[0].shape[1] - patches.shape[1]
    positions = streams[0][:, prefix:] - patches
    embedded, _ = through_sum(patches, positions, relevance[:, prefix:])
    record("patch_embed.proj", embedded)
    return embedded


def through_linear(inputs: Tensor, weight: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of a linear layer's inputs [..., in], by that of its outputs [..., out].

    The rule of positive contributions (alpha 1, beta 0), the bias ignored: input i receives
    sum_j R_j (x_i w_ij)+ / sum_i' (x_i' w_i'j)+. weight [out, in].
    """
    pairs = [
        (inputs.clamp(min=0), weight.clamp(min=0)),
        (inputs.clamp(max=0), weight.clamp(max=0)),
    ]
    total = sum(F.linear(part, half) for part, half in pairs)
    share = relevance / (total + _STABILIZER)
    shares = [part * (share @ half) for part, half in pairs]
    return shares[0] + shares[1]


def through_product(first: Tensor, second: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of both factors of `first @ second`, half of it each.

    first [..., n, k], second [..., k, m], relevance [..., n, m]: each entry receives its share of
    the products that it is in, x * d(product)/dx * R / product.
    """
    share = _divided(relevance, first @ second) / 2
    return first * (share @ second.mT), second * (first.mT @ share)


def through_sum(first: Tensor, second: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of both terms of `first + second` [b, ...], in proportion to them.

    Where terms nearly cancel, entries' shares are large and of both signs. Each term is therefore
    scaled so that the two receive all of an image's relevance, by the sizes of their sums.
    """
    share = _divided(relevance, first + second)
    shares = first * share, second * share
    sums = [part.flatten(1).sum(1) for part in shares]
    total = relevance.flatten(1).sum(1)
    sizes = sums[0].abs() + sums[1].abs()
    scales = [_divided(_divided(size.abs(), sizes) * total, size) for size in sums]
    ends = (-1, *[1] * (first.dim() - 1))
    return shares[0] * scales[0].view(ends), shares[1] * scales[1].view(ends)


def _through_block(
    block: Any, stream: Tensor, relevance: Tensor, name: str, record: Record
) -> Tensor:
    """Relevance of a block's inputs [b, n, width] by that of its outputs; records its layers'."""
    attention, mlp = block.attn, block.mlp
    normed = block.norm1(stream)
    queries, keys, values = _heads(attention, normed)
    probabilities = (attention.scale * queries @ keys.mT).softmax(-1)
    context = probabilities @ values
    joined = context.transpose(1, 2).flatten(2)
    attended = block.ls1(attention.proj(joined))
    middle = stream + attended
    normed_middle = block.norm2(middle)
    hidden = mlp.act(mlp.fc1(normed_middle))

    of_stream, branch = through_sum(middle, block.ls2(mlp.fc2(hidden)), relevance)
    record(f"{name}.mlp.fc2", branch)
    of_hidden = through_linear(hidden, mlp.fc2.weight, branch)
    record(f"{name}.mlp.fc1", of_hidden)
    of_stream = of_stream + through_linear(normed_middle, mlp.fc1.weight, of_hidden)

    of_stream, branch = through_sum(stream, attended, of_stream)
    record(f"{name}.attn.proj", branch)
    of_context = through_linear(joined, attention.proj.weight, branch)
    of_heads = of_context.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    of_attention, of_values = through_product(probabilities, values, of_heads)
    of_queries, of_keys = through_product(queries, keys.mT, of_attention)
    parts = torch.stack([of_queries, of_keys.mT, of_values])  # [3, b, heads, n, head_dim]
    fused = parts.permute(1, 3, 0, 2, 4).flatten(2)
    record(f"{name}.attn.qkv", fused)
    return of_stream + through_linear(normed, attention.qkv.weight, fused)


def _heads(attention: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [b, heads, n, head_dim] of normed tokens [b, n, width]."""
    joined = attention.qkv(normed).unflatten(2, (3, attention.num_heads, -1))
    queries, keys, values = joined.permute(2, 0, 3, 1, 4)
    return attention.q_norm(queries), attention.k_norm(keys), values


def _through_pool(model: Any, stream: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of the last tokens [b, n, width] by that of the features [b, width]."""
    prefix = model.num_prefix_tokens
    tokens = torch.zeros_like(stream)
    if model.global_pool == "token":
        tokens[:, 0] = relevance
        return tokens
    patches = model.norm(stream)[:, prefix:]
    contributions = patches.abs()  # a mean of terms of both signs may vanish
    tokens[:, prefix:] = _divided(relevance, contributions.sum(1)).unsqueeze(1) * contributions
    return tokens


def _embedded(model: Any, images: Tensor) -> Tensor:
    """What the first block reads: [b, n, width]."""
    tokens = model._pos_embed(model.patch_embed(images))
    return model.norm_pre(model.patch_drop(tokens))


def _divided(dividend: Tensor, divisor: Tensor) -> Tensor:
    """Their quotient, with a divisor that is at least the stabilizer in size; 0 / 0 is 0."""
    sign = torch.where(divisor < 0, -1.0, 1.0).to(divisor)
    return (
        dividend
        / torch.where(divisor.abs() < _STABILIZER, sign * _STABILIZER, divisor)
        * (divisor != 0)
    )
