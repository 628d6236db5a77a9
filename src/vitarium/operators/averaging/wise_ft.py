"""WiSE-FT: between a fine-tuned model and what it was fine-tuned from."""

from pydantic import Field

from vitarium.core.config import Config
from vitarium.operators.averaging._means import weighted_sum
from vitarium.operators.base import Ingredients, NamedTensors, operator


class WiseFt(Config):
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of the fine-tuned model: 0 gives the parent's weights, 1 the fine-tuned model's."""


@operator(
    "wise_ft",
    title="WiSE-FT",
    needs_base=True,
    models=(1, 1),
    paper="Wortsman et al. 2022, arXiv 2109.01903",
)
def wise_ft(config: WiseFt, ingredients: Ingredients) -> NamedTensors:
    """WiSE-FT: interpolate a fine-tuned model with its parent, (1 - alpha) parent + alpha model.

    Yields (name, tensor [*shape]) in float64. Equation 1 of the paper. A head that training began
    anew is mixed with the values it began with.
    """
    ends = Ingredients(
        [ingredients.base, ingredients[0]], progress=ingredients.progress, task=ingredients.task
    )
    weights = [1 - config.alpha, config.alpha]
    ingredients.share(weights, list(ends))
    return weighted_sum(ends, weights)
