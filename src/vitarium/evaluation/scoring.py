"""Accuracy and loss of weights on held-out images, by which operators select and learn."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitarium.core.errors import NotApplicable
from vitarium.core.parameters import parameter
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.losses import losses, parameters


class Score(NamedTuple):
    """Of a model on images."""

    accuracy: float
    """Share of correctly classified images, in [0, 1]."""
    loss: float
    """Mean cross-entropy, nats."""

    def metrics(self, split: str) -> dict[str, float]:
        """As they stand with an epoch: `val_accuracy`, `val_loss`."""
        return {f"{split}_accuracy": self.accuracy, f"{split}_loss": self.loss}


class Scorer:
    """Scores weights in a running model, which is overwritten by them.

        scorer = Scorer(ingredients.model(), ingredients.examples())
        scorer.score(ingredients[0])

    At most `num_images`, of each class in proportion; None: all of the split.
    Raises NotApplicable where the model's outputs are not the images' classes.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: EvalData,
        num_images: int | None = None,
        batch_size: int = 256,
    ) -> None:
        self.model, self.batch_size = model, batch_size
        self.examples = examples if num_images is None else examples.first(num_images)
        check_classifier(model, self.examples)

    def score(self, weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Score:
        """Of weights [*shape] by name, taken one by one; the model keeps tensors that they lack."""
        load(self.model, weights)
        return self.score_as_it_is()

    def score_as_it_is(self) -> Score:
        """Of the weights that the model has now."""
        point = parameters(self.model)
        measured = losses(self.model, lambda: [point], self.examples, self.batch_size)
        return Score(1 - measured.error.item(), measured.loss.item())


@torch.no_grad()
def load(model: nn.Module, weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> None:
    """Copy tensors [*shape] by name into a model, in its dtype and on its device."""
    state = model.state_dict()
    for name, tensor in weights.items() if isinstance(weights, Mapping) else weights:
        state[name].copy_(tensor)


@torch.no_grad()
def check_classifier(model: nn.Module, examples: EvalData) -> None:
    """Raises NotApplicable where the outputs are not the classes of the examples."""
    if mismatch := examples.outputs.mismatch:
        raise NotApplicable(f"the models cannot be chosen or trained by these images: {mismatch}")
    for batch in examples.first(1).batches(1):
        shape = tuple(model(batch.images).shape)
        if shape != (1, examples.num_classes):
            classes = f"{examples.num_classes} classes of the data set '{examples.dataset.name}'"
            raise NotApplicable(
                f"the models' outputs, {list(shape[1:])} of an image, are not the {classes} by "
                f"which they are chosen or trained; name other data: {parameter('data', 'NAME')}"
            )
