"""SimKD: the student learns a teacher's features, and reuses the teacher's classifier."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitarium.architectures.features import features
from vitarium.architectures.heads import ReusedClassifier, head_prefix
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, TeacherOutputs, objective
from vitarium.objectives.classification.base import accuracy
from vitarium.objectives.distillation.base import (
    DISTILLATION,
    Distillation,
    at_least_float32,
    check_classes,
    teacher_output,
)

FEATURES = "features"
"""The name of the teacher's features in `batch.teacher_outputs`, [batch, width]."""


class SimKD(Distillation):
    """Mean squared difference between projected features and the teacher's, and nothing else."""


def prepare(config: SimKD, model: nn.Module, from_scratch: bool) -> None:
    """The classifier does not learn."""
    head_of(model).classifier.requires_grad_(False)


def head_of(model: nn.Module) -> ReusedClassifier:
    """Raises InvalidInput for a model with another head."""
    head = model.get_submodule(head_prefix(model))
    if not isinstance(head, ReusedClassifier):
        raise InvalidInput("objective 'simkd' needs a student with `head: reused_classifier`")
    return head


def last_layer(teacher: nn.Module) -> tuple[Callable[[Tensor], Tensor], nn.Linear]:
    """What a teacher's last linear layer reads, images [batch, c, h, w] -> [batch, width], and
    that layer. Raises InvalidInput where its head does not end in one."""
    head = teacher.get_submodule(head_prefix(teacher))
    before: nn.Module = nn.Identity()
    last: nn.Module = head
    if isinstance(head, ReusedClassifier):
        before, last = head.projector, head.classifier
    elif isinstance(head, nn.Sequential) and len(head):
        before, last = head[:-1], head[-1]
    if not isinstance(last, nn.Linear):
        raise InvalidInput(
            f"the teacher's head is a {type(head).__name__}: simkd reuses a linear classifier; "
            "choose a teacher whose head is linear or an MLP"
        )

    def inputs(images: Tensor) -> Tensor:
        read: Tensor = before(features(teacher, images))
        return read

    return inputs, last


def teacher_features(
    config: SimKD, teacher: nn.Module, student: nn.Module, example: Tensor
) -> TeacherOutputs:
    """The teacher's features [batch, width]; its classifier becomes the student's.

    Raises InvalidInput where classes or widths differ, or the teacher's head ends in no linear
    layer.
    """
    check_classes(teacher, student, example)
    inputs, layer = last_layer(teacher)
    classifier = head_of(student).classifier
    if layer.in_features != classifier.in_features:
        raise InvalidInput(
            f"the teacher's features have width {layer.in_features}, and the student's projector "
            f"gives {classifier.in_features}: set `head: {{name: reused_classifier, width: "
            f"{layer.in_features}}}`"
        )
    if not classifier.weight.is_meta and not layer.weight.is_meta:
        with torch.no_grad():
            classifier.weight.copy_(layer.weight)
            if layer.bias is None:
                classifier.bias.zero_()
            else:
                classifier.bias.copy_(layer.bias)
    return lambda images: {FEATURES: inputs(images)}


@objective(
    "simkd",
    head="reused_classifier",
    prepare=prepare,
    paper="Chen et al. 2022, arXiv 2203.14001",
    **(DISTILLATION | {"teacher_outputs": teacher_features}),
)
def simkd(config: SimKD, model: nn.Module, batch: Batch) -> Loss:
    """SimKD: learn a teacher's features through a projector, and reuse its frozen classifier.

    Projected features [batch, width] against the teacher's: the mean of squared differences. The
    true classes do not count.
    """
    head = head_of(model)
    projected = head.projector(features(model, batch.images))
    difference = at_least_float32(projected) - at_least_float32(teacher_output(batch, FEATURES))
    with torch.no_grad():
        outputs = head.classifier(projected)
    return Loss(difference.square().mean(), accuracy=accuracy(outputs, batch))
