"""The best move for a table of scores, against brute force."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.operators.alignment._assignment import (
    best_transform,
    match_heads,
    solve_assignment,
    solve_procrustes,
)

seeds = st.integers(0, 2**31)
few = settings(deadline=None, max_examples=15)


def table(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


@few
@given(seeds)
def test_no_permutation_scores_higher(seed):
    scores = table(seed, 5, 5)
    units, value = solve_assignment(scores)
    best = max(sum(scores[i, p[i]].item() for i in range(5)) for p in permutations(range(5)))
    assert value == pytest.approx(best, abs=1e-12)
    assert scores[torch.arange(5), units].sum().item() == pytest.approx(best, abs=1e-12)


@few
@given(seeds)
def test_a_rotation_keeps_lengths_and_the_mean(seed):
    rotation, value = solve_procrustes(table(seed, 7, 7))
    one = torch.ones(7, dtype=torch.float64)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(7, dtype=torch.float64))
    torch.testing.assert_close(rotation @ one, one)
    torch.testing.assert_close(one @ rotation, one)
    assert value == pytest.approx((rotation * table(seed, 7, 7)).sum().item())


@few
@given(seeds)
def test_no_rotation_that_keeps_the_mean_scores_higher(seed):
    """Its value is the sum of the singular values on what has mean zero, von Neumann's bound."""
    scores = table(seed, 7, 7)
    center = np.eye(7) - 1 / 7
    bound = np.linalg.svd(center @ scores.numpy() @ center, compute_uv=False).sum()
    mean = scores.sum().item() / 7  # of the direction that stays
    assert solve_procrustes(scores)[1] == pytest.approx(bound + mean)


def test_the_best_rotation_of_a_rotated_copy_turns_it_back():
    units, turn = table(0, 6, 40), solve_procrustes(table(1, 6, 6))[0]
    found, _ = solve_procrustes(units @ (turn @ units).T)
    torch.testing.assert_close(found, turn.T)


@pytest.mark.parametrize("kind", ["permutation", "orthogonal"])
def test_scores_that_are_zero_or_best_already_gain_nothing(kind):
    for scores in (torch.zeros(4, 4).double(), torch.eye(4).double()):
        _, gain = best_transform("group", scores, kind)
        assert gain == pytest.approx(0, abs=1e-12)


@few
@given(seeds)
def test_no_other_heads_and_channels_score_higher(seed):
    """2 heads, 3 and 2 channels: all 2 * 6^2 * 2^2 ways."""
    own, inner = (
        table(seed, 2, 2),
        {"qk": table(seed + 1, 2, 3, 2, 3), "vo": table(seed + 2, 2, 2, 2, 2)},
    )
    kinds = dict.fromkeys(["heads", "qk", "vo"], "permutation")
    moves, gain = match_heads("heads", own, inner, kinds)

    def value(heads, channels):
        total = sum(own[p, heads[p]].item() for p in range(2))
        for name, maps in channels.items():
            for p in range(2):
                total += sum(inner[name][p, i, heads[p], j].item() for i, j in enumerate(maps[p]))
        return total

    ways = [
        value(heads, {"qk": qk, "vo": vo})
        for heads in permutations(range(2))
        for qk in product(permutations(range(3)), repeat=2)
        for vo in product(permutations(range(2)), repeat=2)
    ]
    still = value([0, 1], {"qk": [range(3)] * 2, "vo": [range(2)] * 2})
    assert gain == pytest.approx(max(ways) - still, abs=1e-12)
    found = {name: moves[name].tolist() for name in inner}
    assert value(moves["heads"].tolist(), found) == pytest.approx(max(ways), abs=1e-12)


@few
@given(seeds)
def test_heads_whose_channels_turn_gain_the_sum_of_singular_values(seed):
    inner = {"vo": table(seed, 2, 3, 2, 3)}
    kinds = {"heads": "permutation", "vo": "orthogonal"}
    _, gain = match_heads("heads", torch.zeros(2, 2).double(), inner, kinds)
    scores = inner["vo"].numpy()
    values = np.array(
        [[np.linalg.svd(scores[p, :, q], compute_uv=False).sum() for q in (0, 1)] for p in (0, 1)]
    )
    still = sum(np.trace(scores[p, :, p]) for p in (0, 1))
    best = max(values[0, 0] + values[1, 1], values[0, 1] + values[1, 0])
    assert gain == pytest.approx(best - still)


@pytest.mark.parametrize("moving", [{"heads"}, {"vo"}, {"heads", "vo"}])
def test_what_may_not_move_stays(moving):
    kinds = dict.fromkeys(moving, "permutation")
    inner = {"vo": table(0, 3, 4, 3, 4)}
    moves, gain = match_heads("heads", table(1, 3, 3), inner, kinds)
    assert set(moves) == moving
    assert gain >= 0
