"""Bootstrapping: the student's features take the direction of a teacher's, without labels."""

from pydantic import NonNegativeInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.features import blocks, features
from vitarium.architectures.heads import head_prefix
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, TeacherOutputs, objective
from vitarium.objectives.classification.base import accuracy
from vitarium.objectives.distillation.base import (
    DISTILLATION,
    Distillation,
    at_least_float32,
    teacher_output,
)

FEATURES = "features"
"""The name of the teacher's features in `batch.teacher_outputs`, [batch, width]."""


class Bootstrapping(Distillation):
    """1 - cosine of the student's features and the teacher's, whose head the student has."""

    frozen_blocks: NonNegativeInt = 0
    """Last blocks of the student that do not learn, and with them the norm before the head; a
    third of the ViT's as published."""


def prepare(config: Bootstrapping, model: nn.Module, from_scratch: bool) -> None:
    """Head and last blocks do not learn. Raises InvalidInput where there are not as many."""
    model.get_submodule(head_prefix(model)).requires_grad_(False)
    if not config.frozen_blocks:
        return
    names = list(blocks(model))
    if config.frozen_blocks >= len(names):
        raise InvalidInput(
            f"objective 'bootstrapping': frozen_blocks is {config.frozen_blocks}, and the model "
            f"has {len(names)} blocks, of which some have to learn"
        )
    for name in [*names[-config.frozen_blocks :], "norm", "fc_norm"]:
        part = getattr(model, name, None) if "." not in name else model.get_submodule(name)
        if isinstance(part, nn.Module):
            part.requires_grad_(False)


def teacher_features(
    config: Bootstrapping, teacher: nn.Module, student: nn.Module, example: Tensor
) -> TeacherOutputs:
    """The teacher's features [batch, width]; its head becomes the student's.

    Raises InvalidInput where widths, classes or kinds of head differ.
    """
    widths = [features(model, example).shape[1] for model in (teacher, student)]
    if widths[0] != widths[1]:
        raise InvalidInput(
            f"the teacher's features have width {widths[0]}, and the student's {widths[1]}: choose "
            "a student as wide as the teacher"
        )
    heads = [model.get_submodule(head_prefix(model)) for model in (teacher, student)]
    tensors = [head.state_dict() for head in heads]
    shapes = [{name: tuple(t.shape) for name, t in each.items()} for each in tensors]
    if shapes[0] != shapes[1]:
        raise InvalidInput(
            f"the student's head {shapes[1]} cannot be the teacher's {shapes[0]}: choose the "
            "teacher's kind of head, and its classes"
        )
    if not any(tensor.is_meta for each in tensors for tensor in each.values()):
        heads[1].load_state_dict(tensors[0])
    return lambda images: {FEATURES: features(teacher, images)}


@objective(
    "bootstrapping",
    prepare=prepare,
    paper="Gao et al. 2024, arXiv 2312.01987",
    **(DISTILLATION | {"teacher_outputs": teacher_features}),
)
def bootstrapping(config: Bootstrapping, model: nn.Module, batch: Batch) -> Loss:
    """Align features with a teacher's by their cosine, and classify by the teacher's head.

    Features [batch, width] of student and teacher; labels do not count. The distance is from
    memory of the paper, whose training code is not public.
    """
    student = features(model, batch.images)
    head = model.get_submodule(head_prefix(model))
    cosine = F.cosine_similarity(
        at_least_float32(student), at_least_float32(teacher_output(batch, FEATURES)), dim=1
    )
    return Loss((1 - cosine).mean(), accuracy=accuracy(head(student.detach()), batch))
