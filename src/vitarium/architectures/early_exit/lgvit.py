"""LGViT: exits that look at patches locally in early blocks, and globally in later ones."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import architecture
from vitarium.architectures.early_exit._distillation import (
    channel_loss,
    feature_loss,
    gram_loss,
    prediction_loss,
    towards_last,
)
from vitarium.architectures.early_exit._model import (
    EarlyExitTransformer,
    ExitOutputs,
    TrainingPass,
    cross_entropies,
)
from vitarium.architectures.early_exit._rule import EarlyExits
from vitarium.architectures.vit.vit import TRAINING_FACTORS, PlainVit, attend_by_cosines
from vitarium.core.config import Config

ExitHead = Literal["local3", "local1", "global2", "global3"]
_EIGHT: tuple[ExitHead, ...] = ("local3", "local3", "local1", "local1")
_EIGHT += ("global2", "global2", "global3", "global3")
_SIX: tuple[ExitHead, ...] = ("local3", "local1", "global2", "global2", "global3", "global3")


class LocalGlobalExits(Config):
    """LGViT's exit heads, and what they learn."""

    exit_heads: tuple[ExitHead, ...] | None = None
    """Head of each exit: a local perception head with a depthwise convolution of 3 x 3 (local3) or
    none (local1), or a global aggregation head, attention over every second (global2) or third
    (global3) row and column of patches; null: as published, local ones first."""
    exit_num_heads: PositiveInt = 8
    """Attention heads of the global aggregation heads."""
    alternating: bool = True
    """While the backbone learns, add the exits' loss in every second step alone, as published."""
    distillation_weight: float = Field(0.3, ge=0, le=1)
    """Once the backbone is frozen: share of the divergence from the head's outputs in the loss of
    each exit; the rest is cross-entropy with the classes."""
    distillation_temperature: PositiveFloat = 2.0
    """Temperature of that divergence."""
    feature_weight: NonNegativeFloat = 0.01
    """Once the backbone is frozen: weight of what features learn from the last block's, and from
    the last exit's of their kind."""


