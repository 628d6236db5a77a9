"""Averages over the epochs of one run: epoch_average, lawa, ema, swa."""

import pytest
import torch

from vitarium import merge
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.operators.averaging.epoch_averages import Ema
from vitarium.operators.base import Ingredients


@pytest.fixture
def run(tiny, tmp_path):
    """A zoo with one model of eight epochs, all kept, of which each is a number."""
    from vitarium import Blueprint, Zoo, plan
    from vitarium.zoo import About

    tiny["stages"] = {
        "pretrain": {**tiny["stages"]["pretrain"], "epochs": 8, "grid": {"seed": [1]}}
    }
    zoo = Zoo.create(tmp_path / "zoo")
    (spec,) = plan(Blueprint.read(tiny)).models
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
    shapes = {name: t.shape for name, t in spec.recipe.build(10).state_dict().items()}
    for epoch in range(9):
        weights = {name: torch.full(shape, float(epoch**2)) for name, shape in shapes.items()}
        folder.commit(epoch, {}, weights, None)
    folder.finish("finished")
    return zoo, spec.id


def value(zoo, made):
    numbers = {number for t in zoo.state_dict(made).values() for number in t.unique().tolist()}
    assert len(numbers) == 1
    return numbers.pop()


def squares(*epochs):
    return sum(epoch**2 for epoch in epochs) / len(epochs)


@pytest.mark.parametrize(
    ("method", "given", "epochs"),
    [
        ("epoch_average", {}, [4, 5, 6, 7, 8]),
        ("epoch_average", {"last": 2}, [7, 8]),
        ("epoch_average", {"last": None}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ("lawa", {}, [3, 4, 5, 6, 7, 8]),
        ("lawa", {"k": 3}, [6, 7, 8]),
        ("swa", {}, [6, 7, 8]),
        ("swa", {"start": 0.25, "every": 3}, [2, 5, 8]),
    ],
)
def test_the_chosen_epochs_are_averaged(run, method, given, epochs):
    zoo, id = run
    merged_id = merge(zoo, method, models=[id], **given).id
    assert value(zoo, merged_id) == pytest.approx(squares(*epochs), rel=1e-7)
    assert [one.epoch for one in zoo.spec(merged_id).ingredients] == epochs
    assert {one.model for one in zoo.spec(merged_id).ingredients} == {id}


def test_lawa_of_an_earlier_epoch_is_what_it_was_then(run):
    zoo, id = run
    assert value(zoo, merge(zoo, "lawa", models=[f"{id}@5"], k=2).id) == squares(4, 5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_ema_is_the_recursion(run, decay):
    zoo, id = run
    average, without_start = 1.0, 0.0
    for epoch in range(1, 9):
        average = decay * average + (1 - decay) * epoch**2
        without_start = decay * without_start + (1 - decay) * epoch**2
    merged_id = merge(zoo, "ema", models=[id], decay=decay, debias=False).id
    assert value(zoo, merged_id) == pytest.approx(average, rel=1e-6)
    merged_id = merge(zoo, "ema", models=[id], decay=decay).id
    assert value(zoo, merged_id) == pytest.approx(without_start / (1 - decay**8), rel=1e-6)


@pytest.mark.parametrize("debias", [True, False])
def test_the_weights_of_ema_sum_to_one(debias):
    assert sum(Ema(decay=0.7, debias=debias).weights(6)) == pytest.approx(1, abs=1e-15)


def test_a_slow_average_is_the_mean_and_a_fast_one_the_last():
    assert Ema(decay=1 - 1e-9).weights(4) == pytest.approx([0.25] * 4)
    assert Ema(decay=0).weights(4) == [0, 0, 0, 1]


@pytest.mark.parametrize("method", ["epoch_average", "lawa", "ema", "swa"])
def test_equal_epochs_give_that_epoch(method):
    one = Weights("one", {"w": torch.randn(50, generator=torch.Generator().manual_seed(0))})
    made = dict(registry.choose("operator", method)(Ingredients([one] * 7)))
    assert torch.equal(made["w"].float(), one["w"])


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("epoch_average", {"last": 9}, "last 9 epochs are asked for, and 8 are kept"),
        ("lawa", {"k": 10}, "last 10 epochs"),
        ("swa", {"start": 1.0}, "swa needs at least 2 checkpoints; 1 is given"),
    ],
)
def test_too_few_epochs_are_refused(run, method, given, message):
    zoo, id = run
    with pytest.raises(InvalidInput, match=message):
        merge(zoo, method, models=[id], **given)


@pytest.mark.parametrize(
    ("method", "given"),
    [("epoch_average", {"last": 1}), ("ema", {"decay": 1.0}), ("swa", {"start": 1.5})],
)
def test_settings_without_sense_are_refused(run, method, given):
    with pytest.raises(InvalidConfig, match=next(iter(given))):
        merge(run[0], method, models=[run[1]], **given)
