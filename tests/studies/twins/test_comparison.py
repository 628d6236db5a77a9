"""Intervals, fronts, lost images and verdicts, against definitions and made-up twins."""

import numpy as np
import pytest
import torch
from statsmodels.stats.proportion import proportion_confint

from vitarium.blueprint import CheckpointRef
from vitarium.engine.tuning.gain import Gain
from vitarium.evaluation.inputs import Predictions
from vitarium.lineage.base import Edge, Forest
from vitarium.studies.twins.comparison import (
    Family,
    Member,
    accuracy_interval,
    by_method,
    paired_difference,
)
from vitarium.studies.twins.families import Twin
from vitarium.studies.twins.lost_images import lost_by_most, lost_images
from vitarium.studies.twins.recovery import _recovery

ORIGINAL = CheckpointRef("a" * 12, 1)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def predicted(*classes):
    return Predictions(torch.eye(3)[list(classes)], LABELS, ("cat", "dog", "owl"))


def member(number, *classes, flops=1.0, method="tome r=1"):
    ref = CheckpointRef(f"{number:012x}", 0)
    twin = Twin(ref, ORIGINAL, (method,), ORIGINAL)
    return Member(ref, twin, predicted(*classes), {"flops": flops})


@pytest.fixture
def family():
    """The original has five images of six right."""
    original = Member(ORIGINAL, None, predicted(0, 1, 2, 0, 1, 1), {"flops": 4.0})
    twins = [
        member(1, 0, 1, 2, 0, 1, 2, flops=3.0),  # one more right
        member(2, 0, 2, 2, 2, 1, 1, flops=1.0),  # loses images 1 and 3
        member(3, 0, 2, 2, 0, 1, 1, flops=2.0, method="evit"),  # loses image 1
        member(4, 1, 0, 0, 0, 1, 1, flops=2.5),  # loses images 0, 1 and 2
    ]
    return Family(original, twins)


@pytest.mark.parametrize(("correct", "images"), [(0, 20), (7, 20), (20, 20), (9532, 10000)])
def test_an_accuracy_has_the_interval_of_wilson(correct, images):
    estimate = accuracy_interval(correct, images, 0.9)
    low, high = proportion_confint(correct, images, alpha=0.1, method="wilson")
    assert [estimate.low, estimate.high] == pytest.approx([low, high], abs=1e-12)
    assert estimate.value == correct / images


@pytest.mark.parametrize("cells", [(0.02, 0.01, 0.97), (0.3, 0.1, 0.6), (0.05, 0.05, 0.9)])
def test_a_change_of_accuracy_has_an_interval_that_covers_it(cells):
    lost, won, _ = cells
    draws = np.random.default_rng(0).multinomial(400, cells, size=4000)
    estimates = [paired_difference(*map(int, draw[:2]), 400, 0.95) for draw in draws]
    covered = np.mean([e.low <= won - lost <= e.high for e in estimates])
    assert 0.935 < covered < 0.975


def test_a_change_is_that_of_the_images_that_are_lost_and_won(family):
    _, loses_two, *_ = family.twins
    assert family.lost(loses_two).nonzero()[0].tolist() == [1, 3]
    assert not family.won(loses_two).any()
    assert family.change(loses_two, 0.95).value == pytest.approx(-2 / 6)
    assert family.won(family.twins[0]).nonzero()[0].tolist() == [5]


def test_a_front_is_of_members_that_nothing_dominates(family):
    shares = family.shares("flops")
    assert shares[family.twins[2].ref] == 0.5
    points = {m.ref: (shares[m.ref], m.accuracy) for m in family.members}
    expected = {
        ref
        for ref, (cost, accuracy) in points.items()
        if not any(
            other_cost <= cost
            and other_accuracy >= accuracy
            and (other_cost, other_accuracy) != (cost, accuracy)
            for other_cost, other_accuracy in points.values()
        )
    }
    front = family.front("flops")
    assert {m.ref for m in front} == expected
    assert [m.values["flops"] for m in front] == [1.0, 2.0, 3.0]
    assert family.original not in front


def test_latency_is_compared_by_the_ratios_of_pairs(family):
    assert family.shares("latency") == {}
    family.twins[1].speedup = Gain(2.0, 1.9, 2.1)
    assert family.shares("latency") == {ORIGINAL: 1.0, family.twins[1].ref: 0.5}


def test_images_are_listed_by_how_many_twins_lose_them(family):
    images = lost_images(family)
    assert [image.number for image in images] == [1, 0, 2, 3]
    assert [len(image.losers) for image in images] == [3, 1, 1, 1]
    assert (images[0].label, images[0].predicted) == ("dog", "owl")
    assert lost_by_most(family) == 1 / 4


def test_where_nothing_is_lost_no_image_is_listed(family):
    unharmed = Family(family.original, [family.twins[0]])
    assert lost_images(unharmed) == []
    assert lost_by_most(unharmed) is None


def test_methods_are_grouped_with_their_settings(family):
    groups = by_method([family, family])
    assert {method: len(pairs) for method, pairs in groups.items()} == {"evit": 2, "tome r=1": 6}


def forest(*edges, roots=("o",), tied=(), families=(0, 0, 0, 0)):
    listed = [Edge(parent, child, 0.9) for parent, child in edges]
    return Forest("x", ["o", "p", "t", "x"], families, listed, dict.fromkeys(roots, 1.0), tied)


@pytest.mark.parametrize(
    ("recovered", "verdict"),
    [
        (forest(("o", "p"), ("p", "t")), "parent"),
        (forest(("o", "p"), ("x", "t"), tied=[("p", "x")]), "tied"),
        (forest(("o", "p"), ("o", "t"), tied=[("p", "t")]), "tied"),
        (forest(("o", "p"), ("o", "t")), "original"),
        (forest(("o", "t"), ("t", "p")), "original"),
        (forest(("x", "t"), ("t", "p")), "child"),
        (forest(("o", "p"), ("x", "t")), "related"),
        (forest(("x", "t"), families=(0, 0, 1, 1)), "another"),
        (forest(families=(0, 0, 1, 2)), "root"),
    ],
)
def test_a_recovered_parent_is_the_twins_or_something_else(recovered, verdict):
    twin = Twin(CheckpointRef("t", 0), CheckpointRef("p", 0), ("a", "b"), CheckpointRef("o", 0))
    recovery = _recovery(twin, recovered, {})
    assert recovery.verdict == verdict
    assert recovery.is_right == (verdict in ("parent", "tied"))


def test_a_twin_that_was_left_out_says_why():
    twin = Twin(CheckpointRef("q", 0), CheckpointRef("p", 0), ("a",), CheckpointRef("p", 0))
    recovery = _recovery(twin, forest(("o", "p")), {"q": "it has no tensors of real numbers"})
    assert (recovery.verdict, recovery.why) == (
        "not compared",
        "it has no tensors of real numbers",
    )
