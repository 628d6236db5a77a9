"""The models of a zoo as people list them: filtered, sorted, with the factors that differ."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.printable import brief
from vitarium.zoo._measured import ACCURACY, measured_columns
from vitarium.zoo._sql_names import quote
from vitarium.zoo.model import SCORES as SCORES
from vitarium.zoo.model import ModelNames, names_of
from vitarium.zoo.query import Database, UnknownColumn
from vitarium.zoo.zoo import Zoo

_BEFORE_FACTORS = ("model", "stage", "name", "parent", "operator", "ingredients")
_FIXED = (*_BEFORE_FACTORS, "epochs", "before", "after", "score", "status", "tags", "note")


@dataclass(frozen=True)
class Listing:
    """Models, a row each; `matching` fulfill the condition, of `total` in the zoo.

    The rows have: model (its id), stage, name (of an imported one), parent, operator and
    ingredients, the factors that differ, epochs (the last that is finished), before (training) and
    after (accuracy on test images; of a model that has none from its training, as it was measured),
    score (what these are: "accuracy" or "k-NN accuracy"), status, tags, note. If columns were
    named, those.
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
    columns: Sequence[str] = (),
    limit: int | None = None,
    database: Database | None = None,
) -> Listing:
    """List models: parents before children and stage by stage, unless sorted otherwise.

    Args:
        models: only these, by their ids; None: all.
        where: an SQL condition over the columns of the table `models`, over measures, and over the
            names in `Listing.rows`; where a name is both, it is what the listing shows.
        sort: columns; a leading `-` turns the order around. Without a value comes last.
        columns: what the rows have beside the model, of the same names; none: see `Listing`.
        limit: at most so many models.
        database: of the zoo, opened before; what it was then is listed. None: as it is now.

    Raises InvalidInput, UnknownName with the nearest column there is, CorruptFile; QueryTimeout and
    QueryTooLarge for a condition that takes too much.
    """
    where = condition_text(where)
    database = database or Database(zoo)
    source = _Source(database)
    by_lower = {name.lower(): name for name in source.columns}
    rows_have = [_column(name, by_lower) for name in columns] or list(source.headed)
    rows_have = list(dict.fromkeys(["model", *rows_have]))
    selection = source.sql
    if models is not None:
        selection += f" WHERE models.id IN ({', '.join(['NULL', *map(repr, models)])})"
    condition = database.with_full_ids(where)
    condition = f"WHERE (\n{condition}\n)" if where.strip() else ""  # a comment ends with its line
    order = [*_order(sort, by_lower), "parent IS NOT NULL", "stage", "parent", "id"]
    try:
        names, rows = database.rows(
            f"SELECT {', '.join(map(quote, rows_have))}, count(*) OVER () FROM ({selection}) "
            f"AS models {condition} ORDER BY {', '.join(order)}"
            + ("" if limit is None else f" LIMIT {limit:d}")
        )
    except UnknownColumn as error:
        raise UnknownColumn(error.name, source.columns) from None
    except InvalidInput as error:
        if 'at or near ")"' in str(error) and condition:  # which we have added
            raise InvalidInput(f"the condition ends too early, or is no SQL: {where}") from None
        raise
    listed = [dict(zip(names, row[:-1], strict=False)) for row in rows]
    return Listing(
        [_with_list(row) for row in listed],
        matching=rows[0][-1] if rows else 0,
        total=database.rows("SELECT count(*) FROM models")[1][0][0],
    )


def evaluate(
    zoo: Path, expression: str, models: Collection[str], database: Database | None = None
) -> dict[str, float | None]:
    """An SQL expression of each of these models, over what `listing` knows, as a number.

    None where it has no value; NaN and infinities stay. Truths are 0 and 1.

    Raises UnknownColumn, and InvalidInput for what is no SQL expression, or no number of a model.
    """
    database = database or Database(zoo)
    source = _Source(database)
    named = {name.lower(): name for name in source.columns}.get(expression.strip().lower())
    sql = quote(named) if named else database.with_full_ids(expression)
    try:
        rows = database.rows(f"SELECT models.model, (\n{sql}\n) FROM ({source.sql}) AS models")[1]
    except UnknownColumn as error:
        raise UnknownColumn(error.name, source.columns, is_text=False) from None
    except InvalidInput as error:
        if 'at or near ")"' in str(error):  # which we have added
            raise InvalidInput(f"this is no SQL expression: {brief(expression)}") from None
        raise
    values, wanted = dict[str, float | None](), set(models)
    for model, value in rows:
        if model not in wanted:
            continue
        try:
            values[model] = None if value is None else float(value)
        except (TypeError, ValueError):
            fault = f"{brief(expression)} is no number: of model {model} it is {brief(value)}"
            raise InvalidInput(fault) from None
    return values


