"""Loads models of a zoo to be evaluated: weights, running models, and their images."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from vitarium.blueprint import ModelSpec, Recipe
from vitarium.core.errors import NotApplicable, VitariumError
from vitarium.core.registry import Section, section
from vitarium.data import base as datasets
from vitarium.data.base import Split
from vitarium.data.loader import Batches, SplitName
from vitarium.evaluation.checkpoints import Target
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.zoo import Zoo

TRAINED_ON_SHARE = 0.01
"""From this share of images that are among the training images, a split counts as trained on: data
sets have a few images twice, in training and in test."""


_PLAIN = ("augmentation", "standard")
"""The preprocessing of images for models that were trained elsewhere."""


@dataclass(frozen=True)
class _DataView:
    """A data set with a model's preprocessing and input size."""

    data: Section
    how: Section
    input_size: tuple[int, int, int]

    def batches(self, device: str, data_dir: Path | None) -> Batches:
        dataset = datasets.load(self.data, data_dir)
        augmentation = self.how(self.input_size, dataset.num_classes)
        return Batches(dataset, augmentation, self.input_size, 1, seed=0, device=device)


class ModelLoader:
    """Loads weights, running models and their evaluation data from a zoo.

    Args:
        data: measure all models on this data set; None: each on its own.
        device: where models run.
        data_dir: dataset folder, searched first.
    """

    def __init__(
        self,
        zoo: Zoo,
        *,
        data: Section | None = None,
        device: str = "cpu",
        data_dir: Path | None = None,
    ) -> None:
        self.zoo, self.data, self.device, self.data_dir = zoo, data, device, data_dir
        self._examples: dict[tuple[_DataView, SplitName, int | None], EvalData] = {}
        self._images: dict[EvalData, str] = {}
        self._keys: dict[Section, np.ndarray | None] = {}
        self._skeletons: dict[tuple[str, int], torch.nn.Module] = {}
        self._spec = cache(lambda model: zoo.folder(model).spec())
        self.trained_on = cache(self._trained_on)
        self.subject = lru_cache(maxsize=4)(self._subject)

    def weights(self, target: Target) -> Weights:
        """Raises CorruptFile."""
        folder = self.zoo.folder(target.model)
        spec, about = self._spec(target.model), folder.about()

        def start() -> Weights:
            return self._weights_of(target.model, 0, "its initial weights are not kept")

        def parent() -> Weights:
            if spec.parent is None:
                raise NotApplicable(f"{target.name}: it has no parent")
            if isinstance(spec, ModelSpec) and spec.conversion:
                raise NotApplicable(
                    f"{target.name}: it started from what {spec.conversion.name} made of its "
                    "parent, whose own weights are others"
                )
            return self._weights_of(spec.parent, spec.parent_epoch or 0, "its parent is gone")

        def skeleton() -> torch.nn.Module:
            if spec.origin.architecture is None:
                raise NotApplicable(f"{target.name}: nothing here builds its architecture")
            sections = (spec.origin.architecture, spec.origin.head)
            architecture_text = json.dumps([part and part.factors() for part in sections])
            key = (architecture_text, about.num_outputs)
            if key not in self._skeletons:
                with torch.device("meta"):
                    self._skeletons[key] = spec.origin.build(about.num_outputs)
            return self._skeletons[key]

        checkpoint = folder.open(target.epoch)
        return Weights(target.name, checkpoint, start=start, parent=parent, skeleton=skeleton)

    def examples(self, model: str, split: SplitName, limit: int | None = None) -> EvalData:
        """Images for a model. Raises NotApplicable, DataNotFound, InvalidData."""
        origin = self._spec(model).origin
        own_data = origin.data if isinstance(origin, Recipe) else None
        data = self.data or own_data
        if data is None:
            raise NotApplicable(f"{model}: its data set is not known; name one with --data")
        if origin.architecture is None:
            raise NotApplicable(f"{model}: nothing here builds its architecture")
        how = origin.augmentation if isinstance(origin, Recipe) else section(*_PLAIN)
        view = _DataView(data, how, origin.architecture.config.input_size)
        return self._examples_of(view, split, limit)

    def _examples_of(self, view: _DataView, split: SplitName, limit: int | None) -> EvalData:
        key = (view, split, limit)
        if key not in self._examples:
            if limit is not None:
                examples = self._examples_of(view, split, None).first(limit)
            else:
                examples = EvalData(view.batches(self.device, self.data_dir), split)
            self._examples[key] = examples
            self._images[examples] = _fingerprint(view, examples)
        return self._examples[key]

    def images(self, examples: EvalData) -> str:
        """Fingerprint of the images and of their size as they enter a model."""
        return self._images[examples]

    def _subject(self, target: Target, split: SplitName, limit: int | None) -> EvalModel:
        """Raises NotApplicable, DataNotFound, InvalidData, InvalidInput, CorruptFile."""
        examples = self.examples(target.model, split, limit)
        spec, about = self._spec(target.model), self.zoo.folder(target.model).about()
        model = self.zoo.load(target.model, target.epoch)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise NotApplicable(f"{target.name}: {name} has entries that are not finite")

        def parent() -> EvalModel:
            if spec.parent is None:
                raise NotApplicable(f"{target.name}: it has no parent")
            number, content = self.zoo.folder(spec.parent).checkpoint(spec.parent_epoch or 0)
            return self.subject(Target(spec.parent, number, content[:16]), split, limit)

        return EvalModel(
            target.name,
            model.float().to(self.device).requires_grad_(False),
            examples,
            parent=parent if spec.parent else None,
            is_classifier=_classifies(spec.origin, about.num_outputs, examples),
        )

    def _weights_of(self, model: str, epoch: int, otherwise: str) -> Weights:
        folder = self.zoo.folder(model)
        epochs = {e.number for e in folder.epochs() if e.checkpoint} if folder.exists else set()
        if epoch not in epochs:
            raise NotApplicable(f"{model}@{epoch}: {otherwise}")
        return self.weights(Target(model, epoch, ""))

    # Training data

    def learned(self, model: str, examples: EvalData) -> bool:
        """Whether the model, or one that an operator made it of, was trained on such images; what
        its parents were trained on does not count."""
        return any(self._shares_images(data, examples) for data in set(self._own_data(model)))

    def _own_data(self, model: str) -> Iterator[Section]:
        spec = self._spec(model)
        if spec.ingredients:
            for ingredient in spec.ingredients:
                yield from self._own_data(ingredient.model)
        elif isinstance(spec.origin, Recipe):
            yield spec.origin.data

    def _trained_on(self, model: str, examples: EvalData) -> bool:
        """Whether the model, or one that it comes of, was trained on the examples' images."""
        return any(self._shares_images(data, examples) for data in set(self._training_data(model)))

    def _training_data(self, model: str) -> Iterator[Section]:
        if not self.zoo.folder(model).exists:
            return
        spec = self._spec(model)
        if isinstance(spec.origin, Recipe):
            yield spec.origin.data
        for ancestor in [spec.parent, *(ingredient.model for ingredient in spec.ingredients)]:
            if ancestor:
                yield from self._training_data(ancestor)

    def _shares_images(self, data: Section, examples: EvalData) -> bool:
        if data not in self._keys:
            try:
                train = datasets.load(data, self.data_dir).train
            except VitariumError:  # it is not on this machine
                train = None
            self._keys[data] = _image_keys(train) if train else None
        trained, keys = self._keys[data], _image_keys(examples.part)
        if trained is not None and keys is not None:
            shared = np.isin(keys[examples.numbers.numpy()], trained)
            return bool(shared.mean() > TRAINED_ON_SHARE)
        same = data.name == examples.dataset.name
        return same and examples.split == "train"


def _classifies(origin: object, num_outputs: int, examples: EvalData) -> bool:
    learns_classes = not isinstance(origin, Recipe) or origin.objective.plugin.facts.get(
        "needs_head", True
    )
    return learns_classes and num_outputs == examples.num_classes


def _fingerprint(view: _DataView, examples: EvalData) -> str:
    """Of the images and their size; how a model resizes them is part of the model's id."""
    part = examples.part
    digest = xxhash.xxh3_64(repr(view.input_size).encode())
    digest.update(examples.numbers.numpy().tobytes())
    digest.update(part.labels.numpy().tobytes())
    if isinstance(part.images, Tensor):
        digest.update(part.images.contiguous().numpy().data)
    else:
        source = getattr(part.images, "fingerprint", None)
        digest.update(repr((view.data.factors(), len(part), source)).encode())
    return digest.hexdigest()


def _image_keys(part: Split) -> np.ndarray | None:
    """A number for each image, equal for equal ones; None where they would have to be decoded."""
    if not isinstance(part.images, Tensor):
        return None
    pixels = part.images.contiguous().numpy()
    hashes = (xxhash.xxh3_64_intdigest(image.data) for image in pixels)
    return np.fromiter(hashes, np.uint64, len(pixels))
