"""What masked image modeling has in common: masks, a decoder, and pixels as targets."""

from collections.abc import Sequence

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.patch_tokens import (
    embed,
    encode,
    fix_positions,
    patch_grid,
    patch_pixels,
    patch_size,
    require_plain,
    sin_cos_positions,
    visible_patches,
    with_mask_tokens,
)
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import ScoredByFeatures
from vitarium.objectives.base import TokenMasks

_EPS = 1e-6
_PUBLISHED_DEPTH = 12
"""Of the models of which papers say what blocks they tap."""


class Masked(ScoredByFeatures):
    """Settings of objectives that hide a share of the patches."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that are hidden, between 0 and 1."""


class Decoded(Masked):
    """Settings of objectives whose encoder sees visible patches alone, and whose decoder has hidden
    ones, too."""

    decoder_dim: PositiveInt = 512
    """Width of the decoder; 512 for ViTs of every size in the paper."""
    decoder_depth: NonNegativeInt = 8
    """Number of the decoder's blocks."""
    decoder_heads: PositiveInt = 16
    """Attention heads of a block of the decoder; decoder_dim has to be a multiple of it."""
    fixed_positions: bool = True
    """Positions are sines and cosines that do not learn; a stage that starts from the model trains
    them. Else those of the architecture, which learn."""


class MaskedAutoencoder(Decoded):
    """Settings of objectives whose decoder predicts the pixels of hidden patches."""

    normalize_targets: bool = True
    """Predict each patch's pixels normalized by its own mean and standard deviation."""


def require_encoder(model: nn.Module) -> VisionTransformer:
    """The model, which can encode visible patches alone. Raises InvalidInput."""
    plain = require_plain(model, "a masked autoencoder")
    if getattr(plain, "attn_pool", None) is not None:
        raise InvalidInput("a masked autoencoder trains no attention pooling: pool by token or avg")
    return plain


def prepare(config: Decoded, model: nn.Module, from_scratch: bool) -> None:
    """Fixed positions; those of a model that goes on stay as they are, and do not learn."""
    plain = require_encoder(model)
    if not config.fixed_positions:
        return
    assert plain.pos_embed is not None
    if from_scratch:
        fix_positions(plain)
    plain.pos_embed.requires_grad_(False)


def visible_count(config: Masked, model: VisionTransformer) -> int:
    """int(n (1 - mask_ratio)) of n patches."""
    rows, columns = patch_grid(model)
    return int(rows * columns * (1 - config.mask_ratio))


def random_masks(config: Masked, model: nn.Module) -> TokenMasks:
    """As many hidden patches in each image, those with the largest of n numbers.

    Raises InvalidInput where no patch would be seen, or none hidden.
    """
    plain = require_plain(model, "hiding patches")
    patches, visible = patch_grid(plain)[0] * patch_grid(plain)[1], visible_count(config, plain)
    if not 0 < visible < patches:
        raise InvalidInput(
            f"mask_ratio {config.mask_ratio} leaves {visible} of {patches} patches visible: choose "
            "another, or smaller patches"
        )

    def masks(numbers: Tensor) -> Tensor:
        ranks = numbers.argsort(dim=1).argsort(dim=1)
        return ranks >= visible

    return TokenMasks(patches, masks)


def encode_visible(
    config: Masked, model: VisionTransformer, batch: Batch, taps: Sequence[int] = ()
) -> tuple[Tensor, list[Tensor]]:
    """As `encode_under_masks`, of a batch's images under its masks."""
    assert batch.masks is not None
    return encode_under_masks(config, model, batch.images, batch.masks, taps)


def encode_under_masks(
    config: Masked,
    model: VisionTransformer,
    images: Tensor,
    masks: Tensor,
    taps: Sequence[int] = (),
) -> tuple[Tensor, list[Tensor]]:
    """Tokens of the patches that are not hidden, after the final norm, and outputs of the blocks in
    `taps` without it: each [batch, prefix + visible, embed_dim]."""
    visible = visible_patches(embed(model, images), masks, visible_count(config, model))
    encoded, tapped = encode(model, visible, taps=taps)
    return model.fc_norm(encoded), tapped


def final_norm(model: VisionTransformer, tokens: Tensor) -> Tensor:
    """The last norm, of every token; also that which a model that averages its patches has after
    the average, so that it learns, too. [batch, tokens, embed_dim] -> the same"""
    normalized: Tensor = model.fc_norm(model.norm(tokens))
    return normalized


