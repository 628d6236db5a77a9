"""Runs models of a zoo and what operators make of them, and caches their logits.

What is merged for a study is no model of the zoo: its weights are computed, run once over the
validation and the test images, and forgotten; its logits stay in the zoo's cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

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
from vitarium.measures._runner.cache import Cache
from vitarium.operators._runner.plan import MergePlan
from vitarium.studies.statistics.bootstrap import Numbers

SELECTION: SplitName = "val"
"""By which models are chosen; what is reported is of another split."""


@dataclass(frozen=True)
class Scores:
    """How a model, or the mean of several, does on each image."""

    val: Numbers
    """[images], 1 where the class is right, 0 where not; of a mean of models in between."""
    test: Numbers
    images: str
    """Identifies the test images."""

    @property
    def val_accuracy(self) -> float:
        return float(self.val.mean())

    @property
    def accuracy(self) -> float:
        return float(self.test.mean())


class Evaluator:
    """Scores of models on the validation images and on those of another split.

    Args:
        split: the other split.
        images: at most so many of each.
    """

    def __init__(self, sources: ModelLoader, split: SplitName, images: int | None) -> None:
        self.sources, self.zoo, self.images = sources, sources.zoo, images
        self.split: SplitName = split
        self.splits: tuple[SplitName, SplitName] = (SELECTION, split)
        self.cache = Cache(self.zoo.path)
        self.computed = 0
        """Models that were run, and paths that were computed; the others were known."""
        self.single = lru_cache(maxsize=None)(self._single)
        self.examples = lru_cache(maxsize=None)(self._examples)
        self._aligned_group = lru_cache(maxsize=1)(self._align_group)

    def _examples(self, model: str, split: SplitName) -> EvalData:
        """Raises InvalidInput where the split is empty, or the model was trained on it."""
        examples = self.sources.examples(model, split, self.images)
        if not len(examples):
            name = examples.dataset.name
            raise InvalidInput(f"data set '{name}' has no {split} images, and the study needs them")
        if self.sources.learned(model, examples):
            raise InvalidInput(f"model {model} was trained on images of the {split} split")
        return examples

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
        first = models[0].model
        logits = self._cached("merged", key, first)
        if logits is None:
            if align:
                aligned = self._aligned_group(align, models)
                plan = MergePlan(self.sources, operator, models, heads=heads, weights=aligned)
            model = plan.spec.origin.build(plan.about.num_outputs)
            model.load_state_dict(plan.weights())
            logits = self._run("merged", key, first, model)
        return self._scores(first, logits)

    def ensemble(self, models: Sequence[CheckpointRef]) -> Scores:
        """Of the mean of the models' logits."""
        total: dict[SplitName, Tensor] = {}
        for model in models:
            for split, logits in self._logits(model).items():
                total[split] = total.get(split, torch.zeros(())) + logits.double()
        return self._scores(models[0].model, total)

    def subject(self, model: CheckpointRef) -> EvalModel:
        """The model on the images of the split that is reported."""
        self.examples(model.model, self.split)
        return self.sources.subject(model, self.split, self.images)

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

    def _single(self, model: CheckpointRef) -> Scores:
        return self._scores(model.model, self._logits(model))

    def _logits(self, model: CheckpointRef) -> Mapping[SplitName, Tensor]:
        key = [str(model), self.sources.content(model)]
        logits = self._cached("predictions", key, model.model)
        if logits is None:
            subject = self.sources.subject(model, SELECTION, self.images)
            subject.check_classifier()
            logits = self._run("predictions", key, model.model, subject.model)
        return logits

    def _cached(
        self, kind: str, key: Sequence[str], data_of: str
    ) -> Mapping[SplitName, Tensor] | None:
        """Logits of both splits, if they are known; keys as `measures._runner.forward` has them."""
        logits: dict[SplitName, Tensor] = {}
        for split in self.splits:
            images = self.sources.images(self.examples(data_of, split))
            entry = self.cache.get(kind, *key, images)
            if entry is None:
                return None
            logits[split] = entry["logits"]
        return logits

    def _run(
        self, kind: str, key: Sequence[str], data_of: str, model: nn.Module
    ) -> Mapping[SplitName, Tensor]:
        self.computed += 1
        model = model.eval().float().to(self.sources.device).requires_grad_(False)
        logits: dict[SplitName, Tensor] = {}
        for split in self.splits:
            examples = self.examples(data_of, split)
            with torch.no_grad():
                outputs = [model(batch.images).float().cpu() for batch in examples.batches()]
            logits[split] = torch.cat(outputs)
            if not torch.isfinite(logits[split]).all():
                raise NotApplicable("its outputs are not finite")
            self.cache.put({"logits": logits[split]}, kind, *key, self.sources.images(examples))
        return logits

    def _scores(self, data_of: str, logits: Mapping[SplitName, Tensor]) -> Scores:
        val, test = (
            (logits[split].argmax(1) == self.examples(data_of, split).labels)
            .numpy()
            .astype(np.float64)
            for split in self.splits
        )
        images = self.sources.images(self.examples(data_of, self.split))
        return Scores(val, test, images)


def mean_of(scores: Sequence[Scores]) -> Scores:
    """Of one of the models, drawn at random: the mean on every image."""
    val = np.mean([score.val for score in scores], axis=0)
    test = np.mean([score.test for score in scores], axis=0)
    return Scores(val, test, scores[0].images)
