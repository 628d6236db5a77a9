"""Distillation from a teacher's outputs that were computed before, once for many students."""

from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.blueprint import ModelSpec, Recipe
from vitarium.core import files
from vitarium.core.devices import without_autocast
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import CLASSIFICATION, accuracy
from vitarium.objectives.distillation import _lesson_files as lesson_files
from vitarium.objectives.distillation.base import (
    PARENT,
    PROBABILITIES,
    Distillation,
    at_least_float32,
    teacher_output,
)

_IMAGE_FACTORS = (
    "data",
    "augmentation",
    "batch_size",
    "sampling",
    "steps_per_epoch",
    "normalization",
)
"""Factors of a recipe that decide which images are in which batch, and what they look like."""


class StoredLessons(Distillation):
    """Soft cross-entropy with a teacher's probabilities that `vitarium lessons write` has stored.

    All its students see the same images in the same order, whatever their own seeds.
    """

    lessons: str = Field(min_length=1)
    """Folder of the lessons; looked for from the working directory, then in the zoo."""
    lessons_seed: NonNegativeInt = 0
    """Random seed of the order of the images and of their augmentation, in place of the model's."""
    top_k: PositiveInt | None = None
    """Classes of each image whose probabilities are stored, the largest; none: all. What is missing
    to 1 is spread evenly over the others."""


def image_factors(recipe: Recipe) -> dict[str, Any]:
    """What has to be the same of lessons and student, as JSON."""
    factors = recipe.factors(defaults=False)
    described = {name: factors.get(name) for name in _IMAGE_FACTORS}
    return described | {"input_size": list(recipe.image_size)}


def labels_checksum(labels: Tensor) -> str:
    """Of the training images' labels [n], by which a data set is known again."""
    return files.checksum(labels.to(torch.int64).cpu().contiguous().numpy().data)


def teacher_source(config: StoredLessons, spec: ModelSpec) -> str:
    """Whom the lessons are from: as the settings say, or the student's parent by its id."""
    if config.teacher != PARENT:
        return config.teacher
    if spec.parent is None:
        raise InvalidInput("there is no parent to learn from: name a teacher, or a `start`")
    return f"{spec.parent}@{spec.parent_epoch or 0}"


def find_lessons(config: StoredLessons, zoo: Path) -> Path:
    """Where they lie. Raises InvalidInput where they are nowhere."""
    folders = list(dict.fromkeys((Path(config.lessons).absolute(), zoo / config.lessons)))
    for folder in folders:
        if (folder / lesson_files.DESCRIPTION).is_file():
            return folder
    where = " nor at ".join(map(str, folders))
    raise InvalidInput(
        f"there are no lessons at {where}: write them first (`vitarium lessons write BLUEPRINT`)"
    )


class LessonReader:
    """Of one student; `seed` is that of the images' order and augmentation.

    Raises InvalidInput where the lessons are nowhere, or are not what the recipe says (other data,
    augmentation, batches, teacher, seed, number of classes stored, or too few epochs); CorruptFile.
    """

    def __init__(self, config: StoredLessons, spec: ModelSpec, zoo: Path) -> None:
        recipe, self.seed = spec.recipe, config.lessons_seed
        self.folder = find_lessons(config, zoo)
        self.description = lesson_files.read_description(self.folder)
        self._store = lesson_files.store_checksum(self.description)
        self._batch_size = recipe.batch_size
        recorded = self.description["images"]
        for name, value in image_factors(recipe).items():
            self._compare(name, recorded.get(name), value)
        self._compare("teacher", self.description["teacher"], teacher_source(config, spec))
        self._compare("lessons_seed", self.description["seed"], config.lessons_seed)
        stored = lesson_files.stored_epochs(self.folder)
        if missing := [epoch for epoch in range(1, recipe.epochs + 1) if epoch not in stored]:
            raise InvalidInput(
                f"{self.folder} has no lessons of epoch {missing[0]} ({len(missing)} of "
                f"{recipe.epochs} epochs are missing): run `vitarium lessons write` to resume"
            )
        self._top_k, self._epochs = config.top_k, recipe.epochs

    def check(self, num_classes: int, labels: Tensor | None = None) -> None:
        """Compare with the data's classes, and its training images' labels [n] where these are
        known, and read every file's checksum. Raises InvalidInput and CorruptFile."""
        self._compare("number of classes", self.description["num_classes"], num_classes)
        self._compare(
            "top_k", self.description["top_k"], min(self._top_k or num_classes, num_classes)
        )
        if labels is not None and labels_checksum(labels) != self.description["labels"]:
            raise InvalidInput(
                f"{self.folder} was written for other training images: the "
                f"{self.description['train_images']} labels there are not the {len(labels)} here"
            )
        for epoch in range(1, self._epochs + 1):
            stamp = lesson_files.epoch_file(self.folder, epoch).stat().st_mtime_ns
            _check_epoch(self.folder, epoch, self._store, stamp)

    def __call__(self, epoch: int, step: int) -> dict[str, Tensor]:
        """What an epoch (from 1) has for the images of a step (from 0): probabilities, float32
        [batch, num_classes]."""
        classes = self.description["num_classes"]
        file = lesson_files.epoch_file(self.folder, epoch)
        stamp = file.stat().st_mtime_ns if file.exists() else 0
        lessons = _epoch(self.folder, epoch, self._store, classes, stamp)
        start, size = step * self._batch_size, self._batch_size
        records = lesson_files.Lessons(*(part[start : start + size] for part in lessons))
        if len(records.indices) != size:
            raise InvalidInput(f"{file} has no lessons of step {step + 1}")
        return {PROBABILITIES: lesson_files.dense(records, classes)}

    def _compare(self, name: str, recorded: Any, wanted: Any) -> None:
        if recorded != wanted:
            raise InvalidInput(
                f"{self.folder} has other lessons: their {name} is {_text(recorded)}, and the "
                f"student's {_text(wanted)}; give both the same, or write others elsewhere"
            )


@cache
def _check_epoch(folder: Path, epoch: int, store: str, stamp: int) -> None:
    """Once for all students of a process."""
    lesson_files.check_epoch(folder, epoch, store)


@lru_cache(maxsize=2)
def _epoch(
    folder: Path, epoch: int, store: str, num_classes: int, stamp: int
) -> lesson_files.Lessons:
    """Read once for all students of a process."""
    return lesson_files.read_epoch(folder, epoch, store, num_classes)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return "not set" if value is None else str(value)


def _misfits(config: StoredLessons, recipe: Recipe) -> dict[str, str]:
    if recipe.progressive is None:
        return {}
    return {"progressive": "stored lessons are of images of one size: leave it out"}


@objective(
    "stored_lessons",
    misfits=_misfits,
    stored_outputs=LessonReader,
    paper="Wu et al. 2022, arXiv 2207.10666",
    tiny={"lessons": "lessons"},
    **CLASSIFICATION,
)
def stored_lessons(config: StoredLessons, model: nn.Module, batch: Batch) -> Loss:
    """TinyViT's distillation: soft cross-entropy with a teacher's stored probabilities.

    Outputs [batch, num_classes] against probabilities of that shape; the true classes do not count.
    """
    outputs = model(batch.images)
    expected = teacher_output(batch, PROBABILITIES)
    with without_autocast(outputs):
        loss = F.cross_entropy(at_least_float32(outputs), expected.to(at_least_float32(outputs)))
    return Loss(loss, accuracy=accuracy(outputs, batch))
