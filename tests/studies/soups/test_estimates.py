"""Intervals of gains, against draws of images and models that are written out."""

import numpy as np
import pytest
import torch

from vitarium.evaluation.losses import Losses
from vitarium.studies.soups.barriers import UNRELATED, Barriers, InterpolationPath
from vitarium.studies.soups.evaluator import Scores
from vitarium.studies.soups.experiments import MergeResults, over_images
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.stages import Stage

MANY = Bootstrap(n_resamples=4000)


def gain(*pairs):
    return MergeResults(MANY, "test").gain(pairs)


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
    paired = gain((scores(one), scores(other)))
    apart = over_images(MANY, [("one", one / 1.0), ("two", -(other / 1.0))])
    assert paired.high - paired.low < 0.03
    assert apart.high - apart.low > 0.05
    same = gain((scores(one), scores(one)))
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
def barriers(stage: Stage) -> Barriers:
    """Barriers that are made up: a third is left after alignment."""
    random = np.random.default_rng(3)
    made_up = Barriers(stage, Bootstrap(n_resamples=200))
    for kin in made_up.kin:
        for one, other in np.argwhere(np.triu(kin.mask)):
            height = random.random() + (kin is not made_up.kin[0])
            for align, left in (("", 1.0), ("rearranged", 1 / 3)):
                loss = torch.tensor([1.0, 2.0 + left * height, 3.0], dtype=torch.float64)
                error = torch.tensor([0.1, 0.2 + left * height / 10, 0.3], dtype=torch.float64)
                ids, t = (stage.ids[one], stage.ids[other]), (0.0, 0.5, 1.0)
                path = InterpolationPath(*ids, kin.name, align, t, Losses(loss, error))
                made_up.paths.append(path)
    return made_up


def test_kin_are_told_from_the_closest_to_the_farthest(barriers):
    assert [level.name for level in barriers.means(barriers.kin)] == [
        "of the same parent",
        "of different parents, same objective",
        "of parents of different objective",
    ]


def test_a_barrier_is_what_rises_above_the_line_between_the_ends(barriers):
    (line, *_) = barriers.paths
    assert line.rise[[0, 2]].tolist() == [0, 0]
    assert line.barrier == pytest.approx(line.losses.loss[1] - 2)
    assert line.soup_gain == pytest.approx(0.2 - line.losses.error[1])


def test_means_are_those_of_the_pairs(barriers):
    for level, kin in zip(barriers.means(barriers.kin), barriers.kin, strict=True):
        lines = barriers.of("", kin.name)
        assert level.pairs == len(lines)
        assert level.barrier.value == pytest.approx(np.mean([line.barrier for line in lines]))
        assert level.gain.value == pytest.approx(np.mean([line.soup_gain for line in lines]))


def test_what_an_alignment_takes_away_is_a_share_of_the_barrier(barriers):
    (found,) = barriers.aligned(barriers.unrelated)
    assert (found.name, found.align) == (UNRELATED, "rearranged")
    assert found.share.value == pytest.approx(2 / 3)
    assert [found.share.low, found.share.high] == pytest.approx([2 / 3, 2 / 3])
    assert found.reduction.value == pytest.approx(found.before.value - found.after.value)
    assert found.reduction.is_positive


def test_only_pairs_that_were_aligned_are_compared(barriers):
    aligned = [line for line in barriers.paths if line.align]
    paths = [line for line in barriers.paths if not line.align] + aligned[::7]
    few = Barriers(barriers.stage, barriers.bootstrap, paths)
    before = {(line.first, line.second): line.barrier for line in paths if not line.align}
    for found in few.aligned(few.kin):
        pairs = [line for line in aligned[::7] if line.kin == found.name]
        assert found.pairs == len(pairs)
        expected = np.mean([before[line.first, line.second] for line in pairs])
        assert found.before.value == pytest.approx(expected)


def test_siblings_are_told_apart_by_a_factor(barriers):
    factor = next(factor for factor in barriers.factors if factor.name == "lr")
    levels = {level.name: level for level in barriers.means(barriers.siblings(factor))}
    assert set(levels) == {*(f"lr = {value}" for value in factor.values), "different lr"}
    siblings = barriers.of("", barriers.kin[0].name)
    assert sum(level.pairs for level in levels.values()) == len(siblings)
    same = [
        line.barrier
        for line in siblings
        if factor.labels[line.first] == factor.labels[line.second] == factor.values[0]
    ]
    assert levels[f"lr = {factor.values[0]}"].barrier.value == pytest.approx(np.mean(same))
