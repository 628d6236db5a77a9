"""Combine the models of each group in each way, and score the results."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import VitariumError
from vitarium.core.registry import Section, choose
from vitarium.operators._runner.choose import chosen
from vitarium.studies.base import Progress
from vitarium.studies.report.text import counted
from vitarium.studies.soups.evaluator import Evaluator, Scores, mean_of
from vitarium.studies.soups.groups import Group, SiblingGroups

BEST, MEAN, ENSEMBLE = "best single", "mean single", "ensemble of logits"
UNIFORM, GREEDY = "uniform_soup", "greedy_soup"
Job = Callable[[], None]


class Methods:
    """Operators by what they are for, from their facts.

    Raises UnknownName for one that there is not.
    """

    def __init__(self, names: Iterable[str]) -> None:
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


@dataclass(frozen=True)
class MergeResult:
    """The scores of one method on one group."""

    group: Group
    method: str
    scores: Scores
    align: str = ""
    """What rearranged the models before; empty: nothing."""
    heads: str = "merge"
    count: int = 0
    """Of models that were combined."""

    @property
    def label(self) -> str:
        return label(self.method, self.align)


@dataclass(frozen=True)
class EpochGain:
    """A model, and the average of its last epochs."""

    model: str
    method: str
    last: int
    """How many epochs."""
    single: Scores
    averaged: Scores

    @property
    def gain(self) -> float:
        return self.averaged.accuracy - self.single.accuracy


@dataclass(frozen=True)
class Failure:
    """What could not be combined or measured, of which models, and why."""

    method: str
    models: str
    why: str


@dataclass
class MergeResults:
    """Of all groups of a stage."""

    results: list[MergeResult] = field(default_factory=list)
    curves: list[MergeResult] = field(default_factory=list)
    """Of the best `count` models by validation."""
    epochs: list[EpochGain] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def of(self, group: Group) -> list[MergeResult]:
        return [result for result in self.results if result.group == group]

    def get(self, group: Group, method: str, align: str = "") -> MergeResult | None:
        of_group = self.of(group)
        return next((r for r in of_group if (r.method, r.align) == (method, align)), None)

    def groups(self, *kinds: str) -> list[Group]:
        return list(dict.fromkeys(r.group for r in self.results if r.group.kind in kinds))

    def methods(self, groups: Iterable[Group]) -> list[tuple[str, str]]:
        """Methods, each with an alignment or none, in the order in which they were tried."""
        return list(dict.fromkeys((r.method, r.align) for g in groups for r in self.of(g)))

    def epochs_by_method(self) -> dict[tuple[str, int], list[EpochGain]]:
        """By operator and number of epochs."""
        gains: dict[tuple[str, int], list[EpochGain]] = {}
        for gain in self.epochs:
            gains.setdefault((gain.method, gain.last), []).append(gain)
        return gains


class MergeExperiments:
    """Combines the models of a stage in every way.

    Args:
        max_ingredients: models of a group up to which soups of the best k are made.
        last: how many epochs are averaged.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        groups: SiblingGroups,
        methods: Methods,
        *,
        max_ingredients: int,
        last: Sequence[int],
        progress: Progress,
    ) -> None:
        self.evaluator, self.groups, self.methods = evaluator, groups, methods
        self.max_ingredients, self.last, self.progress = max_ingredients, last, progress
        self.results = MergeResults()

    def run(self) -> MergeResults:
        members = list(self.groups.members.values())
        for done, model in enumerate(members):
            self.progress.step("running models", done, len(members))
            self.evaluator.single(model)
        jobs = [*self._of_groups(), *self._of_best(), *self._of_epochs()]
        for done, job in enumerate(jobs):
            self.progress.step("combining models", done, len(jobs))
            job()
        return self.results

    def _of_groups(self) -> Iterator[Job]:
        for group in [*self.groups.families, *self.groups.mixed]:
            yield from self._of_group(group, self.methods.combining)
        for group in [*self.groups.parts, *self.groups.across(self.evaluator)]:
            yield from self._of_group(group, self.methods.soups)

    def _of_group(self, group: Group, operators: Sequence[Section]) -> Iterator[Job]:
        def references() -> None:
            scores = {model: self.evaluator.single(model) for model in group.members}
            best = scores[self._by_validation(group)[0]]
            ensemble = self.evaluator.ensemble(group.members)
            self.results.results += [
                MergeResult(group, BEST, best, count=1),
                MergeResult(group, MEAN, mean_of(list(scores.values())), count=1),
                MergeResult(group, ENSEMBLE, ensemble, count=len(group)),
            ]

        def merge(operator: Section, align: Section | None = None) -> Job:
            return lambda: self._merge(group, operator, align, group.members)

        def merge_best(operator: Section) -> Job:
            return lambda: self._merge(group, operator, None, self._by_validation(group)[:1])

        yield references
        yield from map(merge, operators)
        if group.kind == "family":
            yield from map(merge_best, self.methods.of_single)
        if group.kind in ("family", "across"):
            for align in self.methods.aligning:
                yield from (merge(operator, align) for operator in self.methods.soups)

    def _merge(
        self,
        group: Group,
        operator: Section,
        align: Section | None,
        models: Sequence[CheckpointRef],
    ) -> None:
        heads, aligned = self._heads(group, operator), align.name if align else ""
        try:
            ingredients = self._in_order(operator, models)
            scores = self.evaluator.merged(operator, ingredients, heads, align)
        except VitariumError as error:
            failure = Failure(label(operator.name, aligned), group.name, str(error))
            self.results.failures.append(failure)
            return
        count = len(ingredients)
        result = MergeResult(group, operator.name, scores, aligned, heads, count)
        self.results.results.append(result)

    def _in_order(
        self, operator: Section, models: Sequence[CheckpointRef]
    ) -> tuple[CheckpointRef, ...]:
        """As `vitarium.merge` takes them. Raises InvalidInput for too few or too many."""
        names = [f"{model.model}@{model.epoch}" for model in models]
        return chosen(self.evaluator.zoo, operator, names)

    def _heads(self, group: Group, operator: Section) -> str:
        if not self.groups.mergeable(group):
            return "ensemble"
        if operator.plugin.facts["needs_base"] and not self.groups.same_start(group):
            return "average"
        return "merge"

    def _by_validation(self, group: Group) -> list[CheckpointRef]:
        """The best first; of equally good ones that of the smaller id."""
        single = self.evaluator.single
        return sorted(group.members, key=lambda model: (-single(model).val_accuracy, model.model))

    def _of_best(self) -> Iterator[Job]:
        def merge_best(group: Group, operator: Section, count: int) -> Job:
            def job() -> None:
                best = self._by_validation(group)[:count]
                try:
                    scores = (
                        self.evaluator.merged(operator, self._in_order(operator, best))
                        if count > 1
                        else self.evaluator.single(best[0])
                    )
                except VitariumError as error:
                    method = f"{label(operator.name)} of the best {count}"
                    self.results.failures.append(Failure(method, group.name, str(error)))
                    return
                result = MergeResult(group, operator.name, scores, count=count)
                self.results.curves.append(result)

            return job

        for group in self.groups.families:
            for operator in self.methods.soups:
                for count in range(1, min(len(group), self.max_ingredients) + 1):
                    yield merge_best(group, operator, count)

    def _of_epochs(self) -> Iterator[Job]:
        def average(model: CheckpointRef, operator: Section, last: int | None) -> Job:
            def job() -> None:
                method = label(operator.name) + (f" of the last {last}" if last else "")
                try:
                    epochs = chosen(self.evaluator.zoo, operator, [model.model])
                    if last and len(epochs) != last:
                        why = f"it has {counted(len(epochs), 'epoch')} that count"
                        self.results.failures.append(Failure(method, model.model[:8], why))
                        return
                    averaged = self.evaluator.merged(operator, epochs)
                except VitariumError as error:
                    self.results.failures.append(Failure(method, model.model[:8], str(error)))
                    return
                single = self.evaluator.single(model)
                gain = EpochGain(model.model, operator.name, len(epochs), single, averaged)
                self.results.epochs.append(gain)

            return job

        for operator, last in self._epoch_operators():
            for model in self.groups.members.values():
                yield average(model, operator, last)

    def _epoch_operators(self) -> Iterator[tuple[Section, int | None]]:
        """With each number of epochs, where that is a setting."""
        for section in self.methods.of_epochs:
            if "last" not in section.plugin.config.model_fields:
                yield section, None
                continue
            for last in self.last:
                yield choose("operator", section.name, last=last), last


def label(method: str, align: str = "") -> str:
    """As the page calls it."""
    words = method.replace("_", " ")
    return f"{words} after {align.replace('_', ' ')}" if align else words
