"""A parent's weights, adapted to a model that takes other images, as timm adapts pretrained ones.

Positions are resampled to another grid of patches, the patch embedding to another patch size, its
channels summed or repeated, tables of relative positions resampled to another window. Nothing else
may differ in shape.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor, nn

from vitarium.architectures.heads import is_head
from vitarium.core.errors import IncompatibleWeights

_RELATIVE = ".relative_position_bias_table"


class StartWeights(NamedTuple):
    """What a model starts from: tensors [*shape] by name, and what was adapted for it.

    `changes` are texts such as "positions resampled 4×4 → 8×8"; none where the weights fit as they
    are.
    """

    weights: dict[str, Tensor]
    changes: tuple[str, ...]


def start_weights(
    model: nn.Module,
    parent: Mapping[str, Tensor],
    *,
    head: bool,
    parent_model: nn.Module | None = None,
) -> StartWeights:
    """A parent's weights as the model takes them, with the head's or without.

    Args:
        model: whose weights they become; it may be on the meta device.
        parent: tensors [*shape] by name.
        head: the model starts from the parent's head, too.
        parent_model: the parent as a module, on any device: it says how many rows and columns of
            patches its positions are for. None: as many rows as columns.

    Raises IncompatibleWeights that names the tensors which are missing, have no place, or are of
    a shape that cannot be adapted.
    """
    expected = {n: t for n, t in model.state_dict().items() if head or not is_head(model, n)}
    weights = {n: t for n, t in parent.items() if head or not is_head(model, n)}
    changes: dict[str, None] = {}
    for name in sorted(expected.keys() & weights.keys()):
        like = expected[name]
        tensor = weights[name].to(like.dtype) if _differs(weights[name], like) else weights[name]
        weights[name] = _adapted(model, parent_model, name, tensor, like, changes)
    faults = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    faults += [f"{name} has no place" for name in weights.keys() - expected.keys()]
    faults += [
        f"{name} is {tuple(parent[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected.keys() & weights.keys()
        if _differs(weights[name], expected[name])
    ]
    if faults:
        listed = "; ".join(sorted(faults)[:5])
        raise IncompatibleWeights(f"the parent's weights do not fit the architecture: {listed}")
    return StartWeights(weights, tuple(changes))


def _adapted(
    model: nn.Module,
    parent_model: nn.Module | None,
    name: str,
    tensor: Tensor,
    like: Tensor,
    changes: dict[str, None],
) -> Tensor:
    """The tensor [*shape] in the shape of `like`, where it can be adapted; notes what changed."""
    if not tensor.numel():  # nothing can be made of it
        return tensor
    if name == "pos_embed" and tensor.dim() == like.dim() == 3:
        return _positions(model, parent_model, tensor, like, changes)
    if not _differs(tensor, like):
        return tensor
    if name in _first_convolutions(model) and tensor.dim() == like.dim() == 4:
        return _patch_embedding(tensor, like, changes)
    if name.endswith(_RELATIVE):
        return _relative_positions(model, name, tensor, like, changes)
    return tensor


def _differs(tensor: Tensor, like: Tensor) -> bool:
    return tensor.shape != like.shape


def _positions(
    model: nn.Module,
    parent_model: nn.Module | None,
    tensor: Tensor,
    like: Tensor,
    changes: dict[str, None],
) -> Tensor:
    """[1, prefix + patches, width] -> the model's number of patches."""
    new, old = _grid(model), _grid(parent_model)
    if new is None:
        return tensor
    prefix = like.shape[1] - new[0] * new[1]
    patches = tensor.shape[1] - prefix
    if old is None or old[0] * old[1] != patches:
        side = round(max(patches, 0) ** 0.5)
        if side * side != patches:
            return tensor
        old = (side, side)
    if old == new or not patches > 0:
        return tensor
    _note(changes, "positions resampled", old, new)
    return resample_abs_pos_embed(tensor, list(new), list(old), num_prefix_tokens=prefix)


def _patch_embedding(tensor: Tensor, like: Tensor, changes: dict[str, None]) -> Tensor:
    """[width, channels, rows, columns] of a patch -> of the model's patches and channels."""
    (_, before, *old), (_, channels, *new) = tensor.shape, like.shape
    if old != new:
        _note(changes, "patch embedding resampled", old, new)
        tensor = resample_patch_embed(tensor, new)
    if channels == before:
        return tensor
    if channels == 1:
        _note(changes, "patch embedding's channels summed", (before,), (channels,))
        return tensor.sum(dim=1, keepdim=True)
    _note(changes, "patch embedding's channels repeated", (before,), (channels,))
    repeated = tensor.repeat(1, -(-channels // before), 1, 1)[:, :channels]
    return repeated * (before / channels)


def _relative_positions(
    model: nn.Module, name: str, tensor: Tensor, like: Tensor, changes: dict[str, None]
) -> Tensor:
    """[offsets in a window, heads] -> of the model's windows."""
    owner: Any = model.get_submodule(name.removesuffix(_RELATIVE))
    window = getattr(owner, "window_size", None) or getattr(owner, "window", None)
    if window is None or tensor.dim() != like.dim() or tensor.shape[1] != like.shape[1]:
        return tensor
    _note(changes, "relative positions resampled", (len(tensor),), (len(like),))
    return resize_rel_pos_bias_table(tensor, tuple(window), tuple(like.shape)).contiguous()


def _first_convolutions(model: nn.Module) -> tuple[str, ...]:
    """Names of the weights that see the image."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("first_conv") or "patch_embed.proj"
    return tuple(f"{name}.weight" for name in ([names] if isinstance(names, str) else names))


def _grid(model: nn.Module | None) -> tuple[int, int] | None:
    """Rows and columns of the patches that a model has positions of: where it cuts images otherwise
    than into patches, `position_grid` says them."""
    embed = getattr(model, "patch_embed", None)
    grid = getattr(embed, "position_grid", None) or getattr(embed, "grid_size", None)
    return (int(grid[0]), int(grid[1])) if grid else None


def _note(changes: dict[str, None], what: str, old: Any, new: Any) -> None:
    sizes = ("\N{MULTIPLICATION SIGN}".join(map(str, size)) for size in (old, new))
    changes[f"{what} {' → '.join(sizes)}"] = None
