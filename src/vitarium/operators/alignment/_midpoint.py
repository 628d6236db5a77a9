"""The loss halfway between two models, which alignment by training is to lower."""

from collections.abc import Mapping

from torch import Tensor

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose, get
from vitarium.evaluation.losses import Parameters, losses, parameters
from vitarium.evaluation.scoring import check_classifier
from vitarium.operators.alignment._matching import model_weights
from vitarium.operators.base import Ingredients

EVALUATION_IMAGES = 1024
"""Images, at most, by which one alignment is said to be better than another."""
CONNECTED = 1e-4
"""Nats by which a midpoint may lie above the mean of the ends and need no training."""

Tensors = Mapping[str, Tensor]


class Midpoint:
    """Models between two ingredients, running on training images.

    Args:
        images: at most so many.

    Raises NotApplicable where the models' outputs are not the classes of the images.
    """

    def __init__(self, ingredients: Ingredients, images: int) -> None:
        self.report, self.model = ingredients.report, ingredients.model()
        self.examples = ingredients.examples().first(images)
        self._evaluation_images = self.examples.first(EVALUATION_IMAGES)
        check_classifier(self.model, self.examples)

    def running(self, weights: Tensors) -> dict[str, Tensor]:
        """Weights [*shape] as the model runs with them: float32, on its device."""
        model_parameters = parameters(self.model)
        return {
            name: weights[name].to(model_parameters[name])
            for name in model_parameters
            if name in weights
        }

    def loss(self, start: Tensors, end: Tensors) -> float:
        """Cross-entropy halfway between two models of weights [*shape], in nats."""
        ends = self.running(start), self.running(end)
        return self._losses([_halfway(*ends)])[0]

    def loss_and_rise(self, start: Tensors, end: Tensors) -> tuple[float, float]:
        """Cross-entropy halfway between models of weights [*shape], and its rise above their mean.

        Both in nats.
        """
        ends = self.running(start), self.running(end)
        middle, first, last = self._losses([_halfway(*ends), *ends])
        return middle, middle - (first + last) / 2

    def _losses(self, points: list[Parameters]) -> list[float]:
        return losses(self.model, lambda: points, self._evaluation_images).loss.tolist()


def aligned_by(start: str, ingredients: Ingredients) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights [*shape] of the first model, and of the second as an operator aligns it.

    "none" leaves the second as it is.

    Raises UnknownName, InvalidInput for an operator that does not align, IncompatibleWeights where
    the head is left out, and what the operator raises.
    """
    first, second = model_weights(ingredients)
    if start == "none":
        return first, second
    if not get("operator", start).facts["aligns"]:
        raise InvalidInput(f"start: '{start}' does not align models")
    return first, dict(choose("operator", start)(ingredients))


def _halfway(start: Parameters, end: Parameters) -> Parameters:
    return {name: (tensor + end[name]) / 2 for name, tensor in start.items()}
