"""The contract of objectives, and the loss that they return."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import PositiveInt
from torch import Tensor, nn

from vitarium.core.registry import contract, register
from vitarium.data.batch import Batch


class Loss:
    """The value to minimize (a scalar with a graph) and the metrics logged beside it (scalars).

    `Loss(cross_entropy, accuracy=top1)`; the loss itself is logged as "loss".
    """

    def __init__(self, value: Tensor, **metrics: Tensor) -> None:
        self.value = value
        self.metrics = {"loss": value.detach(), **{k: v.detach() for k, v in metrics.items()}}


BatchesOfSplit = Callable[[str, int | None], Iterator[Batch]]
"""`batches(split, limit)`: all images of a split in order, or the first `limit`; not augmented."""

TeacherOutputs = Callable[[Tensor], dict[str, Tensor]]
"""Images [batch, c, h, w] -> tensors by name, each [batch, ...]."""


@runtime_checkable
class Evaluate(Protocol):
    """Scores of a model in eval mode, by split and metric."""

    def __call__(
        self, config: Any, model: nn.Module, batches: BatchesOfSplit, splits: Sequence[str], /
    ) -> dict[str, dict[str, float]]: ...


LossFunction = TypeVar("LossFunction", bound=Callable[[Any, nn.Module, Batch], Loss])


@contract
def objective(
    name: str,
    *,
    views: PositiveInt,
    outputs: Callable[[Any, int], int],
    evaluate: Evaluate,
    scores: tuple[str, ...] = (),
    needs_head: bool = True,
    per_image: bool = True,
    teacher: Callable[[Any], Any] | None = None,
    teacher_outputs: Callable[[Any, nn.Module, nn.Module, Tensor], TeacherOutputs] | None = None,
    records_blocks: bool = False,
    paper: str = "",
    tiny: Mapping[str, Any] | None = None,
) -> Callable[[LossFunction], LossFunction]:
    """Register an objective: a function `(config, model, batch) -> Loss`.

    It draws nothing at random and has no state of its own, so that vmap can train many models with
    it. Every parameter of the model gets a gradient.

    Args:
        views: augmented views of each image in a batch; images are [views * batch, c, h, w].
        outputs: `(config, num_classes)` -> width of the model's outputs.
        scores: names of what `evaluate` gives for a split; a blueprint that stops by another one is
            refused before anything is trained. Empty: unknown, and none is refused.
        needs_head: False where a model without head can be trained, too.
        per_image: its loss is the mean of losses that depend on one image each, so that a batch can
            be computed in parts; False where it compares images with each other.
        teacher: `(config)` -> TeacherRef, the teacher's source; whoever trains finds the teacher
            and hands it over. It goes with `teacher_outputs`.
        teacher_outputs: `(config, teacher, student, example)` -> TeacherOutputs; called once before
            training, with an example of the images [1, c, h, w]. It raises InvalidInput where the
            two models do not go together. The trainer calls what it returns before each step, in
            inference mode with the teacher in eval mode and under the student's autocast, and puts
            the tensors into `batch.teacher_outputs`.
        records_blocks: it looks into the model's blocks by hooks; then the model computes every
            token in every block, and is not compiled.
        paper: authors, year and arXiv number, or an address.
        tiny: settings for `vitarium.testing.check_objective(name)`; None: the defaults.
    """
    if (teacher is None) != (teacher_outputs is None):
        raise TypeError(f"objective '{name}': teacher and teacher_outputs go together; give both")
    return register("objective", **locals())
