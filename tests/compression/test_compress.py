"""Compact students: how they start, what becomes of them, and what is refused."""

import math
import time

import pytest
import torch

from vitarium import Blueprint, compress, grow, measure, merge
from vitarium.blueprint.spec import restored
from vitarium.compression.comparison import compare
from vitarium.core import registry
from vitarium.core.config import NoConfig
from vitarium.core.errors import IncompatibleWeights, InvalidInput, UnknownName
from vitarium.core.registry import section
from vitarium.data.load import load
from vitarium.evaluation.latency import paired_seconds
from vitarium.operators.base import operator
from vitarium.zoo import About

QUICK = {"workers": 0, "progress": False}


def test_a_student_is_a_child_of_its_original_with_the_groups_weights_once(zoo, teacher):
    done = compress(zoo, models=[teacher], share=2, epochs=1, **QUICK)
    ((original, student),) = done.students.items()
    assert original == f"{teacher}@2"
    spec = zoo.spec(student)
    assert (spec.parent, spec.parent_epoch, spec.stage) == (teacher, 2, "compressed")
    assert spec.recipe.architecture.name == "mini_deit"
    assert spec.recipe.objective.name == "weight_distillation"
    assert zoo.folder(student).status == "finished"
    shared = [name for name in zoo.checkpoint(student) if name.startswith("shared.")]
    assert {name.split(".")[1] for name in shared} == {"0"}
    before, after = (
        sum(t.numel() for t in zoo.state_dict(id).values()) for id in (teacher, student)
    )
    assert after < 0.7 * before
    row = done.comparison.iloc[0]
    assert (row["parameters_before"], row["parameters_after"]) == (before, after)
    assert 0 <= row["accuracy_after"] <= 1
    assert row["milliseconds_after"] > 0
    assert 0 < row["speedup_low"] <= row["speedup"] <= row["speedup_high"]


def test_times_are_of_pairs_in_turn_and_their_spread_is_given(monkeypatch):
    """On a clock that goes on by what each model takes, and by ten times that now and then."""
    clock, order = [0.0], []

    class Model(torch.nn.Module):
        def __init__(self, seconds):
            super().__init__()
            self.seconds = seconds

        def forward(self, image):
            is_disturbed = len(order) in (20, 21)  # of one pair
            clock[0] += self.seconds * (10 if is_disturbed else 1)
            order.append(self.seconds)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    pairs = paired_seconds(Model(0.3), Model(0.1), torch.zeros(1, 1, 8, 8))
    assert len(pairs) == len(order) // 2 - 2 == 30
    assert {tuple(order[k : k + 2]) for k in range(0, len(order), 2)} == {(0.3, 0.1), (0.1, 0.3)}
    assert [slow / fast for slow, fast in pairs] == pytest.approx([3.0] * 30)
    assert sorted(slow for slow, _ in pairs)[-2:] == pytest.approx([0.3, 3.0])


def test_a_student_starts_as_what_the_operator_makes_with_the_originals_head(zoo, teacher):
    done = compress(
        zoo, models=[teacher], share=2, init="mean", epochs=1, recipe=ALL_EPOCHS, **QUICK
    )
    (student,) = done.students.values()
    converted_id = merge(zoo, "minivit", models=[teacher], share=2, init="mean").id
    start, same = zoo.state_dict(student, 0), zoo.state_dict(converted_id)
    assert start.keys() == same.keys()
    assert all(torch.equal(start[name], same[name]) for name in same)
    head = zoo.state_dict(teacher)
    assert torch.equal(start["head.2.weight"], head["head.2.weight"])


def test_what_cannot_be_measured_says_why(zoo, teacher):
    students = compress(zoo, models=[teacher], epochs=1, **QUICK).students
    (student,) = students.values()
    spec = restored({**zoo.spec(student).factors(), "stage": "broken"})
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, tuple("0123456789"), {}))
    weights = zoo.state_dict(student)
    folder.commit(1, {}, weights | {"pos_embed": weights["pos_embed"].fill_(torch.nan)}, None)
    folder.finish("finished")
    (row,) = compare(zoo, {f"{teacher}@2": spec.id}).to_dict("records")
    assert 0 <= row["accuracy_before"] <= 1
    assert row["refused_before"] == ""
    assert math.isnan(row["accuracy_after"])
    assert "pos_embed has entries that are not finite" in row["refused_after"]


