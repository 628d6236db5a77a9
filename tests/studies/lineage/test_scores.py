"""Scores of methods beside each other, and whether confidences are right."""

import math

import pytest

from vitarium.lineage.scores import Scores
from vitarium.studies.lineage import figures
from vitarium.studies.lineage.evaluated import evaluated_forests
from vitarium.studies.lineage.tables import MEANINGS, calibration, comparison
from vitarium.studies.report.text import DASH, number


def test_a_score_that_counts_nothing_has_no_value(forests):
    forest = evaluated_forests(forests.recovered(known=False))["descent"]
    assert forest.score("node_accuracy") is None
    assert number(None, "sure") == DASH
    assert number(0.987, "sure") == "98.7\xa0%"


def test_methods_stand_beside_each_other(forests):
    found = forests.recovered(2, 3, 1, wrong=["r0c1g0"])
    table = comparison(evaluated_forests(found))
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.columns[1:4] == ["descent", "mother", "nearest_root"]
    assert rows["right parents"][1:3] == ["40.0\xa0%", "40.0\xa0%"]
    assert rows["right roots"][1] == DASH
    assert rows["same parents"][0] == "100.0\xa0%"
    # the other methods hang all below the roots: six grandchildren differ
    assert rows["same parents"][1] == number(8 / 14, "sure")
    assert rows["trees"][:3] == ["2", "2", "2"]


def test_without_truth_only_their_forests_are_compared(forests):
    found = forests.recovered(2, 3, 1, known=False)
    assert [row[0] for row in comparison(evaluated_forests(found)).rows] == [
        "same parents",
        "trees",
        "roots",
        "edges",
    ]
    assert figures.scores(evaluated_forests(found)) is None


def test_the_figure_has_a_point_for_each_score_of_each_method(forests):
    found = forests.recovered(2, 3, 1)
    (cells,) = figures.scores(evaluated_forests(found)).spec["datasets"].values()
    assert len(cells) == 6 + 2 * 2
    assert {cell["method"] for cell in cells} == {"descent", "mother", "nearest_root"}


def test_confidences_are_held_against_how_many_are_right(forests):
    wrong = ["r0c1g0", "r1c2g1"]
    found = evaluated_forests(forests.recovered(3, 4, 2, wrong=wrong))["descent"]
    table = calibration(found)
    edges = {edge.child: edge.confidence for edge, _ in found.edges}
    frame = table.frame
    assert frame["edges"].sum() == len(edges) == 36
    for row in frame.to_dict("records"):
        low, high = (
            float(bound) / 100 for bound in row["confidence"].split("\xa0")[0].split(" to ")
        )
        inside = [
            child for child, sure in edges.items() if low <= sure and (sure < high or high == 1)
        ]
        assert row["edges"] == len(inside)
        assert row["right"] == sum(child not in wrong for child in inside)
        mean = sum(edges[c] for c in inside) / len(inside)
        assert math.isclose(row["confidence, on average"], mean)
        low, high = row["share that is right low"], row["share that is right high"]
        assert low <= row["share that is right"] <= high
        assert row["share that is right"] == row["right"] / row["edges"]
        assert high > low
    assert figures.calibration(table).spec["layer"]


def test_a_confidence_of_one_is_in_the_highest_range(forests):
    truth = forests.truth_of(1, 25, 0)
    sure = dict.fromkeys(truth, 1.0)
    found = forests.recovered(1, 25, 0, forest=forests.forest_of(truth, sure=sure))
    (row,) = calibration(evaluated_forests(found)["descent"]).rows
    assert row[:3] == ["99 to 100\xa0%", "25", "25"]


@pytest.mark.parametrize("more", [{"trees": 1, "children": 3}, {"known": False}])
def test_few_edges_or_none_of_known_truth_calibrate_nothing(forests, more):
    table = calibration(evaluated_forests(forests.recovered(**more))["descent"])
    assert table.data.empty
    assert figures.calibration(table) is None


def test_scores_of_every_name_are_explained(forests):
    from dataclasses import fields

    shares = {field.name for field in fields(Scores)}
    assert shares >= set(MEANINGS)
