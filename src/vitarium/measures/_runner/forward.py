"""Forward passes: each model runs once for all requested measures.

Where pairs are measured, predictions and the vectors of measures of features are cached in the zoo,
so that no model runs twice, and an interrupted command resumes.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import Section
from vitarium.data.loader import SplitName
from vitarium.evaluation.checkpoints import Target
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.features import MIN_IMAGES, Vectorizer, Vectors
from vitarium.evaluation.inputs import EvalModel, Predictions, Values
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner import settings
from vitarium.measures._runner.cache import Cache
from vitarium.measures._runner.jobs import Conditions
from vitarium.zoo import Zoo

_REMEMBERED_BYTES = 2**30

Cached = TypeVar("Cached")


class Forward:
    """Runs models, and caches predictions and vectors of features.

    Args:
        sections: the measures to compute; one run of a model gives what all of them need.
    """

    def __init__(
        self, zoo: Zoo, sources: ModelLoader, conditions: Conditions, sections: Sequence[Section]
    ) -> None:
        self.sources, self.conditions = sources, conditions
        self.cache = Cache(zoo.path)
        needs = [(section, section.plugin.facts["needs"]) for section in sections]
        self._predicts = any(needed == "predictions" for _, needed in needs)
        self._keeps = any(
            needed == "predictions" and section.plugin.facts["of"] == "pair"
            for section, needed in needs
        )
        self._of_features = [section for section, needed in needs if needed == "features"]
        self._predictions = _Recent[Predictions]()
        self._matrices = _Recent[tuple[list[str], Tensor]]()

    def predictions(self, target: Target, split: SplitName) -> Predictions:
        """Raises NotApplicable, CorruptFile."""
        return self._predictions.get((target, split), partial(self._predicted, target, split))

    def similarity(self, section: Section, first: Target, second: Target) -> Values:
        """Of blocks, by "" the last ones. Raises NotApplicable, CorruptFile."""
        (names, left), (other_names, right) = (
            self._matrices.get(
                (target, settings.key(section)), partial(self._matrix, target, section)
            )
            for target in (first, second)
        )
        if left.shape[1] != right.shape[1]:
            raise NotApplicable(f"{first.name} and {second.name}: different numbers of images")
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

    def _predicted(self, target: Target, split: SplitName) -> Predictions:
        examples = self.sources.examples(target.model, split, self.conditions.limit)
        cached = self.cache.get(*self._key("predictions", target, examples))
        if cached is not None:
            logits = cached["logits"]
        else:
            self.sources.subject(target, split, self.conditions.limit).check_classifier()
            logits = self._run(target, split)
        return Predictions(logits, examples.labels, examples.dataset.classes)

    def _matrix(self, target: Target, section: Section) -> tuple[list[str], Tensor]:
        """Names of the layers, and their normalized vectors [layers, d]."""
        vectors = self._vectors(target, section)
        if vectors is None:
            self._run(target, self.conditions.split)
            vectors = self._vectors(target, section)
        assert vectors is not None  # just made
        matrix = torch.stack(list(vectors.values()))
        norms = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64)
        return list(vectors), (matrix / norms[:, None].float())

    def _vectors(self, target: Target, section: Section) -> Mapping[str, Tensor] | None:
        split, limit = self.conditions.split, self.conditions.limit
        examples = self.sources.examples(target.model, split, limit)
        return self.cache.get(*self._key("features", target, examples, section))

    def _key(
        self, what: str, target: Target, examples: EvalData, section: Section | None = None
    ) -> tuple[str, ...]:
        images = self.sources.images(examples)
        named = settings.key(section) if section else ()
        return (what, target.name, target.weights, images, *named)

    def _run(self, target: Target, split: SplitName) -> Tensor:
        """Run a model once over the split; its logits [n, classes], [0] if it does not predict."""
        subject = self.sources.subject(target, split, self.conditions.limit)
        predicts = self._predicts and subject.is_classifier
        in_conditions = split == self.conditions.split
        missing = [
            section
            for section in self._of_features
            if in_conditions and self._vectors(target, section) is None
        ]
        groups = [list(group) for _, group in groupby(sorted(missing, key=_images_of), _images_of)]
        logits = torch.empty(0)
        for number, sections in enumerate(groups or [[]]):
            section_vectors, pass_logits = _pass(
                subject, sections, full_split=predicts and number == 0
            )
            for section, vectors in zip(sections, section_vectors, strict=True):
                self.cache.put(vectors, *self._key("features", target, subject.examples, section))
            logits = logits if pass_logits is None else pass_logits
        if predicts and in_conditions and self._keeps:
            key = self._key("predictions", target, subject.examples)
            self.cache.put({"logits": logits}, *key)
        return logits


def _images_of(section: Section) -> tuple[Any, ...]:
    """Measures with equal values share a forward pass over the same batches."""
    return section.config.images, section.config.batch_size, section.config.layers


def _pass(
    subject: EvalModel, sections: Sequence[Section], *, full_split: bool
) -> tuple[list[Vectors], Tensor | None]:
    """The vectors of measures of features, and, of the `whole` split, the logits."""
    model = subject.model
    config = sections[0].config if sections else None
    sample, rest, order = subject.examples.partition(config.images if config else 0)
    vectorizer = Vectorizer(model, sections) if sections else None
    with _outputs(model) as outputs, torch.no_grad():
        for batch in sample.batches(config.batch_size) if config else ():
            if vectorizer and len(batch.images) >= MIN_IMAGES:
                vectorizer.add(batch.images)
            elif full_split:
                model(batch.images)
        for batch in rest.batches() if full_split else ():
            model(batch.images)
    vectors = vectorizer.vectors() if vectorizer else []
    if not full_split:
        return vectors, None
    logits = torch.cat(outputs)
    return vectors, torch.empty_like(logits).index_copy_(0, order, logits)


@contextmanager
def _outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the model's outputs are appended, on the CPU."""
    outputs: list[Tensor] = []
    hook = model.register_forward_hook(lambda m, i, output: outputs.append(output.float().cpu()))
    try:
        yield outputs
    finally:
        hook.remove()


class _Recent(Generic[Cached]):
    """A cache of the most recently used values, limited in bytes."""

    def __init__(self) -> None:
        self._entries: OrderedDict[object, Cached] = OrderedDict()

    def get(self, key: object, make: Callable[[], Cached]) -> Cached:
        if key not in self._entries:
            self._entries[key] = make()
            capacity = _REMEMBERED_BYTES // max(1, _bytes(self._entries[key]))
            while len(self._entries) > max(2, capacity):
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]


def _bytes(entry: Any) -> int:
    # log-probabilities in float64 are kept beside the logits
    return 3 * entry.logits.nbytes if isinstance(entry, Predictions) else entry[1].nbytes
