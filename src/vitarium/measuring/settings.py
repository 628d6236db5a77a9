"""Which measures are asked for, and with which settings."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from vitarium import registry
from vitarium.config import InvalidConfig, Problem
from vitarium.errors import InvalidInput, did_you_mean
from vitarium.registry import Section, choose

Asked = str | Section | Iterable[str | Section]


def chosen(measures: Asked, settings: Mapping[str, Any]) -> list[Section]:
    """The measures with their settings; several share those that they know.

    Raises UnknownName, InvalidConfig, and InvalidInput where none is named.
    """
    listed = [measures] if isinstance(measures, str | Section) else measures
    named = list(dict.fromkeys(listed))
    if not named:
        raise InvalidInput("name a measure; `vitarium plugins measure` lists them")
    if len(named) == 1 and isinstance(named[0], str):
        return [choose("measure", named[0], **settings)]
    found = [name if isinstance(name, Section) else _choose(name, settings) for name in named]
    known = {
        field
        for name in named
        if isinstance(name, str)
        for field in registry.get("measure", name).config.model_fields
    }
    problems = [
        Problem((), f"none of these measures has a setting '{name}'{did_you_mean(name, known)}")
        for name in settings
        if name not in known
    ]
    if problems:
        raise InvalidConfig(problems)
    return found


def _choose(name: str, settings: Mapping[str, Any]) -> Section:
    fields = registry.get("measure", name).config.model_fields
    return choose("measure", name, **{k: v for k, v in settings.items() if k in fields})


def quick() -> list[str]:
    """The measures that take no more than a forward pass, and are of single models."""
    return [
        name
        for name, plugin in registry.plugins("measure").items()
        if plugin.facts.get("quick", True) and plugin.facts["of"] == "model"
    ]


def text(section: Section) -> str:
    """Settings as they stand in a record: JSON, defaults included, keys in order."""
    return json.dumps(section.config.factors(), sort_keys=True)


def key(section: Section) -> tuple[str, str]:
    """Tells a measure with its settings from all others."""
    return section.name, text(section)
