"""Runs models of a zoo and what operators make of them: only logits stay, in the zoo's cache."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput, NotApplicable
from vitarium.core.registry import Section
from vitarium.data.loader import SplitName
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.losses import Losses, parameters
from vitarium.measures._runner.cache import Cache
from vitarium.measures.landscape._paths import OnPath, losses_along
from vitarium.operators._runner.plan import MergePlan
from vitarium.studies.statistics.bootstrap import Numbers

SELECTION: SplitName = "val"  # by which models are chosen; what is reported is of another split
Logits = Mapping[SplitName, Tensor]  # [images, classes] of both splits


class Scores(NamedTuple):
    """How a model, or the mean of several, does on each image."""

    val: Numbers
    """[images], 1 where the class is right, 0 where not; of a mean of models in between."""
    test: Numbers
    images: str  # identifies the test images

    @property
    def val_accuracy(self) -> float:
        return float(self.val.mean())

    @property
    def accuracy(self) -> float:
        return float(self.test.mean())


class Evaluator:
    """Scores of models on at most `num_images` of the validation images and of another `split`."""

    def __init__(self, sources: ModelLoader, split: SplitName, num_images: int | None) -> None:
        self.sources, self.zoo, self.num_images = sources, sources.zoo, num_images
        self.split: SplitName = split
        self.splits: tuple[SplitName, SplitName] = (SELECTION, split)
        self.cache = Cache(self.zoo.path)
        self.single = cache(lambda model: self._scores(model.model, self._logits_of(model)))
        self.examples = cache(self._examples)
        self.losses = cache(self._losses)
        self._aligned_group = lru_cache(maxsize=1)(self._align_group)

    def _examples(self, model: str, split: SplitName) -> EvalData:
        """Raises InvalidInput where the split is empty, or the model was trained on it."""
        examples = self.sources.examples(model, split, self.num_images)
        if not len(examples):
            name = examples.dataset.name
            raise InvalidInput(f"data set '{name}' has no {split} images, and the study needs them")
        if self.sources.learned(model, examples):
            raise InvalidInput(f"model {model} was trained on images of the {split} split")
        return examples

    def subject(self, model: CheckpointRef) -> EvalModel:
        """The model on the images of the split that is reported."""
        self.examples(model.model, self.split)
        return self.sources.subject(model, self.split, self.num_images)

    def _losses(self, model: CheckpointRef, config: OnPath) -> Losses:
        """Loss and error [1] of the model as it is: every path from it begins with them."""
        subject = self.subject(model)
        return losses_along(subject, [parameters(subject.model)], [0.0], config)

    def ensemble(self, models: Sequence[CheckpointRef]) -> Scores:
        """Of the mean of the models' logits."""
        logits = [self._logits_of(model) for model in models]
        total = {s: reduce(torch.add, (each[s].double() for each in logits)) for s in self.splits}
        return self._scores(models[0].model, total)

    def merged(
        self,
        operator: Section,
        models: tuple[CheckpointRef, ...],
        heads: str = "merge",
        align: Section | None = None,
    ) -> Scores:
        """Of what the operator makes of models, all of them aligned to the first if that is asked.

        Raises IncompatibleWeights, InvalidInput, NotApplicable, CorruptFile.
        """
        plan = MergePlan(self.sources, operator, models, heads=heads)
        key = [plan.spec.id, *(self.sources.content(model) for model in models)]
        if plan.base:
            key.append(self.sources.content(plan.base))
        if align:
            key.append(repr(align.factors()))

        def build() -> nn.Module:
            merge = plan
            if align:
                weights = self._aligned_group(align, models)
                merge = MergePlan(self.sources, operator, models, heads=heads, weights=weights)
            model = merge.spec.origin.build(merge.about.num_outputs)
            model.load_state_dict(merge.weights())
            return self.examples(models[0].model, self.split).in_class_order(model)

        first = models[0].model
        return self._scores(first, self._logits("merged", key, first, build))

    def aligned(self, align: Section, first: CheckpointRef, second: CheckpointRef) -> Weights:
        """The second model, rearranged to match the first.

        Raises IncompatibleWeights where the result is no model of the same kind, NotApplicable.
        """
        weights = self.sources.weights(second)
        tensors = MergePlan(self.sources, align, (first, second), stage="aligned").weights()
        if {n: t.shape for n, t in tensors.items()} != {n: weights[n].shape for n in weights}:
            raise IncompatibleWeights(f"{align.name} changes the architecture of {weights.name}")
        return Weights(weights.name, tensors, skeleton=lambda: weights.skeleton)

    def _align_group(self, align: Section, models: tuple[CheckpointRef, ...]) -> list[Weights]:
        first, *rest = models
        reference = self.sources.weights(first)
        return [reference, *(self.aligned(align, first, model) for model in rest)]

    def _logits_of(self, model: CheckpointRef) -> Logits:
        def build() -> nn.Module:
            subject = self.sources.subject(model, SELECTION, self.num_images)
            subject.check_classifier()
            return subject.model

        key = [str(model), self.sources.content(model)]
        return self._logits("predictions", key, model.model, build)

    def _logits(
        self, kind: str, key: Sequence[str], data_of: str, build: Callable[[], nn.Module]
    ) -> Logits:
        """From the cache, with keys as `measures._runner.forward` has them, or else computed."""
        examples = {split: self.examples(data_of, split) for split in self.splits}
        keys = {s: (kind, *key, self.sources.images(examples[s])) for s in self.splits}
        entries = {split: self.cache.get(*keys[split]) for split in self.splits}
        logits = {split: entry["logits"] for split, entry in entries.items() if entry}
        if len(logits) == len(self.splits):
            return logits
        model = build().eval().float().to(self.sources.device).requires_grad_(False)
        for split in self.splits:
            with torch.no_grad():
                outputs = [model(batch.images).float().cpu() for batch in examples[split].batches()]
            logits[split] = torch.cat(outputs)
            if not torch.isfinite(logits[split]).all():
                raise NotApplicable("its outputs are not finite")
            self.cache.put({"logits": logits[split]}, *keys[split])
        return logits

    def _scores(self, data_of: str, logits: Logits) -> Scores:
        examples = {split: self.examples(data_of, split) for split in self.splits}
        val, test = (
            (logits[split].argmax(1) == examples[split].labels).numpy().astype(np.float64)
            for split in self.splits
        )
        return Scores(val, test, self.sources.originals(examples[self.split]))
