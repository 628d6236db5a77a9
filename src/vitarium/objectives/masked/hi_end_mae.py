"""Hi-End-MAE: a masked autoencoder whose decoder attends to outputs of the encoder's blocks."""

from collections.abc import Sequence

from pydantic import NonNegativeInt
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.patch_tokens import patch_pixels, patch_size
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.companions import Companions
from vitarium.objectives.masked.base import (
    Decoder,
    MaskedAutoencoder,
    encode_visible,
    initialize,
    mean_over_hidden,
    prepare,
    random_masks,
    require_encoder,
    tapped_blocks,
)

PUBLISHED_TAPS = (3, 6, 9)


class HiEndMae(MaskedAutoencoder):
    """Mean squared error of the pixels of hidden patches, with a decoder that asks the encoder's
    levels by cross-attention."""

    decoder_depth: NonNegativeInt = 2
    """Number of the decoder's blocks without cross-attention; one with it follows for each tap."""
    taps: tuple[NonNegativeInt, ...] | None = None
    """Blocks to whose outputs the decoder attends, from 0, in rising order; the deepest first.
    None: 3, 6 and 9 of 12 blocks, and of another depth those of the same relative depth."""
    normalize_targets: bool = True
    """Predict each patch's pixels after a LayerNorm, whose variance is the biased one."""


class CrossAttention(nn.Module):
    """Attention of queries [batch, tokens, width] to keys and values from context [batch, others,
    width] -> [batch, tokens, width]"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        def by_head(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

        keys, values = self.kv(context).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            by_head(self.q(queries)), by_head(keys), by_head(values)
        )
        projected: Tensor = self.proj(attended.transpose(-2, -3).flatten(-2))
        return projected


class CrossBlock(nn.Module):
    """Self-attention, cross-attention to a level of the encoder, and an MLP, each after a norm of
    the tokens alone.

    tokens [batch, n, width] and level [batch, visible, width] -> [batch, n, width]
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        block = Block(width, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=nn.LayerNorm)
        self.norm0, self.attn = block.norm1, block.attn
        self.norm1, self.cross_attn = nn.LayerNorm(width), CrossAttention(width, heads)
        self.norm2, self.mlp = block.norm2, block.mlp

    def forward(self, tokens: Tensor, level: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm0(tokens))
        tokens = tokens + self.cross_attn(self.norm1(tokens), level)
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


class HierarchicalDecoder(Decoder):
    """Blocks as MAE's, then one with cross-attention for each level, from the deepest to the
    shallowest.

    encoded and levels [batch, prefix + visible, encoder's width], masks [batch, n] -> [batch, n,
    pixels of a patch]. Patches are in the image's order; the paper's code leaves them shuffled,
    with their positions, which gives the same.
    """

    def __init__(self, config: HiEndMae, model: VisionTransformer, levels: int) -> None:
        super().__init__(config, model)
        width, heads = config.decoder_dim, config.decoder_heads
        self.embed_levels = nn.ModuleList(nn.Linear(model.embed_dim, width) for _ in range(levels))
        self.cross_blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(levels))
        self.embed_levels.apply(initialize)
        self.cross_blocks.apply(initialize)

    def forward(self, encoded: Tensor, masks: Tensor, levels: Sequence[Tensor] = ()) -> Tensor:
        tokens = self.start(encoded, masks)
        for block in self.blocks:
            tokens = block(tokens)
        deepest_first = zip(self.cross_blocks, self.embed_levels, reversed(levels), strict=True)
        for block, embed_level, level in deepest_first:
            tokens = block(tokens, embed_level(level))
        return self.pixels(tokens)


class HiEndMaeCompanions(Companions):
    def __init__(self, config: HiEndMae, model: nn.Module) -> None:
        super().__init__()
        plain = require_encoder(model)
        self.taps = tapped_blocks(config.taps, PUBLISHED_TAPS, plain)
        if not self.taps:
            raise InvalidInput("taps: the decoder needs a block to attend to; or take mae")
        self.decoder = HierarchicalDecoder(config, plain, len(self.taps))


@objective(
    "hi_end_mae",
    views=1,
    **WITHOUT_HEAD,
    companions=lambda config, model, num_classes: HiEndMaeCompanions(config, model),
    masks=random_masks,
    prepare=prepare,
    paper="Tang et al. 2025, arXiv 2502.08347",
    tiny={"mask_ratio": 0.5, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
)
def hi_end_mae(
    config: HiEndMae, model: nn.Module, batch: Batch, companions: HiEndMaeCompanions
) -> Loss:
    """Masked autoencoder (mae) whose decoder attends to outputs of the encoder's blocks.

    images [batch, c, h, w] and masks [batch, n]; the loss is a mean over hidden patches alone.
    """
    plain, masks = require_encoder(model), batch.masks
    assert masks is not None
    encoded, levels = encode_visible(config, plain, batch, companions.taps)
    predicted: Tensor = companions.decoder(encoded, masks, levels).float()
    targets = patch_pixels(batch.images, patch_size(plain)).float()
    if config.normalize_targets:
        targets = F.layer_norm(targets, targets.shape[-1:], eps=1e-6)
    return Loss(mean_over_hidden((predicted - targets) ** 2, masks))
