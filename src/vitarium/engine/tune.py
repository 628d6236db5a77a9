"""Tune: search hyper-parameters by growing models of a zoo."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, get_args

from vitarium.blueprint import Blueprint, Plan, plan
from vitarium.blueprint.distributions import Choice, Distribution
from vitarium.blueprint.recipe_rules import score_names
from vitarium.blueprint.sampling import Sample
from vitarium.blueprint.stage import Stage
from vitarium.core.errors import InvalidInput, UnknownName, did_you_mean
from vitarium.core.extras import require
from vitarium.core.filenames import user_path
from vitarium.core.parameters import parameter
from vitarium.engine.check import ModelCheck
from vitarium.engine.grow import grow
from vitarium.engine.parents import parents_in
from vitarium.engine.part import part_of
from vitarium.engine.progress.display import announce
from vitarium.engine.search import Direction, Search, Trial
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd


SPEED = ("seconds", "images_per_second")
"""Metrics of every epoch, whatever the objective."""


@dataclass(frozen=True)
class Tuning:
    """Trials of a search, whose models are in the zoo.

    stage: whose sample was searched; metric: what was maximized or minimized.
    trials: in the order in which they were suggested.
    """

    zoo: Zoo
    stage: str
    metric: str
    direction: Direction
    trials: list[Trial]

    @cached_property
    def ranking(self) -> list[Trial]:
        """Trials with a score, the best first; of equal ones, the earlier."""
        scored = [trial for trial in self.trials if trial.score is not None]
        sign = -1 if self.direction == "maximize" else 1
        return sorted(scored, key=lambda trial: sign * (trial.score or 0.0))

    @property
    def best(self) -> Trial | None:
        """The best trial; None where none finished."""
        return next(iter(self.ranking), None)

    def to_frame(self) -> "pd.DataFrame":
        """A row per trial: trial, status, the metric, factors by path, and models."""
        import pandas as pd

        rows = [
            {"trial": t.number, "status": t.status, self.metric: t.score, **t.factors}
            | {"models": " ".join(t.models)}
            for t in self.trials
        ]
        return pd.DataFrame(rows)


def tune(
    blueprint: Blueprint | Mapping[str, Any] | str | Path,
    zoo: Zoo | str | Path,
    *,
    trials: int,
    stage: str | None = None,
    metric: str = "val_accuracy",
    direction: Direction | None = None,
    seed: int | None = None,
    at_a_time: int = 1,
    workers: int | None = None,
    device: str | None = None,
    data_dir: str | Path | None = None,
    grow_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Tuning:
    """Search the factors of a stage's `sample` for the best models, by Optuna.

    Each trial is a point of the space, grown with the stage's grid, variants and parents; its score
    is the mean over its models. The sample's count and method are of no matter. Trials whose models
    are in the zoo are not trained again: the same call goes on after an interruption, and a call
    with more trials goes on from these.

    Args:
        blueprint: as of `grow`.
        zoo: the zoo's folder; made if it is not there.
        trials: how many there are to be, with those that the zoo has.
        stage: whose sample is searched; may be left out where there is only one.
        metric: of the last epoch, e.g. "val_accuracy" or "val_loss".
        direction: "maximize" or "minimize". Default: losses are minimized, all else is maximized.
        seed: of the search. Default: the sample's.
        at_a_time: trials that are suggested, and trained, together; a search with another number
            suggests others.
        workers, device, data_dir: as of `grow`.
        grow_options: further arguments of `grow`, e.g. {"logs": ["csv"]}.
        progress: show progress on the terminal.

    Raises MissingExtra without Optuna, InvalidConfig, InvalidInput, and as `grow` does.
    """
    require("tune", "tuning")
    for name, number in (("trials", trials), ("at_a_time", at_a_time)):
        if not isinstance(number, int) or number < 1:
            raise InvalidInput(f"{parameter(name, number)}: a whole number, one at least")
    if direction not in (None, *get_args(Direction)):
        raise InvalidInput(f"{parameter('direction', direction)}: maximize or minimize")
    loaded = _loaded(blueprint, zoo, data_dir)
    stage, sample = _searched(loaded, stage)
    direction = direction or ("minimize" if metric.endswith("loss") else "maximize")
    search = Search(sample.space, sample.seed if seed is None else seed, direction)
    growing = {"workers": workers, "device": device, "data_dir": data_dir, "progress": progress}
    evaluation = _Evaluation(loaded, stage, metric, zoo, {**growing, **(grow_options or {})})
    while len(search.trials) < trials:
        count = min(at_a_time, trials - len(search.trials))
        for trial in evaluation.run([search.ask() for _ in range(count)]):
            search.tell(trial)
            if progress and evaluation.has_grown:
                announce(_line(trial, trials, metric))
    return Tuning(Zoo.open(evaluation.folder), stage, metric, direction, search.trials)


def _loaded(
    blueprint: Blueprint | Mapping[str, Any] | str | Path,
    zoo: Zoo | str | Path,
    data_dir: str | Path | None,
) -> Blueprint:
    """The blueprint, of which every stage is right, and the sample's own first points, too."""
    if isinstance(blueprint, Blueprint):
        return blueprint
    check = ModelCheck(zoo, user_path(data_dir) if data_dir else None)
    if isinstance(blueprint, Mapping):
        return Blueprint.read(blueprint, parents_in(zoo), check)
    return Blueprint.load(blueprint, parents_in(zoo), check)


