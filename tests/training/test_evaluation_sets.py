"""Named evaluation sets: models are scored on them as they are measured, and nothing else changes."""

import numpy as np
import pytest
import torch

import vitarium
from vitarium import Blueprint, Zoo, grow, measure, plan
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import section
from vitarium.data.load import load
from vitarium.engine.check import ModelCheck
from vitarium.engine.events import Notice
from vitarium.page.live import training_curve
from vitarium.training import EpochEnded, Task, TrainOptions, train, train_together
from vitarium.zoo import ModelFolder
from vitarium.zoo.listing import listing

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}
OTHER = {"data": "digits", "split": "val"}
SETS = {"other": OTHER, "v2": {"data": "digits", "split": "all", "epochs": "last"}}


@pytest.fixture(scope="module", autouse=True)
def _few():
    """Data sets `few`: the digits 3, 1 and 7 of scikit-learn's test images, which are its classes
    in this order; and `numbered`: the same images with the labels 3, 1 and 7 of ten classes."""
    before = registry.plugins("dataset")
    digits = (3, 1, 7)

    def images_and_labels():
        test = load(section("dataset", "digits")).test
        chosen = torch.cat([(test.labels == digit).nonzero()[:, 0] for digit in digits])
        return test.images[chosen], test.labels[chosen]

    @vitarium.dataset(classes=list(map(str, digits)))
    def few(split):
        """Three of the digits."""
        images, labels = images_and_labels()
        return images, [digits.index(label) for label in labels.tolist()]

    @vitarium.dataset(classes=list("0123456789"))
    def numbered(split):
        """Three of the digits, by their numbers."""
        return images_and_labels()

    yield
    for name in registry._plugins["dataset"].keys() - before.keys():
        del registry._plugins["dataset"][name]


def blueprint(tiny, **changes):
    stage = tiny["stages"]["pretrain"] | changes
    stage.pop("grid")
    return {"name": "x", "stages": {"pretrain": stage}}


def chosen(tiny, **changes):
    return plan(Blueprint.read(blueprint(tiny, **changes))).models[0]


def run(spec, path, **kwargs):
    folder = ModelFolder(path / spec.id)
    assert train(spec, folder, **kwargs) == "finished"
    return folder


def test_naming_a_set_changes_no_id_and_no_weights(tiny, tmp_path):
    plain, scored = chosen(tiny), chosen(tiny, evaluate_on=SETS)
    assert plain.id == scored.id
    first, second = (run(s, tmp_path / n) for s, n in ((plain, "a"), (scored, "b")))
    for epoch in range(3):
        weights = second.weights(epoch)
        assert all(torch.equal(weights[n], t) for n, t in first.weights(epoch).items())
    for before, after in zip(first.epochs(), second.epochs(), strict=True):
        added = {"other_loss", "other_accuracy"}
        added |= {"v2_loss", "v2_accuracy"} if after.number == 2 else set()
        assert after.metrics.keys() - before.metrics.keys() == added
        unchanged = before.metrics.keys() - {"seconds", "images_per_second"}
        assert all(before.metrics[name] == after.metrics[name] for name in unchanged)


@pytest.mark.parametrize("stacked", [False, True])
def test_scores_are_what_is_measured_on_the_same_images(tiny, tmp_path, stacked):
    sets = {"few": "few", "other": {"name": "mnist5k"}}
    spec = chosen(tiny, evaluate_on=sets, normalization={"mean": [0.4], "std": [0.3]})
    zoo = Zoo.create(tmp_path / "zoo")
    twin = chosen(tiny, evaluate_on=sets, normalization={"mean": [0.4], "std": [0.3]}, seed=8)
    tasks = [Task(each, zoo.folder(each.id)) for each in ((spec, twin) if stacked else (spec,))]
    train_together(tasks, options=TrainOptions(stacked=stacked))
    metrics = zoo.folder(spec.id).epochs()[-1].metrics
    for name, data in (("few", "few"), ("other", "mnist5k")):
        table = measure(zoo, ["accuracy", "loss"], models=spec.id, data=data).set_index("measure")
        table = table[table["part"] == ""]["value"]
        assert metrics[f"{name}_accuracy"] == pytest.approx(table["accuracy"], abs=1e-6)
        assert metrics[f"{name}_loss"] == pytest.approx(table["loss"], rel=1e-4)


