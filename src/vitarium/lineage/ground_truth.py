"""True parents among the models that were read: what recovered forests are scored against.

A parent that was not read is replaced by its own parents, and so on: by the nearest ancestors.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from vitarium.blueprint import ModelSpec, Spec
from vitarium.zoo import Zoo

Truth = Mapping[str, tuple[str, ...]]
"""Of every model its parents; of a root none, of a mixture several."""


class CheckpointRef(NamedTuple):
    """A checkpoint: a model after an epoch."""

    model: str
    epoch: float
    """math.inf: the last, whichever that is."""


Origins = Callable[[str], Sequence[CheckpointRef]]
"""The checkpoints that a model started from or was made of; none of a root or unknown model."""


def true_parents(read: Mapping[str, CheckpointRef], origins: Origins) -> dict[str, tuple[str, ...]]:
    """True parents of every checkpoint that was read, by name, among those that were read.

    The parent of an epoch is the epoch of the same model that was read before it; that of the first
    is the epoch that its model started from, or the one that was read last before that. Of a model
    of which one epoch was read, this stands for all of its epochs.
    """
    of_model: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, checkpoint in read.items():
        of_model[checkpoint.model].append((checkpoint.epoch, name))
    epochs = {model: sorted(found) for model, found in of_model.items()}

    def nearest(model: str) -> Iterable[str]:
        """The nearest ancestors of a model's first epoch, depth first."""
        waiting, visited = list(reversed(origins(model))), {model}
        while waiting:
            checkpoint = waiting.pop()
            saved = epochs.get(checkpoint.model, [])
            before = saved if len(saved) == 1 else [e for e in saved if e[0] <= checkpoint.epoch]
            if before:
                yield before[-1][1]
            elif checkpoint.model not in visited:
                visited.add(checkpoint.model)
                waiting += reversed(origins(checkpoint.model))

    found = {}
    for model, known in epochs.items():
        (_, first), *_ = known
        found[first] = tuple(dict.fromkeys(nearest(model)))
        for (_, before), (_, after) in pairwise(known):
            found[after] = (before,)
    return {name: found[name] for name in read}


def restrict_truth(truth: Truth, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """True parents of these models alone; the parents of those left out take their place."""
    return true_parents(
        {name: CheckpointRef(name, 0) for name in names},
        lambda model: [CheckpointRef(parent, 0) for parent in truth.get(model, ())],
    )


def zoo_origins(zoo: Zoo) -> Origins:
    """Origins as the specs of a zoo's models have them."""
    cache: dict[str, Sequence[CheckpointRef]] = {}

    def origins(model: str) -> Sequence[CheckpointRef]:
        if model not in cache:
            folder = zoo.folder(model)
            cache[model] = _origins(folder.spec()) if folder.exists else ()
        return cache[model]

    return origins


def _origins(spec: Spec) -> list[CheckpointRef]:
    made_by = spec.conversion if isinstance(spec, ModelSpec) else None
    if any(
        plugin_section and plugin_section.plugin.facts.get("architecture")
        for plugin_section in (spec.operator, made_by)
    ):
        return []  # of another architecture: a line of weights begins
    ingredients = [
        CheckpointRef(plugin_section.model, plugin_section.epoch)
        for plugin_section in spec.ingredients
    ]
    if spec.operator and spec.operator.plugin.facts.get("aligns"):
        return ingredients[-1:]  # the first is only what it is made to match
    if spec.parent is not None:
        ingredients.append(CheckpointRef(spec.parent, spec.parent_epoch or 0))
    return ingredients