class _Source:
    """What can be listed: the table `models`, the measured numbers, and the names of a listing."""

    def __init__(self, database: Database) -> None:
        of_models = {name: f"models.{quote(name)}" for name in database.columns["models"]}
        measured = measured_columns(database, of_models)
        of_records = {name: f"measured.{quote(name)}" for name in measured.names}
        short = {name: of_models[column] for name, column in database.short_names.items()}
        self.headed = self._headed(
            database, of_models, of_records.get(measured.column(ACCURACY) or "")
        )
        """Names in a listing, and the SQL of each."""
        taken = {name.lower() for name in self.headed}
        unheaded = {**of_models, **of_records, **short}
        self.columns = {n: sql for n, sql in unheaded.items() if n.lower() not in taken}
        self.columns |= self.headed
        before = f"SELECT model, epoch, {_score(database, 'epochs')} AS score FROM epochs"
        listed = ", ".join(f"{sql} AS {quote(name)}" for name, sql in self.columns.items())
        self.sql = (
            f"SELECT {listed} FROM models "
            f"LEFT JOIN ({before}) AS before "
            "ON before.model = models.id AND before.epoch = models.initial_epoch "
            f"LEFT JOIN ({measured.table}) AS measured ON measured.model = models.id"
        )

    def _headed(
        self, database: Database, of_models: Mapping[str, str], measured: str | None
    ) -> dict[str, str]:
        factors = {
            name if short in _FIXED else short: of_models[name]
            for name, short in database.headings.items()
            if name not in _FIXED
        }
        headed = {n: of_models[n] for n in _BEFORE_FACTORS if n in of_models}
        headed = {"model": ""} | headed | {"model": of_models["id"]}  # a factor may be called so
        headed |= {**factors, "epochs": "CASE WHEN operator IS NULL THEN last_epoch END"}
        trained = _score(database, "models")
        status, first, last = (of_models[n] for n in ("status", "initial_epoch", "last_epoch"))
        # before the first epoch has ended, there is the score before training alone
        untrained = f"coalesce({status} <> 'finished' AND {last} = {first}, false)"
        score = f"coalesce({trained}, {measured or 'NULL'})"
        after = f"CASE WHEN NOT {untrained} THEN {score} END"
        headed |= {"before": "before.score", "after": after}
        headed["score"] = _kind(database, measured)
        return headed | {name: of_models[name] for name in ("status", "tags", "note")}


def select(
    zoo: Zoo, models: ModelNames | None = None, where: str = "", verb: str = ""
) -> list[str]:
    """Names of models, `ID` or `ID@EPOCH`: of those that are named, or of all, those
    that fulfill the condition, see `listing`.

    Raises InvalidInput where none does; and with a verb where neither models nor a condition is
    given, e.g. "say which models to merge".
    """
    where = condition_text(where)
    if verb and not where.strip() and (models is None or not (models := names_of(models))):
        how = parameter("where", "SQL")
        raise InvalidInput(f"say which models to {verb}: their ids, or a condition: {how}")
    if not where.strip():
        return zoo.ids() if models is None else names_of(models)
    matching = [row["model"] for row in listing(zoo.path, where=where).rows]
    if models is not None:
        fulfilling, names = set(matching), names_of(models)
        matching = [name for name in names if zoo.find(name.partition("@")[0]) in fulfilling]
    if not matching:
        raise InvalidInput(f"no model fulfills the condition {where}")
    return matching


def condition_text(condition: object, name: str = "where") -> str:
    """An argument that is to be an SQL condition; InvalidInput for all but a text."""
    if isinstance(condition, str):
        return condition
    raise InvalidInput(
        f"{name} is an SQL condition, a text such as \"lr < 0.01 AND stage = 'finetune'\" or "
        f'"seed IN (1, 2)", not {brief(condition)}'
    )


def _score(database: Database, table: str) -> str:
    """SQL of the accuracy on test images that was computed while the model was trained."""
    present = [name for name in SCORES if name in database.columns[table]]
    return f"coalesce(NULL{''.join(f', {_number(name)}' for name in present)})"


def _kind(database: Database, measured: str | None) -> str:
    """SQL that names what the score is; models that learn without labels have none but by k-NN."""
    names = ("accuracy", "k-NN accuracy", "mAP", "k-NN mAP")
    kinds = dict(zip(SCORES, names, strict=True))
    cases = [
        f"WHEN {_number(name)} IS NOT NULL THEN '{kind}'"
        for name, kind in kinds.items()
        if name in database.columns["models"]
    ]
    cases += [f"WHEN {measured} IS NOT NULL THEN 'accuracy'"] if measured else []
    return f"CASE {' '.join(cases)} END" if cases else "NULL::VARCHAR"


def _number(name: str) -> str:
    return f"try_cast({quote(name)} AS DOUBLE)"


def _column(name: str, by_lower: Mapping[str, str]) -> str:
    plain = name.strip().strip('"')
    for spelling in (plain.lower(), plain.lower().replace("-", "_")):
        if spelling in by_lower:
            return by_lower[spelling]
    raise UnknownColumn(plain, by_lower.values(), is_text=False)


def _order(sort: Sequence[str], by_lower: Mapping[str, str]) -> list[str]:
    terms = []
    for term in sort:
        name = _column(term.strip().removeprefix("-"), by_lower)
        direction = "DESC" if term.strip().startswith("-") else "ASC"
        terms.append(f"{quote(name)} {direction} NULLS LAST")
    return terms


def _with_list(row: dict[str, Any]) -> dict[str, Any]:
    if isinstance(row.get("ingredients"), str):
        row["ingredients"] = json.loads(row["ingredients"])
    return row
