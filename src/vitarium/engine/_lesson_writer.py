"""The lessons of one folder: what they are of, and how a teacher writes and checks them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitarium.blueprint import ModelSpec, Recipe
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.progress import Progress
from vitarium.core.version import installed_version
from vitarium.data import load as datasets
from vitarium.data.loader import Batches
from vitarium.engine.teacher_images import named_teachers_normalization
from vitarium.engine.teachers import named_teacher
from vitarium.formats.weights import fingerprint
from vitarium.objectives.distillation import _lesson_files as lesson_files
from vitarium.objectives.distillation.base import teacher_ref
from vitarium.objectives.distillation.stored_lessons import (
    image_factors,
    labels_checksum,
    teacher_source,
)
from vitarium.training.options import TrainOptions
from vitarium.zoo import Zoo

MAX_DIFFERENCE = 2e-3
"""Between a stored probability and the teacher's, four times the rounding of float16 below 1."""


@dataclass(frozen=True)
class WrittenLessons:
    """A folder of lessons: epochs that it has, how many of them are new, and bytes of their files.

    plain_bytes: those of its records before compression.
    """

    folder: Path
    epochs: int
    new_epochs: int
    bytes: int
    plain_bytes: int


@dataclass(frozen=True)
class LessonDrift:
    """How far an epoch's stored probabilities are from the teacher's now.

    records: images that were compared. difference: mean of |p - stored| over the stored classes;
    largest: the largest of them. other_classes: share of the stored classes that are others now.
    """

    epoch: int
    records: int
    difference: float
    largest: float
    other_classes: float

    @property
    def has_drifted(self) -> bool:
        """Whether some stored probability differs by more than rounding explains."""
        return self.largest > MAX_DIFFERENCE


