"""The images of a recipe's evaluation sets, as its model sees them and knows their classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from vitarium.blueprint.evaluation_set import EvaluationSets
from vitarium.blueprint.recipe import Recipe
from vitarium.core.errors import InvalidData
from vitarium.data import load as datasets
from vitarium.data.base import Dataset, Split
from vitarium.data.class_outputs import ClassOutputs, class_outputs
from vitarium.data.image_channels import check_channels
from vitarium.data.loader import Batches
from vitarium.data.splits import joined
from vitarium.training.options import TrainOptions
from vitarium.zoo import ModelFolder


@dataclass(frozen=True)
class EvaluationImages:
    """Of one evaluation set.

    batches: with its images as the test split.
    outputs: numbers of the model's outputs that are its classes; None: all, in their order.
    epochs: as of the EvaluationSet.
    by_number: its classes are matched by number, since one side has no names.
    """

    batches: Batches
    outputs: tuple[int, ...] | None
    epochs: Literal["all", "last"]
    by_number: bool


def begun_sets(recipe: Recipe, folder: ModelFolder) -> EvaluationSets:
    """The evaluation sets with which a model was begun, or will be; an unfinished one goes on with
    them, so that all of its epochs have the same metrics."""
    origin = folder.spec().origin if folder.exists else recipe
    return EvaluationSets(origin.evaluate_on if isinstance(origin, Recipe) else {})


def evaluation_images(
    recipe: Recipe, own: Batches, sets: EvaluationSets, options: TrainOptions
) -> dict[str, EvaluationImages]:
    """By name. Images are resized, cropped and normalized as those that the model learns, whose
    batches are `own`; they are looked up in the same folders.

    Raises DataNotFound, and InvalidData where a set's classes are not among the model's, or the
    model does not take its images.
    """
    images = {}
    for name, chosen in sets.items():
        dataset = datasets.load(chosen.data, options.data_dir)
        check_channels(dataset, own.input_size[0], recipe.extra_channels)
        matched = classes_among(own.dataset, dataset, name)
        part, numbers = _part(dataset, chosen.split), matched.numbers
        if numbers and not recipe.objective.facts.get("needs_head", True):
            # its scores compare labels, not outputs
            part = Split(part.images, _own_labels(part, numbers, own.dataset.num_classes))
            dataset, numbers = replace(dataset, classes=own.dataset.classes), None
        batches = Batches(
            replace(dataset, test=part),
            own.augmentation,
            own.input_size,
            1,
            own.seed,
            normalization=own.normalization,
            device=options.device,
            loader_workers=options.loader_workers,
        )
        images[name] = EvaluationImages(batches, numbers, chosen.epochs, matched.by_number)
    return images


def classes_among(own: Dataset, dataset: Dataset, name: str) -> ClassOutputs:
    """Which outputs of a model that learns the classes of `own` are those of an evaluation set.

    Raises InvalidData where there is none for one of them, and where images of one of both have
    several labels, and of the other single ones.
    """
    if own.is_multilabel != dataset.is_multilabel:
        several, single = (own, dataset) if own.is_multilabel else (dataset, own)
        what = f"images of '{several.name}' have several labels, those of '{single.name}' one"
        raise InvalidData(f"'{name}' cannot be compared with what the model learns: {what}")
    matched = class_outputs(own.classes, own.num_classes, dataset.classes, dataset.name)
    if matched.mismatch:
        what = f"of a model that learns '{own.name}', {matched.mismatch.removeprefix('its ')}"
        raise InvalidData(f"the classes of '{name}' are not the model's: {what}")
    return matched


def _own_labels(part: Split, numbers: tuple[int, ...], num_classes: int) -> Tensor:
    """Labels of a part as numbers, or columns, of the model's own classes."""
    if not part.is_multilabel:
        return torch.tensor(numbers)[part.labels]
    labels = part.labels.new_zeros(len(part), num_classes)
    labels[:, list(numbers)] = part.labels
    return labels


def _part(dataset: Dataset, split: Literal["train", "val", "test", "all"]) -> Split:
    if split == "all":
        return joined([dataset.train, dataset.val, dataset.test])
    part: Split = getattr(dataset, split)
    return part


def selected_outputs(forward: Any, numbers: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Images [b, c, h, w] -> the model's outputs with these numbers, [b, n]."""

    def outputs(images: Tensor) -> Tensor:
        of_all: Tensor = forward(images)
        return of_all[:, torch.tensor(numbers, device=of_all.device)]

    return outputs
