"""MFF: a masked autoencoder whose decoder sees a fusion of several blocks' outputs."""

from collections.abc import Sequence

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.companions import Companions
from vitarium.objectives.masked.base import (
    Decoder,
    MaskedAutoencoder,
    encode_visible,
    final_norm,
    mean_over_hidden,
    pixel_targets,
    prepare,
    random_masks,
    require_encoder,
    tapped_blocks,
)

PUBLISHED_TAPS = (0, 2, 4, 6, 8, 11)


class Mff(MaskedAutoencoder):
    """The loss of `mae`, with a weighted sum of blocks' outputs before the encoder's last norm."""

    taps: tuple[NonNegativeInt, ...] | None = None
    """Blocks whose outputs are fused, from 0, in rising order; the last of the model is one of
    them. None: 0, 2, 4, 6, 8 and 11 of 12 blocks, and of another depth those of the same relative
    depth."""


class Fusion(nn.Module):
    """sum_l softmax(w)_l P_l(x_l): a weighted mean of projected levels.

    levels: L of [batch, tokens, width] -> [batch, tokens, width]. P_l is linear, and the last level
    is taken as it is; all w are 1 at first.
    """

    def __init__(self, levels: int, width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(width, width) for _ in range(levels - 1))
        self.logits = nn.Parameter(torch.ones(levels))

    def weights(self) -> Tensor:
        """Of the levels, [L]; their sum is 1."""
        return self.logits.softmax(0)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        *shallow, last = levels
        projected = [project(level) for project, level in zip(self.project, shallow, strict=True)]
        stacked = torch.stack([*projected, last], dim=-1)
        return stacked @ self.weights().to(stacked.dtype)


class MffCompanions(Companions):
    def __init__(self, config: Mff, model: nn.Module) -> None:
        super().__init__()
        plain = require_encoder(model)
        self.taps = tapped_blocks(config.taps, PUBLISHED_TAPS, plain)
        if self.taps[-1:] != (len(plain.blocks) - 1,):
            last = f"the last block, {len(plain.blocks) - 1}, has to be among them"
            raise InvalidInput(f"taps {list(self.taps)}: {last}, or it would not learn")
        self.fusion = Fusion(len(self.taps), plain.embed_dim)
        self.decoder = Decoder(config, plain)


@objective(
    "mff",
    views=1,
    **WITHOUT_HEAD,
    companions=lambda config, model, num_classes: MffCompanions(config, model),
    masks=random_masks,
    prepare=prepare,
    paper="Liu et al. 2023, arXiv 2308.00261",
    tiny={"mask_ratio": 0.5, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
)
def mff(config: Mff, model: nn.Module, batch: Batch, companions: MffCompanions) -> Loss:
    """Masked autoencoder (mae) with multi-level feature fusion; logs the weight of each level.

    images [batch, c, h, w] and masks [batch, n]; `level_weight_0` is that of the first tap.
    """
    plain, masks = require_encoder(model), batch.masks
    assert masks is not None
    _, levels = encode_visible(config, plain, batch, companions.taps)
    fused = final_norm(plain, companions.fusion(levels))
    predicted: Tensor = companions.decoder(fused, masks).float()
    targets = pixel_targets(config, plain, batch.images)
    weights = companions.fusion.weights()
    by_level = {f"level_weight_{number}": weights[number] for number in range(len(levels))}
    return Loss(mean_over_hidden((predicted - targets) ** 2, masks), **by_level)
