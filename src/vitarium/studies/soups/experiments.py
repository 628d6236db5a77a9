"""Combine the models of each group in each way, and score the results."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import InvalidInput, VitariumError
from vitarium.core.numerals import counted
from vitarium.core.progress import Progress
from vitarium.core.registry import Section, choose
from vitarium.core.seeds import derive
from vitarium.operators._runner.choose import chosen
from vitarium.studies.soups.evaluator import Evaluator, Scores
from vitarium.studies.soups.groups import Group, SiblingGroups
from vitarium.studies.soups.settings import Soups
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate, Numbers

BEST, MEAN, ENSEMBLE = "best single", "mean single", "ensemble of logits"
"""What methods are compared with."""
UNIFORM, GREEDY = "uniform_soup", "greedy_soup"
Methods = defaultdict[str, list[Section]]
"""Operators by what they do: combine "models", one "model" with what it started from, or "epochs"
of one model; or "align" models. The uniform and the greedy soup are also among the "soups"."""
Job = tuple[str, str, Callable[[], None]]
"""A method, the models that it is tried on, and what adds its result to the others."""


def label(method: str, align: str = "") -> str:
    """As the page calls it."""
    words = method.replace("_", " ")
    return f"{words} after {align.replace('_', ' ')}" if align else words


@dataclass(frozen=True)
class MergeResult:
    """The scores of one method on one group, and how many models were combined.

    `align`: what rearranged the models before; empty: nothing.
    """

    group: Group
    method: str
    scores: Scores
    align: str = ""
    heads: str = "merge"
    count: int = 0

    @property
    def label(self) -> str:
        return label(self.method, self.align)


class EpochGain(NamedTuple):
    """A model, and the average of its last epochs."""

    model: str
    averaged: Scores
    single: Scores

    @property
    def gain(self) -> float:
        return self.averaged.accuracy - self.single.accuracy


class Failure(NamedTuple):
    """What could not be combined or measured, of which models, and why."""

    method: str
    models: str
    why: str


class Comparison(NamedTuple):
    """A way to combine models against another way, over the groups that have both.

    Its mean accuracy; the mean gain with intervals for other test images and for other groups (none
    for fewer than four); how many groups there are, and in how many it is better.
    """

    accuracy: float
    over_images: Estimate
    over_groups: Estimate
    groups: int
    better: int


@dataclass
class MergeResults:
    """Of all groups of a stage.

    Args:
        by_group: and by method and alignment (or ""), in the order of the tries; BEST first.
        curves: of the best `count` models by validation.
        epochs: by operator and number of epochs.
    """

    bootstrap: Bootstrap
    split: str
    by_group: dict[Group, dict[tuple[str, str], MergeResult]] = field(default_factory=dict)
    curves: list[MergeResult] = field(default_factory=list)
    epochs: dict[tuple[str, int], list[EpochGain]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, result: MergeResult) -> None:
        self.by_group.setdefault(result.group, {})[result.method, result.align] = result

    @property
    def combinations(self) -> int:
        """Results of more than one model or epoch."""
        merges = [*self.curves, *(m for group in self.by_group.values() for m in group.values())]
        return sum(merge.count > 1 for merge in merges) + sum(map(len, self.epochs.values()))

    def groups(self, *kinds: str) -> list[Group]:
        return [group for group in self.by_group if group.kind in kinds]

    def methods(self, groups: Iterable[Group]) -> list[tuple[str, str]]:
        """Methods, each with an alignment or none, in the order in which they were tried."""
        return list(dict.fromkeys(key for group in groups for key in self.by_group[group]))

    def compare(
        self, groups: Sequence[Group], method: str, against: str = BEST, align: str = ""
    ) -> Comparison | None:
        """None where no group has both."""
        pairs = [
            (results[method, align].scores, results[against, ""].scores)
            for results in map(self.by_group.__getitem__, groups)
            if (method, align) in results and (against, "") in results
        ]
        if not pairs:
            return None
        accuracies = np.asarray([[scores.accuracy for scores in pair] for pair in pairs])
        gains, accuracy = accuracies[:, 0] - accuracies[:, 1], float(accuracies[:, 0].mean())
        over_groups, better = self.bootstrap.mean(gains), int((gains > 0).sum())
        return Comparison(accuracy, self.gain(pairs), over_groups, len(pairs), better)

    def accuracy(self, scores: Scores) -> Estimate:
        return over_images(self.bootstrap, [(scores.images, scores.test)])

    def gain(self, pairs: Iterable[tuple[Scores, Scores]]) -> Estimate:
        """The mean of what the first has more than the second, image by image."""
        return over_images(self.bootstrap, [(a.images, a.test - b.test) for a, b in pairs])


def over_images(bootstrap: Bootstrap, parts: Sequence[tuple[str, Numbers]]) -> Estimate:
    """The mean over parts, each a number per image, with an interval for other test images.

    A part is a key of its images, and numbers [images]; those of the same images share each draw.
    """
    if not parts:
        return Estimate(math.nan, None, None)
    sums: dict[str, Numbers] = {}
    for images, values in parts:
        sums[images] = sums.get(images, np.zeros(len(values))) + values
    drawn = np.zeros(bootstrap.n_resamples)
    for images, values in sums.items():
        # equal numbers are drawn together, which changes no chance
        distinct, counts = np.unique(values, return_counts=True)
        generator = np.random.default_rng(derive(bootstrap.seed, "images", images))
        draws = generator.multinomial(len(values), counts / len(values), size=bootstrap.n_resamples)
        drawn += draws @ distinct / len(values)
    value = sum(float(values.mean()) for values in sums.values())
    fewest = min(len(values) for values in sums.values())
    return bootstrap.estimate(value / len(parts), drawn / len(parts), fewest)


def methods_by_use(names: Sequence[str]) -> Methods:
    """Raises UnknownName for one that there is not."""
    methods: Methods = defaultdict(list)
    for name in dict.fromkeys(names):
        operator = choose("operator", name)
        facts = operator.plugin.facts
        combines = "epochs" if facts["epochs"] else "model" if facts["models"][1] == 1 else "models"
        methods["align" if facts["aligns"] else combines].append(operator)
        if name in (UNIFORM, GREEDY):
            methods["soups"].append(operator)
    return methods


@dataclass
class Experiments:
    """Combines the models of a stage in every way that the settings ask for."""

    config: Soups
    evaluator: Evaluator
    groups: SiblingGroups
    methods: Methods

    def __post_init__(self) -> None:
        self.results = MergeResults(self.config.bootstrap, self.evaluator.split)

    def run(self, progress: Progress) -> MergeResults:
        members = list(self.groups.members.values())
        for done, model in enumerate(members):
            progress.step("running models", done, len(members))
            self.evaluator.single(model)
        jobs = [*self._of_groups(), *self._of_best(), *self._of_epochs()]
        for done, (method, models, job) in enumerate(jobs):
            progress.step("combining models", done, len(jobs))
            try:
                job()
            except VitariumError as error:
                self.results.failures.append(Failure(method, models, str(error)))
        return self.results

    def _of_groups(self) -> Iterator[Job]:
        """Each group by all methods for it; what they are compared with comes first."""
        groups, methods = self.groups, self.methods
        siblings, across = [*groups.families, *groups.mixed], groups.across(self.evaluator)
        for group in [*siblings, *groups.parts(), *across]:
            self._add_references(group)
            alone, members = self._by_validation(group)[:1], group.members
            tries: list[tuple[Section, Sequence[CheckpointRef], Section | None]] = []
            combining = methods["models" if group in siblings else "soups"]
            tries += [(operator, members, None) for operator in combining]
            if group.kind == "family":
                tries += [(operator, alone, None) for operator in methods["model"]]
            if group.kind in ("family", "across"):
                soups = methods["soups"]
                tries += [(soup, members, align) for align in methods["align"] for soup in soups]
            for operator, models, align in tries:
                method = label(operator.name, align.name if align else "")
                merge = partial(self._merge, self.results.add, group, operator, models, align)
                yield method, group.name, merge

    def _add_references(self, group: Group) -> None:
        single = self.evaluator.single
        scores = [single(model) for model in group.members]
        val, test = (np.mean([getattr(s, n) for s in scores], axis=0) for n in ("val", "test"))
        mean = Scores(val, test, scores[0].images)
        best, ensemble = self._by_validation(group)[0], self.evaluator.ensemble(group.members)
        self.results.add(MergeResult(group, BEST, single(best), count=1))
        self.results.add(MergeResult(group, MEAN, mean, count=1))
        self.results.add(MergeResult(group, ENSEMBLE, ensemble, count=len(group)))

    def _merge(
        self,
        add: Callable[[MergeResult], None],
        group: Group,
        operator: Section,
        models: Sequence[CheckpointRef],
        align: Section | None = None,
    ) -> None:
        heads = "merge"
        if not self.groups.mergeable(group):
            heads = "ensemble"
        elif operator.plugin.facts["needs_base"] and not self.groups.same_start(group):
            heads = "average"
        ingredients = chosen(self.evaluator.zoo, operator, map(str, models))
        scores = self.evaluator.merged(operator, ingredients, heads, align)
        aligned, count = align.name if align else "", len(ingredients)
        add(MergeResult(group, operator.name, scores, aligned, heads, count))

    def _by_validation(self, group: Group) -> list[CheckpointRef]:
        """The best first; of equally good ones that of the smaller id."""
        single = self.evaluator.single
        return sorted(group.members, key=lambda model: (-single(model).val_accuracy, model.model))

    def _of_best(self) -> Iterator[Job]:
        """Soups of the best 1, 2, ... models of a family."""
        curves = self.results.curves
        for group in self.groups.families:
            ranked = self._by_validation(group)
            for operator in self.methods["soups"]:
                best = MergeResult(group, operator.name, self.evaluator.single(ranked[0]), count=1)
                yield label(operator.name), group.name, partial(curves.append, best)
                for count in range(2, min(len(group), self.config.most_ingredients) + 1):
                    method = f"{label(operator.name)} of the best {count}"
                    merge = partial(self._merge, curves.append, group, operator, ranked[:count])
                    yield method, group.name, merge

    def _of_epochs(self) -> Iterator[Job]:
        """Epochs of each model; of operators with that setting, each number of the last ones."""
        for section in self.methods["epochs"]:
            has_last = "last" in section.plugin.config.model_fields
            for last in self.config.last if has_last else (None,):
                operator = choose("operator", section.name, last=last) if last else section
                method = label(section.name) + (f" of the last {last}" if last else "")
                for model in self.groups.members.values():
                    average = partial(self._average, model, operator, last)
                    yield method, model.model[:8], average

    def _average(self, model: CheckpointRef, operator: Section, last: int | None) -> None:
        epochs = chosen(self.evaluator.zoo, operator, [model.model])
        if last and len(epochs) != last:
            raise InvalidInput(f"it has {counted(len(epochs), 'epoch')} that count")
        averaged, single = self.evaluator.merged(operator, epochs), self.evaluator.single(model)
        gains = self.results.epochs.setdefault((operator.name, len(epochs)), [])
        gains.append(EpochGain(model.model, averaged, single))
