"""MatViT: a ViT whose MLPs have smaller ones inside; each step trains one of the widths."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.base import Axis, Symmetries, UnitGroup
from vitarium.architectures.symmetries.segments import segmented
from vitarium.architectures.symmetries.vit import Readers, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit, as_timm

Granularity = Annotated[float, Field(gt=0, le=1)]


class Matvit(Vit):
    """A ViT with nested MLPs: the first hidden units of each are a smaller MLP.

    The operator `matvit_member` makes a plain `vit` of each width.
    """

    granularities: tuple[Granularity, ...] = Field((0.125, 0.25, 0.5, 1.0), min_length=1)
    """Widths that are trained, as shares of each MLP's hidden units: rising, the last one 1."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden units of each granularity."""
        return tuple(round(share * self.hidden_width) for share in self.granularities)

    @property
    def hidden_width(self) -> int:
        """Hidden units of each MLP, as timm counts them."""
        return int(self.embed_dim * self.mlp_ratio)

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        shares, hidden = self.granularities, self.hidden_width
        if list(shares) != sorted(set(shares)) or shares[-1] != 1:
            yield f"granularities {list(shares)} have to rise, and end with 1"
        for share in shares:
            if not _is_whole(share * hidden):
                yield f"granularity {share:g} of {hidden} hidden units is no whole number of units"


def _is_whole(units: float) -> bool:
    return units > 0.5 and abs(units - round(units)) < 1e-6


class NestedMlp(Mlp):
    """timm's MLP, of which the first hidden units are an MLP, too."""

    units: int | None = None
    """Hidden units that are computed in training mode; None: all of them."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., width] to [..., width]"""
        units, first, second = self.units, self.fc1, self.fc2
        if units is None or not self.training:
            outputs: Tensor = super().forward(x)
            return outputs
        if any(next(layer.children(), None) is not None for layer in (first, second)):
            # an adaptation computes with more than the weights, so nothing can be cut out of them
            hidden = self.drop1(self.act(first(x)))
            used = torch.arange(hidden.shape[-1], device=hidden.device) < units
            return self.drop2(second(hidden * used))
        bias = None if first.bias is None else first.bias[:units]
        hidden = self.drop1(self.act(F.linear(x, first.weight[:units], bias)))
        return self.drop2(F.linear(hidden, second.weight[:, :units], second.bias))


class MatVisionTransformer(VisionTransformer):
    """Timm's, with nested MLPs; in training mode it computes the width that was selected."""

    def __init__(self, config: Matvit, num_classes: int) -> None:
        super().__init__(**config.arguments(), mlp_layer=NestedMlp, num_classes=num_classes)
        self.widths = config.widths
        self._drawn: list[int] = []

    def sample(self, epoch: int, count: int) -> None:
        """Draw a width for each part of a batch; of several parts each has another, until all are
        used."""
        order = torch.randperm(len(self.widths)).tolist()
        self._drawn = [self.widths[order[part % len(order)]] for part in range(count)]

    def select(self, part: int) -> None:
        """Compute that part's width in every block."""
        block: Any
        for block in self.blocks:
            block.mlp.units = self._drawn[part]


class _Declaration(VitDeclaration):
    model_class = MatVisionTransformer

    def mlp(self, at: str, mlp: Any) -> Readers:
        """See the base."""
        self.groups[at] = UnitGroup(mlp.fc1.out_features)
        self.linear(f"{at}.fc1", Axis(at), self.read, mlp.fc1)
        self.linear(f"{at}.fc2", self.written, Axis(at, reads=True), mlp.fc2)
        return [(f"{at}.fc1", mlp.fc1)]


def nested_symmetries(model: Any) -> Symmetries:
    """Of a built model: hidden units stay in the smallest MLP that has them.

    Raises IncompatibleWeights.
    """
    symmetries = _Declaration.symmetries(model)
    nested = [name for name in symmetries.groups if name.endswith(".mlp")]
    return segmented(symmetries, dict.fromkeys(nested, model.widths))


_SMALL = {"embed_dim": 384, "num_heads": 6}
_BASE = {"embed_dim": 768, "num_heads": 12}


@architecture(
    "matvit",
    paper="Devvrit et al. 2023, arXiv 2310.07707",
    presets={
        "matvit_tiny_patch16_224": {},
        "matvit_small_patch16_224": _SMALL,
        "matvit_base_patch16_224": _BASE,
    },
    timm=as_timm,
    symmetries=nested_symmetries,
    training_factors=(*TRAINING_FACTORS, "granularities"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def matvit(config: Matvit, num_outputs: int) -> nn.Module:
    """A ViT whose MLPs have smaller ones inside (MatFormer): one training, models of many sizes.

    Each step trains the first hidden units of all MLPs, as many as a granularity that is drawn
    says; with `accumulation` each part of a batch another one. The authors train all granularities
    on each batch, and sum their losses. In eval mode it is the plain ViT.
    """
    return MatVisionTransformer(config, num_outputs)
