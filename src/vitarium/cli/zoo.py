"""`vitarium ls` and `vitarium show`: what is in a zoo."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from vitarium.cli import _completion as completion
from vitarium.cli._models import for_people, print_models, titled
from vitarium.cli._options import Csv, Json, Where, ZooFolder, argument, option
from vitarium.cli._tables import HAS_ALL, print_json, print_rows, print_text
from vitarium.core.errors import InvalidInput
from vitarium.core.numerals import counted
from vitarium.core.terminal import Terminal, print_line
from vitarium.zoo import Zoo
from vitarium.zoo._model_files import ranges

if TYPE_CHECKING:
    from vitarium.zoo.model_folder import ModelFolder

_SPARE_METRICS = ("images_per_second", "seconds", "epoch_lr", "train_loss", "train_accuracy")
_OWN = ("tags", "note", "companions", "outputs", "trained with")
"""Rows of `show` that come after the factors, which foreign tables may call so, too."""
ON_A_TERMINAL = 100  # models that are listed on a terminal unless more are asked for


def ls(
    directory: ZooFolder,
    where: Where = "",
    sort: Annotated[
        str,
        option(
            "Sort by columns; -COLUMN: largest first.",
            metavar="COLUMN[,COLUMN]",
            show_default=False,
            autocompletion=completion.columns,
        ),
    ] = "",
    columns: Annotated[
        str,
        option(
            "These columns: of the listing, of `vitarium query DIR`, or measures. Default: those "
            "in which the models differ, as far as the terminal is wide.",
            metavar="COLUMN[,COLUMN]|all",
            show_default=False,
            autocompletion=completion.columns,
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
    csv: Csv = False,
) -> None:
    """List the models of a zoo: the factors in which they differ, and their scores.

    Accuracies are fractions, on test images, before training and after the last epoch; a model
    without one from its training has what `vitarium measure DIR accuracy` measured. --where, --sort
    and --columns take the columns as they are headed, all columns of `vitarium query DIR`, and the
    names of measures. --json and --csv have all factors and metrics unless columns are named.

    Examples:

      vitarium ls demo-zoo

      vitarium ls demo-zoo --where "optimizer = 'adamw' and after > 0.9" --sort -after --limit 5

      vitarium ls demo-zoo --columns model,lr,after,calibration_error
    """
    from vitarium.zoo.listing import listing

    zoo = Zoo.open(directory)
    is_file = json or csv
    if limit is None and not is_file and Terminal().is_terminal:
        limit = ON_A_TERMINAL
    names, terms = ([n for n in text.split(",") if n.strip()] for text in (columns, sort))
    chosen = [] if columns.strip() == "all" else names
    listed = listing(zoo.path, where=where, sort=terms, columns=chosen, limit=limit or None)
    rows = [_asked(row, chosen) for row in listed.rows]
    if is_file:
        print_rows(rows if chosen else _all_of(zoo, rows), as_json=json, as_csv=csv)
        return
    matching = f"{listed.matching:,} of " if where.strip() else ""
    title = f"{directory}: {matching}{counted(listed.total, 'model')}"
    if chosen:
        print_rows(map(for_people, rows), title=title, every_column=True)
    else:
        print_models(rows, title=titled(title, rows), every_column=bool(names))
    if more := listed.matching - len(listed.rows):
        print_text(f"… {more:,} more; --limit 0 for all, --where and --sort to choose")


def _asked(row: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    """The columns that were named, which need not have the model's id."""
    names = {name.strip().strip('"').lower().replace("-", "_") for name in columns}
    return {k: v for k, v in row.items() if not names or k.lower().replace("-", "_") in names}


