"""Typed, frozen settings, and pydantic's complaints about them in our words."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from vitarium.core.errors import InvalidInput, did_you_mean
from vitarium.core.printable import brief, printable, shortened

KeyPath = tuple[str | int, ...]
_OF_PYDANTIC = re.compile(r"\[key\]|[\w-]+\[.*\]|(constrained-)?(int|float|str|bool)", re.DOTALL)
"""What pydantic puts into the path of a complaint: "[key]", "literal['all','last']", "int"."""


_ABSENT = {
    "pretrained": "weights are what a stage starts from: `start: {checkpoint: FILE}`, or "
    "`hf-hub:timm/NAME.TAG` for timm's; `vitarium import` brings them into a zoo",
}
"""Names that people know from elsewhere, with what there is instead."""


class Config(BaseModel):
    """Base of every configuration: its fields are generating factors of the models made with it.

    Frozen, and an unknown field is an error. A field's default never changes once released, since
    a model's id leaves defaults out: a new field's default is the behavior there was before it.
    A hyphen in a field's name is read as an underscore.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _underscores(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not any("-" in str(name) for name in values):
            return values
        names = {name: str(name).replace("-", "_") for name in values.keys() - cls.model_fields}
        meant = {n: to for n, to in names.items() if to in cls.model_fields and to not in values}
        return {meant.get(name, name): value for name, value in values.items()}

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """pydantic would read `rank: yes` as 1."""
        if not isinstance(values, dict) or not any(isinstance(v, bool) for v in values.values()):
            return values
        numbers = {n for n, field in cls.model_fields.items() if _is_number(field.annotation)}
        return {n: str(v) if type(v) is bool and n in numbers else v for n, v in values.items()}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`. Raises InvalidConfig, which lists every problem, with its path."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidConfig(problems_of(error, cls)) from None

    def changed(self, values: Mapping[str, Any]) -> Self:
        """With other values in the place of some fields."""
        return self.model_copy(update=dict(values))

    def factors(self, *, defaults: bool = True) -> dict[str, Any]:
        """The fields as plain JSON values; without those that have their default, on request."""
        return self.model_dump(mode="json", exclude_defaults=not defaults)


class NoConfig(Config):
    """For plug-ins that have nothing to set."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (a path of keys and positions), and what."""

    path: KeyPath
    message: str
    unknown: str = field(default="", compare=False)
    """The name that is no factor, where that is the problem."""

    def under(self, *prefix: str | int) -> "Problem":
        return Problem((*prefix, *self.path), self.message, self.unknown)

    def of_setting(self, owner: str) -> "Problem":
        """In words for settings of `owner`, a plug-in that no blueprint chooses."""
        if not self.unknown or len(self.path) != 1:
            return self
        hint = self.message.removeprefix(_unknown_factor(self.unknown))
        return Problem((), f"{owner} has no setting '{self.unknown}'{hint}", self.unknown)

    def is_of(self, value: Any) -> bool:
        """Whether the message quotes this value as the wrong one."""
        return self.message.startswith(brief(value))

    def __str__(self) -> str:
        where = ".".join(shortened(printable(str(key)), 60) for key in self.path)
        return f"{where}: {self.message}" if where else self.message


class InvalidConfig(InvalidInput, ValueError):
    """Values that make no configuration; a ValueError too, so that pydantic collects it."""

    def __init__(self, problems: list[Problem], heading: str = "") -> None:
        self.problems = problems
        lines = [f"  {problem}" if heading else str(problem) for problem in problems]
        super().__init__("\n".join([heading, *lines] if heading else lines))


def unknown_factor(name: str, candidates: Iterable[str], max_names: int = 12) -> str:
    """What to say of a name that is no factor, where there are these."""
    if name in _ABSENT:
        return f"{_unknown_factor(name)}: {_ABSENT[name]}"
    return f"{_unknown_factor(name)}{did_you_mean(name, candidates, max_names)}"


def _unknown_factor(name: str) -> str:
    return f"unknown factor '{name}'"


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every complaint of a pydantic error, with the nearest known name for an unknown one."""
    problems: list[Problem] = []
    for item in error.errors():
        path = tuple(key for key in item["loc"] if not _OF_PYDANTIC.fullmatch(str(key)))
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, InvalidConfig):  # a configuration inside this one
            problems.extend(problem.under(*path) for problem in cause.problems)
        else:
            message, unknown, value = item["msg"], "", item["input"]
            if item["type"] == "extra_forbidden":
                *inside, name = item["loc"]
                unknown = str(name)
                message = unknown_factor(unknown, _fields_at(model, inside))
            elif item["type"] == "missing":
                message = "missing"
            elif item["type"] == "value_error":
                message = str(cause)
            elif item["type"] == "string_type" and type(value) in (int, float):
                message = f"{value!r} is a number, not text; write it in quotes"
            elif (expected := message.removeprefix("Input should be ")) != message:
                message = f"{brief(value)} is not {expected.replace('a valid tuple', 'a list')}"
            elif item["type"] == "too_short":
                least = item["ctx"]["min_length"]
                if len(value) >= least:  # some items are wrong, which is listed
                    continue
                message = f"{brief(value)} is too short; give at least {least}"
            elif item["type"] == "too_long":
                message = f"{brief(value)} is too long; give at most {item['ctx']['max_length']}"
            problems.append(Problem(path, message, unknown))
    return problems


def _is_number(annotation: Any) -> bool:
    """Whether a type is int or float, or either of these or None."""
    inner = [kind for kind in get_args(annotation) if kind is not type(None)]
    return annotation in (int, float) or (bool(inner) and all(map(_is_number, inner)))


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names of the fields of the (nested) model at `path`."""
    for key in path:
        field = model.model_fields.get(str(key))
        inner = field.annotation if field else None
        kinds = (inner, *get_args(inner))  # it may be `Settings | None`
        inside = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inside:
            return []
        model = inside[0]
    return list(model.model_fields)
