"""What there is to say of a whole zoo: its factors, its stages, their scores."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitarium.blueprint.plan import telling
from vitarium.zoo import Zoo
from vitarium.zoo import _index as index

SCORES = ("test_accuracy", "test_knn_accuracy", "val_accuracy", "val_knn_accuracy")
"""Metrics that tell how good a model is, the best to tell by first."""


@dataclass(frozen=True)
class Model:
    """A model's row of `Zoo.models`, its factors alone, and its epochs."""

    row: Mapping[str, Any]
    factors: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    """`epoch`, `kept` and metrics of each."""

    @property
    def stage(self) -> str:
        return str(self.row["stage"])


@dataclass(frozen=True)
class Population:
    """The models of a zoo: those without parents first, then stage by stage."""

    models: Sequence[Model]
    bytes: int
    """Of all their files."""

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(model.stage for model in self.models))

    def of(self, stage: str) -> list[Model]:
        return [model for model in self.models if model.stage == stage]

    @property
    def checkpoints(self) -> int:
        return sum(bool(epoch["kept"]) for model in self.models for epoch in model.epochs)

    def score(self, stage: str) -> str | None:
        """The metric that tells best how good the stage's models are; None: there is none."""
        rows = [model.row for model in self.of(stage)]
        return next((name for name in SCORES if any(_number(r, name) for r in rows)), None)

    def scores(self, stage: str) -> list[float]:
        """That metric of each model that has it, after its last epoch."""
        name = self.score(stage)
        values = (model.row.get(name) for model in self.of(stage)) if name else ()
        return [float(value) for value in values if isinstance(value, int | float)]

    def spread(self, stage: str) -> tuple[float, float, float] | None:
        """Smallest, median and largest score; None where there is none."""
        scores = self.scores(stage)
        return (min(scores), statistics.median(scores), max(scores)) if scores else None

    def varying(self, stage: str) -> dict[str, dict[str, int]]:
        """The factors that tell a stage's models apart: each value (as text), and how many models
        have it."""
        rows = [dict(model.factors) for model in self.of(stage)]
        return {
            name: dict(
                Counter(map(text, sorted((row[name] for row in rows if name in row), key=_order)))
            )
            for name in telling(rows)
        }


def population(zoo: Zoo, ids: Collection[str]) -> Population:
    """What is known of these models of a zoo; no weights are read."""
    rows = [row for row in index.rows(zoo.path) if row["id"] in ids]
    rows.sort(key=lambda row: (row["parent"] is not None, row["stage"], row["id"]))
    models = [
        Model(row, _factors(zoo, row["id"]), zoo.epochs(row["id"]).to_dict("records"))
        for row in rows
    ]
    return Population(models, sum(_bytes(zoo, model) for model in ids))


def text(value: Any) -> str:
    """A factor's value as people read it."""
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)


def _order(value: Any) -> tuple[float, str]:
    """Numbers by size, then texts by letter."""
    number = isinstance(value, int | float)
    return (float(value) if number else math.inf, text(value))


def _number(row: Mapping[str, Any], name: str) -> bool:
    return isinstance(row.get(name), int | float)


def _factors(zoo: Zoo, id: str) -> dict[str, Any]:
    """Those that are set; the name that an imported model has elsewhere is none."""
    spec = zoo.spec(id)
    operator = {"operator": spec.operator.name} if spec.operator else {}
    factors = {**operator, **spec.described()}
    return {key: value for key, value in factors.items() if value is not None and key != "name"}


def _bytes(zoo: Zoo, id: str) -> int:
    files = zoo.folder(id).path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
