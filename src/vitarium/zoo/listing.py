"""The models of a zoo as people list them: filtered, sorted, with the factors that differ."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitarium.core.errors import InvalidInput
from vitarium.zoo._sql_names import quote
from vitarium.zoo.model import SCORES as SCORES
from vitarium.zoo.model import ModelNames, names_of
from vitarium.zoo.query import Database, UnknownColumn
from vitarium.zoo.zoo import Zoo

_FIXED = ("model", "stage", "parent", "epochs", "before", "after", "status")


@dataclass(frozen=True)
class Listing:
    """Models, a row each; `matching` fulfill the condition, of `total` in the zoo.

    The rows have: model (its id), stage, parent, the factors that differ, epochs (the last that is
    finished), before (where there is an epoch before training) and after (accuracy on test images),
    status.
    """

    rows: list[dict[str, Any]]
    matching: int
    total: int


def listing(
    zoo: Path,
    *,
    models: Collection[str] | None = None,
    where: str = "",
    sort: Sequence[str] = (),
    limit: int | None = None,
) -> Listing:
    """List models: parents before children and stage by stage, unless sorted otherwise.

    Args:
        models: only these, by their ids; None: all.
        where: an SQL condition over the columns of the table `models`, and over the names in
            `Listing.rows`; where a name is both, it is what the listing shows.
        sort: columns; a leading `-` turns the order around. Without a value comes last.
        limit: at most so many models.

    Raises InvalidInput, UnknownName with the nearest column there is, CorruptFile; QueryTimeout and
    QueryTooLarge for a condition that takes too much.
    """
    database = Database(zoo)
    of_models = {name: f"models.{quote(name)}" for name in database.columns["models"]}
    factors = {
        name if short in _FIXED else short: of_models[name]
        for name, short in database.headings.items()
        if name not in _FIXED
    }
    headed = {"model": "id", "stage": "stage", "parent": "parent", **factors}
    headed |= {"epochs": "last_epoch", "before": "first.score"}
    headed |= {"after": _score(database, "models"), "status": "status"}
    short = {name: of_models[column] for name, column in database.short_names.items()}
    columns = of_models | short | headed
    first_scores = f"SELECT model, epoch, {_score(database, 'epochs')} AS score FROM epochs"
    taken = {name.lower() for name in headed}
    free = [name for name in columns if name in headed or name.lower() not in taken]
    listed = ", ".join(f"{columns[name]} AS {quote(name)}" for name in free)
    source = f"SELECT {listed} FROM models LEFT JOIN ({first_scores}) AS first "
    source += "ON first.model = models.id AND first.epoch = models.initial_epoch"
    if models is not None:
        source += f" WHERE id IN ({', '.join(['NULL', *map(repr, models)])})"
    condition = database.with_whole_ids(where)
    condition = f"WHERE (\n{condition}\n)" if where.strip() else ""  # a comment ends with its line
    order = ", ".join([*_order(sort, columns), "parent IS NOT NULL", "stage", "parent", "id"])
    try:
        names, rows = database.rows(
            f"SELECT {', '.join(map(quote, headed))}, count(*) OVER () FROM ({source}) AS models "
            f"{condition} ORDER BY {order}" + ("" if limit is None else f" LIMIT {limit:d}")
        )
    except UnknownColumn as error:
        raise UnknownColumn(error.name, columns) from None
    return Listing(
        [dict(zip(names, row[:-1], strict=False)) for row in rows],
        matching=rows[0][-1] if rows else 0,
        total=database.rows("SELECT count(*) FROM models")[1][0][0],
    )


def select(
    zoo: Zoo, models: ModelNames | None = None, where: str = "", verb: str = ""
) -> list[str]:
    """Names of models, `ID` or `ID@EPOCH`: of those that are named, or of all, those
    that fulfill the condition, see `listing`.

    Raises InvalidInput where none does; and with a verb where neither models nor a condition is
    given, e.g. "say which models to merge".
    """
    if verb and not where.strip() and (models is None or not (models := names_of(models))):
        raise InvalidInput(f"say which models to {verb}: their ids, or a condition (where)")
    if not where.strip():
        return zoo.ids() if models is None else names_of(models)
    matching = [row["model"] for row in listing(zoo.path, where=where).rows]
    if models is not None:
        fulfilling, names = set(matching), names_of(models)
        matching = [name for name in names if zoo.find(name.partition("@")[0]) in fulfilling]
    if not matching:
        raise InvalidInput(f"no model fulfills the condition {where}")
    return matching


def _score(database: Database, table: str) -> str:
    there = [name for name in SCORES if name in database.columns[table]]
    return f"coalesce(NULL{''.join(f', try_cast({quote(name)} AS DOUBLE)' for name in there)})"


def _order(sort: Sequence[str], columns: Iterable[str]) -> list[str]:
    by_lower = {name.lower(): name for name in columns}
    terms = []
    for term in sort:
        name = term.strip().removeprefix("-").strip('"')
        if name.lower() not in by_lower:
            raise UnknownColumn(name, columns, is_text=False)
        direction = "DESC" if term.strip().startswith("-") else "ASC"
        terms.append(f"{quote(by_lower[name.lower()])} {direction} NULLS LAST")
    return terms
