"""Patches: which are perturbed, and how they are attended to (Gu et al. 2022, arXiv 2111.10659)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from vitarium.architectures.features import prefix_tokens
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.features import blocks_of
from vitarium.evaluation.inputs import EvalModel
from vitarium.measures.robustness._perturbation import Perturbing, streams


class PatchSettings(Perturbing):
    """Which patches are perturbed, and how sharply the model attends."""

    num_patches: PositiveInt = 1
    """Number of patches that are perturbed in each image."""
    placement: Literal["random", "center"] = "random"
    """Which patches: random ones, drawn for each image, or those nearest to the center."""
    size: PositiveInt | None = None
    """Height and width of a perturbed patch, in pixels; none: the model's patch size."""
    temperature: PositiveFloat = 1.0
    """Divisor of attention logits before the softmax, also during the attack; above 1: the paper's
    defense by smoothed attention."""


@dataclass(frozen=True)
class PatchGrid:
    """How an image is cut into patches without a rest."""

    height: int
    width: int
    """Of a patch, in pixels."""
    rows: int
    columns: int

    def chosen(self, settings: PatchSettings, indices: Sequence[int]) -> Tensor:
        """bool [b, rows * columns]: the patches to perturb in the images of these indices."""
        total = self.rows * self.columns
        if settings.num_patches > total:
            there = f"{total} patches of {self.height} by {self.width} pixels"
            raise NotApplicable(f"num_patches is {settings.num_patches}, and there are {there}")
        if settings.placement == "center":
            row, column = torch.arange(self.rows), torch.arange(self.columns)
            away = (row - (self.rows - 1) / 2) ** 2
            from_center = away[:, None] + (column - (self.columns - 1) / 2) ** 2
            order = from_center.flatten().argsort(stable=True).expand(len(indices), -1)
        else:
            generators = streams(settings.seed, "patches", indices)
            order = torch.stack([torch.randperm(total, generator=g) for g in generators])
        mask = torch.zeros(len(indices), total, dtype=torch.bool)
        return mask.scatter(1, order[:, : settings.num_patches], True)

    def pixels(self, chosen: Tensor) -> Tensor:
        """bool [b, rows * columns] -> bool [b, 1, height, width] of the images."""
        cells = chosen.view(-1, 1, self.rows, self.columns)
        return cells.repeat_interleave(self.height, 2).repeat_interleave(self.width, 3)


def patch_grid(subject: EvalModel, size: int | None = None) -> PatchGrid:
    """The model's own patches, or square ones of `size` pixels. Raises NotApplicable."""
    _, image_height, image_width = subject.examples.input_size
    embed: Any = getattr(subject.model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if patch is None:
        kind = type(subject.model).__name__
        raise NotApplicable(f"{subject.name}: {kind} has no patch_embed with a patch_size")
    height, width = (patch, patch) if isinstance(patch, int) else patch
    rows, columns = image_height // height, image_width // width
    model_grid = getattr(embed, "grid_size", None) or (rows, columns)
    if size is None and tuple(model_grid) != (rows, columns):
        raise NotApplicable(f"{subject.name}: its patches are not parts of the image")
    if size is not None:
        height = width = size
        rows, columns = image_height // height, image_width // width
    if (rows * height, columns * width) != (image_height, image_width):
        images = f"images of {image_height} by {image_width}"
        patches = f"patches of {height} by {width} pixels"
        raise NotApplicable(f"{subject.name}: {patches} do not fill {images}")
    return PatchGrid(height, width, rows, columns)


@contextmanager
def attention_temperature(subject: EvalModel, temperature: float) -> Iterator[None]:
    """Inside, all attention scores are divided by the temperature before the softmax.

    timm's attentions hand their queries to `q_norm` (often an identity), whose output is divided,
    fused or not; those of multiplexed models hand sums of products to `logits`. With 1 nothing is
    done. Raises NotApplicable for a block whose attention has neither.
    """
    smoothed = blocks_of(subject.model, subject.name) if temperature != 1 else {}
    with ExitStack() as stack:
        for name, block in smoothed.items():
            scaled: list[Any] = [
                getattr(module, "logits", None) or module.q_norm
                for module in block.modules()
                if {"q_norm", "logits"} & {*dict(module.named_children())}
            ]
            if not scaled:
                where = f"{subject.name}: {name}"
                raise NotApplicable(f"{where} has no attention with a q_norm as timm's")
            for scores in scaled:
                hook = scores.register_forward_hook(lambda _, __, out: out / temperature)
                stack.callback(hook.remove)
        yield


def class_attention(subject: EvalModel, maps: list[Tensor], method: str) -> Tensor:
    """How much what is classified attends to each patch, [b, patches]; rows sum to 1.

    The class token's attention, or the mean of the patches' where the model pools them; prefix
    tokens are left out. Maps are every block's, [b, heads, tokens, tokens]; method "last": the last
    one; "rollout": through all, each with the identity (Abnar & Zuidema 2020, arXiv 2005.00928).
    """
    prefix = prefix_tokens(subject.model)
    means = [block_map.mean(1) for block_map in maps]
    flow = means[-1]
    if method == "rollout":
        flow = identity = torch.eye(flow.shape[-1], device=flow.device)
        for block_map in means:
            flow = (0.5 * block_map + 0.5 * identity) @ flow
    pooled = prefix == 0 or getattr(subject.model, "global_pool", "token") != "token"
    rows = flow[:, prefix:].mean(1) if pooled else flow[:, 0]
    patches = rows[:, prefix:]
    return patches / patches.sum(1, keepdim=True)
