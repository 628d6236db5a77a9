"""A blueprint: the stages of a zoo, as a YAML file says them."""

from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from vitarium.blueprint.overrides import apply, combinations
from vitarium.blueprint.recipe import Recipe
from vitarium.blueprint.stage_name import check_stage_name
from vitarium.blueprint.yaml_file import YamlFile
from vitarium.core.config import Config, InvalidConfig, KeyPath, Problem
from vitarium.core.errors import InvalidInput, UnknownName, UnusablePath, did_you_mean
from vitarium.core.file_faults import reading
from vitarium.core.registry import Section, SectionOf

SCRATCH = "scratch"
_LIBRARY = files("vitarium.blueprint") / "library"


class Start(Config):
    """What the models of a stage start from: every model of an earlier stage, or of a choice of the
    zoo's models, after an epoch."""

    stage: str = ""
    models: tuple[str, ...] = ()
    """Instead of a stage: models of the zoo, by their ids or beginnings of them."""
    where: str = ""
    """Instead of a stage: an SQL condition for models of the zoo, as of `vitarium ls`."""
    epoch: int = Field(-1, ge=-1)
    """The parent's epoch; -1 is its last."""
    operator: Annotated[Section, SectionOf("operator")] | None = None
    """Makes of the parent what training starts from, e.g. `minivit`; it decides the architecture,
    of which the stage may set only what it says nothing of, such as drop_path_rate."""
    keep_head: bool = False
    """Start from the parent's head, too, instead of a new one."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if sum(map(bool, (self.stage, self.models, self.where))) != 1:
            raise ValueError("name a stage, or models of the zoo by `models` or by `where`: one of")
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
        raise ValueError(f"{values!r} is not a mapping of factors to values")
    fields = {key: values[key] for key in keywords if key in values}
    return {rest: {k: v for k, v in values.items() if k not in keywords}, **fields}


class Variant(Config):
    """One of several ways to fill a stage: overrides, and a grid of its own.

    In the file its overrides stand beside `grid`: `{objective: simclr, grid: {seed: [1, 2]}}`.
    """

    overrides: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        return _split(values, "overrides", ("grid",))


class Stage(Config):
    """Settings that all models of a stage share, and the factors in which they differ.

    In the file the settings stand beside `grid` and `variants`; they are the fields of Recipe,
    and `start`. A stage grows each variant (one, if none is given) at each point of the grid, once
    for each model of the stage that it starts from.
    """

    settings: dict[str, Any]
    grid: dict[str, list[Any]] = {}
    variants: list[Variant] = [Variant()]

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        return _split(values, "settings", ("grid", "variants"))

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems: list[Problem] = []
        factors: dict[KeyPath, dict[str, Any]] = {(): self.settings, ("grid",): self.grid}
        for i, variant in enumerate(self.variants):
            factors[("variants", i)] = variant.overrides
            factors[("variants", i, "grid")] = variant.grid
        known = [*Recipe.model_fields, "start"]
        for where, values_by_path in factors.items():
            for path, values in values_by_path.items():
                first = path.partition(".")[0]
                if first not in known:
                    hint = did_you_mean(first, [*known, "grid", "variants"], max_names=20)
                    problems.append(Problem((*where, path), f"unknown factor '{first}'{hint}"))
                if where[-1:] == ("grid",) and not values:
                    message = "an empty list gives no model; give it a value"
                    problems.append(Problem((*where, path), message))
        if "grid" in self.model_fields_set and not self.grid:
            problems.append(Problem(("grid",), "names no factor; leave it out"))
        if not self.variants:
            message = "an empty list gives no model; leave it out"
            problems.append(Problem(("variants",), message))
        if problems:
            raise InvalidConfig(problems)
        return self

    def points(self) -> Iterator[tuple[dict[str, Any], dict[str, KeyPath]]]:
        """The settings of every model, and for each factor that was set apart where it stands."""
        for i, variant in enumerate(self.variants):
            paths: dict[str, KeyPath] = {path: ("grid", path) for path in self.grid}
            paths |= {path: ("variants", i, path) for path in variant.overrides}
            paths |= {path: ("variants", i, "grid", path) for path in variant.grid}
            base = apply(self.settings, variant.overrides)
            for choice in combinations({**self.grid, **variant.grid}):
                yield apply(base, choice), paths


class Blueprint(Config):
    """What to grow. Read one with `Blueprint.load`; plan it with `vitarium.plan`.

    Written in Python it takes the same nesting: `Blueprint.read({"name": ..., "stages": ...})`.
    """

    vitarium: Literal[1] = 1
    """Version of the blueprint's format."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    description: str = ""
    paper: str = ""
    stages: dict[str, Stage] = Field(min_length=1)

    @field_validator("stages", mode="before")
    @classmethod
    def _check_names(cls, stages: Any) -> Any:
        problems = []
        for name in stages if isinstance(stages, dict) else ():
            try:
                check_stage_name(str(name))
            except InvalidInput as error:
                problems.append(Problem((str(name),), str(error)))
        if problems:
            raise InvalidConfig(problems)
        return stages

    _file: YamlFile | None = PrivateAttr(None)

    def refusal(self, problems: list[Problem]) -> InvalidConfig:
        """The error that lists these problems, with their lines where a file was read."""
        return _located(problems, self._file) if self._file else InvalidConfig(problems)

    @property
    def text(self) -> str:
        """The file that was read, or "" for a blueprint made in Python."""
        return self._file.text if self._file else ""

    @classmethod
    def load(cls, source: str | Path) -> "Blueprint":
        """Read a blueprint: a YAML file's path, or the name of one that vitarium ships.

        Raises InvalidConfig that lists every problem with its line and path, and UnknownName.
        """
        file = YamlFile.read(_find(source))
        values = file.values
        if not isinstance(values, dict):
            raise InvalidConfig([Problem((), f"{file.name}: not a mapping with 'stages'")])
        if "extends" in values:
            values = _extend(values, file, ())
        try:
            blueprint = Blueprint.read(values)
        except InvalidConfig as error:
            raise _located(error.problems, file) from None
        blueprint._file = file
        return blueprint


