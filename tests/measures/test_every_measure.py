"""What holds for every measure that is registered: told in a line, deterministic, computed once."""

from typing import get_args

import pandas as pd
import pytest

from vitarium import measure
from vitarium.core import registry
from vitarium.measures._runner.settings import chosen

MEASURES = registry.plugins("measure")
FORMS = {
    ("model", "weights"),
    ("model", "predictions"),
    ("model", "model"),
    ("pair", "predictions"),
    ("pair", "model"),
    ("pair", "weights"),
    ("pair", "features"),
}
SMALL = {"images": 24, "steps": 2, "points": 3, "probes": 2, "iterations": 2, "severities": [1, 5]}
"""So that each takes a second at most on tiny models."""


def small(name):
    """Those of the settings in small that a measure has, as far as it takes them."""
    fields = MEASURES[name].config.model_fields
    found = {}
    for setting, value in SMALL.items():
        if setting in fields and dict not in get_args(fields[setting].annotation):
            found[setting] = value
    return found


def test_each_is_told_in_one_line_with_its_unit_and_form():
    for name, plugin in MEASURES.items():
        assert 10 < len(plugin.summary) <= 100, name
        assert plugin.summary.endswith("."), name
        assert (plugin.facts["of"], plugin.facts["needs"]) in FORMS, name
        assert isinstance(plugin.facts["unit"], str), name


@pytest.mark.parametrize("name", MEASURES)
def test_each_has_finite_values_which_are_the_same_when_measured_again(grown_zoo, name):
    children = [id for id in grown_zoo.ids() if grown_zoo.spec(id).parent]
    siblings = [
        id for id in children if grown_zoo.spec(id).parent == grown_zoo.spec(children[0]).parent
    ]
    section = chosen(name, small(name))[0]
    images = None if "images" in small(name) else 24
    first = measure(grown_zoo, [section], models=siblings, images=images)
    assert (first["refused"] == "").all(), first["refused"].unique()
    assert len(set(first["model"])) == (1 if MEASURES[name].facts["of"] == "pair" else 2)
    again = measure(grown_zoo, [section], models=siblings, images=images, again=True)
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    pd.testing.assert_frame_equal(
        measure(grown_zoo, [section], models=siblings, images=images).sort_values(
            ["model", "other", "part"], ignore_index=True
        ),
        first.sort_values(["model", "other", "part"], ignore_index=True),
    )
