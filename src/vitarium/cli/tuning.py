"""`vitarium tune`: search for good hyper-parameters."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli._options import argument, option, path_option
from vitarium.cli._progress import resumable
from vitarium.cli._tables import HAS_ALL, print_rows
from vitarium.cli.grow import loggers_of
from vitarium.core.extras import require
from vitarium.core.numerals import counted
from vitarium.core.terminal import print_note

if TYPE_CHECKING:
    from vitarium.engine.tune import Tuning

_BEST = 10  # trials that are shown


def tune(
    blueprint: Annotated[
        str,
        argument(
            "A YAML file in which a stage has a `sample`: the space that is searched.",
            autocompletion=completion.blueprints,
        ),
    ],
    trials: Annotated[
        int, option("How many trials there are to be, with those that the zoo has.", min=1)
    ],
    zoo: Annotated[Path | None, path_option("The zoo's folder. Default: NAME-zoo.")] = None,
    stage: Annotated[
        str | None,
        option(
            "Stage whose sample is searched. Default: the one that has a sample.",
            autocompletion=completion.stages_of_blueprint,
        ),
    ] = None,
    metric: Annotated[
        str, option("Metric of the last epoch, e.g. val_accuracy, val_loss or val_knn_accuracy.")
    ] = "val_accuracy",
    direction: Annotated[
        Literal["maximize", "minimize"] | None,
        option("Default: losses are minimized, all else is maximized.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, option("Of the search. Default: the sample's.", min=0, show_default=False)
    ] = None,
    at_a_time: Annotated[
        int,
        option("Trials suggested and trained together; of another number, they are others.", min=1),
    ] = 1,
    workers: options.Workers = None,
    device: Annotated[
        str | None, option("auto (a GPU where there is one), cpu, cuda, or cuda:1.")
    ] = None,
    precision: options.Precision = "auto",
    data_dir: options.DataDir = None,
    log: options.Log = None,
    log_set: options.LogSettings = None,
    wait: options.Wait = False,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """Search for good hyper-parameters: each trial is a model of the zoo.

    Optuna suggests values of the factors that stand in a stage's `sample`, by what earlier trials
    scored; the stage's grid, variants and parents are grown at each of them, and their scores
    averaged. If it is interrupted, run the same command to resume; with more --trials, it goes on.

    Examples:

      vitarium tune mine.yaml --trials 20

      vitarium tune mine.yaml --zoo my-zoo --trials 40 --metric val_loss --at-a-time 4
    """
    require("tune", "vitarium tune")
    with resumable("Finished epochs of the trials are kept in the zoo"):
        from vitarium.cli._blueprint import read_blueprint
        from vitarium.engine.tune import tune as run

        loaded, folder, _ = read_blueprint(blueprint, zoo, data_dir)
        tuning = run(
            loaded,
            folder,
            trials=trials,
            stage=stage,
            metric=metric,
            direction=direction,
            seed=seed,
            at_a_time=at_a_time,
            workers=workers,
            device=device,
            data_dir=data_dir,
            grow_options={
                "precision": None if precision == "auto" else precision,
                "logs": loggers_of(log, log_set),
                "wait": wait,
            },
        )
    if json or csv:
        print_rows(tuning.to_frame().to_dict("records"), as_json=json, as_csv=csv)
    else:
        _print(tuning, blueprint)
    if tuning.best is None:
        raise typer.Exit(1)


def _print(tuning: "Tuning", blueprint: str) -> None:
    rows = [
        {"trial": t.number, tuning.metric: f"{t.score:.4f}", **t.factors}
        | {"models": " ".join(id[:8] for id in t.models)}
        for t in tuning.ranking[:_BEST]
    ]
    count = counted(len(tuning.trials), "trial")
    print_rows(rows, title=f"The best of {count} of {tuning.stage}", complete=HAS_ALL)
    for status in ("diverged", "failed"):
        if number := sum(trial.status == status for trial in tuning.trials):
            print_note(f"{counted(number, 'trial')} {status}.", style="red")
    if tuning.best:
        path = shlex.quote(str(tuning.zoo.path))
        print_note(
            f"Look at the best: vitarium show {path} {tuning.best.models[0][:8]}\n"
            f"Go on: vitarium tune {shlex.quote(blueprint)} --zoo {path} "
            f"--trials {2 * len(tuning.trials)}, with the same options"
        )
