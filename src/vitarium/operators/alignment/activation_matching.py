"""Activation matching: units exchanged so that they react to images as another model's do."""

import torch
from pydantic import PositiveInt
from torch import Tensor

from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import Config
from vitarium.evaluation.scoring import load
from vitarium.operators.alignment._activations import By, unit_scores
from vitarium.operators.alignment._assignment import best_transform
from vitarium.operators.alignment._heads import match_heads
from vitarium.operators.alignment._matching import Matching, log_cosines, model_weights, permuted
from vitarium.operators.base import Ingredients, NamedTensors, operator


class ActivationMatching(Config):
    """Which images are looked at, how units are compared, and what is moved."""

    images: PositiveInt = 1024
    """At most so many of the training split."""
    batch_size: PositiveInt = 32
    """Images at a time; it changes nothing but memory and speed."""
    by: By = "correlation"
    """Units are compared by the correlation of what they hold (Li et al.), by its covariance, or
    by the plain inner product (Git Re-Basin, Sec. 3.1)."""
    stream: bool = True
    """The units of the residual stream: as each layer that reads it sees it, after the norm."""
    heads: bool = True
    """Whole heads of each attention."""
    channels: bool = True
    """Those inside of each head: queries and keys, and what the projection reads."""
    units: bool = True
    """Hidden units of the MLPs, and of a head that is one, after the activation function."""


@operator(
    "activation_matching",
    title="Activation matching",
    config=ActivationMatching,
    paper="Li et al. 2015, arXiv 1511.07543; Ainsworth et al. 2023, arXiv 2209.04836, Sec. 3.1",
    ordered=True,
    models=(2, 2),
    split="train",
    aligns=True,
    origin=-1,
    tiny={"images": 32, "batch_size": 16},
)
def activation_matching(config: ActivationMatching, ingredients: Ingredients) -> NamedTensors:
    """The second model with its units permuted so that they react to images as the first's do.

    Yields (name, tensor [*shape]) of the second model. One assignment for each group of units, by
    what they hold over all images and tokens; heads stay whole, and the function stays what it is.
    Raises IncompatibleWeights where no symmetries are declared.
    """
    symmetries = ingredients.symmetries
    first, second = model_weights(ingredients)
    kinds = permuted(config, symmetries)
    models = [ingredients.model() for _ in ingredients]
    for model, weights in zip(models, (first, second), strict=True):
        load(model, weights)
    examples = ingredients.examples().first(config.images)
    scores = unit_scores(symmetries, models, examples, config.by, config.batch_size, ingredients)
    moves: dict[str, Tensor] = {}
    for name, group in symmetries.groups.items():
        inner = {
            inner_name: scores[inner_name]
            for inner_name, g in symmetries.groups.items()
            if g.inside == name
        }
        if inner and {name, *inner} & set(kinds):
            head_scores = torch.zeros(group.size, group.size, dtype=torch.float64)
            moves |= match_heads(name, head_scores, inner, kinds)[0]
        elif name in kinds and not group.inside:
            moves |= best_transform(name, scores[name], "permutation")[0]
    matching = Matching(symmetries, first, second, kinds, start=moves)
    log_cosines(ingredients, symmetries, first, second, matching)
    yield from moved(symmetries, second, moves).items()
