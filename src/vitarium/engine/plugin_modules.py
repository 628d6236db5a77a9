"""Plug-ins from outside of vitarium, made known to worker processes."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from vitarium.blueprint import Plan
from vitarium.core.errors import InvalidInput
from vitarium.core.outside_modules import PROGRAM, outside_modules
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section

_VARIABLE = "VITARIUM_PLUGINS"


@contextmanager
def known_to_workers(plan: Plan) -> Iterator[None]:
    """Inside, processes that are started import the modules of all plug-ins that a plan uses.

    Raises InvalidInput for a plug-in that is defined in the program itself, or in a notebook.
    """
    used = {section for model in plan.models for section in _sections(model)}
    modules = {section: section.plugin.function.__module__ for section in used}
    for section, module in modules.items():
        if module == PROGRAM:
            in_process = parameter("workers", 0)
            raise InvalidInput(
                f"{section.kind} '{section.name}' is defined in the program itself, which worker "
                f"processes cannot import: put it into a module of its own, or train in this "
                f"process: {in_process}"
            )
    before = os.environ.get(_VARIABLE)
    named = [*filter(None, (before or "").split(",")), *outside_modules(sorted(modules.values()))]
    os.environ[_VARIABLE] = ",".join(dict.fromkeys(named))
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE)
        if before is not None:
            os.environ[_VARIABLE] = before


def _sections(value: Any) -> Iterator[Section]:
    """All that are chosen in a configuration, those within others too."""
    if isinstance(value, Section):
        if not value.is_missing:
            yield value
        yield from _sections(value.config)
    elif isinstance(value, BaseModel):
        for _, inner in value:
            yield from _sections(inner)
    elif isinstance(value, Mapping):
        yield from _sections(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _sections(inner)
