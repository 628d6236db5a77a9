"""Runs models of a zoo and what operators make of them, and remembers what they said.

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
from vitarium.evaluation.checkpoints import Target
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
    """Tells the test images from all others."""

    @property
    def val_accuracy(self) -> float:
        return float(self.val.mean())

    @property
    def accuracy(self) -> float:
        return float(self.test.mean())


class Runs:
    """What models say of the validation images and of those of another split.

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
        self._rearranged = lru_cache(maxsize=1)(self._aligned)

    def target(self, one: CheckpointRef) -> Target:
        number, content = self.zoo.folder(one.model).checkpoint(one.epoch)
        return Target(one.model, number, content[:16])

    def _examples(self, model: str, split: SplitName) -> EvalData:
        """Raises InvalidInput where the split is empty, or the model was trained on it."""
        found = self.sources.examples(model, split, self.images)
        if not len(found):
            raise InvalidInput(
                f"data set '{found.dataset.name}' has no {split} images, and the study needs them"
            )
        if self.sources.learned(model, found):
            raise InvalidInput(f"model {model} was trained on images of the {split} split")
        return found

    def merged(
        self,
        operator: Section,
        chosen: tuple[CheckpointRef, ...],
        heads: str = "merge",
        align: Section | None = None,
        base: CheckpointRef | None = None,
    ) -> Scores:
        """Of what the operator makes of models, all of them aligned to the first if that is asked.

        Raises IncompatibleWeights, InvalidInput, NotApplicable, CorruptFile.
        """
        named = f"{base.model}@{base.epoch}" if base else None
        planned = MergePlan(self.sources, operator, chosen, heads=heads, base=named)
        key = [planned.spec.id, *(self.target(one).weights for one in chosen)]
        if planned.base:
            key.append(self.target(planned.base).weights)
        if align:
            key.append(_told(align))
        first = chosen[0].model
        kept = self._kept("merged", key, first)
        if kept is None:
            if align:
                given = self._rearranged(align, chosen)
                planned = MergePlan(self.sources, operator, chosen, heads=heads, weights=given)
            model = planned.spec.origin.build(planned.about.num_outputs)
            model.load_state_dict(planned.weights())
            kept = self._run("merged", key, first, model)
        return self._scores(first, kept)

    def ensemble(self, chosen: Sequence[CheckpointRef]) -> Scores:
        """Of the mean of the models' logits."""
        total: dict[SplitName, Tensor] = {}
        for one in chosen:
            for split, logits in self._logits(one).items():
                total[split] = total.get(split, torch.zeros(())) + logits.double()
        return self._scores(chosen[0].model, total)

    def subject(self, one: CheckpointRef) -> EvalModel:
        """The model on the images of the split that is reported."""
        self.examples(one.model, self.split)
        return self.sources.subject(self.target(one), self.split, self.images)

    def aligned(self, align: Section, first: CheckpointRef, second: CheckpointRef) -> Weights:
        """The second model, rearranged to match the first.

        Raises IncompatibleWeights where the result is no model of the same kind, NotApplicable.
        """
        own = self.sources.weights(self.target(second))
        tensors = MergePlan(self.sources, align, (first, second), stage="aligned").weights()
        if {n: t.shape for n, t in tensors.items()} != {n: own[n].shape for n in own}:
            raise IncompatibleWeights(f"{align.name} changes the architecture of {own.name}")
        return Weights(own.name, tensors, skeleton=lambda: own.skeleton)

    def _aligned(self, align: Section, chosen: tuple[CheckpointRef, ...]) -> list[Weights]:
        first, *others = chosen
        reference = self.sources.weights(self.target(first))
        return [reference, *(self.aligned(align, first, other) for other in others)]

    def _single(self, one: CheckpointRef) -> Scores:
        return self._scores(one.model, self._logits(one))

    def _logits(self, one: CheckpointRef) -> Mapping[SplitName, Tensor]:
        key = [self.target(one).name, self.target(one).weights]
        kept = self._kept("predictions", key, one.model)
        if kept is None:
            subject = self.sources.subject(self.target(one), SELECTION, self.images)
            subject.check_classifier()
            kept = self._run("predictions", key, one.model, subject.model)
        return kept

    def _kept(self, what: str, key: Sequence[str], shown: str) -> Mapping[SplitName, Tensor] | None:
        """Logits of both splits, if they are known; keys as `measures._runner.forward` has them."""
        found: dict[SplitName, Tensor] = {}
        for split in self.splits:
            images = self.sources.images(self.examples(shown, split))
            kept = self.cache.get(what, *key, images)
            if kept is None:
                return None
            found[split] = kept["logits"]
        return found

    def _run(
        self, what: str, key: Sequence[str], shown: str, model: nn.Module
    ) -> Mapping[SplitName, Tensor]:
        self.computed += 1
        model = model.eval().float().to(self.sources.device).requires_grad_(False)
        found: dict[SplitName, Tensor] = {}
        for split in self.splits:
            examples = self.examples(shown, split)
            with torch.no_grad():
                outputs = [model(batch.images).float().cpu() for batch in examples.batches()]
            found[split] = torch.cat(outputs)
            if not torch.isfinite(found[split]).all():
                raise NotApplicable("its outputs are not finite")
            self.cache.put({"logits": found[split]}, what, *key, self.sources.images(examples))
        return found

    def _scores(self, shown: str, logits: Mapping[SplitName, Tensor]) -> Scores:
        val, test = (
            (logits[split].argmax(1) == self.examples(shown, split).labels)
            .numpy()
            .astype(np.float64)
            for split in self.splits
        )
        images = self.sources.images(self.examples(shown, self.split))
        return Scores(val, test, images)


def mean_of(scores: Sequence[Scores]) -> Scores:
    """Of one of the models, drawn at random: the mean on every image."""
    val = np.mean([one.val for one in scores], axis=0)
    test = np.mean([one.test for one in scores], axis=0)
    return Scores(val, test, scores[0].images)


def _told(section: Section) -> str:
    return repr(section.factors())
