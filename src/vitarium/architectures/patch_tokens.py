"""A plain vision transformer step by step: patches, some of them hidden, then blocks.

images [batch, c, h, w] -> `embed`: patches with positions [batch, n, embed_dim]
                        -> `encode`: prefix tokens and patches [batch, prefix + n, embed_dim]
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.features import is_linearized, prompt_tokens
from vitarium.core.errors import InvalidInput


def require_plain(model: nn.Module, purpose: str) -> VisionTransformer:
    """The model, of which patches can be left out: timm's VisionTransformer, or one like it.

    purpose: what needs it, for the error. Raises InvalidInput for windows, for a position embedding
    that is not added to the patches, and for models with prompts or in a tangent.
    """
    kind = type(model).__name__
    if not isinstance(model, VisionTransformer):
        raise InvalidInput(f"{purpose} needs a plain vision transformer, and {kind} is none")
    own = type(model)
    for step in ("_pos_embed", "forward_features"):
        if getattr(own, step) is not getattr(VisionTransformer, step):
            raise InvalidInput(f"{purpose} needs a plain vision transformer, unlike {kind}")
    if not isinstance(model.patch_embed, PatchEmbed) or model.pos_embed is None:
        raise InvalidInput(f"{purpose} needs patches with positions that are added to them")
    if getattr(model, "reduces_tokens", False):
        raise InvalidInput(f"{purpose} needs blocks that leave no patch out, unlike {kind}")
    if prompt_tokens(model) or is_linearized(model):
        raise InvalidInput(f"{purpose} does not go with prompts, nor with a model in its tangent")
    return model


def patch_grid(model: VisionTransformer) -> tuple[int, int]:
    """Rows and columns of patches in an image of the model's own size."""
    rows, columns = model.patch_embed.grid_size
    return int(rows), int(columns)


def patch_size(model: VisionTransformer) -> tuple[int, int]:
    """Height and width of a patch, in pixels."""
    height, width = model.patch_embed.patch_size
    return int(height), int(width)


def patch_positions(model: VisionTransformer, grid: tuple[int, int] | None = None) -> Tensor:
    """Position embeddings of patches, [1, n, embed_dim]; resampled for another grid, as timm does
    (bicubic, with antialiasing)."""
    assert model.pos_embed is not None
    positions: Tensor = model.pos_embed
    if not model.no_embed_class:
        positions = positions[:, model.num_prefix_tokens :]
    own = patch_grid(model)
    if grid is None or grid == own:
        return positions
    # a linear map, by which vmap and double backward work
    matrix = _resampling(own, grid).to(positions)
    return matrix @ positions


