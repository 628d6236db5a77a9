"""Whether a model that learns without labels has collapsed, by the metrics of an epoch.

Collapsed are features of which all images have nearly the same, or that lie along one direction;
and a momentum teacher that says the same of every image: always one prototype, or all alike.
"""

from collections.abc import Mapping, Sequence

_LEAST_SPREAD = 0.01
"""Of normalized features; 1 where they spread over all directions."""
_SMALL_RANK = 1.2
"""Rank above which features that lie close together still tell images apart, as an autoencoder's
may, to which their common part is of no matter; 1 where they are multiples of one of them."""
_LEAST_RANK = 1.05
"""Effective rank of features; 1 where they are multiples of one of them."""
_ENTROPY = (0.001, 0.999)
"""Bounds of the teacher's entropy, as a share of the largest."""


def collapse(metrics: Sequence[Mapping[str, float]]) -> str:
    """What a run should know of its metrics by epoch (from 0: before training), in words: the first
    epoch in which its features have collapsed, and whether they no longer are in its last; empty
    where they never have."""
    signs = [_signs(of_epoch) for of_epoch in metrics]
    first = next((epoch for epoch in range(1, len(signs)) if signs[epoch]), None)
    if first is None:
        return ""
    text = f"features collapsed in epoch {first}: {', '.join(signs[first])}"
    return text if signs[-1] else f"{text}; not in epoch {len(signs) - 1}"


def _signs(metrics: Mapping[str, float]) -> list[str]:
    signs = []
    spread, rank = metrics.get("val_feature_spread"), metrics.get("val_feature_rank")
    entropy = metrics.get("train_teacher_entropy")
    if spread is not None and spread < _LEAST_SPREAD and (rank is None or rank < _SMALL_RANK):
        signs.append(f"val_feature_spread {spread:.2g} is below {_LEAST_SPREAD}")
    if rank is not None and rank < _LEAST_RANK:
        signs.append(f"val_feature_rank {rank:.4g} is below {_LEAST_RANK}")
    if entropy is not None and not _ENTROPY[0] <= entropy <= _ENTROPY[1]:
        bound = f"below {_ENTROPY[0]}" if entropy < _ENTROPY[0] else f"above {_ENTROPY[1]}"
        signs.append(f"train_teacher_entropy {entropy:.4g} is {bound}")
    return signs
