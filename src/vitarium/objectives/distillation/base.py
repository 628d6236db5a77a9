"""What objectives with a teacher have in common: settings, facts, and the teacher's outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.core.config import Config
from vitarium.core.devices import without_autocast
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, SectionOf
from vitarium.core.weight_suffixes import weight_suffix
from vitarium.data.batch import Batch
from vitarium.objectives.base import TeacherOutputs
from vitarium.objectives.classification.base import CLASSIFICATION, ClassificationFacts

PARENT = "parent"
OUTPUTS = "outputs"
"""The name of the teacher's outputs in `batch.teacher_outputs`, [batch, num_classes]."""
PROBABILITIES = "probabilities"
"""The name of a teacher's stored probabilities there, [batch, num_classes]."""


@dataclass(frozen=True)
class TeacherRef:
    """Where the teacher comes from; the fields are those of `Distillation`."""

    source: str
    architecture: Section | None = None
    head: Section | None = None
    sha256: str | None = None

    @property
    def is_parent(self) -> bool:
        return self.source == PARENT

    @property
    def model(self) -> str:
        """Of a model of the zoo, its id or a beginning of it."""
        return self.source.partition("@")[0]

    @property
    def epoch(self) -> int | None:
        """Of a model of the zoo, the epoch that is named; None: its last."""
        number = self.source.partition("@")[2]
        return int(number) if number.isdecimal() else None

    @property
    def is_path(self) -> bool:
        """Whether it is a file or a folder: a path has a separator, or ends as weight files do."""
        return "/" in self.source or "\\" in self.source or self.is_file

    @property
    def is_file(self) -> bool:
        return bool(weight_suffix(self.source))


class Distillation(Config):
    """Settings of every objective with a teacher."""

    teacher: str = Field(PARENT, min_length=1)
    """The teacher: `parent`, the model that training starts from, with its head; a model of the
    zoo, `ID` or `ID@EPOCH`, or in a blueprint each of another stage, `{stage: NAME}`; or a path: a
    folder in timm's layout (config.json and model.safetensors; write `./name` for one in the
    current folder), or a file of weights (.safetensors, .pth, ...)."""
    teacher_architecture: Annotated[Section, SectionOf("architecture")] | None = None
    """Architecture of a teacher that is a file of weights."""
    teacher_head: Annotated[Section, SectionOf("head")] | None = None
    """Head of a teacher that is a file of weights; null: the architecture's own, one linear
    layer."""
    teacher_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """SHA-256 checksum of the teacher's file of weights; a file with another one is refused."""

    @model_validator(mode="after")
    def _teacher_is_told_once(self) -> Self:
        teacher = teacher_ref(self)
        if teacher.is_file and teacher.architecture is None:
            how = "say what builds the model in teacher_architecture"
            raise ValueError(f"'{teacher.source}' has weights alone: {how}")
        if not teacher.is_file and (teacher.architecture or teacher.head):
            known = f"'{teacher.source}' is known without them"
            raise ValueError(
                f"teacher_architecture and teacher_head are for a file of weights; {known}"
            )
        if teacher.sha256 and not teacher.is_path:
            known = f"'{teacher.source}' is a model of the zoo"
            raise ValueError(f"teacher_sha256 is for a file; {known}")
        return self

    def with_teacher_like_student(self) -> Self:
        """The same with a teacher built as the student: so speed is measured."""
        file_settings = ("teacher_architecture", "teacher_head", "teacher_sha256")
        return self.changed({"teacher": PARENT, **dict.fromkeys(file_settings)})


def teacher_ref(config: Distillation) -> TeacherRef:
    return TeacherRef(
        config.teacher, config.teacher_architecture, config.teacher_head, config.teacher_sha256
    )


def class_outputs(
    config: Any, teacher: nn.Module, student: nn.Module, example: Tensor
) -> TeacherOutputs:
    """The teacher's outputs [batch, num_classes]. Raises InvalidInput where classes differ."""
    check_classes(teacher, student, example)
    return lambda images: {OUTPUTS: teacher(images)}


class DistillationFacts(ClassificationFacts):
    """Facts of an objective with a teacher that learns classes."""

    teacher: Callable[[Any], TeacherRef]
    teacher_outputs: Callable[[Any, nn.Module, nn.Module, Tensor], TeacherOutputs]


DISTILLATION: DistillationFacts = {
    **CLASSIFICATION,
    "teacher": teacher_ref,
    "teacher_outputs": class_outputs,
}
"""Facts for `@objective(name, config=..., **DISTILLATION)`."""


def teacher_output(batch: Batch, name: str = OUTPUTS) -> Tensor:
    """The teacher's tensor of that name, [batch, ...]. Raises InvalidInput without a teacher."""
    if batch.teacher_outputs is None:
        needed = "a batch with `teacher_outputs`"
        raise InvalidInput(f"this objective needs a teacher's outputs: {needed}")
    return batch.teacher_outputs[name]


def check_classes(teacher: nn.Module, student: nn.Module, example: Tensor) -> None:
    """Raises InvalidInput unless both have as many outputs for an example [1, c, h, w]."""
    shapes = [tuple(model(example).shape[1:]) for model in (teacher, student)]
    if shapes[0] != shapes[1]:
        outputs = [f"for {s[0]} classes" if len(s) == 1 else f"of shape {s}" for s in shapes]
        raise InvalidInput(
            f"the teacher has outputs {outputs[0]} and the student {outputs[1]}: choose a teacher "
            "that was trained on the student's classes, or give it such a head first (a stage that "
            "starts from it, on the student's data)"
        )


def soft_cross_entropy(outputs: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Mean over the batch of -sum softmax(teacher_logits / T) log_softmax(outputs / T).

    Both [batch, num_classes] -> a scalar, in float32 under autocast, too.
    """
    with without_autocast(outputs):
        expected = (at_least_float32(teacher_logits) / temperature).softmax(dim=-1)
        return F.cross_entropy(at_least_float32(outputs) / temperature, expected)


def at_least_float32(values: Tensor) -> Tensor:
    """[...] in float32, or in float64 as it is: [...]"""
    return values if values.dtype == torch.float64 else values.float()
