"""Features of crops of any size, and what fits an architecture."""

from functools import cache

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vitarium.architectures.patch_tokens import embed, encode, patch_size, require_plain
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section


def encode_crops(
    model: VisionTransformer,
    images: Tensor,
    masks: Tensor | None = None,
    mask_token: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pooled features [batch, width], and patches after the final norm [batch, n, width].

    images [batch, c, h, w], of any size that patches divide; masks bool [batch, n] and mask_token
    [width]: patches that are hidden from the model.
    """
    patches = embed(model, images, masks=masks, mask_token=mask_token)
    tokens, _ = encode(model, patches)
    pooled: Tensor = model.forward_head(tokens, pre_logits=True)
    return pooled, model.fc_norm(tokens[:, model.num_prefix_tokens :])


@cache
def misfit_of_sizes(architecture: Section, sizes: tuple[tuple[int, int], ...], purpose: str) -> str:
    """What is wrong with giving a model crops of these heights and widths; empty: nothing."""
    try:
        with meta_device():
            model = architecture(1)
    except Exception:  # of any library: whoever checks the architecture says what is wrong
        return ""
    try:
        patch = patch_size(require_plain(model, purpose))
    except InvalidInput as error:
        return str(error)
    for height, width in sizes:
        if height % patch[0] or width % patch[1]:
            return _indivisible(height, width, patch)
    return ""


def _indivisible(height: int, width: int, patch: tuple[int, int]) -> str:
    below = height // patch[0] * patch[0]
    sizes = " or ".join(str(size) for size in (below, below + patch[0]) if size)
    fault = f"crops of {height}x{width} pixels cannot be cut into patches of {patch[0]}x{patch[1]}"
    return f"{fault}: choose {sizes}"
