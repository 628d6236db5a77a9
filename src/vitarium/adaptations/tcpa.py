"""Token-coordinated prompt attention: tokens attend to those prompts that they select."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.adaptations._extension import Extension, extend
from vitarium.adaptations._prompts import plain_vit
from vitarium.adaptations._selection import train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput

_MAX_TOKENS = 2**12
"""Of a pool; an image has hundreds."""


class TokenCoordination(Config):
    pool: int = Field(18, ge=1, le=_MAX_TOKENS)
    """Prompts in each of a block's two pools, that of the class token and that of the patches."""
    selected: PositiveInt = 10
    """How many prompts of its pool a token attends to: those whose keys are most like it."""
    length: int = Field(1, ge=1, le=_MAX_TOKENS)
    """Tokens of a prompt."""
    fourier: bool = True
    """Prompts enter as the real part of their Fourier transform, over channels and prompts."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate of the prompts in training, in [0, 1)."""
    strength: NonNegativeFloat = 0.1
    """Factor of what is added to the loss: the sum over blocks of the mean of 1 - cosine between
    tokens and the keys that they selected."""
    random_epochs: NonNegativeInt = 5
    """In so many epochs, the first, training selects prompts at random."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.selected > self.pool:
            raise ValueError(f"selected {self.selected} is more than a pool has, {self.pool}")
        if self.pool * self.length > _MAX_TOKENS:
            what = f"a pool of {self.pool} prompts of {self.length} tokens"
            raise ValueError(f"{what} is longer than {_MAX_TOKENS} tokens")
        return self


class Selection(NamedTuple):
    """mask: 1 where a token attends to a prompt's token, else 0, [batch, n, pool * length].

    distance: mean of 1 - cosine between tokens and the keys that they selected, a scalar.
    """

    mask: Tensor
    distance: Tensor


class Pool(nn.Module):
    """Keys [pool, width] by which tokens select prompts [pool, length, width]."""

    def __init__(self, config: TokenCoordination, width: int) -> None:
        super().__init__()
        self.count = config.selected
        self.keys = nn.Parameter(torch.empty(config.pool, width).uniform_(-1, 1))
        prompts = torch.empty(config.pool, config.length, width)
        self.prompts = nn.Parameter(prompts.uniform_(-1, 1))

    def select(self, tokens: Tensor, *, at_random: bool) -> Selection:
        """What each of the tokens [batch, n, width] selects."""
        cosine = F.normalize(tokens, dim=-1) @ F.normalize(self.keys, dim=-1).T
        rank = torch.rand_like(cosine) if at_random else cosine
        indices = rank.topk(self.count, dim=-1).indices
        mask = torch.zeros_like(cosine).scatter(-1, indices, 1.0)
        mask = mask.repeat_interleave(self.prompts.shape[1], dim=-1)
        return Selection(mask, 1 - cosine.gather(-1, indices).mean())


class TokenPools(nn.Module):
    """The pools of a block."""

    def __init__(self, config: TokenCoordination, width: int) -> None:
        super().__init__()
        self.class_pool, self.patch_pool = Pool(config, width), Pool(config, width)
        self.dropout = nn.Dropout(config.dropout)
        self.fourier, self.random_epochs = config.fourier, config.random_epochs
        self.selects_at_random = False
        self.distance: Tensor | None = None
        """Of the last forward pass in training: the sum of both pools' distances, a scalar."""

    def at_epoch(self, epoch: int) -> None:
        """See `FollowsEpochs`."""
        self.selects_at_random = epoch <= self.random_epochs

    def prompts(self, batch: int) -> Tensor:
        """Of both pools, the class token's first: [batch, count, width]"""
        pools = (self.class_pool, self.patch_pool)
        prompts = torch.cat([pool.prompts.flatten(0, 1) for pool in pools])
        prompts = self.dropout(prompts.expand(batch, -1, -1))
        return torch.fft.fft2(prompts).real if self.fourier else prompts

    def mask(self, tokens: Tensor) -> Tensor:
        """1 where a token of [batch, n, width] attends to a prompt: [batch, n, count]"""
        at_random = self.training and self.selects_at_random
        of_class = self.class_pool.select(tokens[:, :1], at_random=at_random)
        of_patches = self.patch_pool.select(tokens[:, 1:], at_random=at_random)
        self.distance = of_class.distance + of_patches.distance if self.training else None
        columns = of_class.mask.shape[-1]
        # neither the class token nor a patch attends to prompts of the other's pool
        rows = (F.pad(of_class.mask, (0, columns)), F.pad(of_patches.mask, (columns, 0)))
        return torch.cat(rows, dim=1)


