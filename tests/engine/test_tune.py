"""Tuning: Optuna's own history, with the zoo for its memory."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import optuna
import pytest

from vitarium import Zoo, tune
from vitarium.blueprint.distributions import distribution
from vitarium.blueprint.recipe_rules import score_names
from vitarium.core import extras
from vitarium.core.errors import InvalidInput
from vitarium.core.extras import MissingExtra
from vitarium.engine.events import EpochEnded
from vitarium.engine.search import Search
from vitarium.engine.tune import Tuning, _is_of_training

SPACE = {
    "a.uniform": {"uniform": [-1, 2]},
    "b.log": {"log_uniform": [1e-4, 1]},
    "c.integer": {"integers": [1, 40]},
    "d.choice": {"choice": [[1, 2], "x", None]},
}
PLAIN = {"precision": "fp32", "compiled": False, "stacked": 1}
LR = {"optimizer.lr": {"log_uniform": [1e-3, 1e-1]}}


def toy(factors):
    """Deterministic; of the rounded values, as training is."""
    penalty = {"[1, 2]": 0.5, "'x'": 0.0, "None": 1.0}[repr(factors["d.choice"])]
    return (
        (factors["a.uniform"] - 0.3) ** 2
        + factors["b.log"]
        + abs(factors["c.integer"] - 7) / 9
        + penalty
    )


def diverges(factors):
    return factors["b.log"] > 0.5


def searched(seed, direction, count, trials=()):
    """The history of a search, or of one that goes on from these trials' scores."""
    search = Search({path: distribution(spec) for path, spec in SPACE.items()}, seed, direction)
    for number in range(count):
        trial = search.ask()
        if number < len(trials):
            assert trial.factors == trials[number].factors
            search.tell(trials[number])
        elif diverges(trial.factors):
            search.tell(replace(trial, status="diverged"))
        else:
            search.tell(replace(trial, score=toy(trial.factors)))
    return search


@pytest.fixture
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_history_is_optunas_own(seed, direction, quiet):
    """Against a study that suggests by itself inside of an objective."""

    def objective(trial):
        values = {
            "a.uniform": trial.suggest_float("a.uniform", -1, 2),
            "b.log": trial.suggest_float("b.log", 1e-4, 1, log=True),
            "c.integer": trial.suggest_int("c.integer", 1, 40),
            "d.choice": [[1, 2], "x", None][trial.suggest_categorical("d.choice", range(3))],
        }
        values["a.uniform"] = min(max(round(values["a.uniform"], 4), -1), 2)
        values["b.log"] = min(max(float(f"{values['b.log']:.4g}"), 1e-4), 1)
        trial.set_user_attr("factors", values)
        if diverges(values):
            raise optuna.TrialPruned
        return toy(values)

    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(objective, n_trials=30)
    search = searched(seed, direction, 30)
    assert [t.factors for t in search.trials] == [t.user_attrs["factors"] for t in study.trials]
    assert [t.score for t in search.trials] == [t.value for t in study.trials]
    tuning = Tuning(None, "toy", "toy", direction, search.trials)
    assert tuning.best.number == study.best_trial.number + 1


def test_a_search_that_goes_on_is_one_that_never_stopped():
    unbroken = searched(3, "minimize", 24)
    assert searched(3, "minimize", 24, unbroken.trials[:13]).trials == unbroken.trials


def test_the_search_finds_better_points_than_random_ones():
    scores = [t.score for t in searched(0, "minimize", 60).trials if t.score is not None]
    assert min(scores[20:]) < min(scores[:20])
    assert sum(scores[-20:]) < sum(scores[:20])


@pytest.fixture
def space(tiny):
    """One stage, a model per trial, an epoch."""
    stage = tiny["stages"]["pretrain"]
    del stage["grid"]
    stage |= {"epochs": 1, "sample": {"seed": 5, "factors": LR}}
    return {"name": "tiny", "stages": {"pretrain": stage}}


@pytest.fixture
def tuned(tmp_path):
    def run(values, folder="zoo", **options):
        options = {"workers": 0, "progress": False, "grow_options": PLAIN, **options}
        return tune(values, tmp_path / folder, **options)

    return run


