"""Loads models of a zoo to be evaluated: weights, running models, and their images."""

import json
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from vitarium.blueprint import ModelSpec, Recipe
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.devices import meta_device
from vitarium.core.errors import ByNumber, NotApplicable, VitariumError
from vitarium.core.registry import Section
from vitarium.data import load as datasets
from vitarium.data.base import Split
from vitarium.data.class_outputs import ClassOutputs
from vitarium.data.loader import SplitName
from vitarium.data.model_images import dataset_of, outputs_for, plain_batches, prepared
from vitarium.data.preprocessing import Assumed, Preprocessing, read_normalization
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Weights, finite
from vitarium.zoo import Zoo

TRAINED_ON_SHARE = 0.01
"""Above it a split counts as trained on: data sets have a few images twice, in both splits."""


class ModelLoader:
    """Loads weights, running models and their evaluation data from a zoo.

    Args:
        data: measure all models on this data set; None: each on its own.
        normalization: of the images of models of which it is not known; None: they are refused.
        device: where models run.
        data_dir: dataset folder, searched first.

    Raises InvalidInput for a normalization that is none.
    """

    def __init__(
        self,
        zoo: Zoo,
        *,
        data: Section | None = None,
        normalization: Assumed | None = None,
        device: str = "cpu",
        data_dir: Path | None = None,
    ) -> None:
        self.zoo, self.data, self.device, self.data_dir = zoo, data, device, data_dir
        self.normalization = normalization
        if normalization is not None:
            read_normalization(normalization)  # what is wrong with it is no matter of a model
        self._originals: dict[EvalData, str] = {}
        self._datasets: set[Section] = set()
        self.by_number: set[str] = set()
        """Models whose outputs are matched by number."""
        self._keys: dict[Section, np.ndarray | None] = {}
        self._skeletons: dict[tuple[str, int], torch.nn.Module] = {}
        self._spec = cache(lambda model: zoo.folder(model).spec())
        self._contents = cache(
            lambda model: {e.number: e.checkpoint for e in zoo.folder(model).epochs()}
        )
        self._examples = cache(self._load_examples)
        self._for_model = cache(self._described)
        self.trained_on = cache(self._trained_on)
        self.subject = lru_cache(maxsize=4)(self._subject)

    def content(self, ref: CheckpointRef) -> str:
        """The beginning of a checkpoint's `content_of`. Raises InvalidInput if it is not kept."""
        stored = self._contents(ref.model).get(ref.epoch)
        return (stored or self.zoo.folder(ref.model).checkpoint(ref.epoch)[1])[:16]

    def weights(self, ref: CheckpointRef) -> Weights:
        """Raises CorruptFile."""
        folder = self.zoo.folder(ref.model)
        spec, about = self._spec(ref.model), folder.about()

        def start() -> Weights:
            epoch = spec.initial_epoch
            if epoch is None:
                why = "an operator made it" if spec.operator else "no epoch is known as untrained"
                raise NotApplicable(f"{ref}: it has no initial weights ({why})")
            return self._weights_of(ref.model, epoch, "its initial weights are not kept")

        def parent() -> Weights:
            if spec.parent is None:
                raise NotApplicable(f"{ref}: it has no parent")
            if isinstance(spec, ModelSpec) and spec.conversion:
                origin = f"what {spec.conversion.name} made of its parent"
                raise NotApplicable(
                    f"{ref}: it started from {origin}, whose own weights are others"
                )
            return self._weights_of(spec.parent, spec.parent_epoch or 0, "its parent is gone")

        def skeleton() -> torch.nn.Module:
            if spec.origin.architecture is None:
                raise NotApplicable(f"{ref}: nothing here builds its architecture")
            adaptation = getattr(spec.origin, "adaptation", None)
            sections = (spec.origin.architecture, spec.origin.head, adaptation)
            key = (json.dumps([part and part.factors() for part in sections]), about.num_outputs)
            if key not in self._skeletons:
                with meta_device():
                    self._skeletons[key] = spec.origin.build(about.num_outputs)
            return self._skeletons[key]

        checkpoint = folder.open_plain(ref.epoch)
        return Weights(
            str(ref), checkpoint, start=start, parent=parent, skeleton=skeleton, origin=spec.origin
        )

    def _weights_of(self, model: str, epoch: int, otherwise: str) -> Weights:
        folder = self.zoo.folder(model)
        epochs = {e.number for e in folder.epochs() if e.checkpoint} if folder.exists else set()
        if epoch not in epochs:
            raise NotApplicable(f"{model}@{epoch}: {otherwise}")
        return self.weights(CheckpointRef(model, epoch))

    def examples(
        self, model: str, split: SplitName, limit: int | None = None, data_of: str | None = None
    ) -> EvalData:
        """Images for a model; `data_of`: those that another model is evaluated on.

        Raises NotApplicable, DataNotFound, InvalidData, and InvalidInput where what is known of
        the model's preprocessing cannot be applied.
        """
        data = dataset_of(self._spec(data_of or model), self.data)
        return self._examples(data, *self._for_model(model, data), split, limit)

    def _described(self, model: str, data: Section) -> tuple[Preprocessing, ClassOutputs]:
        """How images are prepared for a model, and which of its outputs are their classes."""
        spec, about = self._spec(model), self.zoo.folder(model).about()
        preprocessing = prepared(spec, data, self.normalization, self.data_dir)
        dataset = datasets.load(data, self.data_dir)
        classes = (dataset.classes, dataset.name)
        if dataset.is_multilabel:
            what = f"images of '{dataset.name}' have several labels, and single ones are needed"
            return preprocessing, ClassOutputs(mismatch=what)
        outputs = outputs_for(spec, about.num_outputs, about.classes, *classes)
        if outputs.by_number:
            self.by_number.add(model)
            known = "data set" if about.classes else "model"
            warnings.warn(
                f"{model}: its outputs are taken for the classes of the data set '{dataset.name}' "
                f"by number, since the {known} has no names for them",
                ByNumber,
                stacklevel=2,
            )
        return preprocessing, outputs

    def _load_examples(
        self,
        data: Section,
        preprocessing: Preprocessing,
        outputs: ClassOutputs,
        split: SplitName,
        limit: int | None,
    ) -> EvalData:
        if limit is not None:
            full = self._examples(data, preprocessing, outputs, split, None)
            examples = full.first(limit)
        else:
            self._datasets.add(data)
            where: dict[str, Any] = {"data_dir": self.data_dir, "device": self.device}
            batches = plain_batches(data, preprocessing, **where)
            like: dict[str, Any] = {"outputs": outputs, "preprocessing": preprocessing}
            examples = EvalData(batches, split, **like)
        self._originals[examples] = _fingerprint(data, examples)
        return examples

    def originals(self, examples: EvalData) -> str:
        """Fingerprint of the images as the data set has them, the same for every model."""
        return self._originals[examples]

    @property
    def data_is_fixed(self) -> bool:
        """Whether every data set that was asked for is here, and one that is the same everywhere
        and always."""
        complete = all(keys is not None for keys in self._keys.values())
        datasets = (*self._datasets, *self._keys)
        return complete and all(data.facts.get("fixed", False) for data in datasets)

    def images(self, examples: EvalData) -> str:
        """Fingerprint of the images as they enter a model, and of the classes in their order."""
        preprocessing = examples.preprocessing
        key = preprocessing.key if preprocessing else None
        text = f"({self._originals[examples]!r}, {key})"
        return xxhash.xxh3_64_hexdigest(text.encode())

    def _subject(self, ref: CheckpointRef, split: SplitName, limit: int | None) -> EvalModel:
        """Raises NotApplicable, DataNotFound, InvalidData, InvalidInput, CorruptFile."""
        examples = self.examples(ref.model, split, limit)
        spec = self._spec(ref.model)
        model = self.zoo.load(ref.model, ref.epoch)
        for name, tensor in model.state_dict().items():
            finite(f"{ref}: {name}", tensor)
        parent = CheckpointRef(spec.parent, spec.parent_epoch or 0) if spec.parent else None
        return EvalModel(
            str(ref),
            examples.in_class_order(model.float().to(self.device).requires_grad_(False)),
            examples,
            parent=partial(self.subject, parent, split, limit) if parent else None,
            is_classifier=not examples.outputs.mismatch,
            origin=spec.origin,
        )

    def learned(self, model: str, examples: EvalData) -> bool:
        """As `trained_on`, but of its parents' training data nothing counts."""
        return self._trained_on(model, examples, with_parents=False)

    def _trained_on(self, model: str, examples: EvalData, with_parents: bool = True) -> bool:
        """Whether the model, or one that it comes of, was trained on the examples' images."""
        data = set(self._training_data(model, with_parents))
        return any(self._shares_images(trained, examples) for trained in data)

    def _training_data(self, model: str, with_parents: bool) -> Iterator[Section]:
        if with_parents and not self.zoo.folder(model).exists:
            return
        spec = self._spec(model)
        if isinstance(spec.origin, Recipe) and (with_parents or not spec.ingredients):
            yield spec.origin.data
        if with_parents and spec.parent:
            yield from self._training_data(spec.parent, with_parents)
        for ingredient in spec.ingredients:
            yield from self._training_data(ingredient.model, with_parents)

    def _shares_images(self, data: Section, examples: EvalData) -> bool:
        if data not in self._keys:
            try:
                self._keys[data] = _image_keys(datasets.load(data, self.data_dir).train)
            except VitariumError:  # it is not on this machine
                self._keys[data] = None
        train_keys, keys = self._keys[data], _image_keys(examples.part)
        if train_keys is not None and keys is not None:
            shared = np.isin(keys[examples.numbers.numpy()], train_keys)
            return bool(shared.mean() > TRAINED_ON_SHARE)
        return data.name == examples.dataset.name and examples.split == "train"


def _fingerprint(data: Section, examples: EvalData) -> str:
    """Of the images, their labels, and the names of these."""
    part = examples.part
    digest = xxhash.xxh3_64(repr(examples.dataset.classes).encode())
    digest.update(examples.numbers.numpy().tobytes())
    digest.update(part.labels.numpy().tobytes())
    if isinstance(part.images, Tensor):
        digest.update(part.images.contiguous().numpy().data)
    else:
        source = getattr(part.images, "fingerprint", None)
        digest.update(repr((data.factors(), len(part), source)).encode())
    return digest.hexdigest()


def _image_keys(part: Split) -> np.ndarray | None:
    """A number for each image, equal for equal ones; None where they would have to be decoded."""
    if not isinstance(part.images, Tensor):
        return None
    pixels = part.images.contiguous().numpy()
    hashes = (xxhash.xxh3_64_intdigest(image.data) for image in pixels)
    return np.fromiter(hashes, np.uint64, len(pixels))
