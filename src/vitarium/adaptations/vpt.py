"""Visual prompt tuning: tokens that learn, among those of the image."""

import math
from typing import Any

import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.adaptations._extension import Extension, extend
from vitarium.adaptations._prompts import plain_vit
from vitarium.adaptations._selection import train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import Config


class PromptTuning(Config):
    count: int = Field(5, ge=1, le=2**12)
    """Number of prompts in a block."""
    deep: bool = False
    """Each block has prompts of its own, in the place of those before (VPT-deep); else those of the
    first block go through all (VPT-shallow)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate of the prompts in training, in [0, 1)."""


class Prompts(nn.Module):
    """Prompts `tokens` [count, width], which stand between `prefix` tokens and the patches."""

    def __init__(self, config: PromptTuning, model: VisionTransformer) -> None:
        super().__init__()
        patch = math.prod(model.patch_embed.patch_size)
        bound = math.sqrt(6 / (3 * patch + model.embed_dim))
        tokens = torch.empty(config.count, model.embed_dim)
        self.tokens = nn.Parameter(nn.init.uniform_(tokens, -bound, bound))
        self.dropout = nn.Dropout(config.dropout)
        self.prefix = model.num_prefix_tokens

    def inserted(self, tokens: Tensor) -> Tensor:
        """[batch, prefix + patches, width] -> [batch, prefix + count + patches, width]"""
        prompts = self.dropout(self.tokens.expand(tokens.shape[0], -1, -1)).to(tokens.dtype)
        return torch.cat((tokens[:, : self.prefix], prompts, tokens[:, self.prefix :]), 1)


class Prompted(Extension):
    """A block into whose inputs `prompts` are inserted, and of whose outputs as many are removed as
    `removes` says; None and 0: nothing."""

    prompts: Prompts | None
    removes: int
    prefix: int

    def forward(self, x: Tensor, *masks: Any, **named: Any) -> Tensor:
        """[batch, n, width] -> the same, but for the number of tokens"""
        if self.prompts is not None:
            x = self.prompts.inserted(x)
        x = super().forward(x, *masks, **named)  # type: ignore[misc]
        if not self.removes:
            return x
        return torch.cat((x[:, : self.prefix], x[:, self.prefix + self.removes :]), 1)


@adaptation(
    "vpt",
    title="visual prompt tuning",
    paper="Jia et al. 2022, arXiv 2203.12119",
    adds_modules=True,
    starts_as_parent=False,
    frozen_in_eval_mode=True,
    stackable=True,
    training_factors=("dropout",),
    tiny={"deep": True, "dropout": 0.1},
)
def vpt(config: PromptTuning, model: nn.Module) -> None:
    """Visual prompt tuning: tokens that all others attend to learn, and the head.

    They follow the class token and registers from the first block on (shallow), or in each block
    anew (deep), and are left out of what follows the last: pooling sees none of them.
    """
    vit = plain_vit(model, "vpt")
    train_only(vit, lambda name: False)
    blocks: list[Any] = list(vit.blocks)
    first, last = blocks[0], blocks[-1]
    for block in blocks if config.deep else dict.fromkeys((first, last)):
        has_prompts, ends = config.deep or block is first, config.deep or block is last
        block.prompts = Prompts(config, vit) if has_prompts else None
        block.removes = config.count if ends else 0
        block.prefix = vit.num_prefix_tokens
        extend(block, Prompted)
    vars(vit)["num_prompts"] = config.count