def library() -> dict[str, Blueprint]:
    """The blueprints that vitarium ships, by name."""
    names = sorted(entry.name for entry in _LIBRARY.iterdir() if entry.name.endswith(".yaml"))
    return {(short := name.removesuffix(".yaml")): Blueprint.load(short) for name in names}


def _extend(values: dict[str, Any], file: YamlFile, above: tuple[str, ...]) -> dict[str, Any]:
    base = str(values["extends"])
    if base in above:
        raise InvalidConfig([Problem(("extends",), f"'{base}' extends itself")], file.name)
    try:
        base_file = YamlFile.read(_find(base, beside=Path(file.name).parent))
    except UnknownName as error:
        raise InvalidConfig([Problem(("extends",), str(error))], file.name) from None
    inherited = base_file.values
    if not isinstance(inherited, dict):
        raise InvalidConfig([Problem(("extends",), f"{base_file.name} is no blueprint")], file.name)
    if "extends" in inherited:
        inherited = _extend(inherited, base_file, (*above, base))
    additions = {k: v for k, v in values.items() if k not in ("extends", "override")}
    try:
        return {**apply(inherited, values.get("override", {})), **additions}
    except KeyError as error:
        problem = Problem(("override", str(error.args[0])), f"'{base}' has no such place")
        raise _located([problem], file) from None


def _located(problems: list[Problem], file: YamlFile) -> InvalidConfig:
    located = []
    for problem in problems:
        line = f" (line {number})" if (number := file.line(problem.path)) else ""
        located.append(Problem(problem.path, problem.message + line))
    return InvalidConfig(located, f"{file.name} is not a valid blueprint:")


def _find(source: str | Path, beside: Path | None = None) -> Path:
    paths = [Path(source), *([beside / source] if beside else [])]
    if isinstance(source, str) and "/" not in source:
        paths.insert(0, Path(str(_LIBRARY / f"{source}.yaml")))
    for path in paths:
        with suppress(UnusablePath), reading(path):  # longer than any file's name
            if path.is_file():
                return path
    names = [entry.name.removesuffix(".yaml") for entry in _LIBRARY.iterdir()]
    is_file = Path(source).suffix in (".yaml", ".yml")
    kind = f"blueprint{' (no such file, and none of that name is shipped)' if is_file else ''}"
    raise UnknownName(kind, str(source), names)
