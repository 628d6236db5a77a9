"""Combine the models of each group in each way, and score the results."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import InvalidInput, VitariumError
from vitarium.core.progress import Progress
from vitarium.core.registry import Section, choose
from vitarium.operators._runner.choose import chosen
from vitarium.studies.report.text import counted
from vitarium.studies.soups.evaluator import Evaluator, Scores
from vitarium.studies.soups.groups import Group, SiblingGroups
from vitarium.studies.soups.results import (
    BEST,
    ENSEMBLE,
    GREEDY,
    MEAN,
    UNIFORM,
    EpochGain,
    Failure,
    MergeResult,
    MergeResults,
    label,
)
from vitarium.studies.soups.settings import Soups
from vitarium.studies.statistics.bootstrap import Bootstrap


class Methods:
    """Operators by what they are for, from their facts.

    Raises UnknownName for one that there is not.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.combining: list[Section] = []
        """They make one model of several."""
        self.of_single: list[Section] = []
        """They combine one model with what it started from."""
        self.of_epochs: list[Section] = []
        self.aligning: list[Section] = []
        for name in dict.fromkeys(names):
            section = choose("operator", name)
            facts = section.plugin.facts
            if facts.get("aligns"):
                self.aligning.append(section)
            elif facts.get("epochs"):
                self.of_epochs.append(section)
            elif facts["models"][1] == 1:
                self.of_single.append(section)
            else:
                self.combining.append(section)

    @property
    def soups(self) -> list[Section]:
        """The uniform and the greedy soup, where they are among the methods."""
        return [section for section in self.combining if section.name in (UNIFORM, GREEDY)]


class Job(NamedTuple):
    """A method, the models that it is tried on, what computes its result, and the list for it."""

    method: str
    models: str
    compute: Callable[[], Any]
    results: list[Any]


@dataclass
class Experiments:
    """Combines the models of a stage in every way that the settings ask for."""

    config: Soups
    evaluator: Evaluator
    groups: SiblingGroups
    methods: Methods
    bootstrap: Bootstrap

    def __post_init__(self) -> None:
        self.results = MergeResults(self.bootstrap, self.evaluator.split)

    def run(self, progress: Progress) -> MergeResults:
        members = list(self.groups.members.values())
        for done, model in enumerate(members):
            progress.step("running models", done, len(members))
            self.evaluator.single(model)
        jobs = [*self._of_groups(), *self._of_best(), *self._of_epochs()]
        for done, (method, models, compute, results) in enumerate(jobs):
            progress.step("combining models", done, len(jobs))
            try:
                results.append(compute())
            except VitariumError as error:
                self.results.failures.append(Failure(method, models, str(error)))
        return self.results

    def _of_groups(self) -> Iterator[Job]:
        """Each group by all methods for it; what they are compared with comes first."""
        methods, groups = self.methods, self.groups
        siblings, across = [*groups.families, *groups.mixed], groups.across(self.evaluator)
        for group in [*siblings, *groups.parts, *across]:
            self.results.results += self._references(group)
            for operator in methods.combining if group in siblings else methods.soups:
                yield self._job(group, operator, group.members)
            if group.kind == "family":
                for operator in methods.of_single:
                    yield self._job(group, operator, self._by_validation(group)[:1])
            if group.kind in ("family", "across"):
                for align in methods.aligning:
                    for operator in methods.soups:
                        yield self._job(group, operator, group.members, align)

    def _references(self, group: Group) -> Iterator[MergeResult]:
        scores = [self.evaluator.single(model) for model in group.members]
        best = self.evaluator.single(self._by_validation(group)[0])
        val, test = (np.mean([getattr(s, n) for s in scores], axis=0) for n in ("val", "test"))
        yield MergeResult(group, BEST, best, count=1)
        yield MergeResult(group, MEAN, Scores(val, test, scores[0].images), count=1)
        ensemble = self.evaluator.ensemble(group.members)
        yield MergeResult(group, ENSEMBLE, ensemble, count=len(group))

    def _job(
        self,
        group: Group,
        operator: Section,
        models: Sequence[CheckpointRef],
        align: Section | None = None,
    ) -> Job:
        compute = partial(self._merge, group, operator, models, align)
        method = label(operator.name, align.name if align else "")
        return Job(method, group.name, compute, self.results.results)

    def _merge(
        self,
        group: Group,
        operator: Section,
        models: Sequence[CheckpointRef],
        align: Section | None = None,
    ) -> MergeResult:
        heads = "merge"
        if not self.groups.mergeable(group):
            heads = "ensemble"
        elif operator.plugin.facts["needs_base"] and not self.groups.same_start(group):
            heads = "average"
        ingredients = chosen(self.evaluator.zoo, operator, map(str, models))
        scores = self.evaluator.merged(operator, ingredients, heads, align)
        aligned = align.name if align else ""
        return MergeResult(group, operator.name, scores, aligned, heads, len(ingredients))

    def _by_validation(self, group: Group) -> list[CheckpointRef]:
        """The best first; of equally good ones that of the smaller id."""
        single = self.evaluator.single
        return sorted(group.members, key=lambda model: (-single(model).val_accuracy, model.model))

    def _of_best(self) -> Iterator[Job]:
        """Soups of the best 1, 2, ... models of a family."""

        def merge(group: Group, operator: Section, count: int) -> MergeResult:
            best = self._by_validation(group)[:count]
            if count > 1:
                return self._merge(group, operator, best)
            return MergeResult(group, operator.name, self.evaluator.single(best[0]), count=1)

        for group in self.groups.families:
            for operator in self.methods.soups:
                for count in range(1, min(len(group), self.config.most_ingredients) + 1):
                    method = f"{label(operator.name)} of the best {count}"
                    compute = partial(merge, group, operator, count)
                    yield Job(method, group.name, compute, self.results.curves)

    def _of_epochs(self) -> Iterator[Job]:
        """Epochs of each model; of operators with that setting, each number of the last ones."""

        def average(model: CheckpointRef, operator: Section, last: int | None) -> EpochGain:
            epochs = chosen(self.evaluator.zoo, operator, [model.model])
            if last and len(epochs) != last:
                raise InvalidInput(f"it has {counted(len(epochs), 'epoch')} that count")
            averaged = self.evaluator.merged(operator, epochs)
            single = self.evaluator.single(model)
            return EpochGain(model.model, operator.name, len(epochs), single, averaged)

        for section in self.methods.of_epochs:
            has_last = "last" in section.plugin.config.model_fields
            for last in self.config.last if has_last else (None,):
                operator = choose("operator", section.name, last=last) if last else section
                method = label(section.name) + (f" of the last {last}" if last else "")
                for model in self.groups.members.values():
                    compute = partial(average, model, operator, last)
                    yield Job(method, model.model[:8], compute, self.results.epochs)
