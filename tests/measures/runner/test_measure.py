"""Measuring a zoo: right numbers, each computed once, and what cannot be measured is said."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import Tensor

from reference.recorded import layer_vectors
from vitarium import Blueprint, Zoo, grow, measure, study
from vitarium.core.config import InvalidConfig, NoConfig
from vitarium.core.errors import (
    DamagedCache,
    DiskFull,
    InvalidInput,
    NotApplicable,
    NotKept,
    UnknownName,
)
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel, Predictions, Representation, Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures.base import measure as measure_plugin
from vitarium.zoo import records


def whole(table):
    return table[table["part"] == ""]


def ids(zoo, stage):
    return [id for id in zoo.ids() if zoo.spec(id).stage == stage]


def test_every_model_has_its_number(zoo):
    table = whole(measure(zoo, "weight_norm"))
    assert list(table["model"]) == zoo.ids()
    for row in table.itertuples():
        weights = torch.cat([t.double().flatten() for t in zoo.state_dict(row.model).values()])
        assert math.isclose(row.value, weights.norm(), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("epochs", "numbers"), [("all", [0, 1, 2]), ("last", [2]), (1, [1]), ([0, 2], [0, 2])]
)
def test_epochs_are_chosen(zoo, counted, epochs, numbers):
    one = ids(zoo, "pretrain")[0]
    table = measure(zoo, "counted", models=[one[:8]], epochs=epochs)
    assert list(table["epoch"]) == numbers


def test_an_epoch_that_no_model_has_is_refused(zoo):
    with pytest.raises(InvalidInput, match="none of the 6 models has weights of epoch 9"):
        measure(zoo, "weight_norm", epochs=9)
    with pytest.raises(InvalidInput, match="epochs is an empty list"):
        measure(zoo, "weight_norm", epochs=[])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"split": "testing"}, "unknown split 'testing'"), ({"num_images": 0}, "num_images is 0")],
)
def test_images_that_there_are_not_are_refused(zoo, settings, message):
    with pytest.raises(InvalidInput, match=message):
        measure(zoo, "accuracy", **settings)
    with pytest.raises(InvalidInput, match=message):
        study(zoo, "diversity", **settings)


def test_asking_twice_computes_once(zoo, counted):
    first = measure(zoo, "counted", epochs="all")
    assert len(counted) == 2 * 3 + 4 * 2
    pd.testing.assert_frame_equal(measure(zoo, "counted", epochs="all"), first)
    assert len(counted) == 14
    measure(zoo, "counted", overwrite=True)
    assert len(counted) == 14 + 6


def test_only_what_is_missing_is_computed(zoo, counted):
    some = zoo.ids()[:2]
    measure(zoo, "counted", models=some)
    measure(zoo, "counted")
    assert sorted(counted) == sorted({f"{id}@{zoo.at(id)[1]}" for id in zoo.ids()})


def test_other_weights_of_the_same_model_are_measured_anew(zoo, counted):
    measure(zoo, "counted", models=[(one := zoo.ids()[0])])
    folder = zoo.folder(one)
    number, _ = folder.checkpoint()
    changed = {name: tensor + 1 for name, tensor in folder.weights().items()}
    (folder.checkpoints.path(number)).unlink()
    folder.keep(number, changed)
    measure(zoo, "counted", models=[one])
    assert len(counted) == 2


def test_what_was_measured_is_kept_when_measuring_is_interrupted(zoo, counted, own_plugins):
    seen = []

    @measure_plugin("broken", unit="1", title="made up")
    def broken(config: NoConfig, weights: Weights):
        seen.append(weights.name)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        measure(zoo, "broken")
    assert len(zoo.records("broken")) == 3
    assert len(measure(zoo, "broken")) == 6
    assert len(seen) == 7


def test_other_settings_are_another_measure(zoo):
    norms = whole(measure(zoo, "weight_norm"))
    parts = whole(measure(zoo, "weight_norm", names="attn"))
    assert (parts["value"].to_numpy() < norms["value"].to_numpy()).all()
    pd.testing.assert_frame_equal(whole(measure(zoo, "weight_norm")), norms)


def test_several_measures_share_the_settings_that_they_know(zoo, counted):
    table = measure(zoo, ["counted", "weight_norm"], order=1)
    assert set(table["measure"]) == {"counted", "weight_norm"}
    with pytest.raises(InvalidConfig, match="none of these measures has a setting 'ordr'"):
        measure(zoo, ["counted", "weight_norm"], ordr=1)
    with_settings = [choose("measure", "weight_norm", order=1), "counted"]
    pd.testing.assert_frame_equal(
        measure(zoo, with_settings).sort_values(["measure", "model", "part"], ignore_index=True),
        table.sort_values(["measure", "model", "part"], ignore_index=True),
    )


def test_bad_names_and_settings_are_refused(zoo):
    with pytest.raises(UnknownName, match="'weight_nrom'; did you mean 'weight_norm'"):
        measure(zoo, "weight_nrom")
    with pytest.raises(InvalidConfig, match="has no setting 'ordr'"):
        measure(zoo, "weight_norm", ordr=1)
    with pytest.raises(InvalidInput, match="name a measure"):
        measure(zoo, [])
    with pytest.raises(UnknownName, match="choice of pairs 'sam-stage'"):
        measure(zoo, "agreement", pairs="sam-stage")


# Behavior


def test_accuracy_is_that_of_the_training_metrics(zoo):
    table = whole(measure(zoo, "accuracy"))
    known = zoo.models().set_index("id")["test_accuracy"]
    assert table["value"].tolist() == pytest.approx(known[table["model"]].tolist())
    assert set(table["data"]) == {"digits"}
    assert set(table["split"]) == {"test"}
    assert set(table["num_images"]) == {359}
    assert not table["trained_on"].any()


def test_each_model_runs_once_over_the_images_for_all_measures(zoo, passes):
    measure(zoo, ["accuracy", "agreement", "cka"], num_images=300, pairs="all")
    assert [sum(seen) for seen in passes if seen] == [300] * 6


def test_a_pass_is_made_for_what_is_missing_alone(zoo, passes):
    measure(zoo, "accuracy")
    assert [sum(seen) for seen in passes] == [359] * 6
    assert not (zoo.path / "cache").exists()  # no pairs: nothing has to be kept
    passes.clear()
    measure(zoo, ["accuracy", "cka"], pairs="all", num_images=100)
    assert [sum(seen) for seen in passes] == [100] * 6
    passes.clear()
    measure(zoo, ["agreement", "cka"], pairs="all")
    measure(zoo, ["agreement", "js_divergence"], pairs="all")
    assert [sum(seen) for seen in passes] == [359] * 6


def test_predictions_of_a_pass_with_features_are_in_the_images_order(zoo):
    """300 images are compared by layer, and all 359 predicted: in the same pass."""
    measured = whole(measure(zoo, ["cka", "accuracy"], pairs="all", batch_size=64))
    known = zoo.models().set_index("id")["test_accuracy"]
    table = measured[measured["measure"] == "accuracy"]
    assert table["value"].tolist() == pytest.approx(known[table["model"]].tolist())


def test_fewer_images_are_the_same_for_all_and_another_measurement(zoo):
    some = whole(measure(zoo, "accuracy", num_images=50))
    assert set(some["num_images"]) == {50}
    assert set(whole(measure(zoo, "accuracy"))["num_images"]) == {359}
    assert len(whole(zoo.records("accuracy"))) == 12


def test_images_that_were_trained_on_are_refused_unless_forced_and_then_marked(zoo, passes):
    table = measure(zoo, "accuracy", split="train")
    assert table["value"].isna().all()
    assert table["refused"].str.contains("trained on these images").all()
    assert not any(passes)
    forced = measure(zoo, "accuracy", split="train", force=True)
    assert forced["trained_on"].all()
    assert zoo.records("accuracy")["trained_on"].all()


def test_validation_images_of_another_split_were_trained_on(zoo, tiny):
    """Fine-tuning splits the digits otherwise (split_seed 1), with 64 of them for training."""
    other = {"name": "digits", "split_seed": 3}
    table = measure(zoo, "accuracy", split="val", data=other)
    assert table["refused"].str.contains("trained on these images").all()
    own = measure(zoo, "accuracy", split="val", models=ids(zoo, "pretrain"))
    assert (own["refused"] == "").all()


def test_one_data_set_for_all_can_be_named_and_an_unknown_one_is_refused(zoo):
    data = {"name": "digits", "split_seed": 5}
    table = measure(zoo, "agreement", pairs="all", data=data, split="val", force=True)
    assert (table["refused"] == "").all()
    assert table["trained_on"].all()
    with pytest.raises(UnknownName, match="unknown dataset 'digitz'; did you mean 'digits'"):
        measure(zoo, "accuracy", data="digitz")


# Pairs


def test_pairs_are_siblings_or_of_a_stage_or_all(zoo):
    counts = {
        which: len(whole(measure(zoo, "agreement", pairs=which)))
        for which in ("same-parent", "same-stage", "all")
    }
    assert counts == {"same-parent": 2, "same-stage": 1 + 6, "all": 15}


def test_agreement_is_that_of_the_models_answers(zoo):
    table = whole(measure(zoo, "agreement", pairs="all"))
    row = table.iloc[-1]
    test = measure_images(zoo)
    answers = [zoo.load(id)(test).argmax(1) for id in (row["model"], row["other"])]
    assert row["value"] == pytest.approx((answers[0] == answers[1]).float().mean().item())


def measure_images(zoo):
    from vitarium.evaluation.loader import ModelLoader

    sources = ModelLoader(zoo, data=None, device="cpu", data_dir=None)
    examples = sources.examples(zoo.ids()[0], "test")
    return torch.cat([batch.images for batch in examples.batches()])


def test_layers_are_compared_with_themselves_in_copies(zoo):
    from vitarium.evaluation.features import cosines

    table = measure(zoo, "cka", pairs="all", layers="all", num_images=64, batch_size=32)
    assert set(table["part"]) == {"", "blocks.0|blocks.0"}
    row = table[table["part"] == ""].iloc[0]
    section = choose("measure", "cka", layers="all", num_images=64, batch_size=32)
    from vitarium.evaluation.loader import ModelLoader

    sources = ModelLoader(zoo, data=None, device="cpu", data_dir=None)
    images = [b.images for b in sources.examples(zoo.ids()[0], "test").first(64).batches()]
    one, other = (
        layer_vectors(zoo.load(id), images, [section])[0] for id in (row["model"], row["other"])
    )
    assert row["value"] == pytest.approx(cosines(one, other)[-1, -1].item(), abs=1e-5)


def test_a_pair_that_cannot_be_compared_is_refused_and_the_others_are_measured(zoo, own_plugins):
    last = zoo.ids()[-1]

    @measure_plugin("odd", unit="1", title="made up")
    def odd(config: NoConfig, one: Predictions, other: Predictions):
        if torch.equal(one.logits, wrong) or torch.equal(other.logits, wrong):
            raise NotApplicable("these two do not go together")
        return 1.0

    wrong = zoo.load(last)(measure_images(zoo)).detach()
    table = measure(zoo, "odd", pairs="all")
    assert len(table) == 15
    refused = table[table["refused"] != ""]
    assert len(refused) == 5
    assert refused["value"].isna().all()
    assert len(zoo.records("odd")) == 10


def test_a_measure_that_is_not_symmetric_is_measured_both_ways(zoo, own_plugins):
    @measure_plugin("first_loss", unit="1", title="made up", symmetric=False)
    def name(config: NoConfig, one: EvalModel, other: EvalModel):
        return float(one.name < other.name)

    table = measure(zoo, "first_loss", pairs="same-parent")
    assert sorted(table["value"]) == [0, 0, 1, 1]


def test_settings_of_pairs_may_be_lists(zoo, own_plugins):
    class Listed(NoConfig):
        numbers: list[int] = [1, 2]

    class ListedFeatures(Representation):
        numbers: list[int] = [1, 2]

    @measure_plugin("listed", unit="1", title="made up", reason=lambda *_: "")
    def listed(config: Listed, models: Sequence[Weights]):
        return {"": torch.full((len(models), len(models)), float(sum(config.numbers)))}

    @measure_plugin("listed_features", unit="1", title="made up")
    def features(config: ListedFeatures, features: Tensor):
        return torch.tensor(config.numbers, dtype=torch.float32)

    assert set(measure(zoo, "listed", numbers=[3, 4], pairs="same-parent")["value"]) == {7}
    table = measure(zoo, "listed_features", pairs="same-parent")
    assert table["value"].tolist() == pytest.approx([1] * len(table))


def test_models_of_other_image_sizes_are_fed_the_same_originals_each_at_its_size(zoo, tiny):
    del tiny["stages"]["finetune"]
    tiny["stages"]["pretrain"] |= {"epochs": 1, "grid": {"architecture.img_size": [16]}}
    (other,) = grow(Blueprint.read(tiny), zoo.path, workers=0, progress=False).plan.models
    table = whole(measure(zoo, ["agreement", "cka", "barrier"], pairs="all", num_images=32))
    assert len(table) == 3 * 21
    odd = (table["model"] == other.id) | (table["other"] == other.id)
    refused = odd & (table["measure"] == "barrier")  # nothing lies between their weights
    assert table[refused]["refused"].str.contains("images of different sizes").all()
    assert (table[~refused]["refused"] == "").all()
    row = table[odd & (table["measure"] == "agreement")].iloc[0]
    answers = []
    for id in (row["model"], row["other"]):
        images = torch.stack([image for image, _ in zoo.data(id)])
        assert images.shape[2:] == ((16, 16) if id == other.id else (8, 8))
        chosen = loaded_examples(zoo, id).numbers
        answers.append(zoo.load(id)(images[chosen]).argmax(1))
    assert row["value"] == pytest.approx((answers[0] == answers[1]).float().mean().item())


def loaded_examples(zoo, id):
    return ModelLoader(zoo).examples(id, "test", 32)


def test_models_of_other_classes_are_refused_pair_by_pair(zoo):
    """One of the models is made to have four outputs: it is no classifier of these images."""
    one = next(id for id in zoo.ids() if zoo.spec(id).stage == "finetune")
    folder = zoo.folder(one)
    number, _ = folder.checkpoint()
    weights = {n: t[:4] if n.startswith("head") else t for n, t in folder.weights().items()}
    folder.begin(folder.spec(), replace(folder.about(), num_outputs=4))
    folder.checkpoints.path(number).unlink()
    folder.keep(number, weights)
    table = whole(measure(zoo, ["agreement", "js_divergence", "weight_l2"], pairs="all"))
    odd = ((table["model"] == one) | (table["other"] == one)) & (table["measure"] != "weight_l2")
    assert odd.sum() == 2 * 5
    assert table[odd]["refused"].str.contains(f"{one}@.*not the 10 classes").all()
    assert (table[~odd]["refused"] == "").all()
    heads = measure(zoo, "weight_l2", pairs="all", scope="all")
    refused = heads[heads["refused"] != ""]
    assert len(refused) == 5
    assert refused["refused"].str.contains("head.weight is").all()


# What is damaged


def test_weights_that_are_not_numbers_are_named(zoo, own_plugins):
    one = zoo.ids()[0]
    folder = zoo.folder(one)
    number, _ = folder.checkpoint()
    weights = folder.weights()
    weights["blocks.0.mlp.fc1.bias"][3] = float("nan")
    folder.checkpoints.path(number).unlink()
    folder.keep(number, weights)
    table = measure(zoo, ["weight_norm", "accuracy"])
    refused = table[table["refused"] != ""]
    assert set(refused["model"]) == {one}
    assert refused["refused"].str.contains("blocks.0.mlp.fc1.bias has entries that are not").all()
    assert set(table[table["refused"] == ""]["model"]) == set(zoo.ids()) - {one}


def test_a_corrupt_checkpoint_is_named_and_the_others_are_measured(zoo):
    one = next(id for id in zoo.ids() if zoo.spec(id).stage == "finetune")
    path = zoo.folder(one).checkpoints.path(zoo.at(one)[1])
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)
    table = measure(zoo, "weight_norm")
    refused = table[table["refused"] != ""]
    assert list(refused["model"]) == [one]
    assert refused["refused"].iloc[0].startswith(f"corrupt file {path}")


def without_mark(file):
    """One bit of the key by which a file is known to have checksums, and the numbers zero."""
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"checksum")] ^= 1
    whole[-40:] = bytes(40)
    file.write_bytes(whole)


def is_a_folder(file):
    file.unlink()
    file.mkdir()


def swap(first, second):
    beside = first.with_name("beside")
    first.rename(beside)
    second.rename(first)
    beside.rename(second)


@pytest.mark.parametrize(
    "damage", [lambda file: file.write_bytes(b""), without_mark, is_a_folder, None]
)
def test_a_damaged_cache_is_made_anew(zoo, damage):
    first = measure(zoo, "agreement", pairs="all")
    files = sorted((zoo.path / "cache" / "predictions").iterdir())
    if damage:
        for file in files:
            damage(file)
    else:
        swap(*files[:2])
    with pytest.warns(DamagedCache, match="was damaged, and is computed anew"):
        again = measure(zoo, "agreement", pairs="all", overwrite=True)
    pd.testing.assert_frame_equal(again, first)


@pytest.mark.parametrize("place", ["cache", "cache/predictions"])
def test_a_file_in_place_of_the_cache_is_replaced(zoo, place):
    first = measure(zoo, "agreement", pairs="all")
    shutil.rmtree(zoo.path / "cache")
    (zoo.path / place).parent.mkdir(exist_ok=True)
    (zoo.path / place).write_text("no folder")
    pd.testing.assert_frame_equal(measure(zoo, "agreement", pairs="all", overwrite=True), first)


def test_progress_is_told(zoo):
    steps = []
    progress = SimpleNamespace(step=lambda *step: steps.append(step))
    measure(zoo, ["accuracy", "agreement"], pairs="all", progress=progress)
    assert steps == [("measuring", done, 21) for done in range(22)]


def test_numbers_of_a_zoo_that_cannot_be_written_are_given_and_not_kept(
    zoo, disk, remount_read_only, monkeypatch
):
    folder = disk("2m")
    shutil.copytree(zoo.path, folder / "zoo")
    remount_read_only(folder)
    other = Zoo.open(folder / "zoo")
    with pytest.warns(NotKept, match="copy the zoo and work on the copy"):
        table = measure(other, ["weight_norm", "agreement"], num_images=40)
    expected = measure(zoo, ["weight_norm", "agreement"], num_images=40)
    pd.testing.assert_frame_equal(table, expected)
    assert len(other.records()) == 0


@pytest.mark.parametrize("cache", ["a folder", "a file"])
def test_features_lie_elsewhere_where_the_zoo_takes_none(zoo, tmp_path, monkeypatch, cache, passes):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "own"))
    if cache == "a file":
        (tmp_path / "own").touch()
    expected = measure(zoo, "cka", num_images=40)
    shutil.rmtree(zoo.path / "cache")
    (zoo.path / "cache").touch()
    passes.clear()
    pd.testing.assert_frame_equal(measure(zoo, "cka", num_images=40, overwrite=True), expected)
    assert len(passes) == len(zoo.ids())
    measure(zoo, "cka", num_images=40, overwrite=True)
    assert len(passes) == len(zoo.ids())


def test_a_full_disk_ends_measuring(zoo, monkeypatch):
    def full(zoo, measured):
        if measured:
            raise DiskFull(zoo)

    monkeypatch.setattr(records, "add", full)
    with pytest.raises(DiskFull):
        measure(zoo, "weight_norm")
