"""DeiT-LT: a distillation token learns a teacher's classes of a long-tailed data set."""

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.features import features
from vitarium.architectures.heads import TokenHeads, head_prefix
from vitarium.architectures.vit.distilled import DistilledVit
from vitarium.core.devices import without_autocast
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import accuracy
from vitarium.objectives.companions import Companions, Progress
from vitarium.objectives.distillation.base import (
    DISTILLATION,
    Distillation,
    at_least_float32,
    teacher_output,
)


class DeitLT(Distillation):
    """(1 - alpha) cross-entropy of the class token's head with the classes + alpha cross-entropy of
    the distillation token's head with the teacher's class, weighted by class from an epoch on."""

    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the distillation token's term, from 0 to 1."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target's probability that is spread evenly over all classes, in [0, 1); of the
    class token's term."""
    reweight_from: PositiveInt | None = None
    """Epoch from which on the distillation token's term weighs rare classes more; none: never."""
    beta: float = Field(0.9999, ge=0, lt=1)
    """Class weights are (1 - beta) / (1 - beta^n) for n training images, scaled to the number of
    classes as their sum; 0: all the same."""


def class_weights(counts: Tensor, beta: float) -> Tensor:
    """Weights of classes by their effective number of images (Cui et al. 2019, arXiv 1901.05555).

    counts [num_classes], each at least 1 -> (1 - beta) / (1 - beta^n), scaled to sum num_classes,
    float64 [num_classes]
    """
    weights = (1 - beta) / (1 - beta ** counts.double())
    return weights * (len(counts) / weights.sum())


class ClassWeights(Companions):
    """Weights of the classes, which are 1 until they are to count."""

    def __init__(self, config: DeitLT, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.weights: Tensor
        self.register_buffer("weights", torch.ones(num_classes))
        self._by_count = torch.ones(num_classes)

    def before_training(self, class_counts: Tensor) -> None:
        """See the base. Raises InvalidInput for a class without images that would get a weight."""
        if self.config.reweight_from is None:
            return
        if missing := (class_counts == 0).nonzero().flatten().tolist():
            raise InvalidInput(
                f"reweight_from: class {missing[0]} has no training images, so no weight by their "
                "number; leave such classes out of the data set"
            )
        self._by_count = class_weights(class_counts, self.config.beta).to(self.weights)

    def before_step(self, progress: Progress) -> None:
        start = self.config.reweight_from
        reweights = start is not None and progress.epoch >= start
        self.weights.copy_(self._by_count if reweights else torch.ones_like(self.weights))


def _misfits(config: DeitLT, recipe: Any) -> dict[str, str]:
    problems = {}
    if not isinstance(recipe.architecture.config, DistilledVit):
        needed = "objective 'deit_lt' needs a distillation token: `architecture: distilled_vit`"
        problems["architecture"] = needed
    if (start := config.reweight_from) is not None and start > recipe.epochs:
        late = f"reweight_from is epoch {start}, after the last one, {recipe.epochs}"
        problems["objective"] = late
    return problems


@objective(
    "deit_lt",
    head="token_heads",
    companions=lambda config, model, num_classes: ClassWeights(config, num_classes),
    misfits=_misfits,
    per_image=False,
    paper="Rangwani et al. 2024, arXiv 2404.02900",
    **DISTILLATION,
)
def deit_lt(config: DeitLT, model: nn.Module, batch: Batch, companions: ClassWeights) -> Loss:
    """DeiT-LT: a class token learns the classes, a distillation token a teacher's predictions.

    Outputs of each token's head [batch, num_classes]: the class token's against the targets, which
    mixup and cutmix may have mixed; the distillation token's against the largest of the teacher's
    outputs for the same images, as a mean weighted by that class. Scored are the means of both.
    """
    head = model.get_submodule(head_prefix(model))
    if not isinstance(head, TokenHeads):
        raise InvalidInput("objective 'deit_lt' needs a student with `head: token_heads`")
    tokens = features(model, batch.images)
    by_class, by_teacher = head.of_tokens(tokens)[:2]
    class_loss = F.cross_entropy(by_class, batch.targets, label_smoothing=config.label_smoothing)
    predicted = teacher_output(batch).argmax(1, keepdim=True)
    with without_autocast(by_teacher):
        surprise = -at_least_float32(by_teacher).log_softmax(1).gather(1, predicted).squeeze(1)
        weights = companions.weights.gather(0, predicted.squeeze(1))
        prediction = (weights * surprise).sum() / weights.sum()
    loss = (1 - config.alpha) * class_loss + config.alpha * prediction
    class_token, distillation_token = tokens.float().chunk(len(head), dim=1)[:2]
    cosine = F.cosine_similarity(class_token, distillation_token, dim=1).mean()
    return Loss(
        loss,
        prediction=prediction,
        token_cosine=cosine,
        accuracy=accuracy((by_class + by_teacher) / 2, batch),
    )
