"""Attention of a running model: smoothed by a temperature, and read off for what is classified."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from vitarium.architectures.features import blocks, prefix_tokens
from vitarium.core.errors import InvalidInput, NotApplicable
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
        for name, block in model_blocks(subject).items() if temperature != 1 else ():
            scaled = [
                getattr(module, "logits", None) or module.q_norm
                for module in block.modules()
                if {"q_norm", "logits"} & {*dict(module.named_children())}
            ]
            if not scaled:
                message = f"{name} has no attention with a q_norm as timm's"
                raise NotApplicable(f"{subject.name}: {message}")
            for module in scaled:
                hook = module.register_forward_hook(lambda _, __, out: out / temperature)
                stack.callback(hook.remove)
        yield


def model_blocks(subject: EvalModel) -> dict[str, Any]:
    """The blocks of a model by name. Raises NotApplicable where it has none."""
    try:
        return dict(blocks(subject.model))
    except InvalidInput as error:
        raise NotApplicable(f"{subject.name}: {error}") from None


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
