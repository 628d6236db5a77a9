"""Models known by their weights alone: what methods of lineage recovery are given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vitarium.evaluation.inputs import Weights
from vitarium.lineage._gram import Evidence, gathered

Report = Callable[[str, int, int], None]
"""Called with what is done, and how much of how much."""


def silent(what: str, done: int, of: int) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Heap:
    """Models that have the same tensors, heads apart.

    Args:
        models: their weights after the epoch that is looked at; names are unique.
        tensors: names of those that all models have in one shape; heads are not among them.
        report: is told of long work.
    """

    models: Sequence[Weights]
    tensors: Sequence[str]
    report: Report = silent

    def __len__(self) -> int:
        return len(self.models)

    @cached_property
    def names(self) -> list[str]:
        return [model.name for model in self.models]

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the tensors that are compared."""
        return {name: self.models[0].shapes[name] for name in self.tensors}

    @cached_property
    def evidence(self) -> Evidence:
        """Inner products and statistics of all models: every file is read once for it."""
        return gathered(self.models, self.tensors, self.report)

    @property
    def is_gathered(self) -> bool:
        """Whether its evidence is known already."""
        return "evidence" in self.__dict__

    def part(self, places: Sequence[int]) -> "Heap":
        """Some of the models. Their evidence is this heap's, where that was gathered already."""
        few = replace(self, models=[self.models[place] for place in places])
        if self.is_gathered:
            few.__dict__["evidence"] = self.evidence.part(np.asarray(places))
        return few
