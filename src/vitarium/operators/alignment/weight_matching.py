"""Weight matching: units exchanged so that one model's weights lie close to another's."""

from pydantic import NonNegativeInt, PositiveInt

from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import Config
from vitarium.operators.alignment._matching import log_cosines, model_weights, permuted
from vitarium.operators.alignment._starts import matched
from vitarium.operators.base import Ingredients, NamedTensors, operator


class WeightMatching(Config):
    """What is moved, and how long the best place is looked for."""

    stream: bool = True
    """The units of the residual stream, through the whole model."""
    heads: bool = True
    """Whole heads of each attention, with their queries, keys, values and projections."""
    channels: bool = True
    """Those inside of each head, between queries and keys, and between values and projection."""
    units: bool = True
    """Hidden units of the MLPs, and of a head that is one."""
    restarts: PositiveInt = 2
    """Starts, of which the best is kept: the models as they are; what follows from the ends of the
    model alone (pixels, positions, classes); then random ones."""
    sweeps: PositiveInt = 100
    """Most passes over all units from one start."""
    seed: NonNegativeInt = 0
    """Of the order in which units are visited, and of random starts."""


@operator(
    "weight_matching",
    title="Weight matching",
    config=WeightMatching,
    paper="Ainsworth et al. 2023, Git Re-Basin, arXiv 2209.04836",
    ordered=True,
    models=(2, 2),
    aligns=True,
    origin=-1,
    tiny={"restarts": 1},
)
def weight_matching(config: WeightMatching, ingredients: Ingredients) -> NamedTensors:
    """The second model with its units permuted so that its weights are closest to the first's.

    Yields (name, tensor [*shape]) of the second model. Coordinate ascent (Algorithm 1) on the inner
    product of all weights, to where no move gains anything; heads stay whole, and the function
    stays what it is. Both models are in memory, and a copy of the second. Raises
    IncompatibleWeights where no symmetries are declared.
    """
    symmetries = ingredients.symmetries
    first, second = model_weights(ingredients)
    kinds = permuted(config, symmetries)
    matching = matched(
        symmetries,
        first,
        second,
        kinds,
        restarts=config.restarts,
        sweeps=config.sweeps,
        seed=config.seed,
        report=ingredients.report,
    )
    log_cosines(ingredients, symmetries, first, second, matching)
    yield from moved(symmetries, second, matching.moves).items()
