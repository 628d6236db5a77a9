"""What measures are called with, and what they return; `measures/base.py` says which gets what."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vitarium.core.config import Config
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.data import EvalData
from vitarium.zoo import Checkpoint
from vitarium.zoo._format.description import DTYPES, FLOATS

if TYPE_CHECKING:
    from vitarium.blueprint import Imported, Recipe

T = TypeVar("T")
Values = float | Mapping[str, float]
Matrices = Mapping[str, Tensor]
"""By part, float64 [models, models]."""


class Weights(Mapping[str, Tensor]):
    """Weights of a model after an epoch, by name; each tensor is read from disk on access.

    Args:
        name: what to call it in messages: `ID@EPOCH`.
        tensors: they themselves, e.g. a checkpoint of the zoo.
        start: gives the weights before training.
        parent: gives those that training started from.
        skeleton: gives the model without memory (on the meta device), to ask what a tensor is of.
        origin: what it is built by, to be compared with others'; None: not known.

    The three functions raise NotApplicable where there is nothing to give.
    """

    def __init__(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        *,
        start: "Callable[[], Weights] | None" = None,
        parent: "Callable[[], Weights] | None" = None,
        skeleton: Callable[[], nn.Module] | None = None,
        origin: "Recipe | Imported | None" = None,
    ) -> None:
        self.name, self._tensors, self.origin = name, tensors, origin
        self._start, self._parent, self._skeleton = start, parent, skeleton
        self._remembered: dict[object, object] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def start(self) -> "Weights":
        if self._start is None:
            raise NotApplicable(f"{self.name}: its initial weights are not known")
        return self._start()

    @property
    def parent(self) -> "Weights":
        if self._parent is None:
            raise NotApplicable(f"{self.name}: it has no parent")
        return self._parent()

    @cached_property
    def skeleton(self) -> nn.Module:
        if self._skeleton is None:
            raise NotApplicable(f"{self.name}: what it is built of is not known")
        return self._skeleton()

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its floating-point tensors by name; a checkpoint's are not read for it."""
        if isinstance(self._tensors, Checkpoint):
            stored = self._tensors.tensors.items()
            return {name: about.shape for name, about in stored if about.dtype in FLOATS}
        tensors = self._tensors.items()
        return {name: tuple(t.shape) for name, t in tensors if t.is_floating_point()}

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor; that of a checkpoint is not read for it."""
        if not isinstance(self._tensors, Checkpoint):
            return self[name].dtype
        return getattr(torch, DTYPES[self._tensors.tensors[name].dtype])

    @property
    def nbytes(self) -> int:
        """Of its tensors of real numbers."""
        return sum(math.prod(s) * self.dtype(n).itemsize for n, s in self.shapes.items())

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """`tensor[start:stop]`, [stop - start, ...]; of a checkpoint, only its runs are read."""
        if isinstance(self._tensors, Checkpoint):
            return self._tensors.rows(name, start, stop)
        return self[name][start:stop]

    def read_ahead(self, names: Sequence[str]) -> None:
        """Let the system fetch these tensors from disk before they are asked for."""
        if isinstance(self._tensors, Checkpoint | Weights):
            self._tensors.read_ahead(names)

    def floats(self, part: str = "") -> Iterator[tuple[str, Tensor]]:
        """Name and tensor [*shape] of the floating-point tensors that have `part` in their name.

        Raises NotApplicable that names a tensor with entries that are not finite.
        """
        for name in self.shapes:
            if part in name:
                yield name, finite(f"{self.name}: {name}", self[name])

    def remember(self, what: object, compute: Callable[[], T]) -> T:
        """The value of `compute`, computed once for the key `what`, which measures share."""
        if what not in self._remembered:
            self._remembered[what] = compute()
        return cast(T, self._remembered[what])


@dataclass(frozen=True)
class Predictions:
    """Logits of a classifier on the images of a split, and their labels."""

    logits: Tensor
    """float32 [n, num_classes], on the CPU"""
    labels: Tensor
    """int64 [n]"""
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def log_probabilities(self) -> Tensor:
        """float64 [n, num_classes], nats"""
        return self.logits.double().log_softmax(1)

    @cached_property
    def classes(self) -> Tensor:
        """The most probable class, int64 [n]; of equal ones the first."""
        return self.logits.argmax(1)

    @cached_property
    def correct(self) -> Tensor:
        """bool [n]"""
        return self.classes == self.labels


def check_predictions(first: Predictions, second: Predictions | None = None) -> None:
    """Raises NotApplicable where there are no images, or logits are NaN or infinite.

    Of a pair, also where they are not of the same images in the same classes.
    """
    for predictions in [first] if second is None else [first, second]:
        if not len(predictions):
            raise NotApplicable("there are no images to predict")
        finite("what it predicts", predictions.logits)
    if second is None:
        return
    if len(first) != len(second):
        raise NotApplicable(f"one predicts {len(first)} images, the other {len(second)}")
    classes = first.logits.shape[1], second.logits.shape[1]
    if classes[0] != classes[1]:
        raise NotApplicable(f"one knows {classes[0]} classes, the other {classes[1]}")
    if differing := int((first.labels != second.labels).sum()):
        other = f"{differing} of {len(first)} images have another label for the other model"
        raise NotApplicable(f"{other}: these are not the same images")
    if first.class_names and second.class_names and first.class_names != second.class_names:
        raise NotApplicable(
            f"one's {len(first.class_names)} classes are called otherwise than the other's "
            f"{len(second.class_names)}: they were trained on different data"
        )


@dataclass(frozen=True)
class EvalModel:
    """A running model and the data that it is evaluated on."""

    name: str
    """`ID@EPOCH`, in messages."""
    model: nn.Module
    """In eval mode, float32, on the examples' device. A measure leaves it as it was."""
    examples: EvalData
    parent: "Callable[[], EvalModel] | None" = None
    """Gives what it was trained from, with examples of the parent's own data."""
    is_classifier: bool = True
    """Whether the outputs are the classes of the examples."""
    origin: "Recipe | Imported | None" = None
    """What it is built by; None: its modules alone tell."""

    def check_classifier(self) -> None:
        """Raises NotApplicable where the outputs are not classes."""
        if self.examples.outputs.mismatch:
            raise NotApplicable(f"{self.name}: {self.examples.outputs.mismatch}")
        if not self.is_classifier:
            classes = f"{self.examples.num_classes} classes of the data set"
            data = self.examples.dataset.name
            raise NotApplicable(f"{self.name}: its outputs are not the {classes} '{data}'")


class Representation(Config):
    """Base of the settings of measures that compare layers' features of the same images.

    Such a measure turns the features of a batch, [n, d] with n > 3, into a vector (float32, as long
    for every layer and model). The measure of two layers is the cosine of their joined vectors.
    """

    tokens: Literal["mean", "class", "patches"] = "mean"
    """Features of a block: the mean of its patch tokens, its class token, or all patch tokens
    concatenated."""
    layers: Literal["last", "same", "all"] = "same"
    """Blocks that are compared: the last ones (last), those of the same number (same), or each with
    each (all)."""
    num_images: PositiveInt = 1024
    """Largest number of images of the split to use."""
    batch_size: int = Field(default=256, ge=4)
    """Images that are compared with each other; a last batch of fewer than four is left out."""


def finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor [*shape]. Raises NotApplicable that names it if an entry is not finite."""
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise NotApplicable(f"{name} has entries that are not finite")
    return tensor
