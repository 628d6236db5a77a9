"""One way to say which rule a plug-in breaks, and to choose it as its tests do."""

from collections.abc import Mapping
from typing import Any

from vitarium.core.registry import Section, choose, get


def require(holds: bool, kind: str, name: str, rule: str) -> None:
    """Raises AssertionError unless the rule holds."""
    if not holds:
        raise AssertionError(f"{kind} '{name}': {rule}")


def tiny_section(kind: str, name: str, settings: Mapping[str, Any] | None = None) -> Section:
    """The plug-in with its `tiny` settings, and those given in their place."""
    tiny = get(kind, name).facts.get("tiny") or {}
    return choose(kind, name, **{**tiny, **(settings or {})})