def test_trials_are_models_of_the_zoo_and_trained_once(space, tuned, tmp_path):
    fewer = tuned(space, trials=2)
    events = []
    more = tuned(space, trials=4, grow_options={**PLAIN, "listener": events.append})
    assert more.trials[:2] == fewer.trials
    trained = [e.model for e in events if isinstance(e, EpochEnded) and e.epoch == 1]
    assert trained == [trial.models[0] for trial in more.trials[2:]]
    assert more.trials == tuned(space, "unbroken", trials=4).trials
    zoo = Zoo.open(tmp_path / "zoo")
    assert sorted(zoo.ids()) == sorted(id for trial in more.trials for id in trial.models)
    for trial in more.trials:
        model = zoo[trial.models[0]]
        assert model.recipe.optimizer.config.lr == trial.factors["optimizer.lr"]
        assert trial.score == zoo.folder(model.id).epochs()[-1].metrics["val_accuracy"]
    assert more.best.score == max(trial.score for trial in more.trials)


def test_an_interrupted_search_goes_on(space, tuned):
    def interrupt(event):
        if isinstance(event, EpochEnded):
            models.add(event.model)
            if len(models) == 2:
                raise KeyboardInterrupt

    models = set()
    with pytest.raises(KeyboardInterrupt):
        tuned(space, trials=3, grow_options={**PLAIN, "listener": interrupt})
    assert tuned(space, trials=3).trials == tuned(space, "unbroken", trials=3).trials


def test_a_loss_is_minimized_and_seeds_differ(space, tuned):
    tuning = tuned(space, trials=3, metric="val_loss", seed=1)
    assert tuning.direction == "minimize"
    assert tuning.best.score == min(trial.score for trial in tuning.trials)
    other = tuned(space, trials=3, metric="val_loss")
    assert not {t.models for t in tuning.trials} & {t.models for t in other.trials}
    frame = tuning.to_frame()
    assert list(frame["val_loss"]) == [trial.score for trial in tuning.trials]
    assert list(frame) == ["trial", "status", "val_loss", "optimizer.lr", "models"]


def test_trials_that_are_suggested_together_are_those_of_optuna(space, tuned, quiet):
    tuning = tuned(space, trials=3, at_a_time=2)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=5))
    distributions = {"optimizer.lr": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)}
    suggested = [study.ask(distributions) for _ in range(2)]
    for trial, finished in zip(suggested, tuning.trials, strict=False):
        study.tell(trial, finished.score)
    suggested.append(study.ask(distributions))
    rates = [float(f"{trial.params['optimizer.lr']:.4g}") for trial in suggested]
    assert [trial.factors["optimizer.lr"] for trial in tuning.trials] == rates
    assert tuned(space, trials=3, at_a_time=2).trials == tuning.trials


def test_a_trial_is_all_points_of_the_grid_from_all_parents(tiny, tuned):
    tiny["stages"]["finetune"] |= {"sample": {"factors": LR}, "grid": {"seed": [1, 2]}}
    tiny["stages"]["pretrain"]["epochs"] = 1
    tiny["stages"]["last"] = {**tiny["stages"]["finetune"], "start": "finetune"}
    del tiny["stages"]["last"]["sample"]
    tuning = tuned(tiny, trials=1)
    (trial,) = tuning.trials
    assert len(trial.models) == 2 * 2
    scores = [tuning.zoo.folder(id).epochs()[-1].metrics["val_accuracy"] for id in trial.models]
    assert trial.score == pytest.approx(sum(scores) / 4)
    assert len(tuning.zoo.ids()) == 2 + 4


def test_a_trial_is_of_its_stage_though_another_asks_for_the_same_model(space, tuned):
    rate = tuned(space, trials=1).best.factors["optimizer.lr"]
    twin = {**space["stages"]["pretrain"], "optimizer": {"name": "adamw", "lr": rate}}
    del twin["sample"]
    space["stages"] = {"twin": twin, **space["stages"]}
    assert len(tuned(space, trials=1).best.models) == 1


def test_a_diverged_trial_is_worse_than_all_and_is_not_tried_again(space, tuned):
    stage = space["stages"]["pretrain"]
    stage["sample"]["factors"] = {"optimizer.lr": {"choice": [1e30, 1e-2]}}
    stage["optimizer"] = "sgd"
    tuning = tuned(space, trials=4)
    assert {t.status: t.factors["optimizer.lr"] for t in tuning.trials} == {
        "diverged": 1e30,
        "finished": 1e-2,
    }
    assert tuning.best.factors == {"optimizer.lr": 1e-2}
    assert len(tuning.zoo.ids()) == 2


