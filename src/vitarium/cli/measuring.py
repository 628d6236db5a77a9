"""`vitarium measure`: numbers of models, and of pairs of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli._measured import print_measured
from vitarium.cli._options import argument, option
from vitarium.cli._progress import Tally, progress_bar, resumable
from vitarium.cli._tables import print_rows
from vitarium.cli._value_memory import ValueMemory
from vitarium.core.cache import can_remember, remembered
from vitarium.core.errors import CorruptFile, FileFault, InvalidInput
from vitarium.core.numerals import counted, is_number
from vitarium.core.reasons import by_reason
from vitarium.core.terminal import Terminal
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    from vitarium.evaluation.checkpoints import Epochs

_SHOWN_REFUSALS = 8
_MODEL = re.compile(r"[0-9a-f]{1,12}(@\d+)?")


def measure(
    directory: options.ZooFolder,
    names: Annotated[
        list[str] | None,
        argument(
            "Measures by name (`vitarium plugins measures` lists all), and models by their ids or "
            "first digits; ID@3 is a model after its epoch 3. Default: every measure of single "
            "models that takes at most a forward pass, of all models.",
            metavar="MEASURE|MODEL",
            autocompletion=completion.measures_and_models,
        ),
    ] = None,
    where: options.Where = "",
    epochs: Annotated[
        str, option("Epochs to measure, e.g. 0,5,10.", metavar="all|last|LIST")
    ] = "last",
    pairs: Annotated[
        Literal["same-parent", "same-stage", "all"],
        option("For measures of pairs: same-parent, same-stage or all.", metavar="PAIRS"),
    ] = "same-stage",
    split: options.Split = "test",
    num_images: options.Images = None,
    data: Annotated[
        str | None,
        option(
            "Dataset for all models. Default: each model's own.",
            autocompletion=completion.plugins("dataset"),
        ),
    ] = None,
    data_set: options.DataSettings = None,
    normalization: options.Normalization = None,
    data_dir: options.DataDir = None,
    set_: options.Settings = None,
    device: options.Device = "auto",
    overwrite: Annotated[bool, option("--overwrite", "Recompute existing results.")] = False,
    force: Annotated[
        bool, option("--force", "Evaluate on training images, too, and mark such results.")
    ] = False,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """Measure models and pairs of models: weights, predictions, loss landscape, robustness.

    Results are stored in the zoo (`vitarium query DIR "SELECT * FROM records"`) and reused. If it
    is interrupted, run the same command to resume. A model or pair that cannot be measured is
    reported; the others are still measured.

    Examples:

      vitarium measure demo-zoo

      vitarium measure demo-zoo accuracy 3f2a 77b0@5

      vitarium measure demo-zoo accuracy calibration_error --where "stage = 'finetune'"

      vitarium measure demo-zoo agreement cka --pairs same-parent

      vitarium measure demo-zoo weight_norm --epochs all --set order=1
    """
    zoo = Zoo.open(directory)
    measures, models = _divided(names or [])
    request: dict[str, Any] = {
        "epochs": epochs,
        "pairs": pairs,
        "split": split,
        "data": options.section("dataset", "--data", data, data_set),
        "normalization": normalization,
        "num_images": num_images,
        "data_dir": data_dir,
        "force": force,
        "device": device,  # of which there may be none here
    }
    if set_:  # each measure takes those that it has, and one of them has to
        request |= {"set": set_, "measures": measures}

    def computed() -> dict[str, Any]:
        tally = Tally()

        def state() -> str:
            if not tally.done:
                return "Nothing was measured yet"
            return f"{tally.done:,} of {tally.total:,} measurements are kept in {directory}"

        with resumable(state):
            from vitarium.measures._runner.measure import measure as run

            settings = options.parsed(set_, of=run)
            with progress_bar("measuring") as tally.progress:
                table = run(
                    zoo,
                    measures,
                    models=models or None,
                    where=where,
                    epochs=_epochs(epochs),
                    pairs=pairs,
                    split=split,
                    num_images=num_images,
                    data=request["data"],
                    normalization=normalization,
                    device=device,
                    data_dir=data_dir,
                    overwrite=overwrite,
                    force=force,
                    progress=tally,
                    **settings,
                )
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        return {**table.attrs, "rows": rows, "tensors": _tensors(zoo, rows)}

    memory = ValueMemory(zoo, request) if can_remember() and not overwrite else None
    with resumable(lambda: "Nothing was measured yet"):
        measures = list(dict.fromkeys(measures)) or remembered("quick-measures", _quick)
    answer = memory and memory.recall(measures, models, where)
    if not answer:
        answer = computed()
        if memory:
            answer = memory.add(answer, measures, models, where)
    if json or csv:
        print_rows(answer["rows"], as_json=json, as_csv=csv)
    else:
        print_measured(zoo, answer["rows"], set(answer["tensors"]))
    refusals = [row for row in answer["rows"] if row["refused"]]
    _print_refusals(refusals)
    if refusals and len(refusals) == len(answer["rows"]):
        raise typer.Exit(2)


def _quick() -> list[str]:
    from vitarium.measures._runner.jobs import quick

    return quick()


def _epochs(text: str) -> "Epochs":
    """Raises InvalidInput for what are no epochs."""
    if text == "all":
        return "all"
    if text == "last":
        return "last"
    numbers = [part.strip() for part in text.split(",")]
    if not all(is_number(number) for number in numbers):
        raise InvalidInput(f"--epochs {text}: write all, last, or numbers as in 0,5,10")
    return [int(number) for number in numbers]


def _tensors(zoo: Zoo, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of tensors, of one of the models that have values of the same parts."""
    parts: dict[str, set[str]] = {}
    for row in rows:
        if not row["refused"]:
            parts.setdefault(row["model"], set()).add(row["part"])
    names: set[str] = set()
    for model in {frozenset(of_model): model for model, of_model in parts.items()}.values():
        with suppress(CorruptFile, FileFault):  # its values were stored before it was damaged
            names.update(zoo.checkpoint(model))
    return sorted(names)


def _divided(names: list[str]) -> tuple[list[str], list[str]]:
    """Measures and models: what may be the beginning of an id, with or without an epoch, is one."""
    is_model = [bool(_MODEL.fullmatch(name)) for name in names]
    pairs = list(zip(names, is_model, strict=True))
    return [name for name, model in pairs if not model], [name for name, model in pairs if model]


def _print_refusals(refusals: Sequence[Mapping[str, Any]]) -> None:
    """Print why there is no value, each reason once."""
    if not refusals:
        return
    reasons = by_reason((row["measure"], row["refused"]) for row in refusals)
    console = Terminal(stderr=True, soft_wrap=True)
    console.print(f"without a value: {len(refusals):,}", style="yellow")
    for reason in reasons[:_SHOWN_REFUSALS]:
        console.print(f"  {reason}")
    if (more := len(reasons) - _SHOWN_REFUSALS) > 0:
        console.print(f"  and {counted(more, 'more reason')}; --json has all")