def _all_of(zoo: Zoo, listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All factors and metrics of models, in the order of a listing."""
    from vitarium.zoo import _index as index

    rows = {row["id"]: row for row in index.rows(zoo.path)}
    keys = dict.fromkeys(key for row in rows.values() for key in row)
    chosen = [rows[row["model"]] for row in listed if row["model"] in rows]
    return [{key: row.get(key) for key in keys} for row in chosen]


def show(
    directory: ZooFolder,
    model: Annotated[
        str,
        argument(
            "A model's id, or its first digits; ID@EPOCH: that epoch alone.",
            metavar="MODEL",
            autocompletion=completion.models,
        ),
    ],
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Show one model: its recipe, its parent and children, and every epoch's metrics.

    With --csv, only the epochs.

    Example:  vitarium show demo-zoo 3f2a
    """
    zoo = Zoo.open(directory)
    name, _, number = model.partition("@")
    handle = zoo[name]
    id, folder = handle.id, zoo.folder(handle.id)
    finished = [epoch.number for epoch in folder.epochs()]
    if number and number not in map(str, finished):
        raise InvalidInput(f"model {id} has no epoch {number}; it has {ranges(finished) or 'none'}")
    chosen = int(number) if number else -1
    spec, children, about = folder.factors(), zoo.children(id), folder.about()
    epochs: list[dict[str, Any]] = [
        {"epoch": epoch.number, "kept": epoch.checkpoint is not None, **epoch.metrics}
        for epoch in folder.epochs()
        if chosen in (-1, epoch.number)
    ]
    if csv:
        print_rows(epochs, as_json=json, as_csv=csv)
        return
    if json:
        columns = dict.fromkeys(column for row in epochs for column in row)
        epochs = [{column: row.get(column) for column in columns} for row in epochs]
        family = {"status": folder.status, "children": children}
        beside = {"companions": _companions(folder)}
        print_json({**spec, **family, **beside, **asdict(about), "epochs": epochs})
        return
    facts: dict[str, Any] = {
        "stage": handle.stage,
        "status": ": ".join(filter(None, (folder.result() or {"status": "training"}).values())),
        "parent": _parent(spec),
        "children": ", ".join(children) or "none",
    }
    if operator := spec["operator"]:
        facts["operator"] = operator["name"]
        facts |= {f"operator.{key}": value for key, value in operator.items() if key != "name"}
        facts["ingredients"] = ", ".join(map(str, handle.ingredients))
        facts |= {"heads": spec["heads"]} if spec["heads"] else {}
    for name, value in handle.factors.items():
        if value is not None and facts.get(name) != value:
            facts[f"factor {name}" if name in (*facts, *_OWN) else name] = value
    facts |= {"tags": ", ".join(handle.tags)} if handle.tags else {}
    facts |= {"note": handle.note} if handle.note else {}
    if companions := _companions(folder):
        size, numbers = companions["nbytes"] / 1e6, companions["numbers"]
        facts["companions"] = f"{numbers:,} numbers, {size:,.2f} MB: Zoo.companions({id!r})"
    facts["outputs"] = about.num_outputs
    software = ", ".join(f"{name} {value}" for name, value in about.software.items())
    facts |= {"trained with": software} if software else {}
    print_rows(({"": name, "value": value} for name, value in facts.items()), title=f"Model {id}")
    print()
    print_rows(
        map(_epoch_for_people, epochs), title="Epochs", spare=_SPARE_METRICS, complete=HAS_ALL
    )
    print_line(f"In Python: vitarium.Zoo.open({str(directory)!r}).load({id!r}, epoch={chosen})")


def _companions(folder: "ModelFolder") -> dict[str, int] | None:
    """How large what its objective brought is; None: that is not kept."""
    if (file := folder.companions()) is None:
        return None
    numbers = sum(stored.count for stored in file.tensors.values())
    return {"numbers": numbers, "nbytes": file.path.stat().st_size}


def _epoch_for_people(row: dict[str, Any]) -> dict[str, Any]:
    """An epoch's row that says in words whether its weights are there."""
    names = {"kept": "weights"}
    return {names.get(k, k): v for k, v in row.items()} | {
        "weights": "kept" if row["kept"] else "none"
    }


def _parent(spec: dict[str, Any]) -> str:
    """A model's parent in words; that there is none is known of those alone that were grown."""
    if spec["parent"]:
        epoch = "" if spec["parent_epoch"] is None else f" after epoch {spec['parent_epoch']}"
        return f"{spec['parent']}{epoch}"
    if spec["operator"]:
        return "none: merged, see its ingredients"
    return "none: not known" if "imported" in spec else "none: from scratch"
