"""Data sets that a recipe names, on which its models are scored beside their own."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from vitarium.core.config import Config, InvalidConfig, Problem
from vitarium.core.printable import brief
from vitarium.core.registry import Section, SectionOf

_OWN_SPLITS = ("train", "val", "test")


class EvaluationSet(Config):
    """A data set, with what of it is scored and when. In a blueprint a data set alone will do."""

    data: Annotated[Section, SectionOf("dataset")]
    """The data set; its classes are found among the model's by name."""
    split: Literal["train", "val", "test", "all"] = "test"
    """Its images that are scored; all: those of its three splits."""
    epochs: Literal["all", "last"] = "all"
    """Score it after every epoch, or only when training ends."""

    @model_validator(mode="before")
    @classmethod
    def _read_data_set(cls, values: Any) -> Any:
        is_data_set = isinstance(values, str) or (isinstance(values, Mapping) and "name" in values)
        if is_data_set or isinstance(values, Section):
            return {"data": values}
        if not isinstance(values, Mapping | EvaluationSet):
            raise InvalidConfig([Problem((), f"{brief(values)} is no data set")])
        return values


class EvaluationSets(dict[str, EvaluationSet]):
    """By name; a recipe is hashed with them."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def _named(sets: dict[str, EvaluationSet]) -> EvaluationSets:
    """Raises InvalidConfig for names that are no beginnings of a metric's name."""
    problems = []
    for name in sets:
        if name in _OWN_SPLITS:
            fault = "is a split of the model's own data; choose another name"
            problems.append(Problem((name,), f"'{name}' {fault}"))
        elif not re.fullmatch(r"[a-z][a-z0-9]*", name):
            fault = f"{brief(name)} is not of small letters and digits, such as v2, whose accuracy"
            problems.append(Problem((name,), f"{fault} is v2_accuracy"))
    if problems:
        raise InvalidConfig(problems)
    return EvaluationSets(sets)


NamedEvaluationSets = Annotated[dict[str, EvaluationSet], AfterValidator(_named)]
"""Evaluation sets by names from which their metrics have theirs."""
