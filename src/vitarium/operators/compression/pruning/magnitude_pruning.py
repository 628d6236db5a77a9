"""Magnitude pruning: the smallest weights become zero; or random ones, to compare with."""

from typing import Literal, Self

import torch
from pydantic import NonNegativeInt, model_validator
from torch import Tensor

from vitarium.core.seeds import derive
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._calibration import linear_layers
from vitarium.operators.compression.pruning._masks import Sparsity, largest, with_pruned


class MagnitudePruning(Sparsity):
    scope: Literal["layer", "row", "global"] = "layer"
    """Within which weights compete: those of a matrix (layer), of each output (row), or of all
    matrices (global)."""
    ranking: Literal["magnitude", "random"] = "magnitude"
    """What stays: the largest weights, or a random choice of as many, to compare with."""
    seed: NonNegativeInt = 0
    """Random seed of the random choice."""

    @model_validator(mode="after")
    def _pattern_has_a_scope(self) -> Self:
        if self.pattern and self.scope != "layer":
            raise ValueError("with a pattern the weights of each run compete; leave out scope")
        return self

    def scores(self, name: str, weight: Tensor) -> Tensor:
        """Of a matrix [out, in], in its shape."""
        if self.ranking == "magnitude":
            return weight.abs()
        generator = torch.Generator().manual_seed(derive(self.seed, "pruning", name))
        return torch.rand(weight.shape, generator=generator, dtype=torch.float64)


@operator(
    "magnitude_pruning",
    title="Magnitude pruning",
    paper="Han et al. 2015, arXiv 1506.02626",
    models=(1, 1),
    compression="post_training",
    tiny={"density": 0.5},
)
def magnitude_pruning(config: MagnitudePruning, ingredients: Ingredients) -> NamedTensors:
    """Set the smallest weights of the linear layers inside of the blocks to zero.

    Yields (name, tensor [*shape]), but for these the model's own bits: so many of a matrix, of a
    row or of a run of inputs stay that have the largest |w|; of equal ones the last. Patch
    embedding, head, biases and norms stay. The share of zeros is logged as `sparsity`. Raises
    IncompatibleWeights for a model without such layers, or that is as sparse already.
    """
    (model,) = ingredients
    layers = linear_layers(model.skeleton, ingredients.shapes)
    weights = {name: checked(model, name) for block in layers.values() for name in block}
    scores = {name: config.scores(name, weight) for name, weight in weights.items()}
    for name, weight in weights.items():
        config.check_inputs(name, weight.shape[1])
    if config.scope == "global":
        joined = torch.cat([tensor.flatten() for tensor in scores.values()]).unsqueeze(0)
        parts = largest(joined, config.share)[0].split([t.numel() for t in scores.values()])
        masks = {n: part.view_as(scores[n]) for n, part in zip(scores, parts, strict=True)}
    elif config.scope == "row":
        masks = {name: config.mask_rows(tensor) for name, tensor in scores.items()}
    else:
        masks = {name: config.mask_matrix(tensor) for name, tensor in scores.items()}
    pruned = {name: torch.where(mask, weights[name], 0) for name, mask in masks.items()}
    yield from with_pruned(ingredients, pruned)
