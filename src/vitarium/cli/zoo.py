"""`vitarium ls` and `vitarium show`: what is in a zoo."""

from dataclasses import asdict
from typing import Annotated, Any

from vitarium.cli._options import Json, Where, ZooFolder, argument, option
from vitarium.cli._tables import print_json, print_rows
from vitarium.core.printable import shortened
from vitarium.core.terminal import Terminal, print_line
from vitarium.zoo import Zoo

SCORED = "accuracy on test images before and after training"
ON_A_TERMINAL = 100  # models that are listed on a terminal unless more are asked for
_MAX_LENGTH = 100  # characters in a cell of a listing


def ls(
    directory: ZooFolder,
    where: Where = "",
    sort: Annotated[
        str,
        option(
            "Sort by columns; -COLUMN: largest first.",
            metavar="COLUMN[,COLUMN]",
            show_default=False,
        ),
    ] = "",
    limit: Annotated[
        int | None,
        option(
            f"At most N models; 0: all. Default: {ON_A_TERMINAL} on a terminal, else all.",
            min=0,
            metavar="N",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the models of a zoo: the factors in which they differ, and their scores.

    Accuracies are fractions, on test images, before training and after the last epoch. --where and
    --sort take the columns as they are headed, and all columns of `vitarium query DIR`.

    Examples:

      vitarium ls demo-zoo

      vitarium ls demo-zoo --where "optimizer = 'adamw' and after > 0.9" --sort -after --limit 5
    """
    from vitarium.zoo.listing import listing

    zoo = Zoo.open(directory)
    if limit is None and not json and Terminal().is_terminal:
        limit = ON_A_TERMINAL
    terms = [term for term in sort.split(",") if term.strip()]
    listed = listing(zoo.path, where=where, sort=terms, limit=limit or None)
    if json:
        from vitarium.zoo import _index as index

        rows = {row["id"]: row for row in index.rows(zoo.path)}
        keys = dict.fromkeys(key for row in rows.values() for key in row)
        chosen = [rows[row["model"]] for row in listed.rows if row["model"] in rows]
        print_json([{key: row.get(key) for key in keys} for row in chosen])
        return
    counts = f"{listed.matching:,} of {listed.total:,}" if where.strip() else f"{listed.total:,}"
    title = f"{directory}: {counts} models; {SCORED}"
    if not listed.rows:
        print_line(title)
    print_rows(for_people(listed.rows), title=title)
    if more := listed.matching - len(listed.rows):
        print(f"… {more:,} more; --limit 0 for all, --where and --sort to choose")


def show(
    directory: ZooFolder,
    model: Annotated[str, argument("A model's id, or its first digits.")],
    json: Json = False,
) -> None:
    """Show one model: its recipe, its parent and children, and every epoch's metrics.

    Example:  vitarium show demo-zoo 3f2a
    """
    zoo = Zoo.open(directory)
    handle = zoo[model]
    id, folder = handle.id, zoo.folder(handle.id)
    spec, children, about = folder.factors(), zoo.children(id), folder.about()
    epochs: list[dict[str, Any]] = [
        {"epoch": epoch.number, "kept": epoch.checkpoint is not None, **epoch.metrics}
        for epoch in folder.epochs()
    ]
    if json:
        columns = dict.fromkeys(column for row in epochs for column in row)
        epochs = [{column: row.get(column) for column in columns} for row in epochs]
        family = {"status": folder.status, "children": children}
        print_json({**spec, **family, **asdict(about), "epochs": epochs})
        return
    facts: dict[str, Any] = {
        "stage": spec["stage"],
        "status": " ".join(filter(None, (folder.result() or {"status": "training"}).values())),
        "parent": f"{spec['parent']} after epoch {spec['parent_epoch']}"
        if spec["parent"]
        else "none: from scratch",
        "children": ", ".join(children) or "none",
    }
    if operator := spec["operator"]:
        facts["operator"] = operator["name"]
        facts |= {f"operator.{key}": value for key, value in operator.items() if key != "name"}
        facts["ingredients"] = ", ".join(map(str, handle.ingredients))
        facts |= {"heads": spec["heads"]} if spec["heads"] else {}
    facts |= {name: value for name, value in handle.factors.items() if value is not None}
    facts["outputs"] = about.num_outputs
    facts["trained with"] = ", ".join(f"{name} {value}" for name, value in about.software.items())
    print_rows(({"": name, "value": value} for name, value in facts.items()), title=f"Model {id}")
    print_rows(epochs, title="Epochs")
    print_line(f"In Python: vitarium.Zoo.open({str(directory)!r}).load({id!r}, epoch=-1)")


def for_people(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A listing with scores rounded, without what goes without saying.

    Ids are cut to eight digits, which is enough to name a model by. Left out are factors that none
    of these models has, and the status where all are finished.
    """
    columns = {"parent", "epochs", "before", "after"}
    columns |= {key for row in rows for key, value in row.items() if value is not None}
    if all(row["status"] == "finished" for row in rows):
        columns.discard("status")

    def cut(value: Any) -> Any:
        return shortened(value, _MAX_LENGTH) if isinstance(value, str) else value

    listed = []
    for row in rows:
        cells = {cut(key): cut(value) for key, value in row.items() if key in columns}
        ids = {"model": row["model"][:8], "parent": (row["parent"] or "")[:8]}
        scores = {k: row[k] if row[k] is None else round(row[k], 3) for k in ("before", "after")}
        listed.append({**cells, **ids, **scores})
    return listed
