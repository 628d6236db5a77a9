"""What holds for every operator that is registered."""

from pathlib import Path

import pytest
import torch

from vitarium.core import registry
from vitarium.operators.base import operator
from vitarium.testing import check_operator

OPERATORS = registry.plugins("operator")


@pytest.mark.parametrize("name", OPERATORS)
def test_each_keeps_to_the_contract(name):
    check_operator(name)


def test_each_stands_in_the_guide():
    guide = (Path(__file__).parents[2] / "docs" / "merge.md").read_text()
    assert not [name for name in OPERATORS if f"`{name}`" not in guide]


@pytest.fixture
def empty_registry(monkeypatch):
    plugins = {kind: dict(named) for kind, named in registry._plugins.items()}
    monkeypatch.setattr(registry, "_plugins", plugins)


def test_a_misspelled_or_missing_fact_is_an_error_at_import():
    with pytest.raises(TypeError, match="need_base"):
        operator("x", title="X", need_base=True)
    with pytest.raises(TypeError, match="title"):
        operator("x")
    with pytest.raises(TypeError, match="operator 'x': split: 'trian' is not 'train' or 'val'"):
        operator("x", title="X", split="trian")
    with pytest.raises(TypeError, match="operator 'x': models"):
        operator("x", title="X", models=2)
    for models in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match=r"operator 'x': models=\(.*\) is no range"):
            operator("x", title="X", models=models)
    with pytest.raises(ValueError, match="operator 'x': fused_by needs members"):
        operator("x", title="X", models=(1, 1), fused_by="y")
    with pytest.raises(
        ValueError, match=r"operator 'x': settled needs models=\(1, 1\) and a split"
    ):
        operator("x", title="X", models=(1, 1), settled=lambda config, subject: config)


def _mean(ingredients):
    for name, tensors in ingredients.tensors():
        yield name, tensors.double().mean(0)


def _double(config, ingredients):
    """Twice the mean of the models."""
    for name, tensor in _mean(ingredients):
        yield name, 2 * tensor


def _noisy(config, ingredients):
    """The mean, and noise."""
    for name, tensor in _mean(ingredients):
        yield name, tensor + torch.rand(())


def _unchecked(config, ingredients):
    """The first model, whatever is in it."""
    for name in ingredients.shapes:
        yield name, ingredients[0][name]


def _terse(config, ingredients):
    """The mean"""
    yield from _mean(ingredients)


@pytest.mark.parametrize(
    ("function", "facts", "rule"),
    [
        (_double, {}, "copies of one model give that model with its tiny settings"),
        (_noisy, {}, "the same merge has the same bits"),
        (_unchecked, {}, "a model that is not finite is refused"),
        (_terse, {}, "its docstring begins with a sentence"),
    ],
)
def test_a_broken_rule_is_named_with_the_operator(empty_registry, function, facts, rule):
    operator("broken", title="Broken", **facts)(function)
    with pytest.raises(AssertionError, match=rf"operator 'broken': {rule}"):
        check_operator("broken")


def test_where_copies_give_another_model_it_is_said_at_the_operator(empty_registry):
    operator("twice", title="Twice", identity_on_copies=False)(_double)
    check_operator("twice")
