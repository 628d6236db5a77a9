"""Attention of a running model: smoothed by a temperature, and recorded."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from vitarium.architectures.features import blocks, prefix_tokens
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.evaluation.attention import takes_probabilities
from vitarium.evaluation.inputs import EvalModel


@contextmanager
def attention_temperature(subject: EvalModel, temperature: float) -> Iterator[None]:
    """Inside, all attention scores are divided by the temperature before the softmax.

    timm's attentions hand their queries to `q_norm` (often an identity), whose output is divided:
    so it makes no difference whether attention is fused. Those of multiplexed models, which add
    terms to the products, hand the sums to `logits`. With 1 nothing at all is done.
    Raises NotApplicable for a model with a block whose attention has neither.
    """
    with ExitStack() as stack:
        if temperature != 1:
            for attention in _in_each_block(subject, "q_norm", "logits"):
                scaled = getattr(attention, "logits", None) or attention.q_norm
                hook = scaled.register_forward_hook(lambda _, __, out: out / temperature)
                stack.callback(hook.remove)
        yield


@contextmanager
def recorded_attention(subject: EvalModel) -> Iterator[list[Tensor]]:
    """Inside, each forward pass appends every block's attention, [b, heads, tokens, tokens].

    It is what timm's attentions hand to `attn_drop` where they are not fused; of an attention that
    mixes its heads' probabilities, it is those before.
    Raises NotApplicable for a model with a block whose attention has no `attn_drop`.
    """
    recorded: list[Tensor] = []
    with ExitStack() as stack:
        for attention in _in_each_block(subject, "attn_drop"):
            hook = takes_probabilities(attention).register_forward_pre_hook(
                lambda _, inputs: recorded.append(inputs[0].detach())
            )
            stack.callback(hook.remove)
        for module in subject.model.modules():
            if getattr(module, "fused_attn", False):
                stack.callback(setattr, module, "fused_attn", True)
                module.fused_attn = False  # type: ignore[assignment]
        yield recorded


def class_attention(subject: EvalModel, maps: list[Tensor], method: str) -> Tensor:
    """How much what is classified attends to each patch, [b, patches]; rows sum to 1.

    The class token's attention, or the mean of the patches' where the model pools them; prefix
    tokens are left out of what is attended to.

    Args:
        maps: every block's attention, [b, heads, tokens, tokens].
        method: "last": that of the last block; "rollout": through all blocks, each the mean of its
            attention and the identity (Abnar & Zuidema 2020, arXiv 2005.00928).
    """
    prefix = prefix_tokens(subject.model)
    means = [block_map.mean(1) for block_map in maps]
    flow = means[-1]
    if method == "rollout":
        identity = torch.eye(flow.shape[-1], device=flow.device)
        flow = identity
        for block_map in means:
            flow = (0.5 * block_map + 0.5 * identity) @ flow
    pooled = prefix == 0 or getattr(subject.model, "global_pool", "token") != "token"
    rows = flow[:, prefix:].mean(1) if pooled else flow[:, 0]
    patches = rows[:, prefix:]
    return patches / patches.sum(1, keepdim=True)


def _in_each_block(subject: EvalModel, *names: str) -> list[Any]:
    """The attentions that have a part of one of the names, at least one in each block."""
    try:
        stack = blocks(subject.model)
    except InvalidInput as error:
        raise NotApplicable(f"{subject.name}: {error}") from None
    attentions: list[Any] = []
    for block_name, block in stack.items():
        inside = [part for part in block.modules() if {*names} & {*dict(part.named_children())}]
        if not inside:
            message = f"{block_name} has no attention with a {names[0]} as timm's"
            raise NotApplicable(f"{subject.name}: {message}")
        attentions += inside
    return attentions
