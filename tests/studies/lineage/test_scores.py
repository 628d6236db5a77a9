"""Scores of methods beside each other, and whether confidences are right."""

import math

import pytest

from vitarium.lineage.scores import Scores
from vitarium.studies.lineage.rows import judged
from vitarium.studies.lineage.scores import bins, calibration, comparison, figure, percent, value
from vitarium.studies.report.text import DASH


def test_a_score_that_counts_nothing_has_no_value():
    assert value(None, "node_accuracy") is None
    assert percent(None) == DASH
    assert percent(0.987) == "98.7\xa0%"


def test_methods_stand_beside_each_other(forests):
    found = forests.recovered(2, 3, 1, wrong=["r0c1g0"])
    table = comparison(found, judged(found))
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.columns[1:4] == ["descent", "mother", "nearest_root"]
    assert rows["right parents"][1:3] == ["40.0\xa0%", "40.0\xa0%"]
    assert rows["right roots"][1] == DASH
    assert rows["same parents"][0] == "100.0\xa0%"
    # the other methods hang all below the roots: six grandchildren differ
    assert rows["same parents"][1] == percent(8 / 14)
    assert rows["trees"][:3] == ["2", "2", "2"]


def test_without_truth_only_their_forests_are_compared(forests):
    found = forests.recovered(2, 3, 1, known=False)
    assert [row[0] for row in comparison(found, judged(found)).rows] == [
        "same parents",
        "trees",
        "roots",
        "edges",
    ]
    assert figure(found) is None


def test_the_figure_has_a_point_for_each_score_of_each_method(forests):
    found = forests.recovered(2, 3, 1)
    (cells,) = figure(found).spec["datasets"].values()
    assert len(cells) == 6 + 2 * 2
    assert {cell["method"] for cell in cells} == {"descent", "mother", "nearest_root"}


def test_confidences_are_held_against_how_many_are_right(forests):
    wrong = ["r0c1g0", "r1c2g1"]
    found = judged(forests.recovered(3, 4, 2, wrong=wrong))["descent"]
    binned = bins(found)
    edges = {edge.child: edge.confidence for edge, _ in found.edges}
    assert sum(one.edges for one in binned) == len(edges) == 36
    for one in binned:
        inside = [
            child
            for child, sure in edges.items()
            if one.low <= sure and (sure < one.high or one.high == 1)
        ]
        assert one.edges == len(inside)
        assert one.right == sum(child not in wrong for child in inside)
        assert math.isclose(one.confidence, sum(edges[c] for c in inside) / len(inside))
        low, high = one.interval
        assert low - 1e-9 <= one.share <= high + 1e-9
        assert high > low
    drawn, table = calibration(binned)
    assert len(table.rows) == len(binned)
    assert drawn.spec["layer"]


def test_a_confidence_of_one_is_in_the_highest_range(forests):
    truth = forests.truth_of(1, 25, 0)
    sure = dict.fromkeys(truth, 1.0)
    found = forests.recovered(1, 25, 0, forest=forests.forest_of(truth, sure=sure))
    (one,) = bins(judged(found)["descent"])
    assert (one.low, one.high, one.edges, one.right) == (0.99, 1.0, 25, 25)


@pytest.mark.parametrize("more", [{"trees": 1, "children": 3}, {"known": False}])
def test_few_edges_or_none_of_known_truth_calibrate_nothing(forests, more):
    assert bins(judged(forests.recovered(**more))["descent"]) == []
    assert calibration([]) is None


def test_scores_of_every_name_are_explained(forests):
    from dataclasses import fields

    from vitarium.studies.lineage.scores import MEANINGS

    shares = {field.name for field in fields(Scores)}
    assert shares >= set(MEANINGS)
