"""Sets of models that can be compared: what methods of lineage recovery are given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vitarium.core.progress import SILENT, Progress
from vitarium.evaluation.inputs import Weights
from vitarium.lineage._statistics import WeightStatistics, read_statistics


@dataclass(frozen=True)
class ModelSet:
    """K models with the same tensors, heads left out.

    Args:
        models: their weights after the epoch that is looked at; names are unique.
        tensors: names of those that all models have in one shape; heads are not among them.
        progress: of long work.
    """

    models: Sequence[Weights]
    tensors: Sequence[str]
    progress: Progress = SILENT

    def __len__(self) -> int:
        return len(self.models)

    @cached_property
    def names(self) -> list[str]:
        return [model.name for model in self.models]

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """By name, the shapes of the tensors that are compared."""
        return {name: self.models[0].shapes[name] for name in self.tensors}

    @cached_property
    def matrices(self) -> list[str]:
        """Names of the tensors that have at least two dimensions."""
        return [name for name, shape in self.shapes.items() if len(shape) > 1]

    @cached_property
    def weight_layers(self) -> list[str]:
        """Names of matrices and convolutions, which begin at random; of all tensors without any."""
        shapes = self.shapes
        return [n for n in shapes if len(shapes[n]) in (2, 4) and shapes[n][0] > 1] or list(shapes)

    @cached_property
    def statistics(self) -> WeightStatistics:
        """Inner products [K, K] and moments [K] by tensor; every file is read once for them."""
        return read_statistics(self.models, self.tensors, self.progress)

    @property
    def has_statistics(self) -> bool:
        """Whether `statistics` has been computed."""
        return "statistics" in self.__dict__

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ModelSet":
        """The models at these indices [n], with their part of the statistics, if there are any."""
        selected = replace(self, models=[self.models[index] for index in indices])
        if self.has_statistics:
            selected.__dict__["statistics"] = self.statistics.subset(np.asarray(indices))
        return selected
