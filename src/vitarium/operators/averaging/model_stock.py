"""Model Stock: how far to go from the base to the models' mean, told by their angle alone."""

import torch

from vitarium.core.config import NoConfig
from vitarium.operators.base import Ingredients, NamedTensors, operator


@operator(
    "model_stock", title="Model Stock", needs_base=True, paper="Jang et al. 2024, arXiv 2403.19522"
)
def model_stock(config: NoConfig, ingredients: Ingredients) -> NamedTensors:
    """Model Stock: from the base toward the models' mean, per tensor as far as the models agree.

    Yields (name, tensor [*shape]), computed in float64. With cos the mean cosine of the task
    vectors of all pairs of the N models, a tensor is

        t mean + (1 - t) base,    t = N cos / (1 + (N - 1) cos)

    which is nearest to the center around which fine-tuned models lie at equal distances and
    angles. Models that learned the same (cos 1) give their mean, those that learned unrelated
    things the base. The paper knows angles up to 90 degrees alone: beyond them t is 0, too, so the
    result is never behind the base. A tensor that a model did not change has no angle to the
    others; its cosines count as 0. The mean of all t, by tensors, is told.
    """
    count, ratios = len(ingredients), []
    for name, base, deltas in ingredients.deltas():
        learned, directions, moved = torch.zeros_like(base), torch.zeros_like(base), 0
        for delta in deltas:
            learned += delta
            if length := torch.linalg.vector_norm(delta):
                directions += delta / length
                moved += 1
        # the squared length of their sum is that of all pairs' products, and of each with itself
        pairs = directions.square().sum().item() - moved
        cosine = min(max(pairs / (count * (count - 1)), 0.0), 1.0)
        ratio = count * cosine / (1 + (count - 1) * cosine)
        ratios.append(ratio)
        yield name, base + ratio * (learned / count)
    mean = sum(ratios) / len(ratios)
    ingredients.log.lines.append(f"mean interpolation ratio {mean:.3g} over {len(ratios)} tensors")