def _searched(blueprint: Blueprint, name: str | None) -> tuple[str, Sample]:
    """The stage whose sample is searched. Raises InvalidInput where that is not clear."""
    samples = {n: stage.sample for n, stage in blueprint.stages.items() if stage.sample}
    if not samples:
        form = "sample: {factors: {optimizer.lr: {log_uniform: [1e-4, 1e-2]}}}"
        raise InvalidInput(f"no stage of '{blueprint.name}' has a space to search; write {form}")
    if name is None and len(samples) > 1:
        form = parameter("stage", next(iter(samples)))
        raise InvalidInput(f"the stages {', '.join(samples)} have samples; choose one by {form}")
    name = next(iter(samples)) if name is None else name
    if name not in blueprint.stages:
        raise UnknownName("stage", name, blueprint.stages)
    if name not in samples:
        hint = f"; {', '.join(samples)} has" if len(samples) == 1 else ""
        raise InvalidInput(f"stage '{name}' has no sample, whose space could be searched{hint}")
    return name, samples[name]


def _with_ancestors(name: str, stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """A stage and those that it starts from, directly or not."""
    names = [name]
    for each in names:
        for settings, _ in stages[each].points():
            start = settings.get("start")
            start = start.get("stage") if isinstance(start, dict) else start
            if isinstance(start, str) and start in stages and start not in names:
                names.append(start)
    return {each: stage for each, stage in stages.items() if each in names}


def _line(trial: Trial, trials: int, metric: str) -> str:
    outcome = trial.status if trial.score is None else f"{metric} {trial.score:.4g}"
    factors = ", ".join(f"{path}={value}" for path, value in trial.factors.items())
    return f"trial {trial.number} of {trials}: {outcome} with {factors}"


@dataclass
class _Evaluation:
    """Grows the models of trials and reads their scores."""

    blueprint: Blueprint
    stage: str
    metric: str
    zoo: Zoo | str | Path
    growing: Mapping[str, Any]
    has_grown: bool = False
    """Whether the last trials were not in the zoo before."""

    @cached_property
    def folder(self) -> Path:
        return self.zoo.path if isinstance(self.zoo, Zoo) else user_path(self.zoo)

    def run(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials, with their models and scores.

        Raises InvalidInput, before anything is trained, for a metric that their models will lack.
        """
        plans = [self._plan(trial) for trial in trials]
        for model in (model for each in plans for model in each.of_stage(self.stage)):
            names = score_names(model.recipe)
            if names and self.metric not in names and not _is_of_training(self.metric):
                raise self._no_metric(names)
        models = {model.id: model for each in plans for model in each.models}
        self.has_grown = not self._has(models)
        if self.has_grown:
            together = replace(plans[0], models=tuple(models.values()))
            grow(together, self.folder, **self.growing).zoo.add_blueprint(self.blueprint)
        return [self._scored(*each) for each in zip(trials, plans, strict=True)]

    def _plan(self, trial: Trial) -> Plan:
        """The models of the stage at the trial's point, and all that they start from."""
        space: dict[str, Distribution] = {
            path: Choice([value]) for path, value in trial.factors.items()
        }
        stage = self.blueprint.stages[self.stage]
        fixed = stage.changed({"sample": Sample(factors=space, count=1)})
        stages = _with_ancestors(self.stage, {**self.blueprint.stages, self.stage: fixed})
        point = self.blueprint.changed({"stages": stages})
        return part_of(plan(point, parents_in(self.folder)))

    def _has(self, models: Mapping[str, Any]) -> bool:
        """Whether all of them are in the zoo, trained to their end."""
        folders = self.folder / "models"
        return all((folders / id / "result.json").exists() for id in models)

    def _scored(self, trial: Trial, planned: Plan) -> Trial:
        zoo = Zoo.open(self.folder)
        ids = tuple(model.id for model in planned.of_stage(self.stage))
        folders = [zoo.folder(id) for id in ids]
        states = {folder.status if folder.exists else "training" for folder in folders}
        if "training" in states:
            return replace(trial, models=ids, status="failed")
        if "diverged" in states:
            return replace(trial, models=ids, status="diverged")
        score = fmean(self._metric(folder.epochs()[-1].metrics) for folder in folders)
        if not isfinite(score):
            return replace(trial, models=ids, status="diverged")
        return replace(trial, models=ids, score=score)

    def _metric(self, metrics: Mapping[str, float]) -> float:
        if self.metric not in metrics:
            raise self._no_metric(metrics)
        return metrics[self.metric]

    def _no_metric(self, names: Collection[str]) -> InvalidInput:
        hint = did_you_mean(self.metric, names)
        what = f"models of stage '{self.stage}' have no metric '{self.metric}'"
        return InvalidInput(f"{what}{hint}; they have {', '.join(names)}")


def _is_of_training(metric: str) -> bool:
    """Whether a metric is none of those that objectives declare as their scores."""
    return metric in SPEED or metric.startswith(("train_", "epoch_"))
