"""What `adaptation_modes.py` measures of a transfer's children, and the table of it.

Intervals of 95 % come of drawing seeds again (vitarium's bootstrap, widened for few): a seed is
drawn with its children of all adaptations, which saw the same images in the same order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vitarium import Zoo, measure
from vitarium.architectures.heads import is_head
from vitarium.blueprint.spec import ModelSpec
from vitarium.core.registry import choose
from vitarium.engine.tuning.model_size import parameters
from vitarium.studies.statistics.bootstrap import FRACTION, UNLIMITED, Bootstrap, Estimate, Limits
from vitarium.studies.statistics.variance import Explained, complete, explained

FULL, HEAD = "full", "head"
BARRIER = {"points": 5, "num_images": 500}
NOT_NEGATIVE: Limits = (0, np.inf)
Values = NDArray[np.float64]
"""Of models, [models], or of pairs of them, [models, models]; NaN where there is none."""


@dataclass(frozen=True)
class Children:
    """Children of one parent: an adaptation and a seed each, in the same order everywhere.

    models: rows of `Zoo.models`, of all adaptations the same seeds.
    """

    zoo: Zoo
    models: pd.DataFrame
    data_dir: Path | None

    @cached_property
    def ids(self) -> list[str]:
        return list(self.models["id"])

    @cached_property
    def adaptations(self) -> NDArray[np.str_]:
        return self.models["stage"].to_numpy(str)

    def of(self, adaptation: str) -> NDArray[np.bool_]:
        """Which children are of an adaptation, bool [models]."""
        return self.adaptations == adaptation

    def measured(self, name: str, **settings: Any) -> pd.DataFrame:
        """Values of a measure of models, or of all pairs, where there are any."""
        return self._measured(self.ids, name, settings)

    def barriers(self) -> pd.DataFrame:
        """Between siblings of the same adaptation, and between children of one and of `full`, half
        of the seeds of either with the other half of the other: never of the same seed."""
        late = self.models["seed"].to_numpy() >= self.models["seed"].nunique() // 2
        groups = []
        for adaptation in dict.fromkeys(self.adaptations):
            chosen, full = self.of(adaptation), self.of(FULL)
            groups += [chosen, (chosen & late) | (full & ~late), (chosen & ~late) | (full & late)]
        tables = [
            self._measured([self.ids[number] for number in group.nonzero()[0]], "barrier", BARRIER)
            for group in groups
        ]
        return pd.concat(tables).drop_duplicates(["model", "other", "part"])

    def _measured(self, ids: Sequence[str], name: str, settings: Mapping[str, Any]) -> pd.DataFrame:
        section = choose("measure", name, **settings)
        options: dict[str, Any] = {"data_dir": self.data_dir, "device": "cpu"}
        table = measure(self.zoo, [section], models=ids, pairs="all", **options)
        return table[table["refused"] == ""]

    def values(self, table: pd.DataFrame, part: str = "") -> Values:
        """A part of a measure, [models], or [models, models] for pairs."""
        rows = table[table["part"] == part]
        index = {id: number for number, id in enumerate(self.ids)}
        first = [index[id] for id in rows["model"]]
        if rows["other"].isna().all():
            values = np.full(len(self.ids), np.nan)
            values[first] = rows["value"]
            return values
        second = [index[id] for id in rows["other"]]
        values = np.full((len(self.ids),) * 2, np.nan)
        values[first, second] = values[second, first] = rows["value"]
        return values

    def parent_norm(self) -> float:
        """Of the parent's weights, without its head."""
        (parent,) = set(self.models["parent"])
        model = self.zoo.load(parent)
        squares = [
            float(weight.detach().double().square().sum())
            for name, weight in model.named_parameters()
            if not is_head(model, name)
        ]
        return float(np.sqrt(sum(squares)))

    def trained(self, adaptation: str) -> int:
        """Number of parameters that learn, the head's among them."""
        id = self.ids[int(self.of(adaptation).argmax())]
        spec = self.zoo.folder(id).spec()
        assert isinstance(spec, ModelSpec)
        return parameters(spec.recipe, self.zoo.folder(id).about().num_outputs).trained


@dataclass(frozen=True)
class Statistics:
    """Means with intervals over seeds."""

    children: Children
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def mean(self, values: Values, adaptation: str, limits: Limits = UNLIMITED) -> Estimate:
        """Of an adaptation's children."""
        return self.bootstrap.mean(values[self.children.of(adaptation)], limits)

    def difference(self, values: Values, adaptation: str, base: str) -> Estimate:
        """Mean over seeds of an adaptation's value less that of another one."""
        return self.bootstrap.mean(
            values[self.children.of(adaptation)] - values[self.children.of(base)]
        )

    def pairs(self, values: Values, first: str, second: str, limits: Limits) -> Estimate:
        """Mean over pairs of a child of `first` and another one of `second`."""
        return self._estimate(lambda mean: mean(values, first, second), limits)

    def separation(self, values: Values, adaptation: str) -> Estimate:
        """How much more two children differ if one is of `adaptation` and the other of `full` than
        if both are of the same: the mean of the first less the mean of the two others."""

        def excess(mean: "PairMeans") -> Values:
            within = mean(values, adaptation, adaptation) + mean(values, FULL, FULL)
            return mean(values, adaptation, FULL) - within / 2

        return self._estimate(excess, UNLIMITED)

    def _estimate(self, number: Callable[["PairMeans"], Values], limits: Limits) -> Estimate:
        seeds = self.children.models["seed"].astype(str).tolist()
        drawn = number(PairMeans(self.children, self.bootstrap.counts(len(seeds), seeds)))
        (value,) = number(PairMeans(self.children, np.ones((1, len(seeds)))))
        return self.bootstrap.estimate(float(value), drawn, len(set(seeds)), limits)


