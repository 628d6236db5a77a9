"""A plain ViT whose head sees a scaled sum of what its attentions and MLPs add to the stream."""

from typing import Any

from torch import nn

from vitarium.architectures.base import architecture
from vitarium.architectures.paths import PathBlock, PathEnsembleTransformer
from vitarium.architectures.symmetries.vit import NOTHING
from vitarium.architectures.vit.vit import (
    TRAINING_FACTORS,
    PlainDeclaration,
    PlainVit,
    attend_by_cosines,
)
from vitarium.core.errors import IncompatibleWeights


class PathEnsembleVit(PlainVit):
    """A plain ViT with a learned scale for each path and channel; the defaults are ViT-Ti/16."""


class _Declaration(PlainDeclaration):
    """Channels of the stream have scales of their own, so they are exchanged and not mixed."""

    model_class = PathEnsembleTransformer
    mixes_stream = False

    def tokens(self) -> None:
        """And the scales of all paths."""
        super().tokens()
        scales = self.model.path_scales
        self.piece("path_scales", scales.shape, (NOTHING, self.written), elementwise=True)

    def block(self, at: str, block: Any) -> None:
        """Raises IncompatibleWeights for another kind than its own block."""
        if type(block) is not PathBlock:
            kind = type(block).__name__
            raise IncompatibleWeights(f"{at}: the symmetries of a {kind} are not declared")
        self.branches(at, block)


@architecture(
    "path_ensemble",
    paper="Chang et al. 2023, arXiv 2308.06548",
    symmetries=_Declaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def path_ensemble(config: PathEnsembleVit, num_outputs: int) -> nn.Module:
    """A ViT as an ensemble of its residual paths, each with learned scales of its channels.

    With all scales 1, as they start, it computes what a `vit` does; blocks see the stream as there.
    """
    model = PathEnsembleTransformer(**config.arguments(), num_classes=num_outputs)
    if config.attention == "cosine":
        attend_by_cosines(model)
    return model
