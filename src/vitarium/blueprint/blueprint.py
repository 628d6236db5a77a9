"""A blueprint: the stages of a zoo, as a YAML file says them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from pydantic import Field, PrivateAttr, field_validator

from vitarium.blueprint._raw_values import with_named_stages, without
from vitarium.blueprint.hints import hinted_at_top
from vitarium.blueprint.numerics import Numerics
from vitarium.blueprint.overrides import apply
from vitarium.blueprint.parents import Check, Find
from vitarium.blueprint.planning import Planner, UnknownParent
from vitarium.blueprint.stage import Stage, Start
from vitarium.blueprint.stage_name import check_stage_name
from vitarium.blueprint.yaml_file import YamlFile
from vitarium.core.config import Config, InvalidConfig, Problem
from vitarium.core.errors import InvalidInput, UnknownName, UnusablePath, did_you_mean
from vitarium.core.file_faults import reading
from vitarium.core.filenames import user_path
from vitarium.core.printable import brief

_LIBRARY = files("vitarium.blueprint") / "library"


class Blueprint(Config):
    """What to grow. Read one with `Blueprint.load`; plan it with `vitarium.plan`.

    Written in Python it takes the same nesting: `Blueprint.read({"name": ..., "stages": ...})`.
    Stages may stand in a list, too, each with its `name`.
    """

    vitarium: Literal[1] = 1
    """Version of the blueprint's format."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    description: str = ""
    paper: str = ""
    numerics: Numerics = Numerics()
    """How its models are computed, where that is left open when it is grown."""
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

    @classmethod
    def read(
        cls, values: Mapping[str, Any], find: Find | None = None, check: Check | None = None
    ) -> Self:
        """Validate `values`. Raises InvalidConfig, which lists every problem, with its path.

        `find` and `check` are as of `vitarium.plan`: with them the models of stages that are right
        are looked at, too, where others are wrong.
        """
        problems: list[Problem] = []
        values = with_named_stages(values)
        rest: dict[str, Any] | None = dict(values)
        while rest is not None:
            try:
                blueprint = super().read(rest)
                break
            except InvalidConfig as error:
                problems += map(hinted_at_top, error.problems)
                rest = without(rest, error.problems)
        if not problems:
            return blueprint
        if rest is not None:
            unreadable = dict(values["stages"]).keys() - blueprint.stages.keys()
            problems += Planner(blueprint.stages, find or _not_here, check, unreadable).problems
        raise InvalidConfig(list(dict.fromkeys(problems)))

    def refusal(self, problems: list[Problem]) -> InvalidConfig:
        """The error that lists these problems, with their lines where a file was read."""
        return _located(problems, self._file) if self._file else InvalidConfig(problems)

    @property
    def samples(self) -> dict[str, str]:
        """By stage, of those whose factors are sampled: how, and which, in a line."""
        return {name: str(stage.sample) for name, stage in self.stages.items() if stage.sample}

    @property
    def text(self) -> str:
        """The file that was read, or "" for a blueprint made in Python."""
        return self._file.text if self._file else ""

    @classmethod
    def load(
        cls, source: str | Path, find: Find | None = None, check: Check | None = None
    ) -> "Blueprint":
        """Read a blueprint: a YAML file's path, or the name of one that vitarium ships.

        `find` and `check` are as of `read`. Raises InvalidConfig that lists every problem with its
        line and path, and UnknownName.
        """
        values, file = read_values(source)
        with _in_file(file):
            blueprint = Blueprint.read(values, find, check)
        blueprint._file = file
        return blueprint


def read_values(source: str | Path) -> tuple[dict[str, Any], YamlFile]:
    """What a blueprint says, with what it extends, before it is validated; and its file.

    Raises InvalidInput for no YAML, InvalidConfig for what it cannot extend, and UnknownName.
    """
    file = YamlFile.read(_find(source))
    values = file.values
    if not isinstance(values, dict):
        raise InvalidConfig([Problem((), f"{file.name}: not a mapping with 'stages'")])
    return (_extend(values, file, ()) if "extends" in values else values), file


def _not_here(start: Start) -> NoReturn:
    raise UnknownParent


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
    with _in_file(base_file):
        inherited = with_named_stages(inherited)
    additions = {k: v for k, v in values.items() if k not in ("extends", "override")}
    try:
        return {**apply(inherited, values.get("override", {})), **additions}
    except KeyError as error:
        problem = Problem(("override", str(error.args[0])), f"'{base}' has no such place")
        raise _located([problem], file) from None


@contextmanager
def _in_file(file: YamlFile) -> Iterator[None]:
    """What is wrong inside is located in the file."""
    try:
        yield
    except InvalidConfig as error:
        raise _located(error.problems, file) from None


def _located(problems: list[Problem], file: YamlFile) -> InvalidConfig:
    located = []
    lines = [(file.line(problem.path) or 0, problem) for problem in problems]
    for number, problem in sorted(lines, key=lambda line: line[0]):
        line = f" (line {number})" if number else ""
        located.append(Problem(problem.path, problem.message + line))
    return InvalidConfig(located, f"{file.name} is not a valid blueprint:")


def _find(source: str | Path, beside: Path | None = None) -> Path:
    source_path = user_path(source)
    paths = [source_path, *([beside / source_path] if beside else [])]
    if isinstance(source, str) and "/" not in source:
        paths.insert(0, Path(str(_LIBRARY / f"{source.replace('_', '-')}.yaml")))
    for path in paths:
        with suppress(UnusablePath), reading(path):  # longer than any file's name
            if path.is_file():
                return path
    names = [entry.name.removesuffix(".yaml") for entry in _LIBRARY.iterdir()]
    error = UnknownName("blueprint", str(source), names)
    what = "no such file, and no blueprint of vitarium's has that name"
    hint = did_you_mean(str(source), names)
    error.args = (f"unknown blueprint {brief(str(source))}: {what}{hint}",)
    raise error
