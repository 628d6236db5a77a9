"""A tree of models: who stands where."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.studies.diversity.figures import lineage
from vitarium.studies.report.trees import arrange
from vitarium.studies.statistics.stages import Stages


def test_children_stand_below_their_parent():
    found = arrange({"a": None, "b": None, "a1": "a", "b1": "b", "a2": "a", "a11": "a1"})
    assert [place.model for place in found] == ["a", "a1", "a11", "a2", "b", "b1"]
    assert [place.depth for place in found] == [0, 1, 2, 1, 0, 1]


def test_a_parent_that_is_elsewhere_is_none():
    (place,) = arrange({"a": "gone"})
    assert (place.depth, place.parent) == (0, None)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=10))
def test_every_model_has_one_row_whoever_is_whose_parent(links):
    parents = {str(i): None if link is None else str(link) for i, link in enumerate(links)}
    found = arrange(parents)
    assert sorted(place.model for place in found) == sorted(parents)
    assert [place.row for place in found] == list(range(len(parents)))
    rows = {place.model: place for place in found}
    for place in found:
        if place.parent:
            assert rows[place.parent].row < place.row
            assert rows[place.parent].depth == place.depth - 1


def test_the_figure_has_a_row_for_each_model(stages):
    spec = lineage(stages).spec
    rows = [
        values
        for values in spec["datasets"].values()
        if values and {"row", "name"} <= values[0].keys()
    ]
    assert {len(values) for values in rows} == {24}
    assert lineage(Stages([], {})) is None
