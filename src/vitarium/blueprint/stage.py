"""Stages of a blueprint: settings, grids and variants, and what their models start from."""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from vitarium.blueprint.hints import unknown_at_stage
from vitarium.blueprint.overrides import apply, combinations
from vitarium.blueprint.recipe import TRAINABLE, Recipe
from vitarium.blueprint.sampling import Sample, plain_paths
from vitarium.core.config import Config, InvalidConfig, KeyPath, Problem
from vitarium.core.printable import brief
from vitarium.core.registry import Section, SectionOf

SCRATCH = "scratch"


class Start(Config):
    """What the models of a stage start from: every model of an earlier stage, or of a choice of the
    zoo's models, after an epoch."""

    stage: str = ""
    models: tuple[str, ...] = ()
    """Instead of a stage: models of the zoo, by their ids or beginnings of them; `3f2a@5` is the
    model after epoch 5."""
    where: str = ""
    """Instead of a stage: an SQL condition for models of the zoo, as of `vitarium ls`."""
    checkpoint: str = ""
    """Instead of a stage: a file or folder of one model's weights, of any format that `vitarium
    import` reads, or `hf-hub:REPO` on the Hugging Face hub; it becomes a model of the zoo."""
    importer: str = ""
    """What reads the checkpoint, see `vitarium plugins importer`; none: what recognizes it."""
    importer_settings: dict[str, JsonValue] = {}
    """Of the importer, e.g. {architecture: {num_heads: 3}} for a file that does not tell."""
    epoch: int = Field(-1, ge=-1)
    """The parent's epoch; -1 is its last."""
    operator: Annotated[Section, SectionOf("operator")] | None = None
    """Makes of the parent what training starts from, e.g. `minivit`; it decides the architecture,
    of which the stage may set only what it says nothing of, such as drop_path_rate."""
    keep_head: bool = False
    """Start from the parent's head, too, instead of a new one."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if sum(map(bool, (self.stage, self.models, self.where, self.checkpoint))) != 1:
            raise ValueError(
                "name a stage, models of the zoo by `models` or by `where`, or a `checkpoint`: one "
                "of these"
            )
        if (self.importer or self.importer_settings) and not self.checkpoint:
            raise ValueError("an importer reads a `checkpoint`, and none is named")
        if self.operator:
            check_conversion(self.operator)
        return self


def check_conversion(operator: Section) -> None:
    """Raises InvalidConfig for an operator that makes nothing of one model's weights alone."""
    facts = operator.plugin.facts
    if facts["models"] != (1, 1) or any(facts[n] for n in ("needs_base", "split", "epochs")):
        message = f"'{operator.name}' does not work on the weights of one model, as 'minivit' does"
        raise InvalidConfig([Problem(("operator",), message)])


def _split(values: Any, rest: str, keywords: tuple[str, ...]) -> dict[str, Any]:
    """A mapping's keywords, and under the key `rest` what stands beside them in the file."""
    if not isinstance(values, dict):
        raise ValueError(f"{brief(values)} is not a mapping of factors to values")
    fields = {key: values[key] for key in keywords if key in values}
    return {rest: {k: v for k, v in values.items() if k not in keywords}, **fields}


def _lists(grid: Any) -> Any:
    """Raises InvalidConfig with what to write for each factor that has no list of values."""
    problems = []
    for path, value in grid.items() if isinstance(grid, dict) else ():
        if isinstance(value, dict):
            form = f"write each factor by its path, as {path}.{next(iter(value), 'NAME')}: [...]"
            problems.append(Problem((path,), f"{brief(value)} is not a list of values; {form}"))
        elif not isinstance(value, list | tuple):
            message = f"{brief(value)} is not a list of values; write [{brief(value)}]"
            problems.append(Problem((path,), message))
    if problems:
        raise InvalidConfig(problems)
    return grid


Factors = Annotated[dict[str, Any], AfterValidator(plain_paths)]
Grid = Annotated[dict[str, list[Any]], BeforeValidator(_lists), AfterValidator(plain_paths)]


class Variant(Config):
    """One of several ways to fill a stage: overrides, and a grid of its own.

    In the file its overrides stand beside `grid`: `{objective: simclr, grid: {seed: [1, 2]}}`.
    """

    overrides: Factors = {}
    grid: Grid = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        return _split(values, "overrides", ("grid",))


class Stage(Config):
    """Settings that all models of a stage share, and the factors in which they differ.

    In the file the settings stand beside `grid`, `sample` and `variants`; they are the fields of
    Recipe, and `start`. A stage grows each variant (one, if none is given) at each point of the
    grid and of the sample, once for each model of the stage that it starts from.
    """

    settings: Factors
    grid: Grid = {}
    sample: Sample | None = None
    variants: list[Variant] = [Variant()]

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        return _split(values, "settings", ("grid", "sample", "variants"))

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems: list[Problem] = []
        factors: dict[KeyPath, dict[str, Any]] = {(): self.settings, ("grid",): self.grid}
        for i, variant in enumerate(self.variants):
            factors[("variants", i)] = variant.overrides
            factors[("variants", i, "grid")] = variant.grid
        if self.sample:
            factors[("sample", "factors")] = self.sample.space
        for where, values_by_path in factors.items():
            for path, values in values_by_path.items():
                first = path.partition(".")[0]
                if first not in (*Recipe.model_fields, TRAINABLE, "start"):
                    message = unknown_at_stage(first, self.settings)
                    problems.append(Problem((*where, path), message))
                if where[-1:] == ("grid",) and not values:
                    message = "an empty list gives no model; give it a value"
                    problems.append(Problem((*where, path), message))
        if "grid" in self.model_fields_set and not self.grid:
            problems.append(Problem(("grid",), "names no factor; leave it out"))
        problems += self._sample_problems()
        if not self.variants:
            message = "an empty list gives no model; leave it out"
            problems.append(Problem(("variants",), message))
        if problems:
            raise InvalidConfig(problems)
        return self

    def _sample_problems(self) -> Iterator[Problem]:
        sample = self.sample
        if sample is None:
            return
        if not sample.space:
            message = "names no factor; write e.g. optimizer.lr: {log_uniform: [1e-4, 1e-2]}"
            yield Problem(("sample", "factors"), message)
        varied = dict.fromkeys(self.grid, "grid")
        for i, variant in enumerate(self.variants):
            varied |= dict.fromkeys({**variant.overrides, **variant.grid}, f"variants.{i}")
        for path in filter(varied.__contains__, sample.space):
            message = f"'{varied[path]}' varies it, too; leave it out of one of them"
            yield Problem(("sample", "factors", path), message)

    def points(self) -> Iterator[tuple[dict[str, Any], dict[str, KeyPath]]]:
        """The settings of every model, and for each factor that was set apart where it stands."""
        samples = list(self.sample.points()) if self.sample else [{}]
        for i, variant in enumerate(self.variants):
            paths: dict[str, KeyPath] = {path: ("grid", path) for path in self.grid}
            paths |= {path: ("variants", i, path) for path in variant.overrides}
            paths |= {path: ("variants", i, "grid", path) for path in variant.grid}
            paths |= {path: ("sample", "factors", path) for path in samples[0]}
            base = apply(self.settings, variant.overrides)
            for choice in combinations({**self.grid, **variant.grid}):
                for point in samples:
                    yield apply(base, {**choice, **point}), paths
