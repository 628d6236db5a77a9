"""`vitarium merge`: one model of several."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli import plugins
from vitarium.cli._models import short_refs
from vitarium.cli._options import option
from vitarium.cli._progress import progress_bar, resumable
from vitarium.cli._tables import print_rows
from vitarium.core.errors import InvalidInput
from vitarium.core.terminal import Terminal, print_note
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_INGREDIENTS = 4


def merge(
    directory: options.ZooFolder,
    models: options.Models = None,
    method: Annotated[
        str | None,
        option(
            "--method",
            "-m",
            "Merge method (`list` to show all).",
            autocompletion=completion.methods,
        ),
    ] = None,
    where: options.Where = "",
    base: Annotated[
        str | None,
        option(
            "Base model of the task vectors. Default: the common parent.",
            metavar="ID",
            autocompletion=completion.models,
        ),
    ] = None,
    heads: Annotated[
        str,
        option(
            "Heads: merged like all other weights; averaged; all kept, with averaged "
            "outputs; or those of one model.",
            metavar="merge|average|ensemble|ID",
        ),
    ] = "merge",
    align: Annotated[
        str | None,
        option(
            "First permute every model to match the first, e.g. weight_matching; the aligned "
            "copies stay in the zoo.",
            metavar="METHOD",
            autocompletion=completion.plugins("operator"),
        ),
    ] = None,
    align_set: Annotated[
        list[str] | None,
        option(
            "--align-set",
            "A setting of the method named by --align. May be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    stage: options.Stage = "merge",
    data: Annotated[
        str | None,
        option(
            "Dataset for methods that need images. Default: the models' own.",
            autocompletion=completion.plugins("dataset"),
        ),
    ] = None,
    data_set: options.DataSettings = None,
    normalization: options.Normalization = None,
    data_dir: options.DataDir = None,
    set_: options.Settings = None,
    grid: Annotated[
        list[str] | None,
        option(
            "--grid",
            "Several values of a setting, as 0.25,0.5; a model is made for each, and for each "
            "combination where it is repeated.",
            metavar="NAME=VALUES",
        ),
    ] = None,
    all_members: Annotated[
        bool,
        option("--all", "Make every model inside of one, of methods such as matvit_member."),
    ] = False,
    device: options.Device = "auto",
    skip_diverged: Annotated[
        bool, option("--skip-diverged", "Leave out models that diverged.")
    ] = False,
    force: Annotated[
        bool, option("--force", "Allow selection on images that some models were trained on.")
    ] = False,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """Combine models: soups, task vectors, alignment, averages over epochs.

    The result is a model of the zoo that records its ingredients: it can be measured, loaded,
    exported and merged again. The same merge gives the same model and is computed once. Methods
    that need images say from which split, never from the test split. Some methods depend on the
    order of the models. Methods of a single model (of its epochs, or of it and its parent) give one
    result for each model that is named. With --grid, or --all for the models inside of an elastic
    one, there are several results, and a table of their sizes and accuracies; if it is interrupted,
    run the same command to resume.

    Examples:

      vitarium merge demo-zoo --method list

      vitarium merge demo-zoo 3f2a 77b0 --method uniform_soup

      vitarium merge demo-zoo --where "parent like '2a14%'" --method greedy_soup

      vitarium merge demo-zoo 3f2a 77b0 --method slerp --align weight_matching --set t=0.3

      vitarium merge demo-zoo --where "stage = 'finetune'" --method epoch_average --set last=3

      vitarium merge demo-zoo 3f2a 77b0 --method slerp --grid t=0.25,0.5,0.75

      vitarium merge elastic-zoo 3f2a --method matvit_member --all
    """
    if method == "list" or not (method or models or where):
        methods()
        return
    if method is None:
        names = ", ".join(entry["name"] for entry in plugins.entries_of("operator"))
        raise InvalidInput(f"say how to merge (--method): {names}")
    if grid and all_members:
        raise InvalidInput("choose one of --grid and --all")
    zoo, rows = Zoo.open(directory), list[dict[str, Any]]()
    comparison: pd.DataFrame | None = None
    with resumable(f"Models that were merged are kept in {directory}"):
        from vitarium.core.registry import get
        from vitarium.operators._runner.merge import merge as run
        from vitarium.operators._runner.merge_grid import merge_grid
        from vitarium.zoo.listing import select

        plugin = get("operator", method)
        before = set(zoo.ids())
        request: dict[str, Any] = {
            "base": base,
            "heads": heads,
            "align": options.section("operator", "--align", align, align_set),
            "stage": stage,
            "data": options.section("dataset", "--data", data, data_set),
            "normalization": normalization,
            "device": device,
            "data_dir": data_dir,
            "skip_diverged": skip_diverged,
            "force": force,
            **options.parsed(set_, of=run),
        }
        with progress_bar(plugin.name) as progress:
            if grid or all_members:
                points = _grid(grid) if grid else None
                chosen: dict[str, Any] = {"models": models or None, "where": where}
                merged = merge_grid(
                    zoo, plugin.name, points, **chosen, progress=progress, **request
                )
                comparison = merged.comparison
            else:
                named = select(zoo, models or None, where, "merge")
                of_one = plugin.facts["epochs"] or plugin.facts["models"] == (1, 1)
                for group in [[model] for model in named] if of_one else [named]:
                    model = run(zoo, plugin.name, models=group, progress=progress, **request)
                    rows.append(_row(zoo, model.id))
    if comparison is not None:
        _print_comparison(comparison, as_json=json, as_csv=csv)
        return
    if align is not None:
        _print_aligned(zoo, rows, before)
    if json or csv:
        print_rows(rows, as_json=json, as_csv=csv)
        return
    for row in rows:
        row |= {
            "ingredients": short_refs(row["ingredients"], _SHOWN_INGREDIENTS),
            "parent": (row["parent"] or "")[:8],
        }
    print_rows([{k: v for k, v in row.items() if v not in (None, "")} for row in rows])
    quoted = stage.replace("'", "''")
    which = f"id = '{rows[0]['model']}'" if len(rows) == 1 else f"stage = '{quoted}'"
    Terminal(stderr=True, soft_wrap=True).print(
        f'how good it is: vitarium measure {directory} accuracy --where "{which}"'
    )


def _grid(pairs: Iterable[str]) -> dict[str, list[Any]]:
    """["t=0.25,0.5"] -> {"t": [0.25, 0.5]}. Raises InvalidInput for a setting that is repeated."""
    grid: dict[str, list[Any]] = {}
    for pair in pairs:
        ((name, value),) = options.parsed([pair], "--grid", "t=0.25,0.5").items()
        if name in grid:
            raise InvalidInput(f"--grid {pair}: {name} is named twice; write all its values as one")
        if isinstance(value, str):
            value = options.setting_value(value, tuple[Any, ...])
        grid[name] = value if isinstance(value, list) else [value]
    return grid


def _print_comparison(table: "pd.DataFrame", *, as_json: bool, as_csv: bool) -> None:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    if as_json or as_csv:
        print_rows(rows, as_json=as_json, as_csv=as_csv)
        return
    for reason in dict.fromkeys(filter(None, [row.pop("refused") for row in rows])):
        print_note(reason, style="yellow")
    for row in rows:
        for name in ("parameters", "multiply_adds"):
            row[name] = None if row[name] is None else f"{row[name]:,.0f}"
    print_rows(rows)


def _print_aligned(zoo: Zoo, rows: list[dict[str, Any]], before: set[str]) -> None:
    """Say which aligned copies the zoo has now."""
    refs = dict.fromkeys(ref for row in rows for ref in row["ingredients"][1:])
    for copy in (zoo[ref.partition("@")[0]] for ref in refs):
        first, original = (short_refs([str(ref)]) for ref in copy.ingredients)
        state = "was in the zoo already" if copy.id in before else "stays in the zoo"
        print_note(
            f"{original} was aligned to {first}: the copy {copy.id[:8]} {state}, as a model of "
            f"stage '{copy.stage}'"
        )


def methods() -> None:
    """Print every operator: what it makes, and what it needs for that."""
    operators = plugins.entries_of("operator")
    print_rows({"method": e["name"], "needs": e["needs"], "what": e["what"]} for e in operators)


def _row(zoo: Zoo, id: str) -> dict[str, Any]:
    folder = zoo.folder(id)
    spec, result = folder.spec(), folder.result() or {}
    return {
        "model": id,
        "method": spec.operator.name if spec.operator else "",
        "parent": spec.parent,
        "heads": spec.heads,
        "ingredients": list(map(str, spec.ingredients)),
        **folder.epochs()[-1].metrics,
        "message": result.get("message", ""),
    }
