"""The loss halfway between two models, which alignment by training is to lower."""

from collections.abc import Mapping

from torch import Tensor

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose, get
from vitarium.evaluation.losses import Parameters, losses, parameters
from vitarium.evaluation.scoring import check_classifier
from vitarium.operators.alignment._matching import both
from vitarium.operators.base import Ingredients

JUDGED = 1024
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
        self._judged = self.examples.first(JUDGED)
        check_classifier(self.model, self.examples)

    def running(self, weights: Tensors) -> dict[str, Tensor]:
        """Weights as the model runs with them: float32, where it is."""
        own = parameters(self.model)
        return {name: weights[name].to(own[name]) for name in own if name in weights}

    def loss(self, one: Tensors, other: Tensors) -> float:
        """Halfway, nats."""
        ends = self.running(one), self.running(other)
        return self._losses([_halfway(*ends)])[0]

    def loss_and_rise(self, one: Tensors, other: Tensors) -> tuple[float, float]:
        """Halfway, and how far that is above the mean of the ends; nats."""
        ends = self.running(one), self.running(other)
        middle, first, last = self._losses([_halfway(*ends), *ends])
        return middle, middle - (first + last) / 2

    def _losses(self, points: list[Parameters]) -> list[float]:
        return losses(self.model, lambda: points, self._judged).loss.tolist()


def aligned_by(start: str, ingredients: Ingredients) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The first model, and the second as the operator of that name aligns it; "none": as it is.

    Raises UnknownName, InvalidInput for an operator that does not align, IncompatibleWeights where
    the head is left out, and what the operator raises.
    """
    first, second = both(ingredients)
    if start == "none":
        return first, second
    if not get("operator", start).facts.get("aligns"):
        raise InvalidInput(f"start: '{start}' does not align models")
    return first, dict(choose("operator", start)(ingredients))


def _halfway(one: Parameters, other: Parameters) -> Parameters:
    return {name: (tensor + other[name]) / 2 for name, tensor in one.items()}