def test_a_frozen_backbone_is_scored_alike(tiny, tmp_path):
    spec = chosen(tiny, evaluate_on={"few": "few"}, adaptation="head")
    zoo = Zoo.create(tmp_path / "zoo")
    run(spec, zoo.path / "models")
    value = measure(zoo, "accuracy", data="few").set_index("part")["value"][""]
    last = zoo.folder(spec.id).epochs()[-1].metrics
    assert last["few_accuracy"] == pytest.approx(value, abs=1e-6)


def test_labels_are_matched_where_features_are_scored(tiny, tmp_path):
    sets = {"few": "few", "numbered": "numbered"}
    spec = chosen(tiny, evaluate_on=sets, objective="simclr", augmentation="simclr")
    metrics = run(spec, tmp_path).epochs()[-1].metrics
    assert metrics["few_knn_accuracy"] == metrics["numbered_knn_accuracy"] > 0


def test_moving_averages_are_scored_on_the_sets_too(tiny, tmp_path):
    metrics = run(chosen(tiny, evaluate_on={"few": "few"}, ema={"decay": 0.5}), tmp_path).epochs()
    assert {"few_accuracy", "few_ema_accuracy"} <= metrics[-1].metrics.keys()


class Killed(Exception):
    pass


@pytest.mark.parametrize("first", [{}, {"other": OTHER}])
def test_an_unfinished_model_goes_on_with_the_sets_with_which_it_began(tiny, tmp_path, first):
    def kill(event):
        if isinstance(event, EpochEnded) and event.epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        run(chosen(tiny, evaluate_on=first), tmp_path, report=kill)
    folder = run(chosen(tiny, evaluate_on=SETS), tmp_path)
    names = [{name.partition("_")[0] for name in epoch.metrics} for epoch in folder.epochs()]
    assert all(("other" in each) == bool(first) and "v2" not in each for each in names)


def test_a_trained_model_is_not_scored_anew_and_that_is_said(tiny, tmp_path):
    grow(blueprint(tiny), tmp_path / "zoo", **PLAIN)
    events = []
    values = blueprint(tiny, evaluate_on={"other": OTHER})
    growth = grow(values, tmp_path / "zoo", listener=events.append, **PLAIN)
    assert (growth.grown, len(growth.existing)) == ([], 1)
    (notice,) = (event.text for event in events if isinstance(event, Notice))
    assert "1 model of this plan began without the evaluation set 'other'" in notice
    growth = grow(values, tmp_path / "new", listener=events.append, **PLAIN)
    grow(values, tmp_path / "new", listener=events.append, **PLAIN)
    assert sum(isinstance(event, Notice) for event in events) == 1


def test_scores_are_columns_and_curves(tiny, tmp_path):
    zoo = grow(blueprint(tiny, evaluate_on=SETS), tmp_path / "zoo", **PLAIN).zoo
    (row,) = listing(
        zoo.path,
        where="v2_accuracy >= 0 AND split_seed = 0",
        columns=["v2_accuracy", "other_loss", "evaluate_on.v2.data"],
    ).rows
    metrics = zoo.folder(row["model"]).epochs()[-1].metrics
    assert row["v2_accuracy"] == metrics["v2_accuracy"]
    assert row["evaluate_on.v2.data"] == "digits"
    counts = zoo.query("SELECT count(other_accuracy) o, count(v2_accuracy) v FROM epochs")
    assert counts.to_dict("records") == [{"o": 3, "v": 1}]
    curve = training_curve(zoo.folder(row["model"]).epochs())["metrics"]
    assert {"other_accuracy", "v2_loss", "val_accuracy"} <= curve.keys()
    assert "epoch_lr" not in curve


