"""Mixtures with other shares in every tensor: learned soups, Model Stock.

As one vector, such a model lies outside of what its ingredients span; each tensor lies inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vitarium.lineage.methods.descent._mixtures import MIN_SHARE, Mixture, best_mixture

TOLERANCE = 0.1
"""Of the ratio over all tensors. In a zoo of small ViTs, Model Stock had less than 0.002, and SLERP
of each tensor, which lies a little outside, 0.11 to 0.26; no model that was trained was near 0.7,
and no epoch of a run below 0.22. Without epochs, 0.3 finds SLERP, too."""
_NUM_TENSORS = 6
"""Tensors that ingredients are looked for in: small ones may fit by chance."""
_MAX_WHOLE_RATIO = 0.6
"""Ratio as one vector, above which a model is not looked at tensor by tensor, to save time."""


def tensor_mixtures(
    grams: Mapping[str, np.ndarray],
    *,
    tolerance: float = TOLERANCE,
    whole_mixtures: Sequence[int] = (),
) -> dict[int, Mixture]:
    """Models whose tensors are convex combinations, each in its own shares, of the same models.

    Ingredients are looked for in the few tensors in which models differ most. A share is the mean
    over tensors, by how far from the model the ingredients are in each; what has a share below
    MIN_SHARE of the greatest is left out, and the others are fitted again.

    Args:
        grams: by tensor, inner products of K models, float64 [K, K].
        tolerance: of `Mixture.ratio`, with residuals of all tensors together.
        whole_mixtures: indices of models that are mixtures as one vector (`mixtures`): they are
            no ingredients, and not looked at.
    """
    total = np.sum(list(grams.values()), axis=0)
    candidates = sorted(set(range(len(total))) - set(whole_mixtures))
    if len(candidates) < 3:
        return {}
    mixtures = {}
    for model in candidates:
        near = best_mixture(total, model, candidates, beyond=_MAX_WHOLE_RATIO)
        if near.is_mixture(_MAX_WHOLE_RATIO):
            mixture = _by_tensor(grams, model, _ingredients(grams, model, candidates), near)
            if mixture.is_mixture(tolerance):
                mixtures[model] = mixture
    return mixtures


def _ingredients(
    grams: Mapping[str, np.ndarray], model: int, candidates: Sequence[int]
) -> list[int]:
    """Indices of models that are ingredients in those tensors in which models differ most."""
    spread = {name: np.trace(gram) - gram.mean() * len(gram) for name, gram in grams.items()}
    largest = sorted(grams, key=lambda name: -spread[name])[:_NUM_TENSORS]
    mixtures = (best_mixture(grams[name], model, candidates) for name in largest)
    return sorted({ingredient for mixture in mixtures for ingredient in mixture.shares})


def _by_tensor(
    grams: Mapping[str, np.ndarray], model: int, among: Sequence[int], near: Mixture
) -> Mixture:
    per_tensor = [
        best_mixture(gram, model, among) for gram in grams.values() if _differ(gram, among)
    ]
    weights = np.array([mixture.independent**2 for mixture in per_tensor])
    shares = {
        candidate: float(
            weights @ [mixture.shares.get(candidate, 0.0) for mixture in per_tensor] / weights.sum()
        )
        for candidate in among
    }
    least = MIN_SHARE * max(shares.values())
    remaining = [candidate for candidate, share in shares.items() if share >= least]
    if len(remaining) < len(among):
        return _by_tensor(grams, model, remaining, near)

    def length(values: Sequence[float]) -> float:
        return float(np.square(values).sum()) ** 0.5

    return replace(
        near,
        shares=shares,
        residual=length([mixture.residual for mixture in per_tensor]),
        independent=length([mixture.independent for mixture in per_tensor]),
        error=length([mixture.error for mixture in per_tensor]),
    )


def _differ(gram: np.ndarray, models: Sequence[int]) -> bool:
    """Whether a tensor, with inner products [K, K], is not the same in all these models."""
    return bool(np.ptp(gram[np.ix_(models, models)]) > 0)
