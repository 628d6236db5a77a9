"""What is known of an imported model is used wherever it runs: normalization, sizes, classes."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitarium import measure, merge
from vitarium.core import registry
from vitarium.core.errors import ByNumber, InvalidInput, NotApplicable
from vitarium.core.registry import section
from vitarium.data.base import DataConfig, dataset
from vitarium.data.load import load
from vitarium.evaluation.loader import ModelLoader

DIGITS = section("dataset", "digits")
OWN = {"mean": "[0.2]", "std": "0.5", "classes": str([*"0123456789"]).replace("'", '"')}
NAMES = [f"digit {n}" for n in range(10)]


@pytest.fixture
def zoo(grown_zoo):
    return grown_zoo


def by_hand(zoo, id, mean, std, split="test"):
    """Outputs of the model for the images of digits, [n, outputs], and their labels."""
    part = getattr(load(DIGITS), split)
    with torch.no_grad():
        return zoo.load(id)((part.images.float() / 255 - mean) / std), part.labels


def accuracy(table):
    return table[table["part"] == ""].set_index("model")["value"]


def test_each_model_is_measured_with_its_own_normalization(zoo, imported_digits):
    others = {**OWN, "mean": "[0.6]", "std": "[0.1]"}
    first, second = imported_digits(zoo, OWN, others)
    measured = accuracy(measure(zoo, "accuracy", models=[first, second], data="digits"))
    for id, mean, std in ((first, 0.2, 0.5), (second, 0.6, 0.1)):
        outputs, labels = by_hand(zoo, id, mean, std)
        assert measured[id] == pytest.approx((outputs.argmax(1) == labels).float().mean().item())


def test_a_pair_sees_the_same_images_each_by_its_own_normalization(zoo, imported_digits):
    pair = imported_digits(zoo, OWN, {**OWN, "mean": "[0.6]"})
    request = {"models": pair, "pairs": "all", "data": "digits"}
    table = measure(zoo, ["agreement", "cka", "barrier"], **request).query("part == ''")
    both = zip(pair, (0.2, 0.6), strict=True)
    answers = [by_hand(zoo, id, mean, 0.5)[0].argmax(1) for id, mean in both]
    rows = table.set_index("measure")
    agreement = (answers[0] == answers[1]).float().mean().item()
    assert rows.loc["agreement", "value"] == pytest.approx(agreement)
    assert rows.loc["cka", "refused"] == ""
    assert "prepared in different ways" in rows.loc["barrier", "refused"]


def test_a_model_of_which_nothing_is_known_is_measured_when_a_normalization_is_given(
    zoo, imported_digits
):
    (id,) = imported_digits(zoo, {"classes": OWN["classes"]})
    for force in (False, True):
        table = measure(zoo, "accuracy", models=id, data="digits", force=force)
        assert table["refused"].str.contains("nothing is known of how its images").all()
        assert table["refused"].str.contains("normalization=").all()
    of_data = load(DIGITS)
    for given, mean, std in (("0.1/0.2", 0.1, 0.2), ("data", of_data.mean[0], of_data.std[0])):
        request = {"models": id, "data": "digits", "normalization": given}
        outputs, labels = by_hand(zoo, id, mean, std)
        expected = torch.nn.functional.cross_entropy(outputs, labels).item()
        assert accuracy(measure(zoo, "loss", **request))[id] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InvalidInput, match="neither 'data' nor a mean"):
        measure(zoo, "accuracy", models=id, data="digits", normalization="often")


def test_what_a_model_was_trained_with_goes_before_what_is_given(zoo):
    id = zoo.ids()[0]
    request = {"models": id, "num_images": 100}
    plain = measure(zoo, "loss", **request)["value"]
    assert plain.equals(
        measure(zoo, "loss", normalization="0/9", overwrite=True, **request)["value"]
    )


def test_a_grown_model_keeps_its_own_normalization_on_other_data(zoo):
    id = zoo.ids()[0]
    (batch, *_) = (
        ModelLoader(zoo, data=section("dataset", "mnist5k")).examples(id, "test").batches()
    )
    own, other = load(DIGITS), load(section("dataset", "mnist5k"))
    assert own.mean != other.mean
    black = (0 - own.mean[0]) / own.std[0]
    assert batch.images.min().item() == pytest.approx(black)


def shuffled_head(order):
    def change(weights):
        moved = {n: t[order].clone() for n, t in weights.items() if n.startswith("head.")}
        return {**weights, **moved}

    return change


def test_outputs_are_matched_to_classes_by_name(zoo, imported_digits, named_digits):
    """The model's outputs are in another order: for every measure it is as if they were not."""
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    names = str([NAMES[number].upper() for number in order]).replace("'", '"')
    (id,) = imported_digits(zoo, {**OWN, "classes": names}, change=shuffled_head(order))
    request = {"models": id, "data": named_digits, "num_images": 64}
    measures = ["accuracy", "loss", "class_accuracy", "gradient_norm", "sharpness"]
    table = measure(zoo, measures, **request)
    assert (table["refused"] == "").all()
    original = next(i for i in zoo.ids() if zoo.spec(i).stage == "finetune")
    outputs, labels = by_hand(zoo, original, 0.2, 0.5)
    numbers = ModelLoader(zoo, data=section("dataset", named_digits), normalization="0/1")
    chosen = numbers.examples(id, "test", 64).numbers
    right = (outputs[chosen].argmax(1) == labels[chosen]).float().mean().item()
    loss = torch.nn.functional.cross_entropy(outputs[chosen], labels[chosen]).item()
    whole = table[table["part"] == ""].set_index("measure")["value"]
    assert whole["accuracy"] == pytest.approx(right)
    assert whole["loss"] == pytest.approx(loss, rel=1e-5)
    images, targets = zoo.data(id, data=named_digits), zoo.load(id)
    by_item = [targets(image[None]).argmax().item() == label for image, label in images]
    every = measure(zoo, "accuracy", models=id, data=named_digits).query("part == ''")
    assert np.mean(by_item) == pytest.approx(every["value"].iloc[0])


