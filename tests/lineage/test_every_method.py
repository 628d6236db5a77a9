"""What holds for every method of lineage recovery that is registered."""

from pathlib import Path

import pytest

from vitarium.core.registry import plugins
from vitarium.lineage.base import Edge, Forest, lineage
from vitarium.testing import check_lineage

METHODS = plugins("lineage")


@pytest.mark.parametrize("name", METHODS)
def test_each_keeps_the_contract(name):
    check_lineage(name)


@pytest.mark.parametrize("name", METHODS)
def test_each_stands_in_the_guide(name):
    guide = Path(__file__).parents[2] / "docs" / "lineage.md"
    assert f"`{name}`" in guide.read_text()


def test_misspelled_facts_are_refused_where_a_method_is_registered():
    with pytest.raises(TypeError, match="papr"):
        lineage("x", papr="Us 2026")


def star(edges, families=None):
    """A method that hangs all models from the first, with a fault."""

    def method(config, model_set, trees):
        """All models are children of the first one."""
        names = model_set.names
        numbers = families or [0] * len(names)
        return Forest("star", names, numbers, edges(names), {names[0]: 1.0})

    return method


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (star(lambda names: [Edge(names[0], name, 2.0) for name in names[1:]]), "confidences"),
        (star(lambda names: []), "has a parent or is a root"),
        (star(lambda names: [Edge(n, n, 1.0) for n in names]), "circle"),
        (star(lambda names: [Edge(names[0], n, 1, 0.5) for n in names[1:]]), "shares add up to 1"),
        (star(lambda names: [Edge(names[0], n, 1.0) for n in names[1:]]), "equal weights are tied"),
        (star(lambda names: [], [7]), "every model has a family"),
    ],
)
def test_a_broken_contract_is_named_with_the_method(method, rule, monkeypatch):
    from vitarium.core import registry

    monkeypatch.setitem(registry._plugins, "lineage", dict(METHODS))
    lineage("star")(method)
    with pytest.raises(AssertionError, match=f"lineage 'star': .*{rule}"):
        check_lineage("star")
