"""`vitarium ls` and `vitarium show`: what is in a zoo."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vitarium.blueprint import Plan, Recipe, Spec
from vitarium.blueprint.plan import telling
from vitarium.cli.tables import print_json, print_rows
from vitarium.store import Zoo, index

SCORED = "accuracy on test images before and after training"

ZooFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The zoo's folder.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


def ls(directory: ZooFolder, json: Json = False) -> None:
    """List the models of a zoo: the factors in which they differ, and how they score.

    Accuracies are fractions, on test images, before training and after the last epoch.

    Example:  vitarium ls demo-zoo
    """
    zoo = Zoo.open(directory)
    if json:
        print_rows(zoo.models().to_dict("records"), as_json=True)
        return
    print_rows(overview(zoo), title=f"{directory}: {len(zoo)} models; {SCORED}")


def show(
    directory: ZooFolder,
    model: Annotated[str, typer.Argument(help="A model's id, or the beginning of it.")],
    json: Json = False,
) -> None:
    """Show one model: its recipe, its parent and children, and every epoch's metrics.

    Example:  vitarium show demo-zoo 3f2a
    """
    zoo = Zoo.open(directory)
    id = zoo.find(model)
    spec, folder = zoo.spec(id), zoo.folder(id)
    children = [other for other in zoo.ids() if zoo.spec(other).parent == id]
    about, epochs = folder.about(), zoo.epochs(id).to_dict("records")
    if json:
        print_json(
            {
                **spec.factors(),
                "status": folder.status,
                "children": children,
                "num_outputs": about.num_outputs,
                "classes": list(about.classes),
                "software": dict(about.software),
                "epochs": epochs,
            }
        )
        return
    facts = {
        "stage": spec.stage,
        "status": " ".join(filter(None, (folder.result() or {"status": "training"}).values())),
        "parent": f"{spec.parent} after epoch {spec.parent_epoch}"
        if spec.parent
        else "none: from scratch",
        "children": ", ".join(children) or "none",
        **_making(spec),
        **{k: v for k, v in spec.origin.described().items() if v is not None},
        "outputs": about.num_outputs,
        "trained with": ", ".join(f"{name} {value}" for name, value in about.software.items()),
    }
    print_rows(({"": name, "value": value} for name, value in facts.items()), title=f"Model {id}")
    print_rows(epochs, title="Epochs")
    Console().print(
        f"In Python: vitarium.Zoo.open({str(directory)!r}).load({id!r}, epoch=-1)", highlight=False
    )


def _family(row: dict[str, Any]) -> tuple[bool, str, str]:
    """Sorts models without parents first, then stage by stage, then by their parent."""
    return (row["parent"] is not None, row["stage"], row["parent"] or "")


def _making(spec: Spec) -> dict[str, str]:
    """Of a model that an operator made: which, and of what."""
    if spec.operator is None:
        return {}
    ingredients = ", ".join(f"{one.model}@{one.epoch}" for one in spec.ingredients)
    return {"operator": spec.operator.name, "made of": ingredients}


def overview(zoo: Zoo, plan: Plan | None = None) -> Iterator[dict[str, Any]]:
    """A row per model (of the plan, in its order; else stage by stage) for people to read.

    Ids are cut to eight digits, which is enough to name a model by.
    """
    rows = {row["id"]: row for row in index.rows(zoo.path)}
    if plan:
        chosen = [rows[model.id] for model in plan.models if model.id in rows]
    else:
        chosen = sorted(rows.values(), key=_family)
    names = _short_names(_differing(chosen))
    all_finished = all(row["status"] == "finished" for row in chosen)
    for row in chosen:
        first = zoo.folder(row["id"]).epochs()[:1]
        yield {
            "model": row["id"][:8],
            "stage": row["stage"],
            "parent": (row["parent"] or "")[:8],
            **{short: row.get(name) for name, short in names.items()},
            "epochs": row["last_epoch"],
            "before": _score(first[0].metrics) if first else None,
            "after": _score(row),
            **({} if all_finished else {"status": row["status"]}),
        }


def _differing(rows: list[dict[str, Any]]) -> list[str]:
    """The factors that vary inside a stage; those that only tell stages apart would be many."""
    found: dict[str, None] = {}
    for stage in dict.fromkeys(row["stage"] for row in rows):
        inside = [_factors(row) for row in rows if row["stage"] == stage]
        found.update(dict.fromkeys(telling(inside)))
    return list(found)


def _factors(row: dict[str, Any]) -> dict[str, Any]:
    sections = Recipe.model_fields
    return {key: value for key, value in row.items() if key.partition(".")[0] in sections}


def _short_names(names: list[str]) -> dict[str, str]:
    """The last part of each name, where that is enough to tell them apart."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: short if last.count(short) == 1 else name
        for name, short in zip(names, last, strict=True)
    }


def _score(metrics: Mapping[str, Any]) -> float | None:
    """Accuracy on test images; by k-NN for models that were trained without labels."""
    for name in ("test_accuracy", "test_knn_accuracy"):
        if name in metrics:
            return round(float(metrics[name]), 3)
    return None