class LessonWriter:
    """Of the lessons of one folder."""

    def __init__(self, spec: ModelSpec, zoo: Zoo, folder: Path, options: TrainOptions) -> None:
        self.spec, self.folder, self.options = spec, folder, options
        recipe, config = spec.recipe, spec.recipe.objective.config
        data = datasets.load(recipe.data, options.data_dir)
        self.batches = _batches(recipe, config.lessons_seed, options)
        reference = teacher_ref(config)
        self.teacher: nn.Module = named_teacher(reference, spec, zoo).to(options.device).eval()
        normalization = named_teachers_normalization(reference, spec, zoo, options.data_dir)
        self.prepare = self.batches.renormalizes(normalization)
        self.num_classes = data.num_classes
        self.top_k = min(config.top_k or self.num_classes, self.num_classes)
        self._check_teacher()

    def _check_teacher(self) -> None:
        size = self.batches.input_size
        with torch.inference_mode():
            try:
                outputs = self.teacher(torch.zeros(1, *size, device=self.options.device))
            except (AssertionError, RuntimeError, ValueError) as error:
                images = "x".join(map(str, size))
                raise InvalidInput(
                    f"the teacher cannot take the students' images ({images}): {error}"
                ) from None
        if outputs.shape[1:] != (self.num_classes,):
            raise InvalidInput(
                f"the teacher has outputs for {outputs.shape[-1]} classes, and the data "
                f"{self.num_classes}"
            )

    def description(self) -> dict[str, Any]:
        """What the lessons are of, as JSON; the same for the same lessons and software."""
        recipe, config = self.spec.recipe, self.spec.recipe.objective.config
        labels = self.batches.dataset.train.labels
        return {
            "format": 1,
            "images": image_factors(recipe),
            "train_images": len(labels),
            "labels": labels_checksum(labels),
            "num_classes": self.num_classes,
            "teacher": teacher_source(config, self.spec),
            "teacher_weights": fingerprint(self.teacher.state_dict()),
            "seed": config.lessons_seed,
            "top_k": self.top_k,
            "precision": self.options.precision,
            "spec": self.spec.factors(),
            "software": {"vitarium": installed_version(), "torch": torch.__version__},
        }

    def compare(self, recorded: Mapping[str, Any]) -> None:
        """Raises InvalidInput where what is there was written for other lessons."""
        for name, value in self.description().items():
            if name not in ("spec", "software") and recorded.get(name) != value:
                raise InvalidInput(
                    f"{self.folder} has lessons already, and their {name.replace('_', ' ')} is "
                    f"{recorded.get(name)}, not {value}; choose another folder"
                )

    def write(self, epochs: int, progress: Progress) -> WrittenLessons:
        """What is missing of so many epochs."""
        if (self.folder / lesson_files.DESCRIPTION).exists():
            description = lesson_files.read_description(self.folder)
            self.compare(description)
        else:
            description = self.description()
            lesson_files.write_description(self.folder, description)
            description = lesson_files.read_description(self.folder)
        store = lesson_files.store_checksum(description)
        missing = [e for e in range(1, epochs + 1) if not self._is_whole(e, store)]
        steps = self.batches.steps
        for number, epoch in enumerate(missing):
            report = partial(progress.step, f"writing {self.folder.name}, step")
            parts = []
            for step, lessons in enumerate(self._lessons(epoch)):
                report(number * steps + step, len(missing) * steps)
                parts.append(lessons)
            of_epoch = lesson_files.Lessons(*map(np.concatenate, zip(*parts, strict=True)))
            lesson_files.write_epoch(self.folder, epoch, of_epoch, store)
        sizes = [
            lesson_files.epoch_file(self.folder, e).stat().st_size for e in range(1, epochs + 1)
        ]
        width = 2 + np.dtype(lesson_files.index_dtype(self.num_classes)).itemsize
        records = epochs * steps * self.batches.batch_size
        plain = records * self.top_k * width
        return WrittenLessons(self.folder, epochs, len(missing), sum(sizes), plain)

    def drift(self, epoch: int, steps: int, store: str) -> LessonDrift:
        """Of the first steps of an epoch."""
        stored = lesson_files.read_epoch(self.folder, epoch, store, self.num_classes)
        differences, others = [], []
        size = self.batches.batch_size
        for step, probabilities in enumerate(self._probabilities(epoch)):
            if step == min(steps, self.batches.steps):
                break
            rows = slice(step * size, (step + 1) * size)
            indices = torch.from_numpy(stored.indices[rows].astype(np.int64))
            expected = torch.from_numpy(stored.probabilities[rows].astype(np.float32))
            differences.append((probabilities.cpu().gather(1, indices) - expected).abs())
            now = lesson_files.largest(probabilities, self.top_k).indices
            others.append(_share_of_others(stored.indices[rows], now))
        values = torch.cat(differences)
        return LessonDrift(
            epoch, len(values), values.mean().item(), values.max().item(), float(np.mean(others))
        )

    def _is_whole(self, epoch: int, store: str) -> bool:
        try:
            lesson_files.read_epoch(self.folder, epoch, store, self.num_classes)
        except (CorruptFile, InvalidInput):
            return False
        return True

    def _lessons(self, epoch: int) -> Iterator[lesson_files.Lessons]:
        for probabilities in self._probabilities(epoch):
            yield lesson_files.largest(probabilities, self.top_k)

    def _probabilities(self, epoch: int) -> Iterator[Tensor]:
        """The teacher's, of each batch of an epoch, float32 [batch, num_classes]."""
        for batch in self.batches.train(epoch):
            with torch.inference_mode(), self.options.autocast:
                outputs: Tensor = self.teacher(self.prepare(batch.images))
            yield outputs.float().softmax(1)


def _share_of_others(stored: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> float:
    """Of stored classes [records, top_k], those that are not among the others."""
    missing = [(~np.isin(before, after)).mean() for before, after in zip(stored, now, strict=True)]
    return float(np.mean(missing))


def _batches(recipe: Recipe, seed: int, options: TrainOptions) -> Batches:
    """The very batches that a student of these lessons is trained with."""
    data = datasets.load(recipe.data, options.data_dir)
    size = recipe.image_size
    return Batches(
        data,
        recipe.augmentation(size, data.num_classes),
        size,
        recipe.batch_size,
        seed,
        sampling=recipe.sampling,
        steps_per_epoch=recipe.steps_per_epoch,
        normalization=recipe.normalization.values if recipe.normalization else None,
        device=options.device,
        loader_workers=options.loader_workers,
    )
