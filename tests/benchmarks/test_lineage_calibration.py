"""Zoos of the benchmark of calibration: blueprints that can be grown, and what is counted."""

import importlib

import pytest

from vitarium import Blueprint
from vitarium.blueprint.plan import plan
from vitarium.lineage.base import DECIDED


@pytest.fixture(scope="module")
def calibration():
    return importlib.import_module("lineage_calibration")


def test_designs_are_blueprints_of_many_shapes(calibration):
    plans = [plan(Blueprint.read(calibration.design(seed))) for seed in range(101, 113)]
    assert {len(plan.models) for plan in plans} == {9, 14, 15, 20}


def test_designs_follow_from_their_seeds(calibration):
    assert calibration.design(5) == calibration.design(5)
    assert calibration.design(5) != calibration.design(10)


def test_an_interval_is_wilsons(calibration):
    assert calibration.interval(9, 10) == "90 % (60 to 98)"
    assert calibration.interval(0, 0) == "-"


@pytest.mark.evidence
def test_of_edges_that_are_stated_most_are_right_in_fresh_zoos(calibration, tmp_path):
    """Ten zoos that were not used for fitting."""
    answers = []
    for seed in range(201, 211):
        answers += calibration.answers_of(calibration.grown(seed, tmp_path / f"z{seed}"))
    for case in ("complete: edges", "complete: roots"):
        stated = [a.right for a in answers if a.case == case and a.probability >= DECIDED]
        assert len(stated) >= 10
        assert sum(stated) >= calibration.TARGET * len(stated)
    orphans = [a for a in answers if a.case == "without its parent: edges"]
    assert sum(a.probability >= DECIDED for a in orphans) <= 0.15 * len(orphans)
