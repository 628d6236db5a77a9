"""A teacher's outputs for the batches that a student is trained on."""

import torch
from torch import Tensor, nn

from vitarium.blueprint import Recipe
from vitarium.core.errors import InvalidInput, VitariumError


class Teacher:
    """A teacher, called once for each batch of one student.

    Args:
        example: images as both take them, [1, c, h, w].

    Raises InvalidInput where there is no teacher, or where it does not go with the student.
    """

    def __init__(
        self, recipe: Recipe, teacher: nn.Module | None, student: nn.Module, example: Tensor
    ) -> None:
        objective = recipe.objective
        if teacher is None:
            raise InvalidInput(f"objective '{objective.name}' needs a teacher: give one")
        self.teacher = teacher.to(example.device).eval()
        training = student.training
        with torch.no_grad():  # not inference_mode: the student may cache what training needs
            student.eval()
            try:
                self.teacher(example)
            except VitariumError:
                raise
            except (AssertionError, RuntimeError, ValueError) as error:
                size = "x".join(map(str, example.shape[1:]))
                raise InvalidInput(
                    f"the teacher cannot take the student's images ({size}): {error}; choose a "
                    "teacher of that input size, or change the student's architecture"
                ) from None
            make = objective.plugin.facts["teacher_outputs"]
            self.outputs_of = make(objective.config, self.teacher, student, example)
        student.train(training)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Images [batch, c, h, w] -> tensors [batch, ...] by name.

        They are copies, since autograd cannot keep what was computed in inference mode.
        """
        with torch.inference_mode():
            outputs = self.outputs_of(images)
        return {name: tensor.clone() for name, tensor in outputs.items()}
