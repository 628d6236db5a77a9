"""Shift of attention onto perturbed patches."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium.architectures.features import prefix_tokens
from vitarium.evaluation.attention import watch
from vitarium.measures.base import EvalModel, NotApplicable, Values, measure
from vitarium.measures.robustness._patches import attention_temperature, class_attention, patch_grid
from vitarium.measures.robustness._perturbation import pixel_batches
from vitarium.measures.robustness.patch_attack import PatchAttack, patches_attacked
from vitarium.measures.robustness.patch_corruption import PatchCorruption, patches_corrupted


class PatchAttention(PatchCorruption, PatchAttack):
    perturbation: Literal["attack", "corruption"] = "attack"
    """Perturbation of the patches, as by the measures `patch_attack` or `patch_corruption`, with
    their settings."""
    attention: Literal["rollout", "last"] = "rollout"
    """Attention through all blocks (rollout, Abnar & Zuidema 2020), or of the last block."""


@measure(
    "patch_attention",
    unit="fraction",
    quick=False,
    paper="Gu, Tresp & Qin 2022, arXiv 2111.10659",
    tiny={"steps": 2},
)
def patch_attention(config: PatchAttention, subject: EvalModel) -> Values:
    """Share of attention that shifts to patches when these are attacked or corrupted.

    Attention is as `class_attention` has it; the mean over heads and over all images.

    Parts: "" after minus before; "before" and "after", shares of attention that the patches have;
    "uniform", what they would have were attention the same everywhere.
    """
    subject.check_classifier()
    token_grid, grid = patch_grid(subject), patch_grid(subject, config.size)
    examples = subject.examples.first(config.num_images)

    def attention_of(pixels: Tensor) -> Tensor:
        """[b, patches]; rows sum to 1"""
        maps: list[Tensor] = []
        normalized = subject.examples.normalized(pixels)
        watch(subject.model, normalized, lambda name, attention: maps.append(attention))
        tokens = prefix_tokens(subject.model) + token_grid.rows * token_grid.columns
        if any(block_map.shape[-1] != tokens for block_map in maps):
            within = f"all its {tokens} tokens"
            raise NotApplicable(f"{subject.name}: its attention is not among {within}")
        return class_attention(subject, maps, config.attention)

    sums = {"before": 0.0, "after": 0.0, "uniform": 0.0}
    with attention_temperature(subject, config.temperature):
        for batch in pixel_batches(examples, config.batch_size):
            if config.perturbation == "attack":
                changed = patches_attacked(config, grid, subject, batch)
            else:
                changed = patches_corrupted(config, grid, batch)
            # A patch of another size lies on every token that it touches.
            pixels = grid.pixels(grid.chosen(config, batch.indices)).float()
            touched = F.max_pool2d(pixels, (token_grid.height, token_grid.width)).flatten(1)
            touched = touched.to(batch.pixels.device)
            for part, images in (("before", batch.pixels), ("after", changed)):
                sums[part] += float((attention_of(images) * touched).sum(dtype=torch.float64))
            sums["uniform"] += float(touched.mean(1).sum(dtype=torch.float64))
    values = {part: total / len(examples) for part, total in sums.items()}
    return {"": values["after"] - values["before"], **values}
