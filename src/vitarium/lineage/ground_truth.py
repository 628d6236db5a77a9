"""True parents among the models that were read; one not read is replaced by its own parents."""

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from itertools import pairwise

from vitarium.blueprint import ImportedSpec, ModelSpec
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.zoo import Zoo

LAST = sys.maxsize  # as an epoch: the last, whichever that is

Truth = Mapping[str, tuple[str, ...]]
"""Of models their parents; of a root none, of a mixture several. Of a model that is missing nobody
knows them."""

Origins = Callable[[str], Sequence[CheckpointRef] | None]
"""The checkpoints that a model started from or was made of; none of a root, None where nobody
knows."""


def true_parents(read: Mapping[str, CheckpointRef], origins: Origins) -> dict[str, tuple[str, ...]]:
    """True parents of every checkpoint that was read, by name, among those that were read. The
    parent of an epoch is the epoch of the same model that was read before it; that of the first is
    the epoch that its model started from, or the one that was read last before that. Of a model of
    which one epoch was read, this stands for all of its epochs. Left out are models whose nearest
    ancestors nobody knows."""
    of_model: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, checkpoint in read.items():
        of_model[checkpoint.model].append((checkpoint.epoch, name))
    epochs = {model: sorted(saved) for model, saved in of_model.items()}

    def nearest(model: str) -> tuple[str, ...] | None:
        """The nearest ancestors of a model's first epoch, depth first."""
        ancestors: list[str] = []
        start = origins(model)
        if start is None:
            return None
        waiting, visited = list(reversed(start)), {model}
        while waiting:
            checkpoint = waiting.pop()
            saved = epochs.get(checkpoint.model, [])
            before = saved if len(saved) == 1 else [e for e in saved if e[0] <= checkpoint.epoch]
            if before:
                ancestors.append(before[-1][1])
            elif checkpoint.model not in visited:
                visited.add(checkpoint.model)
                further = origins(checkpoint.model)
                if further is None:
                    return None
                waiting += reversed(further)
        return tuple(dict.fromkeys(ancestors))

    parents: dict[str, tuple[str, ...]] = {}
    for model, saved in epochs.items():
        if (first := nearest(model)) is not None:
            parents[saved[0][1]] = first
        parents |= {after: (before,) for (_, before), (_, after) in pairwise(saved)}
    return {name: parents[name] for name in read if name in parents}


def restrict_truth(truth: Truth, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """True parents of these models alone; the parents of those left out take their place."""
    return true_parents(
        {name: CheckpointRef(name, 0) for name in names},
        lambda model: (
            [CheckpointRef(parent, 0) for parent in truth[model]] if model in truth else None
        ),
    )


def zoo_origins(zoo: Zoo) -> Origins:
    """Origins as the specs of a zoo's models have them; of imported models that name no parent they
    are not known."""

    @cache
    def origins(model: str) -> Sequence[CheckpointRef] | None:
        folder = zoo.folder(model)
        if not folder.exists:
            return ()
        spec = folder.spec()
        makers = (spec.operator, spec.conversion if isinstance(spec, ModelSpec) else None)
        if any(maker and maker.facts.get("architecture") for maker in makers):
            return ()  # of another architecture: a line of weights begins
        if spec.operator and spec.operator.facts.get("aligns"):
            return spec.ingredients[-1:]  # the first is only what it is made to match
        if spec.parent is None:
            if isinstance(spec, ImportedSpec) and not spec.operator:
                return None
            return spec.ingredients
        return *spec.ingredients, CheckpointRef(spec.parent, spec.parent_epoch or 0)

    return origins
