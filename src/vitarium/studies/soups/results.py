"""What comes of each way to combine the models of each group."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import VitariumError
from vitarium.core.registry import Section, choose
from vitarium.operators._runner.choose import chosen
from vitarium.studies.report.text import counted
from vitarium.studies.request import Report
from vitarium.studies.soups.groups import Group, Kinfolk
from vitarium.studies.soups.runs import Runs, Scores, mean_of

BEST, MEAN, ENSEMBLE = "best single", "mean single", "ensemble of logits"
UNIFORM, GREEDY = "uniform_soup", "greedy_soup"


class Methods:
    """Operators by what they are for, from their facts.

    Raises UnknownName for one that there is not.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.combining: list[Section] = []
        """They make one model of several."""
        self.of_one: list[Section] = []
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
                self.of_one.append(section)
            else:
                self.combining.append(section)

    def named(self, *names: str) -> list[Section]:
        return [one for one in self.combining if one.name in names]


@dataclass(frozen=True)
class Result:
    """What one way gives for one group."""

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
    alone: Scores
    averaged: Scores

    @property
    def gain(self) -> float:
        return self.averaged.accuracy - self.alone.accuracy


@dataclass(frozen=True)
class Absent:
    """What could not be combined, and why."""

    what: str
    of: str
    why: str


@dataclass
class Results:
    """Of all groups of a stage."""

    found: list[Result] = field(default_factory=list)
    curves: list[Result] = field(default_factory=list)
    """Of the best `count` models by validation."""
    epochs: list[EpochGain] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    def of(self, group: Group) -> list[Result]:
        return [one for one in self.found if one.group == group]

    def get(self, group: Group, method: str, align: str = "") -> Result | None:
        same = (one for one in self.of(group) if (one.method, one.align) == (method, align))
        return next(same, None)

    def groups(self, *kinds: str) -> list[Group]:
        return list(dict.fromkeys(one.group for one in self.found if one.group.kind in kinds))


class Combining:
    """Combines the models of a stage in every way.

    Args:
        most: models of a group up to which soups of the best k are made.
        last: how many epochs are averaged.
        report: is told what is done, and how much of how much.
    """

    def __init__(
        self,
        runs: Runs,
        kin: Kinfolk,
        methods: Methods,
        *,
        most: int,
        last: Sequence[int],
        report: Report,
    ) -> None:
        self.runs, self.kin, self.methods = runs, kin, methods
        self.most, self.last, self.report = most, last, report
        self.results = Results()

    def all(self) -> Results:
        members = list(self.kin.members.values())
        for done, one in enumerate(members):
            self.report("running models", done, len(members))
            self.runs.single(one)
        jobs = [*self._groups(), *self._ingredients(), *self._epochs()]
        for done, job in enumerate(jobs):
            self.report("combining models", done, len(jobs))
            job()
        return self.results

    def _groups(self) -> list[Callable[[], None]]:
        soups = self.methods.named(UNIFORM, GREEDY)
        jobs: list[Callable[[], None]] = []
        for group in [*self.kin.families, *self.kin.mixed]:
            jobs += self._of_group(group, self.methods.combining)
        for group in [*self.kin.parts, *self.kin.across(self.runs)]:
            jobs += self._of_group(group, soups)
        return jobs

    def _of_group(self, group: Group, operators: Sequence[Section]) -> list[Callable[[], None]]:
        def references() -> None:
            scores = {one: self.runs.single(one) for one in group.members}
            best = self._by_validation(group)[0]
            n = len(group)
            self.results.found += [
                Result(group, BEST, scores[best], count=1),
                Result(group, MEAN, mean_of(list(scores.values())), count=1),
                Result(group, ENSEMBLE, self.runs.ensemble(group.members), count=n),
            ]

        def combined(operator: Section, align: Section | None = None) -> Callable[[], None]:
            return lambda: self._try(group, operator, align)

        def of_best(operator: Section) -> None:
            best = self._by_validation(group)[0]
            self._try(group, operator, None, (best,))

        jobs: list[Callable[[], None]] = [references, *map(combined, operators)]
        if group.kind == "family":
            jobs += [lambda operator=one: of_best(operator) for one in self.methods.of_one]  # type: ignore[misc]
        if group.kind in ("family", "across"):
            for align in self.methods.aligning:
                jobs += [combined(o, align) for o in self.methods.named(UNIFORM, GREEDY)]
        return jobs

    def _try(
        self,
        group: Group,
        operator: Section,
        align: Section | None,
        models: tuple[CheckpointRef, ...] | None = None,
    ) -> None:
        heads, aligned = self._heads(group, operator), align.name if align else ""
        try:
            models = self._in_order(operator, models or group.members)
            scores = self.runs.merged(operator, models, heads, align)
        except VitariumError as error:
            self.results.absent.append(
                Absent(label(operator.name, aligned), group.name, str(error))
            )
            return
        found = Result(group, operator.name, scores, aligned, heads, len(models))
        self.results.found.append(found)

    def _in_order(
        self, operator: Section, models: Sequence[CheckpointRef]
    ) -> tuple[CheckpointRef, ...]:
        """As `vitarium.merge` takes them. Raises InvalidInput for too few or too many."""
        return chosen(self.runs.zoo, operator, [f"{one.model}@{one.epoch}" for one in models])

    def _heads(self, group: Group, operator: Section) -> str:
        if not self.kin.mergeable(group):
            return "ensemble"
        if operator.plugin.facts["needs_base"] and not self.kin.same_start(group):
            return "average"
        return "merge"

    def _by_validation(self, group: Group) -> list[CheckpointRef]:
        """The best first; of equally good ones that of the smaller id."""
        scores = self.runs.single
        return sorted(group.members, key=lambda one: (-scores(one).val_accuracy, one.model))

    def _ingredients(self) -> list[Callable[[], None]]:
        def best(group: Group, operator: Section, count: int) -> None:
            first = self._by_validation(group)[:count]
            try:
                scores = (
                    self.runs.merged(operator, self._in_order(operator, first))
                    if count > 1
                    else self.runs.single(first[0])
                )
            except VitariumError as error:
                what = f"{label(operator.name)} of the best {count}"
                self.results.absent.append(Absent(what, group.name, str(error)))
                return
            self.results.curves.append(Result(group, operator.name, scores, count=count))

        return [
            lambda group=group, operator=operator, k=k: best(group, operator, k)  # type: ignore[misc]
            for group in self.kin.families
            for operator in self.methods.named(UNIFORM, GREEDY)
            for k in range(1, min(len(group), self.most) + 1)
        ]

    def _epochs(self) -> list[Callable[[], None]]:
        def averaged(one: CheckpointRef, operator: Section, last: int | None) -> None:
            what = label(operator.name) + (f" of the last {last}" if last else "")
            try:
                epochs = chosen(self.runs.zoo, operator, [one.model])
                if last and len(epochs) != last:
                    why = f"it has {counted(len(epochs), 'epoch')} that count"
                    self.results.absent.append(Absent(what, one.model[:8], why))
                    return
                found = self.runs.merged(operator, epochs)
            except VitariumError as error:
                self.results.absent.append(Absent(what, one.model[:8], str(error)))
                return
            alone = self.runs.single(one)
            gain = EpochGain(one.model, operator.name, len(epochs), alone, found)
            self.results.epochs.append(gain)

        return [
            lambda one=one, operator=operator, last=last: averaged(one, operator, last)  # type: ignore[misc]
            for operator, last in self._epoch_operators()
            for one in self.kin.members.values()
        ]

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
