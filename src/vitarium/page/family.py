"""A model beside its family, from the zoo's tables: also where its plug-ins are not installed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitarium.page.models_table import group_of
from vitarium.zoo import Zoo
from vitarium.zoo.query import Database


@dataclass(frozen=True)
class Family:
    """Of a model; values as the table `models` has them in SQL, without those that are NULL."""

    facts: Mapping[str, Any]
    factors: Mapping[str, Any]
    """By dotted names: all that generated the model."""
    trained: Mapping[str, Any]
    """With what it was trained: software, device, precision."""
    children: list[str]
    """Ids of what started from it, in order."""
    siblings: Mapping[str, Mapping[str, Any]]
    """By id, in order, the factors of models of the same stage that started from the same model."""

    def differing(self) -> list[str]:
        """The factors in which a sibling has another value."""
        others = self.siblings.values()
        return [n for n, v in self.factors.items() if any(other.get(n, v) != v for other in others)]


def family(zoo: Zoo, id: str) -> Family:
    """Of a model by its whole id. Raises CorruptFile."""
    database = Database(zoo.path, timeout=None)
    names, rows = database.rows(
        "SELECT sibling.* FROM models AS own JOIN models AS sibling ON sibling.stage = own.stage "
        f"AND sibling.parent IS NOT DISTINCT FROM own.parent WHERE own.id = '{id}' "
        "ORDER BY sibling.id"
    )
    groups = [group_of(name, database) for name in names]

    def values_of(row: tuple[Any, ...], group: str) -> dict[str, Any]:
        columns = zip(names, groups, row, strict=True)
        return {name: value for name, g, value in columns if g == group and value is not None}

    of_id = {row[names.index("id")]: row for row in rows}
    own = of_id.pop(id)
    _, children = database.rows(f"SELECT id FROM models WHERE parent = '{id}' ORDER BY id")
    return Family(
        facts=values_of(own, "fact"),
        factors=values_of(own, "factor"),
        trained=values_of(own, "training"),
        children=[child for (child,) in children],
        siblings={sibling: values_of(row, "factor") for sibling, row in of_id.items()},
    )
