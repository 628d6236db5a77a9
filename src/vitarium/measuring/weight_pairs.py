"""Measures of pairs of weights: all pairs at once, each tensor read as seldom as possible."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor

from vitarium.measures.subjects import Matrices, Values
from vitarium.measuring import settings
from vitarium.measuring.jobs import Job
from vitarium.measuring.sources import Sources


def pairwise(todo: Sequence[Job], sources: Sources) -> Iterator[tuple[Job, Callable[[], Values]]]:
    """What gives the values of each job; the first of a measure computes those of all."""
    targets = list(dict.fromkeys(target for job in todo for target in job.of))
    place = {target: number for number, target in enumerate(targets)}
    models = [sources.weights(target) for target in targets]
    found: dict[tuple[str, str], Matrices] = {}

    def value(job: Job) -> Values:
        which = settings.key(job.section)
        if which not in found:
            found[which] = job.section(models)
        one, other = (place[target] for target in job.of)
        return {part: _number(matrix[one, other]) for part, matrix in found[which].items()}

    for job in todo:
        yield job, partial(value, job)


def _number(entry: Tensor) -> float:
    return float(entry)
