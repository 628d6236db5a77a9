"""Merging by task vectors as the papers have it: whole vectors, float64, numpy.

`tau` is [models, entries], what the models added to their base. Sizes of tensors are given where a
method goes tensor by tensor.
"""

import numpy as np


def flat(state):
    """All tensors of a model, one after the other."""
    return np.concatenate([np.asarray(t, dtype=np.float64).ravel() for t in state.values()])


def trim(tau, density):
    """The largest `density` of each row (Yadav et al. 2023, Algorithm 1)."""
    count = max(1, int(density * tau.shape[1]))
    last = np.sort(np.abs(tau), axis=1)[:, -count, None]
    return np.where(np.abs(tau) >= last, tau, 0)


def elect(tau):
    """Signs of the sums; 0 has the more frequent sign of all."""
    signs = np.sign(tau.sum(0))
    return np.where(signs == 0, np.sign(signs.sum()), signs)


def disjoint_mean(tau, signs):
    agrees = np.sign(tau) == signs
    agrees &= tau != 0
    return (tau * agrees).sum(0) / np.maximum(agrees.sum(0), 1)


def ties(tau, density):
    trimmed = trim(tau, density)
    return disjoint_mean(trimmed, elect(trimmed))


def by_tensor(function, tau, sizes):
    """A function of [models, entries] of each tensor by itself."""
    ends = np.cumsum(sizes)[:-1]
    return np.concatenate([function(part) for part in np.split(tau, ends, axis=1)], axis=-1)


def breadcrumbs(tau, density, outliers):
    """Of one tensor: without its int(outliers n) largest entries, the int(density n) largest."""
    left = np.zeros_like(tau)
    for row, out in zip(tau, left, strict=True):
        by_size = sorted(range(len(row)), key=lambda i: -abs(row[i]))
        kept = max(1, int(density * len(row)))
        top = min(int(outliers * len(row)), len(row) - kept)
        for i in by_size[top : top + kept]:
            out[i] = row[i]
    return left


def della_drop(row, drop, window):
    """Probabilities with which entries are dropped, by rank (Deep et al. 2024, Section 3.1)."""
    if len(row) == 1:
        return np.full(1, drop)
    rank = np.empty(len(row))
    rank[np.argsort(-np.abs(row))] = np.arange(len(row))  # 0: the largest
    return (drop - window / 2) + window / (len(row) - 1) * rank


def tall_masks(tau, multi, strictness):
    """Wang et al. 2024, eq. 3, for each task."""
    return np.abs(tau) >= np.asarray(strictness)[:, None] * np.abs(multi - tau)


def consensus(tau, multi, strictness, at_least):
    return multi * (tall_masks(tau, multi, strictness).sum(0) >= at_least)


def drm(deltas, density, smallest=0.01, elected=True, coefficients=None):
    """Chaichana et al. 2025, DRM-H, of one matrix: deltas [models, outputs, inputs]."""
    models, _, inputs = deltas.shape
    u, s, v = np.linalg.svd(np.concatenate(list(deltas), axis=1), full_matrices=False)
    kept = s > smallest * s.max()
    u, s, v = u[:, kept], s[kept], v[kept]
    blocks = np.stack([v[:, i * inputs : (i + 1) * inputs] for i in range(models)])
    norms = np.linalg.norm(blocks, axis=2)
    blocks = blocks / norms[..., None]
    values = s * norms
    count = max(1, int(density * blocks.size))
    last = np.sort(np.abs(blocks).ravel())[-count]
    blocks = np.where(np.abs(blocks) >= last, blocks, 0) * values[..., None]
    factors = np.ones(models) if coefficients is None else np.asarray(coefficients)
    if not elected:
        return u @ (blocks * factors[:, None, None]).mean(0)
    signs = elect(blocks)
    agrees = (np.sign(blocks) == signs) & (blocks != 0)
    total = (blocks * agrees * factors[:, None, None]).sum(0)
    return u @ (total / np.maximum(agrees.sum(0), 1))


def slerp(one, other, t):
    angle = np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    return (np.sin((1 - t) * angle) * one + np.sin(t * angle) * other) / np.sin(angle)


def pull(models, mean, weights):
    """What Karcher's mean makes 0: the weighted sum of the models' logarithms at it."""
    at = mean / np.linalg.norm(mean)
    total = 0
    for model, weight in zip(models, weights, strict=True):
        unit = model / np.linalg.norm(model)
        along = unit - (unit @ at) * at
        length = np.linalg.norm(along)
        if length > 1e-12:
            total = total + weight * np.arctan2(length, unit @ at) * along / length
    return total
