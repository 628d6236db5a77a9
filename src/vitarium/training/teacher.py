"""A teacher: the model whose outputs for its images a student learns."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from vitarium.blueprint import ModelSpec, Recipe
from vitarium.core.devices import lacks_values
from vitarium.core.errors import InvalidInput, VitariumError
from vitarium.data.base import Dataset
from vitarium.data.batch import Batch
from vitarium.objectives.base import StoredOutputs
from vitarium.objectives.companions import TeacherWithCompanions


def stored_outputs(spec: ModelSpec, zoo: Path, data: Dataset) -> StoredOutputs | None:
    """A teacher's outputs that were computed before, where the objective learns from such.

    Raises InvalidInput where they do not go with the recipe or the data, and CorruptFile.
    """
    objective = spec.recipe.objective
    find = objective.plugin.facts["stored_outputs"]
    if find is None:
        return None
    stored: StoredOutputs = find(objective.config, spec, zoo)
    stored.check(data.num_classes, data.train.labels)
    return stored


class Teacher:
    """A teacher, called once for each batch of one student; both take an `example` [1, c, h, w].

    `prepare` makes of the student's images the teacher's, of the same shape.

    Raises InvalidInput where there is no teacher, or where it does not go with the student; on the
    meta device also what torch says of a model that computes by values.
    """

    def __init__(
        self,
        recipe: Recipe,
        teacher: nn.Module | None,
        student: nn.Module,
        example: Tensor,
        prepare: Callable[[Tensor], Tensor] = lambda images: images,
    ) -> None:
        self.prepare = prepare
        objective = recipe.objective
        if teacher is None:
            raise InvalidInput(f"objective '{objective.name}' needs a teacher: give one")
        facts = objective.plugin.facts
        if facts["teacher_companions"] and not isinstance(teacher, TeacherWithCompanions):
            raise InvalidInput(
                f"objective '{objective.name}' needs a teacher with its companions: a model of the "
                "zoo that was trained with `keep_companions: true`"
            )
        self.teacher = teacher.to(example.device).eval()
        training = student.training
        with torch.no_grad():  # not inference_mode: the student may cache what training needs
            student.eval()
            try:
                self.teacher(example)
            except VitariumError:
                raise
            except (AssertionError, RuntimeError, ValueError) as error:
                if lacks_values(error):
                    raise
                size = "x".join(map(str, example.shape[1:]))
                raise InvalidInput(
                    f"the teacher cannot take the student's images ({size}): {error}; choose a "
                    "teacher of that input size, or change the student's architecture"
                ) from None
            make = facts["teacher_outputs"]
            self.outputs_of = make(objective.config, self.teacher, student, example)
        student.train(training)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Tensors [batch, ...] by name."""
        masks = () if batch.masks is None else (batch.masks,)
        with torch.inference_mode():
            outputs = self.outputs_of(self.prepare(batch.images), *masks)
        # copies, since autograd cannot keep what was computed in inference mode
        return {name: tensor.clone() for name, tensor in outputs.items()}
