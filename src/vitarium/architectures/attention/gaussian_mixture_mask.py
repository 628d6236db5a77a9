"""Attention logits times a learned function of the distance of two patches: Gaussian mixtures."""

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from pydantic import PositiveInt
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.attention._small_data import small_data_presets
from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.base import Axis
from vitarium.architectures.symmetries.vit import NOTHING, Readers, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.errors import InvalidInput

_EPS = 1e-5
"""Added to variances: a kernel of no width is that of each patch alone."""


class GaussianMixtureVit(Vit):
    """A ViT whose attention logits are multiplied by learned functions of the patches' distance.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    class_token: bool = False
    """Put a learned class token before the patches; a mask of the grid has no place for one."""
    global_pool: Literal["token", "avg"] = "avg"
    """Features that the head sees: the mean of the patches (avg), which is normalized then."""
    mask: Literal["gaussian_mixture", "free"] = "gaussian_mixture"
    """Factors of the logits: of each head a mixture of Gaussians of the distance, or free ones of
    each pair of patches that all heads share and that start at 0 (the paper's baseline SLM)."""
    num_kernels: PositiveInt = 5
    """Gaussians in each head's mixture."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.class_token or self.reg_tokens:
            yield "class_token and reg_tokens are on no grid, which the masks are of; use neither"


class GaussianMixture(nn.Module):
    """A factor of each pair of patches and head: () -> [heads, patches, patches].

    sum_k alpha_k exp(-r^2 / (2 (sigma_k^2 + 1e-5))) with r the distance in patches, which is
    computed once for each distance along rows and columns, and in one exponential, so that nothing
    underflows before it is raised to a power.
    """

    def __init__(self, num_kernels: int, num_heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(2 * torch.randn(num_kernels, num_heads))
        self.sigma = nn.Parameter(10 + 10 * torch.randn(num_kernels, num_heads))
        rows, columns = (torch.arange(side) for side in grid)
        squares = rows.square().unsqueeze(1) + columns.square()
        down = (rows.unsqueeze(1) - rows).abs().view(grid[0], 1, grid[0], 1)
        across = (columns.unsqueeze(1) - columns).abs().view(1, grid[1], 1, grid[1])
        self.squares: Tensor
        self.steps: Tensor
        self.register_buffer("squares", squares.flatten().float(), persistent=False)
        patches = grid[0] * grid[1]
        steps = (grid[1] * down + across).reshape(patches, patches)
        self.register_buffer("steps", steps, persistent=False)

    def forward(self) -> Tensor:
        precision = 0.5 / (self.sigma.square() + _EPS)
        kernels = torch.exp(-precision.unsqueeze(-1) * self.squares)
        by_distance = (self.alpha.unsqueeze(-1) * kernels).sum(0)
        return by_distance[:, self.steps]


class FreeMask(nn.Module):
    """A factor of each pair of patches, the same for all heads: () -> [1, patches, patches]."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.zeros(patches, patches))

    def forward(self) -> Tensor:
        return self.factors.unsqueeze(0)


class MaskedAttention(Attention):
    """Attention whose logits are multiplied by `mask`: [batch, patches, width] -> the same.

    There is no fused path, since fused kernels add to logits. Raises InvalidInput where tokens are
    not all patches of the grid.
    """

    mask: GaussianMixture | FreeMask

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        batch, count, width = x.shape
        if attn_mask is not None or is_causal:
            raise InvalidInput("attention with a Gaussian mixture mask takes no other mask")
        factors = self.mask()
        if count != (patches := factors.shape[-1]):
            raise InvalidInput(f"an attention mask of {patches} patches for {count} tokens")
        heads = self.qkv(x).reshape(batch, count, 3, self.num_heads, self.head_dim)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).unbind(0)
        logits = (queries * self.scale) @ keys.transpose(-2, -1) * factors
        attended = self.attn_drop(logits.softmax(dim=-1)) @ values
        outputs: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, count, width))
        return self.proj_drop(outputs)


class MaskedTransformer(VisionTransformer):
    """Its masks are of all patches of an image of its size."""

    def forward_features(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        """Images [batch, c, h, w] -> [batch, patches, embed_dim].

        It is timm's; a method of this class tells those who leave patches out, or put tokens
        between, that they cannot (`patch_tokens.require_plain`).
        """
        features: Tensor = super().forward_features(x, *more, **named)
        return features


class MaskedDeclaration(VitDeclaration):
    """The symmetries of `gaussian_mixture_mask`: mixtures go with their heads."""

    def attention(self, at: str, attention: Any) -> Readers:
        """Raises IncompatibleWeights for another kind than `MaskedAttention`."""
        if not isinstance(attention, MaskedAttention):
            return super().attention(at, attention)
        self.heads_of(at, attention, normed=False)
        for name, tensor in attention.mask.state_dict().items():
            axis = NOTHING if isinstance(attention.mask, FreeMask) else Axis(f"{at}.heads")
            self.piece(f"{at}.mask.{name}", tensor.shape, (NOTHING, axis))
        return [(f"{at}.qkv", attention.qkv)]


@architecture(
    "gaussian_mixture_mask",
    paper="Li and Zhang 2023, arXiv 2309.05375",
    presets=small_data_presets("gmm_vit"),
    symmetries=MaskedDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def gaussian_mixture_mask(config: GaussianMixtureVit, num_outputs: int) -> nn.Module:
    arguments = config.arguments()
    model = MaskedTransformer(**arguments, attn_layer=MaskedAttention, num_classes=num_outputs)
    grid: tuple[int, int] = model.patch_embed.grid_size
    for block in model.blocks:
        attention = cast(MaskedAttention, block.attn)
        if config.mask == "free":
            attention.mask = FreeMask(grid[0] * grid[1])
        else:
            attention.mask = GaussianMixture(config.num_kernels, config.num_heads, grid)
    return model