def tapped_blocks(
    taps: Sequence[int] | None, published: Sequence[int], model: VisionTransformer
) -> tuple[int, ...]:
    """Numbers of blocks, from 0, in rising order.

    taps: those chosen; None: those published of a model of 12 blocks, or of another depth the ones
        of the same relative depth, round(t (depth - 1) / 11), each once.

    Raises InvalidInput for a block that is not there, and for an order that does not rise.
    """
    depth = len(model.blocks)
    if taps is None:
        scale = (depth - 1) / (_PUBLISHED_DEPTH - 1)
        return tuple(sorted({round(tap * scale) for tap in published}))
    if missing := [tap for tap in taps if tap >= depth]:
        raise InvalidInput(f"taps: there is no block {missing[0]}, the last is {depth - 1}")
    if list(taps) != sorted(set(taps)):
        raise InvalidInput(f"taps {list(taps)} have to rise: name each block once, in order")
    return tuple(taps)


class Decoder(nn.Module):
    """MAE's decoder: mask tokens for hidden patches, fixed positions, blocks, and a prediction.

    encoded [batch, prefix + visible, encoder's width] and masks [batch, n] -> [batch, n, pixels of
    a patch]. Raises InvalidInput where heads do not divide its width, or 4 does not.
    """

    def __init__(self, config: Decoded, model: VisionTransformer) -> None:
        super().__init__()
        width, heads = config.decoder_dim, config.decoder_heads
        if width % heads:
            raise InvalidInput(f"decoder_dim {width} is not divisible by decoder_heads {heads}")
        self.prefix = model.num_prefix_tokens
        self.embed = nn.Linear(model.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.positions: Tensor
        positions = sin_cos_positions(patch_grid(model), width)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=nn.LayerNorm)
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, pixels_per_patch(model))
        self.apply(initialize)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, encoded: Tensor, masks: Tensor) -> Tensor:
        return self.pixels(self.states(encoded, masks))

    def states(self, encoded: Tensor, masks: Tensor, count: int | None = None) -> Tensor:
        """The output of its last block, or of the first `count`: [batch, prefix + n, width]"""
        tokens = self.start(encoded, masks)
        for block in self.blocks[:count]:
            tokens = block(tokens)
        return tokens

    def start(self, encoded: Tensor, masks: Tensor) -> Tensor:
        """What its blocks begin with: [batch, prefix + n, width]"""
        embedded = self.embed(encoded)
        prefix, visible = embedded[:, : self.prefix], embedded[:, self.prefix :]
        patches = with_mask_tokens(visible, masks, self.mask_token) + self.positions
        return torch.cat([prefix, patches], dim=1)

    def pixels(self, tokens: Tensor) -> Tensor:
        """[batch, prefix + n, width] -> [batch, n, pixels of a patch]"""
        predicted: Tensor = self.predict(self.norm(tokens))
        return predicted[:, self.prefix :]


def initialize(module: nn.Module) -> None:
    """Of a decoder, as MAE's: xavier-uniform weights, no biases, and norms with an eps of 1e-6."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.LayerNorm):
        module.eps = _EPS


def pixels_per_patch(model: VisionTransformer) -> int:
    """Numbers of a patch: its height * width * channels."""
    height, width = patch_size(model)
    return height * width * int(model.patch_embed.proj.in_channels)


def pixel_targets(config: MaskedAutoencoder, model: VisionTransformer, images: Tensor) -> Tensor:
    """What is predicted of each patch: [batch, c, h, w] -> [batch, n, pixels of a patch]"""
    pixels = patch_pixels(images, patch_size(model)).float()
    return normalized_patches(pixels) if config.normalize_targets else pixels


def normalized_patches(pixels: Tensor) -> Tensor:
    """Each patch less its mean, by its standard deviation: the unbiased variance + 1e-6.

    [batch, n, m] -> the same
    """
    mean, variance = pixels.mean(-1, keepdim=True), pixels.var(-1, keepdim=True)
    return (pixels - mean) / (variance + _EPS).sqrt()


def mean_over_hidden(differences: Tensor, masks: Tensor) -> Tensor:
    """Of squared differences [batch, n, m], the mean over hidden patches: a scalar"""
    per_patch, hidden = differences.mean(-1), masks.to(differences.dtype)
    return (per_patch * hidden).sum() / hidden.sum()
