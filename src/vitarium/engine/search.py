"""Hyper-parameter search by Optuna over the space of a blueprint's sample.

A search is replayed from its first trial each time: from the same seed and scores, Optuna suggests
the same again. So it needs no database but the zoo, which has the scores.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from vitarium.blueprint.distributions import Choice, Distribution, Integers, LogUniform, Uniform

TrialStatus = Literal["finished", "diverged", "failed"]
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Trial:
    """Values of the factors that are searched, and what became of the models that have them."""

    number: int
    """From 1, in the order in which they are suggested."""
    factors: Mapping[str, Any]
    """By path, as a blueprint has them."""
    models: tuple[str, ...] = ()
    status: TrialStatus = "finished"
    """diverged, failed: what became of one of its models."""
    score: float | None = None
    """Mean of its models' metrics; None where not all of them finished."""


@dataclass
class Search:
    """Suggests trials by the tree-structured Parzen estimator, and is told their scores.

    Bergstra et al. 2011, NeurIPS 24. What diverged counts as worse than every score, and what
    failed for nothing.

    Args:
        space: distributions by path.
        seed: of the estimator's randomness.
    """

    space: Mapping[str, Distribution]
    seed: int
    direction: Direction
    trials: list[Trial] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        import optuna

        self._space = {path: _of_optuna(self.space[path]) for path in sorted(self.space)}
        with _quiet():
            sampler = optuna.samplers.TPESampler(seed=self.seed % 2**32)
            self._study = optuna.create_study(direction=self.direction, sampler=sampler)
        self._asked: dict[int, Any] = {}

    def ask(self) -> Trial:
        """The next trial, without models; values are rounded as those of samples are."""
        trial = self._study.ask(self._space)
        number = trial.number + 1
        self._asked[number] = trial
        values = {path: self._value(path, value) for path, value in trial.params.items()}
        return Trial(number, values)

    def tell(self, trial: Trial) -> None:
        """What became of a trial that was asked for."""
        from optuna.trial import TrialState

        states = {"diverged": TrialState.PRUNED, "failed": TrialState.FAIL}
        state = states.get(trial.status, TrialState.COMPLETE)
        with _quiet():
            self._study.tell(self._asked.pop(trial.number), trial.score, state)
        self.trials.append(trial)

    def _value(self, path: str, value: Any) -> Any:
        distribution = self.space[path]
        if isinstance(distribution, Choice):
            return distribution.values[value]
        return distribution.rounded(value)


def _of_optuna(distribution: Distribution) -> Any:
    """Optuna's distribution; of choices, which may be lists and mappings, the positions."""
    from optuna import distributions

    match distribution:
        case Uniform(low=low, high=high):
            return distributions.FloatDistribution(low, high)
        case LogUniform(low=low, high=high):
            return distributions.FloatDistribution(low, high, log=True)
        case Integers(low=low, high=high):
            return distributions.IntDistribution(int(low), int(high))
        case Choice(values=values):
            return distributions.CategoricalDistribution(range(len(values)))
    raise TypeError(f"Optuna has no distribution {distribution!r}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, Optuna prints warnings alone."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)