def test_compressing_again_finds_the_student(zoo, teacher):
    first = compress(zoo, models=[teacher], epochs=1, **QUICK)
    again = compress(zoo, models=[teacher[:6]], epochs=1, **QUICK)
    assert again.students == first.students
    assert again.growth.grown == []
    other = compress(zoo, models=[teacher], epochs=1, share="all", init="first", **QUICK)
    assert other.students != first.students


def test_a_student_is_fine_tuned_like_any_model(zoo, teacher):
    (student,) = compress(zoo, models=[teacher], epochs=1, **QUICK).students.values()
    stage = {
        "start": {"models": [student]},
        "data": {"name": "mnist5k", "train_limit": 64},
        "epochs": 1,
        "batch_size": 16,
    }
    blueprint = Blueprint.read({"name": "transfer", "stages": {"transfer": stage}})
    (child,) = grow(blueprint, zoo.path, **QUICK).grown
    assert zoo.spec(child).recipe.architecture == zoo.spec(student).recipe.architecture
    assert zoo.load(child)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_an_epoch_can_be_compressed_and_other_factors_be_set(zoo, teacher):
    recipe = {"objective": "soft_distillation", "optimizer.lr": 5e-4, "checkpoints": "last"}
    done = compress(zoo, models=[f"{teacher}@2"], epochs=1, recipe=recipe, stage="small", **QUICK)
    spec = zoo.spec(done.students[f"{teacher}@2"])
    assert spec.stage == "small"
    assert spec.recipe.objective.name == "soft_distillation"
    assert spec.recipe.optimizer.config.lr == 5e-4
    assert spec.recipe.optimizer.config.weight_decay == 0.05


def test_what_gives_no_classes_is_refused(zoo, classless):
    with pytest.raises(InvalidInput, match=f"{classless}.*simclr.*no classes"):
        compress(zoo, models=[classless], epochs=1, **QUICK)


def test_nothing_and_diverged_models_are_refused(zoo, teacher):
    with pytest.raises(InvalidInput, match="which models"):
        compress(zoo, models=[], **QUICK)
    spec = restored({**zoo.spec(teacher).factors(), "keep_head": True})
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, tuple("0123456789"), {}))
    folder.commit(0, {}, zoo.state_dict(teacher), None)
    folder.finish("diverged", "the loss was nan")
    with pytest.raises(InvalidInput, match=f"{spec.id}@0 diverged"):
        compress(zoo, models=[spec.id], **QUICK)


def test_a_pattern_that_does_not_fit_names_the_model_and_what_would(zoo, teacher):
    with pytest.raises(IncompatibleWeights, match=f"{teacher}@2.*share 3 does not divide 2 blocks"):
        compress(zoo, models=[teacher], share=3, epochs=1, **QUICK)


def test_a_student_is_not_compressed_again(zoo, teacher):
    (student,) = compress(zoo, models=[teacher], epochs=1, **QUICK).students.values()
    with pytest.raises(IncompatibleWeights, match="no multiplexed version"):
        compress(zoo, models=[student], epochs=1, **QUICK)


def test_unknown_methods_and_operators_of_several_models_are_refused(zoo, teacher):
    with pytest.raises(UnknownName, match="minivit"):
        compress(zoo, "minivid", models=[teacher], **QUICK)
    with pytest.raises(InvalidInput, match="uniform_soup"):
        compress(zoo, "uniform_soup", models=[teacher], **QUICK)


