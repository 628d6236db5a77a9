"""Forward passes: each model runs once for all requested measures.

Of pairs, predictions and vectors of features are cached in the zoo: an interrupted command resumes.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import Section
from vitarium.data.loader import SplitName
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.features import MIN_IMAGES, Vectorizer, Vectors
from vitarium.evaluation.inputs import EvalModel, Predictions, Values
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner.cache import Cache
from vitarium.measures._runner.jobs import Conditions, settings_text

_REMEMBERED_BYTES = 2**30
_SAME_PASS = attrgetter("config.num_images", "config.batch_size", "config.layers")
"""Measures of features with equal values share a forward pass over the same batches."""


class Forward:
    """Runs models; one run gives what all sections, the measures to compute, need."""

    def __init__(
        self, loader: ModelLoader, conditions: Conditions, sections: Sequence[Section]
    ) -> None:
        self.loader, self.conditions = loader, conditions
        self.cache = Cache(loader.zoo.path)
        facts = [section.plugin.facts for section in sections]
        of = {fact["of"] for fact in facts if fact["needs"] == "predictions"}
        self._predicts, self._keeps = bool(of), "pair" in of
        self._of_features = [s for s in sections if s.plugin.facts["needs"] == "features"]
        self._recent: OrderedDict[object, Any] = OrderedDict()

    def predictions(self, ref: CheckpointRef, split: SplitName) -> Predictions:
        """Raises NotApplicable, CorruptFile."""

        def predict() -> tuple[Predictions, int]:
            examples = self.loader.examples(ref.model, split, self.conditions.limit)
            cached = self.cache.get(*self._key("predictions", ref, examples))
            if cached is not None:
                logits = cached["logits"]
            else:
                self.loader.subject(ref, split, self.conditions.limit).check_classifier()
                try:
                    logits = self._run(ref, split)
                except NotApplicable:  # what its layers give; its outputs may be predictions still
                    logits = self._run(ref, split, features=False)
            # log-probabilities in float64 are kept beside the logits
            predictions = Predictions(logits, examples.labels, examples.dataset.classes)
            return predictions, 3 * logits.nbytes

        return self._remember((ref, split), predict)

    def similarity(self, section: Section, first: CheckpointRef, second: CheckpointRef) -> Values:
        """Of blocks, by "" the last ones. Raises NotApplicable, CorruptFile."""
        settings = settings_text(section)
        (names, left), (other_names, right) = (
            self._remember((ref, section.name, settings), partial(self._matrix, ref, section))
            for ref in (first, second)
        )
        if left.shape[1] != right.shape[1]:
            raise NotApplicable(f"{first} and {second}: different numbers of images")
        if section.config.layers == "all":
            cosines = (left @ right.T).double()
            parts = {
                f"{name}|{other_name}": float(cosines[i, j])
                for i, name in enumerate(names)
                for j, other_name in enumerate(other_names)
            }
            return {"": float(cosines[-1, -1]), **parts}
        last = float(left[-1] @ right[-1])
        shared = min(len(names), len(other_names)) if names[0] == other_names[0] else 0
        products = (left[:shared] * right[:shared]).sum(1).tolist()
        return {"": last, **dict(zip(names, products, strict=False))}

    def _matrix(self, ref: CheckpointRef, section: Section) -> tuple[tuple[list[str], Tensor], int]:
        """Names of the layers, and their normalized vectors [layers, d]; and their bytes."""
        vectors = self._vectors(ref, section)
        if vectors is None:
            self._run(ref, self.conditions.split)
            vectors = self._vectors(ref, section)
        assert vectors is not None  # just made
        matrix = torch.stack(list(vectors.values()))
        norms = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64)
        return (list(vectors), matrix / norms[:, None].float()), matrix.nbytes

    def _vectors(self, ref: CheckpointRef, section: Section) -> Mapping[str, Tensor] | None:
        examples = self.loader.examples(ref.model, self.conditions.split, self.conditions.limit)
        return self.cache.get(*self._key("features", ref, examples, section))

    def _key(
        self, what: str, ref: CheckpointRef, examples: EvalData, section: Section | None = None
    ) -> tuple[str, ...]:
        named = (section.name, settings_text(section)) if section else ()
        return (what, str(ref), self.loader.content(ref), self.loader.images(examples), *named)

    def _run(self, ref: CheckpointRef, split: SplitName, *, features: bool = True) -> Tensor:
        """Run a model once over the split; its logits [n, classes], [0] if it does not predict.

        Without `features` of its layers it runs for its predictions alone.
        """
        subject = self.loader.subject(ref, split, self.conditions.limit)
        predicts = self._predicts and subject.is_classifier
        in_conditions = split == self.conditions.split
        of_layers = self._of_features if features and in_conditions else []
        missing = [section for section in of_layers if not self._vectors(ref, section)]
        groups = [list(group) for _, group in groupby(sorted(missing, key=_SAME_PASS), _SAME_PASS)]
        logits = torch.empty(0)
        for number, sections in enumerate(groups or [[]]):
            by_section, pass_logits = _pass(subject, sections, predicts and number == 0)
            for section, vectors in zip(sections, by_section, strict=True):
                self.cache.put(vectors, *self._key("features", ref, subject.examples, section))
            logits = logits if pass_logits is None else pass_logits
        if predicts and in_conditions and self._keeps:
            self.cache.put({"logits": logits}, *self._key("predictions", ref, subject.examples))
        return logits

    def _remember(self, key: object, make: Callable[[], tuple[Any, int]]) -> Any:
        """What `make` gives beside its bytes; the most recently used of it stays in memory."""
        recent = self._recent
        if key not in recent:
            recent[key], size = make()
            while len(recent) > max(2, _REMEMBERED_BYTES // max(1, size)):
                recent.popitem(last=False)
        recent.move_to_end(key)
        return recent[key]


def _pass(
    subject: EvalModel, sections: Sequence[Section], full_split: bool
) -> tuple[list[Vectors], Tensor | None]:
    """The vectors of measures of features, and, of the full split, the logits [n, classes]."""
    model, outputs = subject.model, list[Tensor]()
    config = sections[0].config if sections else None
    sample, rest, order = subject.examples.partition(config.num_images if config else 0)
    vectorizer = Vectorizer(model, sections) if sections else None
    hook = model.register_forward_hook(lambda m, i, output: outputs.append(output.float().cpu()))
    try:
        with torch.no_grad():
            for batch in sample.batches(config.batch_size) if config else ():
                if vectorizer and len(batch.images) >= MIN_IMAGES:
                    vectorizer.add(batch.images)
                elif full_split:
                    model(batch.images)
            for batch in rest.batches() if full_split else ():
                model(batch.images)
    finally:
        hook.remove()
    vectors = vectorizer.vectors() if vectorizer else []
    if not full_split:
        return vectors, None
    logits = torch.cat(outputs)
    return vectors, torch.empty_like(logits).index_copy_(0, order, logits)
