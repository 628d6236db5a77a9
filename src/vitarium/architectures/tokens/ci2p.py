"""CI2P-ViT: tokens from the latent maps of a frozen image codec, made by two convolutional blocks.

The paper's codec was trained to compress images, as is the architecture `image_codec`, which the
operator `ci2p` puts here. Without one there is a block transform (the discrete cosine transform,
the lowest frequencies of each block: JPEG's), or a network of that shape with random weights.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import PositiveInt
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import NOTHING
from vitarium.architectures.tokens._declaration import TokenizerDeclaration
from vitarium.architectures.tokens.image_codec import analysis_transform
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class Ci2pVit(Vit):
    """A ViT without positions on the latent maps of a frozen codec; by default of ViT-Ti's width.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    img_size: PositiveInt = 256
    """Height and width of the input images, in pixels."""
    patch_size: PositiveInt = 32
    """Pixels between neighboring tokens, a power of two: half of it is the codec's stride."""
    codec: Literal["dct", "random", "trained"] = "dct"
    """The frozen encoder: the discrete cosine transform of blocks (dct), strided convolutions with
    random weights (random), of which each seed has its own, or with those of a trained codec
    (trained), which are the parent's: see the operator `ci2p`."""
    codec_channels: PositiveInt = 192
    """Channels of the codec's maps; of the transform, frequencies of all image channels."""
    codec_width: PositiveInt = 128
    """Channels between the codec's convolutions."""
    class_token: bool = False
    """Put a learned class token before the patches."""
    global_pool: Literal["token", "avg"] = "avg"
    """Features that the head sees: the class token (token), or the mean of the patches (avg)."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        patch, block = self.patch_size, self.patch_size // 2
        if patch < 4 or patch & (patch - 1):
            yield f"patch_size {patch} is not a power of two from 4 on"
        frequencies, rest = divmod(self.codec_channels, self.in_chans)
        if self.codec == "dct" and (rest or frequencies > block**2):
            yield (
                f"codec_channels {self.codec_channels}: a transform of blocks of {block} pixels "
                f"has up to {block**2} frequencies for each of {self.in_chans} image channels, "
                "and as many of each"
            )
        if self.no_embed_class:
            yield "no_embed_class: ci2p has no position embeddings; leave it out"

    @property
    def needs_parent(self) -> str:
        """See the base."""
        how = "start from a codec, {stage: NAME, operator: {name: ci2p}}, or from such a model"
        return f"codec 'trained' has its parent's weights: {how}" if self.codec == "trained" else ""


class FrozenConv2d(nn.Module):
    """A convolution whose weights are buffers: nothing trains, draws or decays them."""

    def __init__(self, weight: Tensor, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight: Tensor
        self.register_buffer("weight", weight)
        self.bias: Tensor
        self.register_buffer("bias", torch.zeros(len(weight)))

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(maps, self.weight, self.bias, self.stride, self.padding)


class Codec(nn.Sequential):
    """images [batch, in_chans, h, w] -> maps [batch, codec_channels, h / stride, w / stride]"""

    def train(self, mode: bool = True) -> Self:
        """It stays in eval mode."""
        return super().train(False)


def cosine_codec(config: Ci2pVit) -> Codec:
    """The orthonormal discrete cosine transform of blocks, their lowest frequencies alone."""
    block = config.patch_size // 2
    waves = cosines(block)
    order = sorted(
        ((u, v) for u in range(block) for v in range(block)), key=lambda uv: (sum(uv), uv)
    )
    lowest = torch.tensor(order[: config.codec_channels // config.in_chans], device="cpu")
    planes = torch.einsum("kh,kw->khw", waves[lowest[:, 0]], waves[lowest[:, 1]])
    by_channel = torch.eye(config.in_chans, dtype=planes.dtype, device="cpu")
    weight = torch.einsum("khw,oc->kochw", planes, by_channel).flatten(0, 1)
    return Codec(FrozenConv2d(weight.float().to(torch.get_default_device()), block))


def cosines(size: int) -> Tensor:
    """The orthonormal DCT-II: [frequencies, size], float64."""
    number = torch.arange(size, dtype=torch.float64, device="cpu")
    waves = torch.cos(torch.pi * number.unsqueeze(1) * (2 * number + 1) / (2 * size))
    waves[0] /= 2**0.5
    return waves * (2 / size) ** 0.5


def convolutional_codec(config: Ci2pVit) -> Codec:
    """The analysis transform of an `image_codec`, with random weights."""
    convs = config.patch_size.bit_length() - 2
    drawn = analysis_transform(config.in_chans, config.codec_width, config.codec_channels, convs)
    codec = Codec()
    for part in drawn:
        if isinstance(part, nn.Conv2d):
            part = FrozenConv2d(part.weight.detach(), stride=2, padding=2)
        codec.append(part)
    return codec


class CodecTokens(nn.Module):
    """images [batch, in_chans, height, width] -> tokens [batch, n, embed_dim]

    Two inverted residuals of MobileNetV3 follow the codec, the second with stride 2.
    """

    def __init__(self, config: Ci2pVit, **sizes: Any) -> None:
        super().__init__()
        side, channels = config.img_size // config.patch_size, config.codec_channels
        self.img_size, self.patch_size = (config.img_size,) * 2, (config.patch_size,) * 2
        self.grid_size, self.num_patches = (side, side), side**2
        self.codec = cosine_codec(config) if config.codec == "dct" else convolutional_codec(config)
        self.codec.eval()
        gate = partial(SqueezeExcite, gate_layer=nn.Hardsigmoid, force_act_layer=nn.ReLU)
        parts: dict[str, Any] = {"act_layer": nn.Hardswish, "se_layer": gate}
        self.mixers = nn.Sequential(
            InvertedResidual(channels, channels, dw_kernel_size=3, exp_ratio=4, **parts),
            InvertedResidual(
                channels, config.embed_dim, dw_kernel_size=5, stride=2, exp_ratio=6, **parts
            ),
        )
        self.norm = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            maps = self.codec(images)
        tokens: Tensor = self.mixers(maps).flatten(2).transpose(1, 2)
        return tokens


class Ci2pVisionTransformer(VisionTransformer):
    """timm's on tokens from a codec; there is no class of timm's for it."""


class Ci2pDeclaration(TokenizerDeclaration):
    mixes_stream = False  # a batch normalization writes to it

    def tokenizer(self, at: str, tokenizer: Any) -> None:
        last = tokenizer.mixers[1]
        self.linear(f"{at}.mixers.1.conv_pwl", self.written, NOTHING, last.conv_pwl)
        for name, tensor in last.bn3.state_dict(prefix=f"{at}.mixers.1.bn3.").items():
            if tensor.is_floating_point():
                self.piece(name, tensor.shape, (self.written,), elementwise=True)


@architecture(
    "ci2p",
    paper="Zhao & Sun 2025, arXiv 2502.10120",
    presets={"ci2p_vit_base": {"codec": "random", "embed_dim": 768, "num_heads": 12}},
    symmetries=Ci2pDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={
        "img_size": 16,
        "patch_size": 8,
        "codec_channels": 12,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
    },
)
def ci2p(config: Ci2pVit, num_outputs: int) -> nn.Module:
    """A ViT on tokens from the maps of a frozen encoder: a block transform, random or trained."""
    return Ci2pVisionTransformer(
        **config.arguments(),
        pos_embed="none",
        embed_layer=partial(CodecTokens, config),
        num_classes=num_outputs,
    )
