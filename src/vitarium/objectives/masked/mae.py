"""MAE: a masked autoencoder predicts the pixels of hidden patches."""

from torch import Tensor, nn

from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.companions import Companions
from vitarium.objectives.masked.base import (
    Decoder,
    MaskedAutoencoder,
    encode_visible,
    mean_over_hidden,
    pixel_targets,
    prepare,
    random_masks,
    require_encoder,
)


class Mae(MaskedAutoencoder):
    """Mean squared error of the pixels of hidden patches; the decoder is dropped afterwards."""


class MaeCompanions(Companions):
    def __init__(self, config: Mae, model: nn.Module) -> None:
        super().__init__()
        self.decoder = Decoder(config, require_encoder(model))


@objective(
    "mae",
    views=1,
    **WITHOUT_HEAD,
    companions=lambda config, model, num_classes: MaeCompanions(config, model),
    masks=random_masks,
    prepare=prepare,
    paper="He et al. 2022, arXiv 2111.06377",
    tiny={"mask_ratio": 0.5, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
)
def mae(config: Mae, model: nn.Module, batch: Batch, companions: MaeCompanions) -> Loss:
    """Masked autoencoder: predict the pixels of hidden patches from the visible ones.

    images [batch, c, h, w] and masks [batch, n]; the loss is a mean over hidden patches alone.
    """
    plain, masks = require_encoder(model), batch.masks
    assert masks is not None
    encoded, _ = encode_visible(config, plain, batch)
    predicted: Tensor = companions.decoder(encoded, masks).float()
    targets = pixel_targets(config, plain, batch.images)
    return Loss(mean_over_hidden((predicted - targets) ** 2, masks))
