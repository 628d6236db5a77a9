"""Activation matching: units exchanged so that they react to images as another model's do."""

import torch
from pydantic import PositiveInt
from torch import Tensor

from vitarium.architectures.symmetries.base import moved
from vitarium.operators.alignment._activations import (
    By,
    images_of_both,
    running_models,
    unit_scores,
)
from vitarium.operators.alignment._assignment import best_transform, match_heads
from vitarium.operators.alignment._matching import Matching
from vitarium.operators.alignment._search import PermutedUnits, kinds_of, log_cosines, model_weights
from vitarium.operators.base import Ingredients, NamedTensors, operator


class ActivationMatching(PermutedUnits):
    """Which images are looked at, how units are compared, and what is moved.

    Units of the residual stream are compared as each layer that reads them sees them, after the
    norm; hidden ones after the activation function; channels as queries and keys, and as what the
    projection reads.
    """

    num_images: PositiveInt = 1024
    """Largest number of training images on which activations are compared."""
    batch_size: PositiveInt = 32
    """Images per forward pass; affects memory and speed only."""
    by: By = "correlation"
    """How two units' activations are compared: by their correlation (Li et al.), their covariance,
    or the plain inner product (Git Re-Basin, Sec. 3.1)."""


@operator(
    "activation_matching",
    title="Activation matching",
    paper="Li et al. 2015, arXiv 1511.07543; Ainsworth et al. 2023, arXiv 2209.04836, Sec. 3.1",
    split="train",
    aligns=True,
    tiny={"num_images": 32, "batch_size": 16},
)
def activation_matching(config: ActivationMatching, ingredients: Ingredients) -> NamedTensors:
    """Activation matching: permute the second model's units so that activations match the first's.

    Yields (name, tensor [*shape]) of the second model. One assignment for each group of units, by
    what they hold over all images and tokens; heads stay whole, and the function stays what it is.
    Raises IncompatibleWeights where no symmetries are declared.
    """
    symmetries = ingredients.symmetries
    first, second = model_weights(ingredients)
    kinds = kinds_of(config, symmetries)
    models = running_models(ingredients, first, second)
    examples = images_of_both(ingredients, config.num_images)
    scores = unit_scores(ingredients, models, examples, config.by, config.batch_size)
    moves: dict[str, Tensor] = {}
    for name, group in symmetries.groups.items():
        inner = {n: scores[n] for n, g in symmetries.groups.items() if g.inside == name}
        if inner and {name, *inner} & set(kinds):
            head_scores = torch.zeros(group.size, group.size, dtype=torch.float64)
            moves |= match_heads(name, head_scores, inner, kinds)[0]
        elif name in kinds and not group.inside:
            moves |= best_transform(name, scores[name], "permutation")[0]
    start = Matching(symmetries, first, second, kinds)
    log_cosines(ingredients, start, Matching(symmetries, first, second, kinds, start=moves))
    yield from moved(symmetries, second, moves).items()
