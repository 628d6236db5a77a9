"""A ViT with plain exits: after some blocks a norm and a linear classifier."""

from collections.abc import Iterator

from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import global_pool_nlc
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.early_exit._model import EarlyExitTransformer, ExitOutputs
from vitarium.architectures.early_exit._rule import EarlyExits
from vitarium.architectures.vit.vit import (
    TRAINING_FACTORS,
    PlainDeclaration,
    PlainVit,
    attend_by_cosines,
)


class EarlyExitVit(PlainVit, EarlyExits):
    """A ViT with plain exits, by default of ViT-Ti/16 after each quarter of the blocks.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        yield from self.exit_mismatches(self.depth)

    @property
    def exiting(self) -> tuple[int, ...]:
        """Numbers of the blocks after which exits stand."""
        return self.exit_blocks or quarter_ends(self.depth)


def quarter_ends(depth: int) -> tuple[int, ...]:
    """Numbers of the last blocks of each quarter but the last: 2, 5 and 8 of 12."""
    ends = (depth * quarter // 4 - 1 for quarter in (1, 2, 3))
    return tuple(dict.fromkeys(number for number in ends if number >= 0))


class LinearExit(nn.Module):
    """What a ViT has after its last block: pooling, norm and a linear classifier."""

    def __init__(self, config: EarlyExitVit, num_outputs: int) -> None:
        super().__init__()
        self.global_pool = config.global_pool
        self.prefix = config.reg_tokens + config.class_token
        self.norm = LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.head = nn.Linear(config.embed_dim, num_outputs)

    def forward(self, tokens: Tensor) -> ExitOutputs:
        """[batch, prefix + n, width] -> ExitOutputs, features [batch, 1, width]"""
        pooled = global_pool_nlc(tokens, self.global_pool, num_prefix_tokens=self.prefix)
        features = self.norm(pooled)
        return ExitOutputs(self.head(features), features.unsqueeze(1))


class EarlyExitDeclaration(PlainDeclaration):
    """Those of `vit`; each exit reads the stream as the head does."""

    def head(self) -> None:
        super().head()
        for number, module in self.model.exits.items():
            classifier = [(f"exits.{number}.head", module.head)]
            self.norm(f"exits.{number}.norm", module.norm, classifier)
            self.layers(classifier)


@architecture(
    "early_exit_vit",
    paper="Teerapittayanon et al. 2017, arXiv 1709.01686",
    symmetries=EarlyExitDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values", "exit_weight"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2},
)
def early_exit_vit(config: EarlyExitVit, num_outputs: int) -> nn.Module:
    """A ViT with a norm and a linear classifier after some blocks, where images may leave."""
    model = EarlyExitTransformer(config, num_outputs, **config.arguments())
    if config.attention == "cosine":
        attend_by_cosines(model)
    model.add_exits({number: LinearExit(config, num_outputs) for number in config.exiting})
    return model
