"""The contract of objectives, and the loss that they return."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import PositiveInt
from torch import Tensor, nn

from vitarium.core.registry import contract, register
from vitarium.data.batch import Batch
from vitarium.objectives.companions import Companions


class Loss:
    """The value to minimize (a scalar with a graph) and the metrics logged beside it (scalars).

    `Loss(cross_entropy, accuracy=top1)`; the loss itself is logged as "loss".

    statistics: of the batch, [*shape] by name, for the companions' `after_step`; means over its
        images.
    """

    def __init__(
        self, value: Tensor, statistics: Mapping[str, Tensor] | None = None, /, **metrics: Tensor
    ) -> None:
        self.value = value
        self.statistics = {k: v.detach() for k, v in (statistics or {}).items()}
        self.metrics = {"loss": value.detach(), **{k: v.detach() for k, v in metrics.items()}}


BatchesOfSplit = Callable[[str, int | None], Iterator[Batch]]
"""`batches(split, limit)`: all images of a split in order, or the first `limit`; not augmented."""

TeacherOutputs = Callable[..., dict[str, Tensor]]
"""Images [batch, c, h, w], and the batch's masks where the objective has some -> tensors by name,
each [batch, ...]."""


class StoredOutputs(Protocol):
    """A teacher's outputs that were computed before, for the images of a training to come.

    seed: of the order of the images and of their augmentation, in place of the model's.
    """

    seed: int

    def check(self, num_classes: int, labels: Tensor | None = None, /) -> None:
        """Raises InvalidInput where the data are others; labels of the training images [n]."""

    def __call__(self, epoch: int, step: int, /) -> dict[str, Tensor]:
        """For the batch of a step (from 0) of an epoch (from 1): tensors by name, [batch, ...]."""


@dataclass(frozen=True)
class TokenMasks:
    """How patches are chosen that a model does not see; or noise, of objectives that add some.

    numbers: how many numbers, uniform in [0, 1), each image is given: float64 [n, numbers].
    masks: the numbers of all images of a batch -> bool [n, patches], True: not seen; noise is of
        any dtype and shape [n, ...].
    """

    numbers: int
    masks: Callable[[Tensor], Tensor]


@runtime_checkable
class Evaluate(Protocol):
    """Scores of a model in eval mode, by split and metric."""

    def __call__(
        self, config: Any, model: nn.Module, batches: BatchesOfSplit, splits: Sequence[str], /
    ) -> dict[str, dict[str, float]]: ...


LossFunction = TypeVar("LossFunction", bound=Callable[..., Loss])


@contract
def objective(
    name: str,
    *,
    views: PositiveInt,
    outputs: Callable[[Any, int], int],
    evaluate: Evaluate,
    scores: tuple[str, ...] = (),
    labels: Literal["single", "any"] | None = None,
    needs_head: bool = True,
    trains_head: bool = True,
    head: str = "",
    companions: Callable[[Any, nn.Module, int], Companions] | None = None,
    masks: Callable[[Any, nn.Module], TokenMasks] | None = None,
    prepare: Callable[[Any, nn.Module, bool], None] | None = None,
    misfits: Callable[[Any, Any], Mapping[str, str]] | None = None,
    extra_channels: Callable[[Any], int] | None = None,
    without_decay: tuple[str, ...] = (),
    per_image: bool = True,
    teacher: Callable[[Any], Any] | None = None,
    teacher_outputs: Callable[[Any, nn.Module, nn.Module, Tensor], TeacherOutputs] | None = None,
    teacher_companions: Callable[[Any, nn.Module], Companions] | None = None,
    stored_outputs: Callable[[Any, Any, Any], StoredOutputs] | None = None,
    records_blocks: bool = False,
    paper: str = "",
    tiny: Mapping[str, Any] | None = None,
    tiny_architecture: Mapping[str, Any] | None = None,
) -> Callable[[LossFunction], LossFunction]:
    """Register an objective: a function `(config, model, batch) -> Loss`, or with companions
    `(config, model, batch, companions) -> Loss`.

    When a blueprint is read, it is called with a model and a batch on the meta device; what does
    not go together it refuses by InvalidInput.

    It draws nothing at random and changes no state, so that vmap can train many models with it:
    what follows the model is in its companions. Every parameter of the model, and every one of the
    companions that requires it, gets a gradient.

    Args:
        views: augmented views of each image in a batch; images are [views * batch, c, h, w].
        outputs: `(config, num_classes)` -> width of the model's outputs.
        scores: names of what `evaluate` gives for a split; a blueprint that stops by another one is
            refused before anything is trained. Empty: unknown, and none is refused.
        labels: "single" where it, or its `evaluate`, needs one label of each image, "any" where
            images may have several ones. None: "single" with `needs_head`, else "any".
        needs_head: False where a model without head can be trained, too.
        trains_head: False where the model's head gets no gradient; then a recipe's default is
            `head: none`, and no other is allowed.
        head: the kind of head that it needs, which is then a recipe's default; empty: any.
        companions: `(config, model, num_classes)` -> Companions: what learns or follows beside the
            model, which has the weights that it starts with. Drawn from torch's global generator,
            which is seeded before. Raises InvalidInput where the model does not go with it; before
            anything is trained it is called with a model on the meta device, to see whether.
        masks: `(config, model)` -> TokenMasks, by which `batch.masks` is drawn: the one source of
            randomness. Raises InvalidInput where the model has no patches that could be hidden.
        prepare: `(config, model, from_scratch)` -> None: sets what of the model does not learn,
            e.g. fixed positions, and from scratch also what it starts as. Raises InvalidInput.
        misfits: `(config, recipe)` -> what is wrong by the recipe's factor, e.g. a batch too small.
        extra_channels: `(config)` -> how many channels the images have beside those of the model,
            after these: a second modality, which companions see. Images to score have them, too.
        without_decay: names of the companions' parameters that are never decayed, e.g. a learned
            temperature. Where an optimizer decays weights, its models are trained singly.
        per_image: its loss is the mean of losses that depend on one image each, so that a batch can
            be computed in parts; False where it compares images with each other.
        teacher: `(config)` -> TeacherRef, the teacher's source; whoever trains finds the teacher
            and hands it over. It goes with `teacher_outputs`.
        teacher_outputs: `(config, teacher, student, example)` -> TeacherOutputs; called once before
            training, with an example of the images [1, c, h, w]. It raises InvalidInput where the
            two models do not go together. The trainer calls what it returns before each step, in
            inference mode with the teacher in eval mode and under the student's autocast, and puts
            the tensors into `batch.teacher_outputs`.
        teacher_companions: the teacher is handed over with its own objective's companions, as a
            TeacherWithCompanions; one whose companions were not kept is refused. `(config, model)`
            -> Companions such as it may have, to measure speed and to test the contract with.
        stored_outputs: `(config, spec, zoo)` -> StoredOutputs, of a model's spec and the folder of
            its zoo; whoever trains puts what they give into `batch.teacher_outputs`. Raises
            InvalidInput where they do not go with the recipe, and CorruptFile.
        records_blocks: it looks into the model's blocks by hooks; then the model computes every
            token in every block, and is not compiled.
        paper: authors, year and arXiv number, or an address.
        tiny: settings for `vitarium.testing.check_objective(name)`; None: the defaults.
        tiny_architecture: of the models there, where it trains one architecture alone, e.g.
            `{"name": "image_codec"}`, without the images' size; None: a plain ViT of one block.
    """
    if (teacher is None) != (teacher_outputs is None):
        raise TypeError(f"objective '{name}': teacher and teacher_outputs go together; give both")
    if teacher_companions and not teacher:
        raise TypeError(f"objective '{name}': teacher_companions are those of a teacher; give it")
    if needs_head and not trains_head:
        raise TypeError(f"objective '{name}': without trains_head, needs_head is False, too")
    labels = labels or ("single" if needs_head else "any")
    return register("objective", **locals())
