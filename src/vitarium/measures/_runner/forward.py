"""What models make of images: each runs once for all measures that are asked for.

Where pairs are measured, predictions and the vectors that measures make of features lie in the
zoo's cache, so that no model runs twice, and a command that was stopped goes on where it was.
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
from vitarium.evaluation.features import FEWEST, Vectoriser, Vectors
from vitarium.evaluation.inputs import EvalModel, Predictions, Values
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner import settings
from vitarium.measures._runner.cache import Cache
from vitarium.measures._runner.jobs import Conditions
from vitarium.zoo import Zoo

_REMEMBERED_BYTES = 2**30

Kept = TypeVar("Kept")


class Forward:
    """Runs models, and remembers.

    Args:
        sections: the measures to compute: what they need of a model is made in one run.
    """

    def __init__(
        self, zoo: Zoo, sources: ModelLoader, conditions: Conditions, sections: Sequence[Section]
    ) -> None:
        self.sources, self.conditions = sources, conditions
        self.cache = Cache(zoo.path)
        needs = [(one, one.plugin.facts["needs"]) for one in sections]
        self._predicts = any(needed == "predictions" for _, needed in needs)
        self._keeps = any(
            needed == "predictions" and one.plugin.facts["of"] == "pair" for one, needed in needs
        )
        self._of_features = [one for one, needed in needs if needed == "features"]
        self._predictions = _Recent[Predictions]()
        self._matrices = _Recent[tuple[list[str], Tensor]]()

    def predictions(self, target: Target, split: SplitName) -> Predictions:
        """Raises NotApplicable, CorruptFile."""
        return self._predictions.get((target, split), partial(self._predicted, target, split))

    def similarity(self, one: Section, first: Target, second: Target) -> Values:
        """Of blocks, by "" the last ones. Raises NotApplicable, CorruptFile."""
        (names, left), (others, right) = (
            self._matrices.get((target, settings.key(one)), partial(self._matrix, target, one))
            for target in (first, second)
        )
        if left.shape[1] != right.shape[1]:
            raise NotApplicable(f"{first.name} and {second.name}: different numbers of images")
        if one.config.layers == "all":
            found = (left @ right.T).double()
            parts = {
                f"{name}|{other}": float(found[i, j])
                for i, name in enumerate(names)
                for j, other in enumerate(others)
            }
            return {"": float(found[-1, -1]), **parts}
        last = float(left[-1] @ right[-1])
        shared = min(len(names), len(others)) if names[0] == others[0] else 0
        products = (left[:shared] * right[:shared]).sum(1).tolist()
        return {"": last, **dict(zip(names, products, strict=False))}

    def _predicted(self, target: Target, split: SplitName) -> Predictions:
        examples = self.sources.examples(target.model, split, self.conditions.limit)
        kept = self.cache.get(*self._key("predictions", target, examples))
        if kept is not None:
            logits = kept["logits"]
        else:
            self.sources.subject(target, split, self.conditions.limit).check_classifier()
            logits = self._run(target, split)
        return Predictions(logits, examples.labels, examples.dataset.classes)

    def _matrix(self, target: Target, one: Section) -> tuple[list[str], Tensor]:
        """Names of the layers, and their vectors of length one, [layers, d]."""
        kept = self._vectors(target, one)
        if kept is None:
            self._run(target, self.conditions.split)
            kept = self._vectors(target, one)
        assert kept is not None  # just made
        matrix = torch.stack(list(kept.values()))
        norms = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64)
        return list(kept), (matrix / norms[:, None].float())

    def _vectors(self, target: Target, one: Section) -> Mapping[str, Tensor] | None:
        split, limit = self.conditions.split, self.conditions.limit
        examples = self.sources.examples(target.model, split, limit)
        return self.cache.get(*self._key("features", target, examples, one))

    def _key(
        self, what: str, target: Target, examples: EvalData, one: Section | None = None
    ) -> tuple[str, ...]:
        images = self.sources.images(examples)
        named = settings.key(one) if one else ()
        return (what, target.name, target.weights, images, *named)

    def _run(self, target: Target, split: SplitName) -> Tensor:
        """Run a model once over the split for all that is asked for; its logits, if it predicts."""
        subject = self.sources.subject(target, split, self.conditions.limit)
        predicts = self._predicts and subject.is_classifier
        own = split == self.conditions.split
        missing = [one for one in self._of_features if own and self._vectors(target, one) is None]
        groups = [list(some) for _, some in groupby(sorted(missing, key=_images_of), _images_of)]
        logits = torch.empty(0)
        for number, sections in enumerate(groups or [[]]):
            found, given = _pass(subject, sections, whole=predicts and number == 0)
            for one, vectors in zip(sections, found, strict=True):
                self.cache.put(vectors, *self._key("features", target, subject.examples, one))
            logits = logits if given is None else given
        if predicts and own and self._keeps:
            key = self._key("predictions", target, subject.examples)
            self.cache.put({"logits": logits}, *key)
        return logits


def _images_of(one: Section) -> tuple[Any, ...]:
    """Measures for which this is the same look at the same batches."""
    return one.config.images, one.config.batch_size, one.config.layers


def _pass(
    subject: EvalModel, sections: Sequence[Section], *, whole: bool
) -> tuple[list[Vectors], Tensor | None]:
    """The vectors of measures of features, and, of the `whole` split, the logits."""
    model = subject.model
    config = sections[0].config if sections else None
    seen, rest, order = subject.examples.parted(config.images if config else 0)
    vectoriser = Vectoriser(model, sections) if sections else None
    with _outputs(model) as outputs, torch.no_grad():
        for batch in seen.batches(config.batch_size) if config else ():
            if vectoriser and len(batch.images) >= FEWEST:
                vectoriser.add(batch.images)
            elif whole:
                model(batch.images)
        for batch in rest.batches() if whole else ():
            model(batch.images)
    vectors = vectoriser.vectors() if vectoriser else []
    if not whole:
        return vectors, None
    logits = torch.cat(outputs)
    return vectors, torch.empty_like(logits).index_copy_(0, order, logits)


@contextmanager
def _outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """What the model gives inside, on the CPU."""
    found: list[Tensor] = []
    hook = model.register_forward_hook(lambda m, i, output: found.append(output.float().cpu()))
    try:
        yield found
    finally:
        hook.remove()


class _Recent(Generic[Kept]):
    """What was used last, as much as the memory allows."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, Kept] = OrderedDict()

    def get(self, key: object, make: Callable[[], Kept]) -> Kept:
        if key not in self._kept:
            self._kept[key] = make()
            most = _REMEMBERED_BYTES // max(1, _bytes(self._kept[key]))
            while len(self._kept) > max(2, most):
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _bytes(kept: Any) -> int:
    # log-probabilities in float64 are kept beside the logits
    return 3 * kept.logits.nbytes if isinstance(kept, Predictions) else kept[1].nbytes