class Lgvit(PlainVit, LocalGlobalExits, EarlyExits):
    """LGViT; the defaults are those of ViT-Ti/16 with exits after blocks 3 to 10, from 0.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        yield from self.exit_mismatches(self.depth)
        if self.exit_heads and len(self.exit_heads) != len(self.exiting):
            yield f"exit_heads has {len(self.exit_heads)} heads, and there are {len(self.exiting)}"
        if self.embed_dim % self.exit_num_heads:
            yield (
                f"embed_dim {self.embed_dim} is not divisible by exit_num_heads "
                f"{self.exit_num_heads}"
            )

    @property
    def exiting(self) -> tuple[int, ...]:
        """Numbers of the blocks after which exits stand: by default those from a quarter on."""
        return self.exit_blocks or tuple(range(self.depth // 4, self.depth - 1))

    @property
    def kinds(self) -> tuple[ExitHead, ...]:
        """Head of each exit; the authors' for 2, 4, 6 and 8 exits."""
        count = len(self.exiting)
        spread = tuple(_EIGHT[number * 8 // count] for number in range(count))
        return self.exit_heads or (_SIX if count == 6 else spread)


class LocalPerception(nn.Module):
    """A residual bottleneck of convolutions on the map of patches, [batch, width, h, w]."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        depthwise: list[nn.Module] = []
        if kernel > 1:
            convolution = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
            depthwise = [convolution, nn.GELU(), nn.BatchNorm2d(width)]
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 1),
            nn.GELU(),
            nn.BatchNorm2d(width),
            nn.Dropout(dropout),
            *depthwise,
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        mixed: Tensor = self.dropout(maps + self.layers(maps))
        return mixed


class GlobalAggregation(nn.Module):
    """Attention over a part of the patches, without a residual: [batch, width, h, w] -> [batch,
    width, ceil(h / stride), ceil(w / stride)]"""

    def __init__(self, width: int, num_heads: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.stride = num_heads, stride
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        maps = subsampled(maps, self.stride)
        qkv = self.qkv(maps.flatten(2).transpose(1, 2)).unflatten(-1, (3, self.num_heads, -1))
        mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        tokens: Tensor = self.dropout(self.proj(mixed.transpose(1, 2).flatten(2)))
        return tokens.transpose(1, 2).reshape(maps.shape)


class LocalGlobalExit(nn.Module):
    """A head on the map of patches; its mean, plus the class token, goes to a classifier."""

    def __init__(self, config: Lgvit, kind: ExitHead, num_outputs: int) -> None:
        super().__init__()
        self.is_local, size = kind.startswith("local"), int(kind[-1])
        self.stride = 1 if self.is_local else size
        self.side = config.img_size // config.patch_size
        self.prefix, self.class_token = config.reg_tokens + config.class_token, config.class_token
        width, dropout = config.embed_dim, config.proj_drop_rate
        self.mixer: nn.Module = (
            LocalPerception(width, size, dropout)
            if self.is_local
            else GlobalAggregation(width, config.exit_num_heads, size, dropout)
        )
        self.head = nn.Linear(width, num_outputs)

    def map_of(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, prefix + n, width] -> the map of their patches [batch, width, h, w]"""
        return tokens[:, self.prefix :].transpose(1, 2).unflatten(2, (self.side, self.side))

    def forward(self, tokens: Tensor) -> ExitOutputs:
        """[batch, prefix + n, width] -> ExitOutputs, features [batch, h * w, width]"""
        features = self.mixer(self.map_of(tokens)).flatten(2).transpose(1, 2)
        pooled = features.mean(1)
        if self.class_token:
            pooled = pooled + tokens[:, 0]
        return ExitOutputs(self.head(pooled), features)

    def like_features(self, tokens: Tensor) -> Tensor:
        """Those of the patches [batch, prefix + n, width] that its features stand for."""
        return subsampled(self.map_of(tokens), self.stride).flatten(2).transpose(1, 2)


def subsampled(maps: Tensor, stride: int) -> Tensor:
    """Every so many rows and columns: [batch, width, h, w] -> [batch, width, ceil(h / stride),
    ceil(w / stride)]"""
    return maps[:, :, ::stride, ::stride]


class LgvitTransformer(EarlyExitTransformer):
    """Trained in two stages: with its exits, in turns, and then the exits alone (adaptation
    `head`), which learn from the finished model as well."""

    exit_rule: Lgvit
    _epoch = _step = 0

    def at_epoch(self, epoch: int) -> None:
        """Count the steps of an epoch; see `FollowsEpochs`."""
        self._step = self._step + 1 if epoch == self._epoch else 1
        self._epoch = epoch

    def exit_loss(self, recorded: TrainingPass, targets: Tensor) -> Tensor:
        """A scalar. While the backbone learns: in every second step of an epoch, the sum of the
        exits' cross-entropies with targets [batch, classes], each times its depth over the model's.
        Once it is frozen: see `distilled_loss`."""
        if not any(parameter.requires_grad for parameter in self.blocks.parameters()):
            return self.distilled_loss(recorded, targets)
        losses = cross_entropies(recorded.exits, targets)
        shares = [depth / len(self.blocks) for depth in self.exit_depths[:-1]]
        total = torch.stack([s * loss for s, loss in zip(shares, losses, strict=True)]).sum()
        waits = self.exit_rule.alternating and self._step % 2
        return total.new_zeros(()) if waits else total

    def distilled_loss(self, recorded: TrainingPass, targets: Tensor) -> Tensor:
        """A scalar: sums over exits of cross-entropy and of divergence from the head's outputs, and
        what features learn from the last block's (heterogeneous), and from the last exit's of their
        kind (homogeneous)."""
        config, exits = self.exit_rule, recorded.exits
        share, temperature = config.distillation_weight, config.distillation_temperature
        classes = torch.stack(cross_entropies(exits, targets)).sum()
        pairs = [prediction_loss(e.logits, recorded.outputs, temperature) for e in exits]
        features = self._heterogeneous(recorded) + self._homogeneous(exits)
        predictions = (1 - share) * classes + share * torch.stack(pairs).sum()
        return predictions + config.feature_weight * features

    def _heterogeneous(self, recorded: TrainingPass) -> Tensor:
        """Of the first and of the last exit of each kind."""
        losses = []
        for numbers in self._by_kind():
            for number in dict.fromkeys([*numbers[:1], *numbers[-1:]]):
                module: Any = list(self.exits.values())[number]
                teacher = module.like_features(recorded.tokens)
                losses.append(channel_loss(recorded.exits[number].features, teacher))
        return torch.stack(losses).sum()

    def _homogeneous(self, exits: list[ExitOutputs]) -> Tensor:
        losses = [
            towards_last([exits[number].features for number in numbers], loss)
            for numbers, loss in zip(self._by_kind(), (feature_loss, gram_loss), strict=True)
            if numbers
        ]
        return torch.stack(losses).sum()

    def _by_kind(self) -> tuple[list[int], list[int]]:
        """Numbers of the local exits, and of the global ones."""
        modules: list[Any] = list(self.exits.values())
        local = [number for number, module in enumerate(modules) if module.is_local]
        return local, [number for number in range(len(modules)) if number not in local]


@architecture(
    "lgvit",
    paper="Xu et al. 2023, arXiv 2308.00255",
    symmetries="which channels of its exits' convolutions belong together is not declared",
    training_factors=(
        *TRAINING_FACTORS,
        "init_values",
        "exit_weight",
        *("alternating", "distillation_weight", "distillation_temperature", "feature_weight"),
    ),
    tiny={"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 5, "num_heads": 2},
)
def lgvit(config: Lgvit, num_outputs: int) -> nn.Module:
    """A ViT with local exit heads after early blocks and global ones after later blocks (LGViT).

    Otherwise than released: exits are told from the head's outputs with its norm, inner products of
    channels are means over tokens, and the exits' loss is not divided by the sum of the weights.
    """
    model = LgvitTransformer(config, num_outputs, **config.arguments())
    if config.attention == "cosine":
        attend_by_cosines(model)
    exits = zip(config.exiting, config.kinds, strict=True)
    model.add_exits({n: LocalGlobalExit(config, kind, num_outputs) for n, kind in exits})
    return model
