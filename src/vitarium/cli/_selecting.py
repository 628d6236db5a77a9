"""Which models a command works on: those that are named, and those that fulfill a condition."""

from collections.abc import Sequence

from vitarium.core.errors import InvalidInput
from vitarium.zoo import Zoo


def selected(zoo: Zoo, models: Sequence[str] | None, where: str, verb: str) -> list[str]:
    """Each once, the named ones first. Raises InvalidInput where there are none."""
    from vitarium.zoo.listing import listing

    if not models and not where:
        raise InvalidInput(f"say which models to {verb}: their ids, or a condition (--where SQL)")
    named = [*(models or ())]
    if where:
        matching = [row["model"] for row in listing(zoo.path, where=where).rows]
        if not matching:
            raise InvalidInput(f"no model fulfills the condition {where}")
        named += [id for id in matching if id not in named]
    return named