@lru_cache(maxsize=64)
def _resampling(old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """[new rows * columns, old rows * columns]"""
    each = torch.eye(old[0] * old[1]).unsqueeze(0)
    with torch.inference_mode(False), torch.no_grad():
        resampled = resample_abs_pos_embed(each, list(new), list(old), num_prefix_tokens=0)
    return resampled.squeeze(0).clone()


def embed(
    model: VisionTransformer,
    images: Tensor,
    *,
    masks: Tensor | None = None,
    mask_token: Tensor | None = None,
) -> Tensor:
    """Patches with their positions; images may be of any size that patches divide.

    images [batch, c, h, w] -> [batch, n, embed_dim]. Patches where masks, bool [batch, n], are True
    are replaced by mask_token [embed_dim] before positions are added.

    Raises InvalidInput for a size that patches do not divide.
    """
    size, patch = tuple(images.shape[-2:]), patch_size(model)
    if size[0] % patch[0] or size[1] % patch[1]:
        sizes = "x".join(map(str, size)), "x".join(map(str, patch))
        raise InvalidInput(f"images of {sizes[0]} pixels cannot be cut into patches of {sizes[1]}")
    grid = (size[0] // patch[0], size[1] // patch[1])
    tokens = model.patch_embed.proj(images).flatten(2).transpose(1, 2)
    tokens = model.patch_embed.norm(tokens)
    if masks is not None and mask_token is not None:
        tokens = torch.where(masks.unsqueeze(-1), mask_token.to(tokens.dtype), tokens)
    return tokens + patch_positions(model, grid)


def encode(
    model: VisionTransformer, patches: Tensor, *, taps: Sequence[int] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Class token and registers before the patches, through all blocks and the final norm.

    patches [batch, n, embed_dim], any of an image's, with their positions -> tokens [batch, prefix
    + n, embed_dim], and the outputs of the blocks in `taps` (from 0, in order), of the same shape
    and without norm.
    """
    tokens = torch.cat([_prefix(model, patches), patches], dim=1)
    tokens = model.norm_pre(model.pos_drop(tokens))
    tapped = []
    for number, block in enumerate(model.blocks):
        tokens = block(tokens)
        if number in taps:
            tapped.append(tokens)
    return model.norm(tokens), tapped


def _prefix(model: VisionTransformer, patches: Tensor) -> Tensor:
    """Class token and registers, with their positions: [batch, prefix, embed_dim]"""
    own: list[Tensor] = [token for token in (model.cls_token, model.reg_token) if token is not None]
    if not own:
        return patches[:, :0]
    tokens = torch.cat(own, dim=1)
    if not model.no_embed_class:
        assert model.pos_embed is not None
        tokens = tokens + model.pos_embed[:, : model.num_prefix_tokens]
    return tokens.to(patches.dtype).expand(patches.shape[0], -1, -1)


def visible_patches(patches: Tensor, masks: Tensor, count: int) -> Tensor:
    """The patches that are not hidden, in order: [batch, n, width] and bool [batch, n], of which
    `count` in each row are False -> [batch, count, width]"""
    order = masks.int().argsort(dim=1, stable=True)[:, :count]
    return patches.gather(1, order.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def with_mask_tokens(visible: Tensor, masks: Tensor, mask_token: Tensor) -> Tensor:
    """The inverse of `visible_patches`, with mask_token [width] for others: [batch, n, width]"""
    rank = (~masks).int().cumsum(dim=1) - 1  # of each visible patch among them
    index = rank.clamp_min(0).long().unsqueeze(-1).expand(-1, -1, visible.shape[-1])
    return torch.where(masks.unsqueeze(-1), mask_token.to(visible.dtype), visible.gather(1, index))


def patch_pixels(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels of each patch, by row in the patch, column, and channel.

    [batch, c, h, w] -> [batch, n, height * width * c]
    """
    height, width = size
    blocks = images.unfold(2, height, height).unfold(3, width, width)  # [b, c, rows, columns, h, w]
    return blocks.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def sin_cos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed positions: the first half of the channels encodes the column, the second the row, each
    as [sin, cos] of position * 10000^(-i / (width / 4)) (He et al. 2022, arXiv 2111.06377, App. A).

    -> [rows * columns, width]. Raises InvalidInput where 4 does not divide the width.
    """
    if width % 4:
        raise InvalidInput(f"sin-cos positions need a width that 4 divides, and it is {width}")
    rates = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64),
        torch.arange(grid[1], dtype=torch.float64),
        indexing="ij",
    )
    halves = [axis.flatten().unsqueeze(1) * rates for axis in (columns, rows)]
    return torch.cat([f(half) for half in halves for f in (torch.sin, torch.cos)], dim=1).float()


def fix_positions(model: VisionTransformer) -> None:
    """Give patches sin-cos positions and prefix tokens none, in place; they do not learn."""
    assert model.pos_embed is not None
    positions = sin_cos_positions(patch_grid(model), model.embed_dim)
    count = 0 if model.no_embed_class else model.num_prefix_tokens
    with torch.no_grad():
        model.pos_embed.zero_()
        model.pos_embed[0, count:] = positions.to(model.pos_embed)
    model.pos_embed.requires_grad_(False)
