"""The images of a data set as a model of a zoo sees them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitarium.blueprint import Recipe, Spec
from vitarium.core.errors import InvalidInput, NotApplicable, VitariumError
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section
from vitarium.data import load as datasets
from vitarium.data.class_outputs import ClassOutputs, class_outputs
from vitarium.data.expected import Normalization
from vitarium.data.image_channels import check_channels, first_channels
from vitarium.data.loader import Batches, SplitName, check_images
from vitarium.data.preprocessing import (
    Assumed,
    Preprocessing,
    preprocessing_of,
    read_normalization,
)


def _hint() -> str:
    of_data, numbers = (parameter("normalization", value) for value in ("data", "0.5/0.5"))
    return f"say it: {of_data} for that of the data set, or mean/std, e.g. {numbers}"


def dataset_of(spec: Spec, data: Section | None) -> Section:
    """What a model is evaluated on: `data`, or its own. Raises NotApplicable where none is known"""
    own = spec.origin.data if isinstance(spec.origin, Recipe) else None
    if (chosen := data or own) is None:
        how = parameter("data", "NAME")
        raise NotApplicable(f"{spec.id}: its data set is not known; name one: {how}")
    return chosen


def prepared(
    spec: Spec, data: Section, assumed: Assumed | None = None, data_dir: Path | None = None
) -> Preprocessing:
    """How images of a data set are prepared for a model; its normalization is known.

    assumed: the normalization of a model of which it is not known.

    Raises NotApplicable where it is not known and none is assumed, or where what is known cannot be
    applied; InvalidInput where that makes no sense; DataNotFound and InvalidData where the data
    set's own is assumed.
    """
    preprocessing = preprocessing_of(spec)
    for fault in preprocessing.faults.values():
        raise NotApplicable(fault)
    if preprocessing.normalization:
        return preprocessing
    if normalization := _of_training_data(spec, data_dir):
        return preprocessing.normalized_by(normalization)
    if assumed is None:
        what = "nothing is known of how its images were normalized"
        raise NotApplicable(f"{spec.id}: {what}; {_hint()}")
    if (normalization := read_normalization(assumed)) is None:
        dataset = datasets.load(data, data_dir)
        return preprocessing.normalized_by((dataset.mean, dataset.std))
    if (count := len(normalization[0])) not in (1, preprocessing.input_size[0]):
        channels = f"{preprocessing.input_size[0]} channels"
        what = f"the normalization has {count}, but model {spec.id} takes images of {channels}"
        raise InvalidInput(what)
    return preprocessing.normalized_by(normalization)


def _of_training_data(spec: Spec, data_dir: Path | None) -> Normalization | None:
    """Of a data set of which nobody knows it without its files."""
    if not isinstance(spec.origin, Recipe):
        return None
    try:
        dataset = datasets.load(spec.origin.data, data_dir)
    except VitariumError:  # it is not on this machine
        return None
    return dataset.mean, dataset.std


def plain_batches(
    data: Section,
    preprocessing: Preprocessing,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
) -> Batches:
    """Batches of images that are not augmented. Raises DataNotFound and InvalidData."""
    dataset = datasets.load(data, data_dir)
    if preprocessing.extra_channels:
        dataset = first_channels(dataset, preprocessing.input_size[0])
    check_channels(dataset, preprocessing.input_size[0])
    frames = preprocessing.frames(dataset.num_classes)
    size, normalization = preprocessing.input_size, preprocessing.normalization
    return Batches(dataset, frames, size, 1, seed=0, device=device, normalization=normalization)


def outputs_for(
    spec: Spec, num_outputs: int, names: tuple[str, ...], classes: tuple[str, ...], data: str
) -> ClassOutputs:
    """Which outputs of a model, with these names, are the classes of a data set."""
    objective = spec.origin.objective if isinstance(spec.origin, Recipe) else None
    if objective and not objective.facts.get("needs_head", True):
        return ClassOutputs(mismatch=f"it was trained by {objective.name} and gives no classes")
    if spec.origin.head and spec.origin.head.name == "none":
        return ClassOutputs(mismatch="it has no head, and gives no classes")
    return class_outputs(names, num_outputs, classes, data)


def model_images(
    spec: Spec,
    num_outputs: int,
    names: tuple[str, ...],
    split: SplitName,
    data: Section | None = None,
    assumed: Assumed | None = None,
    data_dir: Path | None = None,
) -> "ModelImages":
    """As `Zoo.data`, of a model with so many outputs of these names. Raises as that does."""
    check_images(split)
    chosen = dataset_of(spec, data)
    preprocessing = prepared(spec, chosen, assumed, data_dir)
    dataset = datasets.load(chosen, data_dir)
    outputs = outputs_for(spec, num_outputs, names, dataset.classes, dataset.name)
    return ModelImages(chosen, preprocessing, split, outputs, names, data_dir)


class ModelImages(torch.utils.data.Dataset[tuple[Tensor, int | Tensor]]):
    """A split of a data set as a model sees it: what `zoo.data` gives.

    Item `i` is an image, float32 [channels, height, width], resized, cropped and normalized, and
    its label, or bool [classes] of several labels. It is pickled without its images, which every
    worker maps into its own memory.

    Args:
        data: the data set.
        preprocessing: of the model.
        outputs: of the model that are the data set's classes.
        names: of all outputs of the model; empty where they are not known.
    """

    def __init__(
        self,
        data: Section,
        preprocessing: Preprocessing,
        split: SplitName,
        outputs: ClassOutputs,
        names: tuple[str, ...],
        data_dir: Path | None = None,
    ) -> None:
        self.preprocessing, self.split = preprocessing, split
        self._data, self._data_dir = data, data_dir
        self._numbers = None if outputs.mismatch else outputs.numbers
        self.classes: tuple[str, ...] = self._batches.dataset.classes
        """Names of the labels: of the model's outputs where the data set's classes are among them
        in another order, else of the data set's classes."""
        if self._numbers:
            by_number = dict(zip(self._numbers, self.classes, strict=True))
            self.classes = names or tuple(by_number[number] for number in sorted(by_number))

    @cached_property
    def _batches(self) -> Batches:
        return plain_batches(self._data, self.preprocessing, data_dir=self._data_dir)

    @cached_property
    def labels(self) -> Tensor:
        """int64 [n], numbers of `classes`; of images with several labels bool [n, classes]."""
        labels: Tensor = getattr(self._batches.dataset, self.split).labels
        if not self._numbers:
            return labels
        if labels.ndim == 2:
            of_outputs = labels.new_zeros(len(labels), len(self.classes))
            of_outputs[:, list(self._numbers)] = labels
            return of_outputs
        return torch.tensor(self._numbers)[labels]

    @property
    def targets(self) -> list[int]:
        """The labels, as torchvision's data sets have them."""
        numbers: list[int] = self.labels.tolist()
        return numbers

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        number = range(len(self))[index]  # IndexError ends an iteration
        (batch,) = self._batches.plain(self.split, torch.tensor([number]), 1)
        label = self.labels[number]
        return batch.images[0], label if label.ndim else int(label)

    def __repr__(self) -> str:
        channels, height, width = self.preprocessing.input_size
        size = f"{channels} x {height} x {width}"
        classes = f"{len(self.classes)} classes"
        return (
            f"ModelImages({self._data.name}/{self.split}, {len(self)} images of {size}, {classes})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_batches", "labels")}
