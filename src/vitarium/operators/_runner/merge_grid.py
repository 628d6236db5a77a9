"""Merge by several settings of one method: a model of the zoo for each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.blueprint.overrides import combinations
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section, choose, get
from vitarium.measures._runner.measure import measure
from vitarium.operators._runner.merge import merge
from vitarium.operators.base import RUNNER_OPTIONS
from vitarium.zoo import Model, Zoo
from vitarium.zoo.listing import select
from vitarium.zoo.model import ModelNames

if TYPE_CHECKING:
    import pandas as pd

MAX_MODELS = 1000
"""That one call makes."""
_MEASURES = ("parameters", "flops", "accuracy")
_OF_MEASURE = ("data", "normalization", "device", "data_dir")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class MergedModels:
    """What a method made by several settings.

    settings: those that vary, by the id of each model, in the order in which they were made.
    """

    zoo: Zoo
    settings: Mapping[str, Settings]
    _options: Mapping[str, Any] = field(repr=False)

    @property
    def models(self) -> list[Model]:
        """The models, in the same order."""
        return [self.zoo[id] for id in self.settings]

    @cached_property
    def comparison(self) -> "pd.DataFrame":
        """A row per model: its settings, parameters, multiply_adds (of one image's forward pass),
        accuracy (on test images), and refused: why one of these is missing, or "". What was
        measured before is read."""
        import pandas as pd

        table = measure(self.zoo, list(_MEASURES), models=list(self.settings), **self._options)
        rows = []
        for id, settings in self.settings.items():
            own = table[(table["model"] == id) & (table["part"] == "")].set_index("measure")
            size, operations, accuracy = (float(own.at[name, "value"]) for name in _MEASURES)
            values = {"parameters": size, "multiply_adds": operations / 2, "accuracy": accuracy}
            reasons = "; ".join(dict.fromkeys(filter(None, own["refused"])))
            rows.append({"model": id, **settings, **values, "refused": reasons})
        return pd.DataFrame(rows)


def merge_grid(
    zoo: Zoo | str | Path,
    method: str,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    models: ModelNames | None = None,
    where: str = "",
    progress: Progress = SILENT,
    **options: Any,
) -> MergedModels:
    """Merge once for every combination of some settings; the results are models of the zoo.

        vitarium.merge_grid(zoo, "matvit_member", models=["3f2a"])  # all members
        vitarium.merge_grid(zoo, "supernet_member", {"depth": [2, 4]}, models=["3f2a"])
        vitarium.merge_grid(zoo, "slerp", {"t": [0.25, 0.5, 0.75]}, models=[first, second])

    All settings are checked before anything is computed. What is in the zoo is not made again, so
    the same call goes on where an earlier one was stopped.

    Args:
        method: name of the operator.
        grid: values of settings by name, of which every combination is taken; None: every model
            that is inside of one, where the method knows them.
        models, where: as of `merge`. Of methods that take one model, each is taken by itself.
        progress: is told how many models there are.
        options: all others of `merge`, and settings of the method that are the same for all.

    Raises as `merge`, and InvalidInput for more than 1,000 models.
    """
    zoo, operator = Zoo.open(zoo), get("operator", method)
    selected = select(zoo, models, where, "merge")
    takes_one = operator.facts["epochs"] or operator.facts["models"] == (1, 1)
    groups = [[model] for model in selected] if takes_one else [selected]
    fixed = {name: value for name, value in options.items() if name not in RUNNER_OPTIONS}
    lists: dict[str, list[Any]] | None = None
    if grid is not None:
        _check_grid(grid, fixed, len(groups))
        lists = {name: [*values] for name, values in grid.items()}
    requests: list[tuple[list[str], Settings]] = []
    for group in groups:
        inside = lists is None
        points = members(zoo, operator.name, group, fixed) if inside else combinations(lists or {})
        requests += [(group, point) for point in points]
        _check_count(operator.name, len(requests))
    for group, point in requests:
        _check(zoo, choose("operator", operator.name, **fixed, **point), group)
    merged: dict[str, Settings] = {}
    for done, (group, point) in enumerate(requests):
        progress.step(operator.name, done, len(requests))
        merged[merge(zoo, operator.name, models=group, **options, **point).id] = point
    progress.step(operator.name, len(requests), len(requests))
    own = {name: options[name] for name in _OF_MEASURE if name in options}
    return MergedModels(zoo, merged, {**own, "progress": progress})


def _check_grid(grid: Mapping[str, Sequence[Any]], fixed: Settings, groups: int) -> None:
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InvalidInput(f"grid: {name} needs a list of values, not {values!r}")
        if name in RUNNER_OPTIONS or name in fixed:
            reason = "is the same for all" if name in RUNNER_OPTIONS else "has a value already"
            raise InvalidInput(f"grid: {name} {reason}; leave it out of one of both")
    _check_count("grid", groups * math.prod(len(values) for values in grid.values()))


def _check_count(what: str, count: int) -> None:
    if count > MAX_MODELS:
        raise InvalidInput(
            f"{what}: that would make {count:,} models, and at most {MAX_MODELS:,} are made at a "
            f"time; give fewer values: {parameter('grid', {'NAME': ['VALUE']})}"
        )


def members(zoo: Zoo, name: str, group: list[str], fixed: Settings) -> Iterator[Settings]:
    """The settings of every model inside of one, beside those that all have (`fixed`)."""
    operator = get("operator", name)
    if operator.facts["members"] is None:
        raise InvalidInput(
            f"{name}: which settings to take is not known; name values of some: "
            f"{parameter('grid', {'NAME': ['VALUE']})}"
        )
    (model,) = group
    ref = zoo.at(model)
    try:
        yield from operator.facts["members"](zoo[ref.model], fixed)
    except IncompatibleWeights as error:
        raise IncompatibleWeights(f"{ref}: {error}") from None


def _check(zoo: Zoo, operator: Section, group: list[str]) -> None:
    """Raises IncompatibleWeights where the result's architecture is none, before anything is."""
    if change := operator.plugin.facts["architecture"]:
        refs = [zoo.at(model) for model in group]
        try:
            change(operator.config, *(zoo.spec(ref.model).origin.architecture for ref in refs))
        except IncompatibleWeights as error:
            raise IncompatibleWeights(f"{refs[0]}: {error}") from None
