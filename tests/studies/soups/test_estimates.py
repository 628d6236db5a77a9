"""Intervals of gains, against draws of images and models that are written out."""

import dataclasses

import numpy as np
import pytest
import torch

from vitarium.evaluation.losses import Losses
from vitarium.studies.soups.barriers import InterpolationPath, InterpolationPaths, kin_of
from vitarium.studies.soups.estimates import UNRELATED, BarrierEstimates, gain, over_images
from vitarium.studies.soups.evaluator import Scores
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.stages import Stage

MANY = Bootstrap(n_resamples=4000)


def scores(right, images="one"):
    values = np.asarray(right, dtype=float)
    return Scores(values, values, images)


def test_an_interval_over_images_is_that_of_the_mean():
    random = np.random.default_rng(0)
    values = (random.random(500) < 0.8).astype(float)
    found = over_images(MANY, [("one", values)])
    draws = random.choice(values, size=(4000, 500)).mean(1)
    assert found.value == values.mean()
    assert [found.low, found.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=3e-3)


def test_models_are_compared_on_the_same_images():
    random = np.random.default_rng(1)
    one = random.random(400) < 0.5
    other = one.copy()
    other[:8] = ~one[:8]
    paired = gain(MANY, [(scores(one), scores(other))])
    apart = over_images(MANY, [("one", one / 1.0), ("two", -(other / 1.0))])
    assert paired.high - paired.low < 0.03
    assert apart.high - apart.low > 0.05
    same = gain(MANY, [(scores(one), scores(one))])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_groups_on_the_same_images_share_their_draws():
    random = np.random.default_rng(2)
    one = (random.random(300) < 0.7).astype(float)
    alone = over_images(MANY, [("one", one)])
    twice = over_images(MANY, [("one", one), ("one", one)])
    assert (twice.low, twice.high) == (alone.low, alone.high)
    against = over_images(MANY, [("one", one), ("one", 1 - one)])
    assert (against.value, against.low, against.high) == (0.5, 0.5, 0.5)


@pytest.fixture
def estimates(stage: Stage) -> BarrierEstimates:
    """Barriers that are made up: a third is left after alignment."""
    random = np.random.default_rng(3)
    found = InterpolationPaths(kin_of(stage))
    for kin in found.kin:
        for one, other in np.argwhere(np.triu(kin.mask)):
            height = random.random() + (kin is not found.kin[0])
            for align, left in (("", 1.0), ("rearranged", 1 / 3)):
                loss = torch.tensor([1.0, 2.0 + left * height, 3.0], dtype=torch.float64)
                error = torch.tensor([0.1, 0.2 + left * height / 10, 0.3], dtype=torch.float64)
                ids = (stage.ids[one], stage.ids[other])
                losses = Losses(loss, error)
                found.paths.append(
                    InterpolationPath(*ids, kin.name, align, (0.0, 0.5, 1.0), losses)
                )
    return BarrierEstimates(stage, found, Bootstrap(n_resamples=200))


def test_kin_are_told_from_the_closest_to_the_farthest(estimates):
    assert [level.name for level in estimates.by_kinship()] == [
        "models of the same parent",
        "models of different parents, same objective",
        "models of parents of different objective",
    ]


def test_a_barrier_is_what_rises_above_the_line_between_the_ends(estimates):
    (line, *_) = estimates.paths.paths
    assert line.rise[[0, 2]].tolist() == [0, 0]
    assert line.barrier == pytest.approx(line.losses.loss[1] - 2)
    assert line.soup_gain == pytest.approx(0.2 - line.losses.error[1])


def test_means_are_those_of_the_pairs(estimates):
    for level, kin in zip(estimates.by_kinship(), estimates.paths.kin, strict=True):
        lines = estimates.paths.of("", kin.name)
        assert level.pairs == len(lines)
        assert level.barrier.value == pytest.approx(np.mean([line.barrier for line in lines]))
        assert level.gain.value == pytest.approx(np.mean([line.soup_gain for line in lines]))


def test_what_an_alignment_takes_away_is_a_share_of_the_barrier(estimates):
    (found,) = estimates.unrelated_aligned()
    assert (found.kin, found.align) == (UNRELATED, "rearranged")
    assert found.share.value == pytest.approx(2 / 3)
    assert [found.share.low, found.share.high] == pytest.approx([2 / 3, 2 / 3])
    assert found.reduction.value == pytest.approx(found.before.value - found.after.value)
    assert found.reduction.is_positive


def test_only_pairs_that_were_aligned_are_compared(estimates):
    aligned = [line for line in estimates.paths.paths if line.align]
    kept = [line for line in estimates.paths.paths if not line.align] + aligned[::7]
    few = BarrierEstimates(
        estimates.stage, dataclasses.replace(estimates.paths, paths=kept), estimates.bootstrap
    )
    before = {(line.first, line.second): line.barrier for line in kept if not line.align}
    for found in few.aligned():
        pairs = [line for line in aligned[::7] if line.kin == found.kin]
        assert found.pairs == len(pairs)
        expected = np.mean([before[line.first, line.second] for line in pairs])
        assert found.before.value == pytest.approx(expected)


def test_siblings_are_told_apart_by_a_factor(estimates):
    factor = estimates.stage.factor("lr")
    levels = {level.value: level for level in estimates.siblings(factor)}
    assert set(levels) == {*factor.values, "different"}
    siblings = estimates.paths.of("", estimates.paths.kin[0].name)
    assert sum(level.pairs for level in levels.values()) == len(siblings)
    same = [
        line.barrier
        for line in siblings
        if factor.labels[line.first] == factor.labels[line.second] == factor.values[0]
    ]
    assert levels[factor.values[0]].barrier.value == pytest.approx(np.mean(same))
