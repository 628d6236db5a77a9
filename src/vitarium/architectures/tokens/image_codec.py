"""The analysis transform of a learned image codec: what an image is compressed to, as maps.

The objective `rate_distortion` trains it, and the operator `ci2p` puts it before a ViT.
"""

from itertools import pairwise
from typing import Self

from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from vitarium.architectures.base import ArchitectureConfig, architecture


class ImageCodecConfig(ArchitectureConfig):
    """Strided convolutions; the defaults are those of codecs for high bit rates.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    img_size: PositiveInt = 256
    """Height and width of the input images, in pixels."""
    in_chans: PositiveInt = 3
    """Channels of the input images: 3 for RGB, 1 for gray."""
    num_convs: PositiveInt = 4
    """Convolutions, each of which halves height and width."""
    width: PositiveInt = 128
    """Channels between the convolutions."""
    channels: PositiveInt = 192
    """Channels of the maps that an image is compressed to."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        return (self.in_chans, self.img_size, self.img_size)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.img_size % 2**self.num_convs:
            raise ValueError(
                f"img_size {self.img_size} cannot be halved {self.num_convs} times (num_convs)"
            )
        return self

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Channels, height and width of an image's maps."""
        side = self.img_size // 2**self.num_convs
        return (self.channels, side, side)


def analysis_transform(in_chans: int, width: int, channels: int, num_convs: int) -> nn.Sequential:
    """Convolutions of 5x5 with stride 2 and ReLU between, from He's start and biases of 0.

    images [batch, in_chans, h, w] -> maps [batch, channels, h / 2^num_convs, w / 2^num_convs]
    """
    layers = nn.Sequential()
    widths = [in_chans, *[width] * (num_convs - 1), channels]
    for number, (incoming, outgoing) in enumerate(pairwise(widths)):
        if number:
            layers.append(nn.ReLU())
        conv = nn.Conv2d(incoming, outgoing, 5, stride=2, padding=2)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        layers.append(conv)
    return layers


class ImageCodec(nn.Module):
    """images [batch, in_chans, h, w] -> outputs [batch, num_outputs], of the mean of its maps"""

    trains_singly = "is trained beside transposed convolutions, whose sums depend on the stack"

    def __init__(self, config: ImageCodecConfig, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes, self.num_features = num_outputs, config.channels
        sizes = (config.in_chans, config.width, config.channels, config.num_convs)
        self.layers = analysis_transform(*sizes)
        self.head = nn.Linear(config.channels, num_outputs) if num_outputs else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        """images [batch, in_chans, h, w] -> maps [batch, channels, h / stride, w / stride]"""
        maps: Tensor = self.layers(images)
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """maps [batch, channels, h, w] -> outputs [batch, num_outputs], or features [batch,
        channels]"""
        features = maps.mean((2, 3))
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """images [batch, in_chans, h, w] -> outputs [batch, num_outputs]"""
        return self.forward_head(self.forward_features(images))


@architecture(
    "image_codec",
    paper="Ballé et al. 2018, arXiv 1802.01436",
    symmetries="its maps are what a decoder and `ci2p` read, channel by channel",
    tiny={"img_size": 16, "num_convs": 2, "width": 8, "channels": 12},
)
def image_codec(config: ImageCodecConfig, num_outputs: int) -> nn.Module:
    """Strided convolutions that compress an image to maps: the codec that `ci2p` builds on."""
    return ImageCodec(config, num_outputs)
