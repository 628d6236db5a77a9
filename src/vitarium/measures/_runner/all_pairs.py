"""Runs measures of pairs of weights, on all pairs at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import Section
from vitarium.evaluation.inputs import Values, Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner import settings
from vitarium.measures._runner.jobs import Job


def pairwise(
    todo: Sequence[Job], sources: ModelLoader
) -> Iterator[tuple[Job, Callable[[], Values]]]:
    """A function per job that gives its values; the first of a measure computes all pairs."""
    targets = list(dict.fromkeys(target for job in todo for target in job.of))
    index = {target: number for number, target in enumerate(targets)}
    models = [sources.weights(target) for target in targets]
    matrices: dict[tuple[str, str], _PairMatrices] = {}

    def value(job: Job) -> Values:
        which = settings.key(job.section)
        if which not in matrices:
            matrices[which] = _PairMatrices.of(job.section, models)
        first, second = (index[target] for target in job.of)
        return matrices[which].of_pair(job.section, models, first, second)

    for job in todo:
        yield job, partial(value, job)


@dataclass(frozen=True)
class _PairMatrices:
    """Values of a measure for all pairs of models."""

    parts: list[str]
    values: np.ndarray
    """float64 [parts, models, models]"""

    @classmethod
    def of(cls, section: Section, models: Sequence[Weights]) -> "_PairMatrices":
        matrices = section(models)
        return cls(list(matrices), np.stack([matrix.numpy() for matrix in matrices.values()]))

    def of_pair(
        self, section: Section, models: Sequence[Weights], first: int, second: int
    ) -> Values:
        """Raises NotApplicable with the measure's reason where there is no value of the whole."""
        values = dict(zip(self.parts, self.values[:, first, second].tolist(), strict=True))
        if np.isnan(values[""]):
            reason = section.plugin.facts["reason"]
            raise NotApplicable(str(reason(section.config, models[first], models[second])))
        # parts that only one of the two has, or that are zero
        return {part: value for part, value in values.items() if not np.isnan(value)}