def test_a_set_may_end_training_and_is_part_of_the_id_then(tiny, tmp_path):
    stopping = {"metric": "other_accuracy", "patience": 1, "min_delta": 1.0}
    spec = chosen(tiny, evaluate_on=SETS, early_stopping=stopping, epochs=5, checkpoints="last")
    by_other = {**SETS, "other": "digits"}
    assert chosen(tiny, evaluate_on=by_other, early_stopping=stopping, epochs=5).id != spec.id
    without_v2 = {"evaluate_on": {"other": OTHER}, "checkpoints": "last", "epochs": 5}
    assert chosen(tiny, early_stopping=stopping, **without_v2).id == spec.id
    epochs = run(spec, tmp_path).epochs()
    assert len(epochs) == 3
    assert {"v2_accuracy", "test_accuracy"} <= epochs[-1].metrics.keys()
    assert "v2_accuracy" not in epochs[1].metrics


def test_a_recipe_with_sets_is_read_as_it_was_written(tiny):
    from vitarium.blueprint import restored
    from vitarium.blueprint.reproduction import reproduction

    spec = chosen(tiny, evaluate_on=SETS)
    assert restored(spec.factors()) == spec
    assert plan(reproduction([spec])).models == (spec,)


WRONG = {
    "an unknown data set": ({"evaluate_on": {"v2": "digit"}}, r"v2\.data\.name: .* 'digits'"),
    "a split's name": ({"evaluate_on": {"val": "digits"}}, "val: 'val' is a split of the model's"),
    "no name of a metric": ({"evaluate_on": {"a_b": "digits"}}, "'a_b' is not of small letters"),
    "a missing setting": ({"evaluate_on": {"v2": {"name": "image_folder"}}}, "folder: missing"),
    "no data set": ({"evaluate_on": {"v2": 3}}, "v2: 3 is no data set"),
    "an unknown split": ({"evaluate_on": {"v2": {"data": "digits", "split": "x"}}}, "split: 'x'"),
    "a grid": (
        {"grid": {"evaluate_on": [{"v2": "digits"}, {}]}},
        "grid.evaluate_on: they change no weights, and model .* is planned with others already",
    ),
    "an unnamed set that ends training": (
        {"early_stopping": {"metric": "v3_accuracy"}},
        "nor is 'v3' a data set in `evaluate_on`",
    ),
    "one that ends training at its end": (
        {"evaluate_on": SETS, "early_stopping": {"metric": "v2_accuracy"}},
        "'v2' has to be scored after all epochs",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named_where_they_stand(tiny, case):
    changes, message = WRONG[case]
    stage = {**blueprint(tiny)["stages"]["pretrain"], **changes}
    with pytest.raises(InvalidConfig, match=rf"stages\.a\.(.*\.)?.*{message}"):
        plan({"name": "x", "stages": {"a": stage}})


@pytest.fixture
def letters():
    """A data set whose classes no model here learns."""
    vitarium.dataset(name="letters", classes=["x", "y"])(
        lambda split: (np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
    )


def test_a_check_compares_classes_where_the_data_is_here_and_downloads_nothing(
    tiny, letters, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise AssertionError

    for module in ("cifar", "mnist", "svhn"):
        for name in ("download_and_extract_archive", "download_url"):
            monkeypatch.setattr(f"torchvision.datasets.{module}.{name}", fail, raising=False)
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path))
    absent = {"c": "cifar10", "m": "mnist", "t": {"name": "torchvision", "dataset": "SVHN"}}
    absent["h"] = {"name": "hf", "dataset": "some/images"}
    values = blueprint(tiny, evaluate_on={"v1": "few", "v2": "letters", **absent})
    with pytest.raises(InvalidConfig) as refused:
        plan(Blueprint.read(values), check=ModelCheck())
    assert str(refused.value).count("evaluate_on") == 1
    assert "evaluate_on.v2: the classes of 'v2' are not the model's" in str(refused.value)


def test_classes_that_the_model_has_not_are_named_before_anything_is_trained(
    tiny, letters, tmp_path
):
    with pytest.raises(InvalidConfig, match=r"evaluate_on\.v2: the classes of 'v2' are not"):
        grow(blueprint(tiny, evaluate_on={"v2": "letters"}), tmp_path / "zoo", **PLAIN)
    assert not (tmp_path / "zoo").exists()