class Coordinated(Extension):
    """A block whose tokens attend to each other and to prompts, of `pools`, that they select."""

    pools: TokenPools

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 1 + patches, width] -> the same"""
        block: Any = self
        prompts = self.pools.prompts(x.shape[0]).to(x.dtype)
        keys = torch.cat((x[:, :1], prompts, x[:, 1:]), dim=1)
        attended = coordinated(block.attn, block.norm1(keys), self.pools.mask(x))
        x = x + block.drop_path1(block.ls1(attended))
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def coordinated(attn: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """Attention of a class token and patches, to which prompts add keys and values.

    Args:
        attn: timm's Attention.
        tokens: class token, prompts and patches, [batch, 1 + count + patches, width].
        mask: of prompts, [batch, 1 + patches, count]; it multiplies the probabilities, which are
            not normalized again.

    Returns [batch, 1 + patches, width].
    """
    batch, total, _ = tokens.shape
    count = mask.shape[-1]
    heads = attn.qkv(tokens).reshape(batch, total, 3, attn.num_heads, attn.head_dim)
    query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = attn.q_norm(query), attn.k_norm(key)
    query = torch.cat((query[:, :, :1], query[:, :, 1 + count :]), dim=2)
    probabilities = attn.attn_drop(((query * attn.scale) @ key.mT).softmax(dim=-1))
    patches = total - 1 - count
    mask = torch.cat((F.pad(mask, (1, 0), value=1.0), mask.new_ones(*mask.shape[:2], patches)), -1)
    attended = (probabilities * mask.unsqueeze(1)) @ value
    merged = attended.transpose(1, 2).reshape(batch, 1 + patches, attn.attn_dim)
    outputs: Tensor = attn.proj_drop(attn.proj(attn.norm(merged)))
    return outputs


def _penalty(config: TokenCoordination, model: nn.Module, start: Mapping[str, Tensor]) -> Tensor:
    total = torch.zeros((), device=next(model.parameters()).device)
    for pools in (module for module in model.modules() if isinstance(module, TokenPools)):
        if pools.distance is not None:
            total = total + pools.distance
            pools.distance = None  # it holds the graph of the whole pass
    return config.strength * total


@adaptation(
    "tcpa",
    title="TCPA",
    paper="Liu et al. 2025, arXiv 2505.02406",
    adds_modules=True,
    starts_as_parent=False,
    penalty=_penalty,
    frozen_in_eval_mode=True,
    training_factors=("dropout", "strength", "random_epochs"),
    tiny={"pool": 3, "selected": 2, "length": 2, "random_epochs": 1},
)
def tcpa(config: TokenCoordination, model: nn.Module) -> None:
    """Token-coordinated prompt attention: tokens attend to prompts that they select, and the head.

    Class token and patches have a pool of prompts each, in every block; prompts are keys and values
    alone. Their keys learn by being drawn towards the tokens that selected them.
    """
    vit = plain_vit(model, "tcpa")
    if vit.cls_token is None or vit.num_prefix_tokens != 1:
        raise InvalidInput(
            "adaptation 'tcpa': it knows a class token and patches; choose a model with a class "
            "token and without registers"
        )
    train_only(vit, lambda name: False)
    for number, block in enumerate(vit.blocks):
        if type(block) is not Block or type(block.attn) is not Attention or block.attn.gate:
            kind = f"{type(block).__name__} with {type(getattr(block, 'attn', None)).__name__}"
            raise InvalidInput(f"adaptation 'tcpa': blocks.{number} is no plain block: {kind}")
        added: Any = block
        added.pools = TokenPools(config, vit.embed_dim)
        extend(added, Coordinated)
