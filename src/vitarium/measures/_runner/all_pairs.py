"""Measures of pairs of weights: all pairs at once, each tensor read as seldom as possible."""

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
    """What gives the values of each job; the first of a measure computes those of all."""
    targets = list(dict.fromkeys(target for job in todo for target in job.of))
    place = {target: number for number, target in enumerate(targets)}
    models = [sources.weights(target) for target in targets]
    found: dict[tuple[str, str], _Found] = {}

    def value(job: Job) -> Values:
        which = settings.key(job.section)
        if which not in found:
            found[which] = _Found.of(job.section, models)
        one, other = (place[target] for target in job.of)
        return found[which].of_pair(job.section, models, one, other)

    for job in todo:
        yield job, partial(value, job)


@dataclass(frozen=True)
class _Found:
    """What a measure gave for all pairs of models."""

    parts: list[str]
    values: np.ndarray
    """float64 [parts, models, models]"""

    @classmethod
    def of(cls, section: Section, models: Sequence[Weights]) -> "_Found":
        matrices = section(models)
        return cls(list(matrices), np.stack([matrix.numpy() for matrix in matrices.values()]))

    def of_pair(self, section: Section, models: Sequence[Weights], one: int, other: int) -> Values:
        """Raises NotApplicable with the measure's own reason where there is no whole value."""
        values = dict(zip(self.parts, self.values[:, one, other].tolist(), strict=True))
        if np.isnan(values[""]):
            reason = section.plugin.facts["reason"]
            raise NotApplicable(str(reason(section.config, models[one], models[other])))
        # parts that only one of the two has, or that are zero
        return {part: value for part, value in values.items() if not np.isnan(value)}