def test_a_trial_that_failed_is_trained_when_the_search_is_started_again(space, tuned, monkeypatch):
    module = import_module("vitarium.engine.tune")
    grow_models = module.grow

    def fail_once(planned, folder, **options):
        """As where the workers of the first trial died."""
        monkeypatch.setattr(module, "grow", grow_models)
        return SimpleNamespace(zoo=Zoo.create(folder))

    monkeypatch.setattr(module, "grow", fail_once)
    tuning = tuned(space, trials=2)
    assert [trial.status for trial in tuning.trials] == ["failed", "finished"]
    assert tuning.best.number == 2
    again = tuned(space, trials=2)
    assert [trial.status for trial in again.trials] == ["finished", "finished"]
    assert again.trials == tuned(space, "unbroken", trials=2).trials


def without_samples(space):
    del space["stages"]["pretrain"]["sample"]


def two_samples(space):
    space["stages"]["other"] = space["stages"]["pretrain"]


def another_stage(space):
    space["stages"]["other"] = {
        k: v for k, v in space["stages"]["pretrain"].items() if k != "sample"
    }


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (without_samples, {}, "no stage of 'tiny' has a space to search; write sample: {factors:"),
        (two_samples, {}, "the stages pretrain, other have samples; choose one by stage='pretrain'"),
        (another_stage, {"stage": "other"}, "stage 'other' has no sample, whose space could be searched; pretrain has"),
        (dict, {"stage": "pretran"}, "unknown stage 'pretran'; did you mean 'pretrain'?"),
        (dict, {"trials": 0}, "trials=0: a whole number, one at least"),
        (dict, {"trials": 1.5}, "trials=1.5: a whole number"),
        (dict, {"at_a_time": 0}, "at_a_time=0: a whole number, one at least"),
        (dict, {"direction": "up"}, "direction='up': maximize or minimize"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    space, tuned, tmp_path, change, options, message
):
    change(space)
    with pytest.raises(InvalidInput) as refused:
        tuned(space, **{"trials": 1, **options})
    assert message in str(refused.value)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("accuracy", "; did you mean .*; they have val_loss, val_accuracy, test_loss, test_acc"),
        ("val_acuracy", "; did you mean 'val_accuracy'"),
        ("val_knn_accuracy", "; did you mean 'val_accuracy'"),
        ("v2_los", "; did you mean 'v2_loss'"),
        ("val_trained_accuracy", "; did you mean 'val_ema_accuracy'"),
    ],
)
def test_a_metric_that_no_model_will_have_is_refused_before_any_is_trained(
    space, tuned, tmp_path, metric, message
):
    space["stages"]["pretrain"] |= {"evaluate_on": {"v2": "digits"}, "ema": {}}
    with pytest.raises(InvalidInput, match=f"have no metric '{metric}'{message}"):
        tuned(space, trials=3, metric=metric)
    assert not (tmp_path / "zoo").exists()


def test_every_score_that_a_model_has_is_known_before_it_is_trained(space, tuned):
    space["stages"]["pretrain"] |= {"evaluate_on": {"v2": "digits"}, "ema": {}}
    (trial,) = tuned(space, trials=1, metric="v2_ema_loss").trials
    zoo = tuned(space, trials=1, metric="train_loss").zoo
    (id,) = trial.models
    metrics = zoo.folder(id).epochs()[-1].metrics
    of_training = {name for name in metrics if _is_of_training(name)}
    assert {*score_names(zoo.spec(id).recipe)} == {*metrics} - of_training


def test_a_metric_of_training_that_there_is_not_is_refused_with_those_that_there_are(space, tuned):
    with pytest.raises(InvalidInput, match="have no metric 'train_los'; did you mean 'train_loss'"):
        tuned(space, trials=3, metric="train_los")


def test_a_wrong_blueprint_is_refused_with_its_paths(space, tuned):
    space["stages"]["pretrain"]["sample"]["factors"]["optimizer.lrr"] = {"choice": [1]}
    with pytest.raises(
        InvalidInput, match=r"sample\.factors\.optimizer\.lrr: unknown factor 'lrr'"
    ):
        tuned(space, trials=1)


def test_without_optuna_the_extra_is_named(space, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"^tuning needs optuna: pip install 'vitarium\[tune\]'$"
    ):
        tuned(space, trials=1)
    assert not (tmp_path / "zoo").exists()
