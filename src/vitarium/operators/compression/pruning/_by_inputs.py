"""Pruning of linear layers by what they are given, block by block."""

from collections.abc import Callable

from torch import Tensor

from vitarium.operators.base import Ingredients, NamedTensors, checked
from vitarium.operators.compression._calibration import (
    Calibration,
    Statistic,
    input_means,
    linear_layers,
)
from vitarium.operators.compression.pruning._masks import Sparsity, with_pruned

Prune = Callable[[Tensor, Tensor], Tensor]
"""`(weight [out, in], mean statistic of its inputs [...]) -> pruned weight [out, in]`, float64"""


class PruningByInputs(Sparsity, Calibration):
    sequential: bool = True
    """Count what each block is given by the blocks before it as they are pruned, as released for
    language models; no: by the dense model's, as released for vision transformers."""


def prune_by_inputs(
    config: PruningByInputs, ingredients: Ingredients, statistic: Statistic, prune: Prune
) -> NamedTensors:
    """All tensors [*shape] of the model, with the matrices of its blocks pruned.

    Raises IncompatibleWeights for a model without linear layers in blocks, and as `with_pruned`.
    """
    (model,) = ingredients
    for name in ingredients.shapes:
        checked(model, name)  # with entries that are not finite nothing can be counted
    subject = ingredients.subject(0)
    layers = linear_layers(subject.model, ingredients.shapes)
    for block in layers.values():
        for name, layer in block.items():
            config.check_inputs(name, layer.in_features)
    pruned: dict[str, Tensor] = {}
    for done, (block_name, block) in enumerate(layers.items()):
        ingredients.report(done, len(layers))
        means = input_means(subject.model, block_name, block, subject.examples, config, statistic)
        of_block = {n: prune(checked(model, n).double(), mean) for n, mean in means.items()}
        if config.sequential:
            subject.model.load_state_dict(of_block, strict=False)
        pruned |= of_block
    yield from with_pruned(ingredients, pruned)
