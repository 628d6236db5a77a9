"""Weight matching: units exchanged so that one model's weights lie close to another's."""

from vitarium.architectures.symmetries.base import moved
from vitarium.operators.alignment._search import PermutedUnits, Search, match_models, model_weights
from vitarium.operators.base import Ingredients, NamedTensors, operator


class WeightMatching(Search, PermutedUnits):
    """What is moved, and how long the best place is looked for."""


@operator(
    "weight_matching",
    title="Weight matching",
    paper="Ainsworth et al. 2023, Git Re-Basin, arXiv 2209.04836",
    aligns=True,
    tiny={"restarts": 1},
)
def weight_matching(config: WeightMatching, ingredients: Ingredients) -> NamedTensors:
    """Weight matching (Git Re-Basin): permute the second model's units toward the first's weights.

    Yields (name, tensor [*shape]) of the second model. Coordinate ascent (Algorithm 1) on the inner
    product of all weights, to where no move gains anything; heads stay whole, and the function
    stays what it is. Both models are in memory, and a copy of the second. Raises
    IncompatibleWeights where no symmetries are declared.
    """
    symmetries = ingredients.symmetries
    first, second = model_weights(ingredients)
    moves = match_models(ingredients, symmetries, first, second, config)
    yield from moved(symmetries, second, moves).items()