def test_a_model_from_elsewhere_needs_data_and_epochs(zoo, teacher):
    from vitarium.blueprint import Imported
    from vitarium.blueprint.spec import ImportedSpec

    recipe = zoo.spec(teacher).recipe
    imported = Imported(
        source="files",
        name="theirs",
        weights="0" * 64,
        architecture=recipe.architecture,
        head=recipe.head,
    )
    spec = ImportedSpec(stage="imported", imported=imported)
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, tuple("0123456789"), {}))
    folder.commit(0, {}, zoo.state_dict(teacher), None)
    folder.finish("finished")
    with pytest.raises(InvalidInput, match="data=NAME"):
        compress(zoo, models=[spec.id], **QUICK)
    digits = {"name": "digits", "train_limit": 64}
    with pytest.raises(InvalidInput, match="epochs=N"):
        compress(zoo, models=[spec.id], data=digits, **QUICK)
    with pytest.raises(InvalidInput, match="normalization="):
        compress(zoo, models=[spec.id], data=digits, epochs=1, **QUICK)
    few = {"batch_size": 16}
    request = {"models": [spec.id], "data": digits, "epochs": 1, "recipe": few, **QUICK}
    for given, values in (("data", None), ("0.5/0.25", ((0.5,), (0.25,)))):
        done = compress(zoo, normalization=given, **request)
        assert done.growth.complete
        assert not done.growth.diverged
        (student,) = done.students.values()
        own = zoo.spec(student).recipe.normalization
        assert (own and own.values) == values
        dataset = load(section("dataset", digits))
        mean, std = values or (dataset.mean, dataset.std)
        part = dataset.test
        pixels = (part.images.float() / 255 - mean[0]) / std[0]
        (row,) = done.comparison.to_dict("records")
        for when, id in (("before", spec.id), ("after", student)):
            with torch.no_grad():
                right = zoo.load(id)(pixels).argmax(1) == part.labels
            assert row[f"accuracy_{when}"] == pytest.approx(right.double().mean().item())


ALL_EPOCHS = {"checkpoints": "all"}


def test_distances_between_a_student_and_its_original_are_not_measured(zoo, teacher):
    (student,) = compress(zoo, models=[teacher], epochs=1, **QUICK).students.values()
    found = measure(zoo, "distance_from_parent", models=[student])
    assert found["value"].isna().all()
    assert "minivit made of its parent" in found["refused"].iloc[0]


@pytest.fixture
def scaled(monkeypatch):
    """A post-training operator from outside that looks at images: it scales the head's weight."""
    monkeypatch.setattr(
        registry, "_plugins", {kind: registry.plugins(kind) for kind in registry.KINDS}
    )

    def scaled(config: NoConfig, ingredients):
        """Scale the head by the number of images in a hundred."""
        (model,) = ingredients
        for name in ingredients.in_turn():
            factor = len(ingredients.examples()) / 100 if name == "head.2.weight" else 1
            yield name, model[name] * factor

    facts = {"title": "Scaling", "models": (1, 1), "split": "train"}
    operator("scaled", **facts, compression="post_training")(scaled)
    return "scaled"


def test_a_post_training_method_is_used_as_it_is(zoo, teacher, scaled):
    done = compress(zoo, scaled, models=[teacher], progress=False)
    ((original, student),) = done.students.items()
    assert (original, done.growth) == (f"{teacher}@2", None)
    before, after = zoo.state_dict(teacher), zoo.state_dict(student)
    assert torch.equal(after["head.2.weight"], before["head.2.weight"] * 0.64)  # of 64 images
    assert zoo.spec(student).stage == "compressed"
    row = done.comparison.iloc[0]
    assert 0 <= row["accuracy_after"] <= 1
    assert row["parameters_before"] == row["parameters_after"]
    assert compress(zoo, scaled, models=[teacher], progress=False).students == done.students


def test_training_goes_on_from_what_was_calibrated_and_is_taught_by_the_original(
    zoo, teacher, scaled
):
    recipe = {**ALL_EPOCHS, "objective": "soft_distillation"}
    done = compress(zoo, scaled, models=[teacher], epochs=1, recipe=recipe, **QUICK)
    (student,) = done.students.values()
    spec = zoo.spec(student)
    start = zoo.spec(spec.parent)
    assert (start.stage, spec.stage, spec.conversion) == ("compressed", "compressed", None)
    assert spec.recipe.objective.config.teacher == f"{teacher}@2"
    (calibrated,) = compress(zoo, scaled, models=[teacher], progress=False).students.values()
    weights = zoo.state_dict(student, 0)
    assert all(torch.equal(weights[n], t) for n, t in zoo.state_dict(calibrated).items())


def test_a_recipe_without_training_is_refused(zoo, teacher, scaled):
    with pytest.raises(InvalidInput, match=r"optimizer\.lr: nothing is trained; give epochs"):
        compress(zoo, scaled, models=[teacher], recipe={"optimizer.lr": 1e-3}, progress=False)


def test_a_method_that_is_trained_can_be_used_as_it_starts(zoo, teacher):
    (student,) = compress(zoo, models=[teacher], epochs=0, progress=False).students.values()
    converted_id = merge(zoo, "minivit", models=[teacher]).id
    assert student == converted_id
