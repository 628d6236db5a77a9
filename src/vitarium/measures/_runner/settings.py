"""The requested measures and their settings."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from vitarium.core import registry
from vitarium.core.config import InvalidConfig, Problem
from vitarium.core.errors import InvalidInput, did_you_mean
from vitarium.core.registry import Section, choose

Measures = str | Section | Iterable[str | Section]


def chosen(
    measures: Measures, settings: Mapping[str, Any], images: int | None = None
) -> list[Section]:
    """The measures with their settings; of several, each takes those that it has.

    Args:
        images: also the `images` of those that have such a setting.

    Raises UnknownName, InvalidConfig, and InvalidInput where none is named.
    """
    listed = [measures] if isinstance(measures, str | Section) else list(measures)
    names = list(dict.fromkeys(name for name in listed if isinstance(name, str)))
    sections = [section for section in listed if isinstance(section, Section)]
    if not listed:
        raise InvalidInput("name a measure; `vitarium plugins measure` lists them")
    if len(names) > 1 or sections:
        _check_known(names, settings)
    for name in names:
        fields = registry.get("measure", name).config.model_fields
        shared = len(names) == 1 and not sections
        accepted = {key: value for key, value in settings.items() if shared or key in fields}
        if images is not None and "images" in fields:
            accepted.setdefault("images", images)
        sections.append(choose("measure", name, **accepted))
    return sections


def _check_known(names: Iterable[str], settings: Mapping[str, Any]) -> None:
    """Raises InvalidConfig for settings that none of the measures has."""
    fields = {f for name in names for f in registry.get("measure", name).config.model_fields}
    problems = [
        Problem((), f"none of these measures has a setting '{name}'{did_you_mean(name, fields)}")
        for name in settings
        if name not in fields
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
    """Identifies a measure with its settings."""
    return section.name, text(section)