@dataclass(frozen=True)
class PairMeans:
    """Means over pairs where models count as often as drawn, [draws, models]."""

    children: Children
    counts: Values

    def __call__(self, values: Values, first: str, second: str) -> Values:
        """Of pairs between two adaptations that have a value, of different seeds as siblings are:
        [draws]; NaN: there is none."""
        block = np.ix_(self.children.of(first), self.children.of(second))
        seeds = self.children.models["seed"].to_numpy()
        known = np.isfinite(values[block]) & (seeds[:, None] != seeds)[block]
        left, right = (self.counts[:, self.children.of(name)] for name in (first, second))
        total = np.einsum("di,ij,dj->d", left, np.where(known, values[block], 0), right)
        count = np.einsum("di,ij,dj->d", left, known.astype(float), right)
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


@dataclass(frozen=True)
class Results:
    """A row per adaptation, and what the adaptation and the seed explain of the variety of all."""

    rows: Sequence[Mapping[str, Any]]
    explained: Mapping[str, Mapping[str, Explained | None]]
    """By what differs (predictions, weights) and by factor (adaptation, seed)."""


def results(children: Children) -> Results:
    """In the order of the children; measures what is not yet measured."""
    accuracy = children.models["test_accuracy"].to_numpy(float)
    norm = children.parent_norm()
    moved = children.values(children.measured("distance_from_start")) / norm
    apart = children.values(children.measured("weight_l2")) / norm
    disagreement = 1 - children.values(children.measured("agreement"))
    barriers = children.barriers()
    loss, error = (children.values(barriers, part) for part in ("", "error"))
    over_pairs: dict[str, tuple[Values, Limits]] = {
        "distance": (apart, NOT_NEGATIVE),
        "disagreement": (disagreement, FRACTION),
        "barrier": (loss, NOT_NEGATIVE),
        "error_barrier": (error, FRACTION),
    }
    of = Statistics(children)
    rows = []
    for name in dict.fromkeys(children.adaptations.tolist()):
        row: dict[str, Any] = {
            "adaptation": name,
            "trained": children.trained(name),
            "learning_rate": children.models["optimizer.lr"][children.of(name)].iloc[0],
            "accuracy": of.mean(accuracy, name, FRACTION),
            "accuracy_less_full": of.difference(accuracy, name, FULL),
            "accuracy_less_head": of.difference(accuracy, name, HEAD),
            "moved": of.mean(moved, name, NOT_NEGATIVE),
        }
        for number, (values, limits) in over_pairs.items():
            row[f"{number}_of_siblings"] = of.pairs(values, name, name, limits)
            if name != FULL:
                row[f"{number}_to_full"] = of.pairs(values, name, FULL, limits)
                row[f"{number}_separation"] = of.separation(values, name)
        rows.append(row)
    squared = {"predictions": disagreement, "weights": apart**2}
    return Results(rows, {name: explained_of(children, each) for name, each in squared.items()})


def explained_of(children: Children, squared: Values) -> dict[str, Explained | None]:
    """What adaptation and seed explain of squared distances [models, models].

    Of weights, those of children that are plain vision transformers alone can be compared. Two
    predictions that differ are at a squared distance of 2, as vectors that are 1 at their class.
    """
    squared = squared.copy()
    np.fill_diagonal(squared, 0)
    indices = complete(squared)
    labels = {"adaptation": children.adaptations, "seed": children.models["seed"].to_numpy(str)}
    square = squared[np.ix_(indices, indices)]
    return {
        factor: explained(square, of_models[indices].tolist(), bootstrap=Bootstrap())
        for factor, of_models in labels.items()
    }


COLUMNS: dict[str, tuple[str, float, int]] = {
    "accuracy, %": ("accuracy", 100, 1),
    "less full": ("accuracy_less_full", 100, 1),
    "less head": ("accuracy_less_head", 100, 1),
    "moved": ("moved", 1, 3),
    "apart": ("distance_of_siblings", 1, 3),
    "from full": ("distance_to_full", 1, 3),
    "disagree, %": ("disagreement_of_siblings", 100, 1),
    "with full": ("disagreement_to_full", 100, 1),
    "barrier, nats": ("barrier_of_siblings", 1, 2),
    "to full": ("barrier_to_full", 1, 2),
}
"""By title: a row's number, its factor, and digits."""


def markdown(measured: Results) -> str:
    """A table with half the length of each interval, and sentences on what explains variety."""
    lines = [["adaptation", "trained", *COLUMNS], ["---", *["---:"] * (len(COLUMNS) + 1)]]
    for row in measured.rows:
        cells = [cell(row.get(name), factor, digits) for name, factor, digits in COLUMNS.values()]
        lines.append([row["adaptation"], f"{row['trained']:,}", *cells])
    sentences = [
        f"\nOf the variety of {what} the {factor} explains {cell(effect.adjusted, 100, 0)} % "
        f"beyond chance (p = {effect.p:.3f}, {effect.models} models).\n"
        for what, factors in measured.explained.items()
        for factor, effect in factors.items()
        if effect is not None
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "".join(sentences)


def cell(estimate: Estimate | None, factor: float, digits: int) -> str:
    if estimate is None or not np.isfinite(estimate.value):
        return "-"
    value = f"{factor * estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ± {factor * (estimate.high - estimate.low) / 2:.{digits}f}"


def plain(measured: Results) -> dict[str, Any]:
    """For JSON; numbers that are none are null."""
    return {
        "rows": [{name: _plain(value) for name, value in row.items()} for row in measured.rows],
        "explained": {
            what: {factor: effect and _plain(effect._asdict()) for factor, effect in each.items()}
            for what, each in measured.explained.items()
        },
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value if not isinstance(value, float) or np.isfinite(value) else None
