"""Mixtures with other shares in every tensor: learned soups, Model Stock.

As one vector, such a model lies outside of what its ingredients span; each tensor lies inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vitarium.lineage.methods.descent._mixtures import LEAST_SHARE, Mixture, best_mixture

TOLERANCE = 0.1
"""Of the ratio over all tensors. In a zoo of small ViTs, Model Stock had less than 0.002, and SLERP
of each tensor, which lies a little outside, 0.11 to 0.26; no model that was trained was near 0.7,
and no epoch of a run below 0.22. Without epochs, 0.3 finds SLERP, too."""
_LARGEST = 6
"""Tensors whose ingredients are believed."""
_PROMISING = 0.6
"""A model whose ratio as one vector is greater is not looked at by tensor."""


def tensor_mixtures(
    grams: Mapping[str, np.ndarray],
    *,
    tolerance: float = TOLERANCE,
    known: Sequence[int] = (),
) -> dict[int, Mixture]:
    """Models whose tensors are convex combinations, each in its own shares, of the same models.

    Ingredients are looked for in the few tensors in which models differ most. A share is the mean
    over tensors, by how far from the model the ingredients are in each; what has a share below
    LEAST_SHARE of the greatest is left out, and the others are fitted again.

    Args:
        grams: by tensor, inner products of K models, float64 [K, K].
        tolerance: of `Mixture.ratio`, with residuals of all tensors together.
        known: mixtures of whole models (`mixtures`): they are no ingredients, and not looked at.
    """
    whole = np.sum(list(grams.values()), axis=0)
    others = sorted(set(range(len(whole))) - set(known))
    if len(others) < 3:
        return {}
    found = {}
    for model in others:
        near = best_mixture(whole, model, others, beyond=_PROMISING)
        if near.is_one(_PROMISING):
            mixture = _by_tensor(grams, model, _ingredients(grams, model, others), near)
            if mixture.is_one(tolerance):
                found[model] = mixture
    return found


def _ingredients(grams: Mapping[str, np.ndarray], model: int, others: Sequence[int]) -> list[int]:
    """Of those tensors in which models differ most; small ones may fit by chance."""
    spread = {name: np.trace(gram) - gram.mean() * len(gram) for name, gram in grams.items()}
    most = sorted(grams, key=lambda name: -spread[name])[:_LARGEST]
    each = (best_mixture(grams[name], model, others) for name in most)
    return sorted({other for one in each for other in one.shares})


def _by_tensor(
    grams: Mapping[str, np.ndarray], model: int, among: Sequence[int], near: Mixture
) -> Mixture:
    each = [best_mixture(gram, model, among) for gram in grams.values() if _differ(gram, among)]
    weights = np.array([one.independent**2 for one in each])
    shares = {
        other: float(weights @ [one.shares.get(other, 0.0) for one in each] / weights.sum())
        for other in among
    }
    least = LEAST_SHARE * max(shares.values())
    kept = [other for other, share in shares.items() if share >= least]
    if len(kept) < len(among):
        return _by_tensor(grams, model, kept, near)

    def length(values: Sequence[float]) -> float:
        return float(np.square(values).sum()) ** 0.5

    return replace(
        near,
        shares=shares,
        residual=length([one.residual for one in each]),
        independent=length([one.independent for one in each]),
        error=length([one.error for one in each]),
    )


def _differ(gram: np.ndarray, models: Sequence[int]) -> bool:
    """Whether a tensor is not the same in all of them."""
    return bool(np.ptp(gram[np.ix_(models, models)]) > 0)
