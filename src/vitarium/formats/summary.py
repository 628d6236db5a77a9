"""What there is to say of a whole zoo: its factors, its stages, their scores."""

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitarium.blueprint.plan import distinguishing_factors
from vitarium.zoo import Zoo
from vitarium.zoo import _index as index

SCORES = ("test_accuracy", "test_knn_accuracy", "val_accuracy", "val_knn_accuracy")
"""Metrics that tell how good a model is, the best to tell by first."""


@dataclass(frozen=True)
class Model:
    row: Mapping[str, Any]  # of `Zoo.models`
    factors: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]  # `epoch`, `kept` and metrics of each

    @property
    def stage(self) -> str:
        return str(self.row["stage"])


@dataclass(frozen=True)
class Population:
    """The models of a zoo: those without parents first, then stage by stage."""

    models: Sequence[Model]
    bytes: int  # of all their files

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(model.stage for model in self.models))

    def of(self, stage: str) -> list[Model]:
        return [model for model in self.models if model.stage == stage]

    def score(self, stage: str) -> str | None:
        """The metric that tells best how good the stage's models are; None: there is none."""
        rows = [model.row for model in self.of(stage)]
        return next((name for name in SCORES if any(_is_number(r.get(name)) for r in rows)), None)

    def scores(self, stage: str) -> list[float]:
        """That metric of each model that has it, after its last epoch."""
        name = self.score(stage)
        values = (model.row.get(name) for model in self.of(stage)) if name else ()
        return [float(value) for value in values if isinstance(value, int | float)]

    def varying(self, stage: str) -> dict[str, dict[str, int]]:
        """The factors that tell a stage's models apart: how many have each value (as text)."""
        rows = [dict(model.factors) for model in self.of(stage)]
        counts = {}
        for name in distinguishing_factors(rows):
            # numbers by size, then texts by letter
            values = sorted(
                (row[name] for row in rows if name in row),
                key=lambda value: (float(value) if _is_number(value) else math.inf, text(value)),
            )
            counts[name] = dict(Counter(map(text, values)))
        return counts


def population(zoo: Zoo, ids: Collection[str]) -> Population:
    """What is known of these models of a zoo; no weights are read."""
    rows = [row for row in index.rows(zoo.path) if row["id"] in ids]
    rows.sort(key=lambda row: (row["parent"] is not None, row["stage"], row["id"]))
    models = []
    for row in rows:
        factors = zoo.spec(row["id"]).described()
        factors.pop("name", None)  # an imported model's elsewhere
        set_factors = {key: value for key, value in factors.items() if value is not None}
        models.append(Model(row, set_factors, zoo.epochs(row["id"]).to_dict("records")))
    files = (file for id in ids for file in zoo.folder(id).path.rglob("*") if file.is_file())
    return Population(models, sum(file.stat().st_size for file in files))


def text(value: Any) -> str:
    """A factor's value as people read it."""
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
