"""Rate-distortion: compress images to few bits, from which they are reconstructed.

The codec has ReLU between its convolutions, where the paper has generalized divisive normalization,
and the prior is the factorized one: no hyperprior.
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from vitarium.architectures.tokens.image_codec import ImageCodec, ImageCodecConfig
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD, ScoredByFeatures
from vitarium.objectives.base import Loss, TokenMasks, objective
from vitarium.objectives.companions import Companions
from vitarium.objectives.compression._factorized_density import FactorizedDensity


class RateDistortion(ScoredByFeatures):
    """Lambda * distortion + rate: the larger lambda is, the better the reconstructions are."""

    distortion_weight: PositiveFloat = 100.0
    """Lambda: weight of the mean squared error of the images as the model sees them, normalized,
    against bits per pixel. Papers give it for pixels from 0 to 255: theirs times (255 std)^2, with
    the std that images are divided by."""


def require_codec(model: nn.Module) -> ImageCodec:
    """The model, which is an analysis transform. Raises InvalidInput."""
    if not isinstance(model, ImageCodec):
        kind = type(model).__name__
        raise InvalidInput(f"rate_distortion trains the architecture image_codec, and not {kind}")
    return model


def synthesis_transform(config: ImageCodecConfig) -> nn.Sequential:
    """The mirrored analysis transform: transposed convolutions, each doubles height and width.

    maps [batch, channels, h, w] -> images [batch, in_chans, h * 2^num_convs, w * 2^num_convs]
    """
    layers, incoming = nn.Sequential(), config.channels
    for outgoing in [*[config.width] * (config.num_convs - 1), config.in_chans]:
        if len(layers):
            layers.append(nn.ReLU())
        layers.append(nn.ConvTranspose2d(incoming, outgoing, 5, 2, padding=2, output_padding=1))
        incoming = outgoing
    return layers


class CodecCompanions(Companions):
    """What decodes the maps, and says how many bits they take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        config = require_codec(model).config
        self.synthesis = synthesis_transform(config)
        self.density = FactorizedDensity(config.channels)


def quantization_noise(model: nn.Module) -> TokenMasks:
    """In the place of masks, uniform noise of each entry of an image's maps: float32
    [n, channels * h * w], in [-1/2, 1/2)."""
    channels, height, width = require_codec(model).config.latent_size
    return TokenMasks(channels * height * width, lambda numbers: (numbers - 0.5).float())


@objective(
    "rate_distortion",
    views=1,
    **WITHOUT_HEAD,
    companions=lambda config, model, num_classes: CodecCompanions(model),
    masks=lambda config, model: quantization_noise(model),
    paper="Ballé et al. 2018, arXiv 1802.01436",
    tiny_architecture={"name": "image_codec", "num_convs": 2, "width": 6, "channels": 8},
)
def rate_distortion(
    config: RateDistortion, model: nn.Module, batch: Batch, companions: CodecCompanions
) -> Loss:
    """Compress images to maps that take few bits, and from which a decoder reconstructs them.

    images [batch, c, h, w]; noise in the place of masks stands for the rounding of maps. Logged are
    `bits_per_pixel`, of an image's height times width, and `distortion`, the mean squared error.
    """
    assert batch.masks is not None  # the noise
    maps = require_codec(model).forward_features(batch.images)
    noisy = maps.float() + batch.masks.view_as(maps)
    pixels = batch.images.shape[-2] * batch.images.shape[-1]
    rate = companions.density.bits(noisy).sum((1, 2, 3)).mean() / pixels
    reconstructed: Tensor = companions.synthesis(noisy).float()
    distortion = torch.mean((reconstructed - batch.images) ** 2)
    loss = config.distortion_weight * distortion + rate
    return Loss(loss, bits_per_pixel=rate, distortion=distortion)