def test_names_that_do_not_match_are_no_classes(zoo, imported_digits, named_digits):
    names = str([*"abcdefghij"]).replace("'", '"')
    ids = imported_digits(zoo, *[{**OWN, "classes": names, "seed": seed} for seed in (1, 2)])
    table = measure(zoo, ["accuracy", "sharpness"], models=ids, data=named_digits)
    assert table["refused"].str.contains("outputs are called 'a', 'b'.*'digit 0'").all()
    with pytest.raises(NotApplicable, match="'digit 0'"):
        merge(zoo, "greedy_soup", models=ids, data=named_digits, force=True)


def test_matching_by_number_is_said_once_of_each_model(zoo, imported_digits, named_digits):
    unnamed = {key: value for key, value in OWN.items() if key != "classes"}
    ids = imported_digits(zoo, unnamed, {**unnamed, "seed": 1})
    with pytest.warns(ByNumber) as warned:
        table = measure(zoo, ["accuracy", "loss"], models=ids, data=named_digits)
    assert (table["refused"] == "").all()
    texts = [str(warning.message) for warning in warned if warning.category is ByNumber]
    assert sorted(text[:12] for text in texts) == sorted(ids)
    assert all("by number, since the model has no names" in text for text in texts)


@pytest.mark.filterwarnings("error::vitarium.core.errors.ByNumber")
def test_of_grown_models_nothing_is_matched_by_number(zoo):
    measure(zoo, "accuracy", num_images=10)


@pytest.fixture
def named_digits(monkeypatch):
    """Digits whose classes are called `digit 0` and so on."""
    for kind in registry.KINDS:
        registry.plugins(kind)  # all of ours first
    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})

    @dataset("named_digits", num_classes=10, num_train=1438, mean=(0.3,), std=(0.3,))
    def named_digits(config: DataConfig, folders):
        return replace(load(DIGITS), name="named_digits", classes=tuple(NAMES))

    return "named_digits"


# Merging


def test_greedy_soup_selects_by_the_models_own_images(zoo, imported_digits):
    ids = imported_digits(zoo, OWN, OWN)
    soup = merge(zoo, "greedy_soup", models=ids, data="digits", force=True)
    best = max((by_hand(zoo, id, 0.2, 0.5, "val") for id in ids), key=right)
    assert soup.metrics["val_accuracy"].iloc[-1] >= right(best) - 1e-6
    outputs = by_hand(zoo, soup.id, 0.2, 0.5, "val")
    assert soup.metrics["val_accuracy"].iloc[-1] == pytest.approx(right(outputs))


def right(answers):
    outputs, labels = answers
    return (outputs.argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize("method", ["greedy_soup", "fisher_merging", "regmean"])
def test_merging_by_images_of_unknown_normalization_is_refused(zoo, imported_digits, method):
    ids = imported_digits(zoo, {}, {"seed": 2})
    request = {"models": ids, "data": "digits", "force": True}
    with pytest.raises(
        NotApplicable, match=r"how its images were normalized.*normalization='data'"
    ):
        merge(zoo, method, **request)
    assert merge(zoo, method, normalization="data", **request).status == "finished"


def test_activation_matching_feeds_each_model_its_own_images(zoo, imported_digits):
    """A copy of a model that takes other images in such a way that it holds the same in every
    unit: what is seen of both is equal where each is fed its own."""
    ids = imported_digits(zoo, OWN)
    mean, std, scale, shift = 0.2, 0.5, 2.0, 0.3

    def change(weights):
        """x' = (p - mean) / std = scale * x + shift, undone by the patch embedding."""
        kernel = weights["patch_embed.proj.weight"]
        bias = weights["patch_embed.proj.bias"] - kernel.sum((1, 2, 3)) * shift / scale
        return {
            **weights,
            "patch_embed.proj.weight": kernel / scale,
            "patch_embed.proj.bias": bias,
        }

    shutil.rmtree(zoo.path.parent / "files")
    other = {**OWN, "mean": str(mean - shift * std / scale), "std": str(std / scale)}
    (twin,) = imported_digits(zoo, other, change=change)
    request = {"data": "digits", "by": "product", "force": True}
    aligned = merge(zoo, "activation_matching", models=[ids[0], twin], **request)
    for name, tensor in zoo.state_dict(twin).items():
        assert torch.equal(aligned.state_dict()[name], tensor)
    cka = measure(zoo, "cka", models=[ids[0], twin], pairs="all", data="digits", num_images=64)
    assert cka.query("part == ''")["value"].iloc[0] == pytest.approx(1, abs=1e-4)
