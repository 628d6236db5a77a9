"""Which measures are asked for, and with which settings."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from vitarium.core import registry
from vitarium.core.config import InvalidConfig, Problem
from vitarium.core.errors import InvalidInput, did_you_mean
from vitarium.core.registry import Section, choose

Asked = str | Section | Iterable[str | Section]


def chosen(
    measures: Asked, settings: Mapping[str, Any], images: int | None = None
) -> list[Section]:
    """The measures with their settings; several share those that they know.

    Args:
        images: also the `images` of those that have such a setting.

    Raises UnknownName, InvalidConfig, and InvalidInput where none is named.
    """
    listed = [measures] if isinstance(measures, str | Section) else list(measures)
    names = list(dict.fromkeys(name for name in listed if isinstance(name, str)))
    sections = [one for one in listed if isinstance(one, Section)]
    if not listed:
        raise InvalidInput("name a measure; `vitarium plugins measure` lists them")
    if len(names) > 1 or sections:
        _check_known(names, settings)
    for name in names:
        fields = registry.get("measure", name).config.model_fields
        shared = len(names) == 1 and not sections
        own = {key: value for key, value in settings.items() if shared or key in fields}
        if images is not None and "images" in fields:
            own.setdefault("images", images)
        sections.append(choose("measure", name, **own))
    return sections


def _check_known(names: Iterable[str], settings: Mapping[str, Any]) -> None:
    """Raises InvalidConfig for settings that none of the measures has."""
    known = {f for name in names for f in registry.get("measure", name).config.model_fields}
    problems = [
        Problem((), f"none of these measures has a setting '{name}'{did_you_mean(name, known)}")
        for name in settings
        if name not in known
    ]
    if problems:
        raise InvalidConfig(problems)


def quick() -> list[str]:
    """The measures that take no more than a forward pass, and are of single models."""
    return [
        name
        for name, plugin in registry.plugins("measure").items()
        if plugin.facts["quick"] and plugin.facts["of"] == "model"
    ]


def text(section: Section) -> str:
    """Settings as they stand in a record: JSON, defaults included, keys in order."""
    return json.dumps(section.config.factors(), sort_keys=True)


def key(section: Section) -> tuple[str, str]:
    """Tells a measure with its settings from all others."""
    return section.name, text(section)
