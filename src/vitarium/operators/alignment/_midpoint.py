"""The loss halfway between two models, which alignment by training is to lower."""

from collections.abc import Iterable

from torch import Tensor

from vitarium.evaluation.losses import losses, parameters
from vitarium.evaluation.scoring import check_classifier
from vitarium.operators.alignment._matching import Tensors
from vitarium.operators.base import Ingredients

EVALUATION_IMAGES = 1024
"""Images, at most, by which one alignment is said to be better than another."""
CONNECTED = 1e-4
"""Nats by which a midpoint may lie above the mean of the ends and need no training."""


class Midpoint:
    """Models between two ingredients, running on at most `num_images` training images.

    Raises NotApplicable where the models' outputs are not the classes of the images.
    """

    def __init__(self, ingredients: Ingredients, num_images: int) -> None:
        self.ingredients, self.model = ingredients, ingredients.model()
        self.examples = ingredients.examples().first(num_images)
        self._evaluation_images = self.examples.first(EVALUATION_IMAGES)
        check_classifier(self.model, self.examples)

    def running(self, weights: Tensors) -> dict[str, Tensor]:
        """Weights [*shape] as the model runs with them: float32, on its device."""
        own = parameters(self.model).items()
        return {name: weights[name].to(tensor) for name, tensor in own if name in weights}

    def losses(self, start: Tensors, end: Tensors, *, ends: bool = True) -> list[float]:
        """Cross-entropy halfway between models of weights [*shape], then of the two, in nats."""
        first, last = self.running(start), self.running(end)
        points = [{name: (tensor + last[name]) / 2 for name, tensor in first.items()}]
        points += [first, last] if ends else []
        return losses(self.model, lambda: points, self._evaluation_images).loss.tolist()

    def best(self, reference: Tensors, start: Tensors, candidates: Iterable[Tensors]) -> Tensors:
        """Of an aligned model's weights [*shape] those nearest to the reference, by the midpoint.

        The start, or where it is not connected to the reference the candidate whose midpoint has
        the least loss. It is logged.
        """
        metrics, best = self.ingredients.log.metrics, start
        loss, *ends = self.losses(reference, start)
        metrics["midpoint_loss_at_start"] = metrics["midpoint_loss"] = loss
        for candidate in candidates if loss - sum(ends) / 2 > CONNECTED else ():
            (loss,) = self.losses(reference, candidate, ends=False)
            if loss < metrics["midpoint_loss"]:
                metrics["midpoint_loss"], best = loss, candidate
        return best
