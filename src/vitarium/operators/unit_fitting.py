"""One MLP for several blocks: units of every block are permuted to match, then averaged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitarium.operators.head_fitting import Reading


@dataclass(frozen=True)
class Units:
    """What a block's hidden units read and write: [hidden, channels + 1] and [hidden, channels].

    The last column of what they read is the constant; both as they act: behind the norm's gain and
    shift, and times the layer scale.
    """

    read: Tensor
    written: Tensor

    def taken(self, order: Tensor) -> "Units":
        return Units(self.read[order], self.written[order])


@dataclass(frozen=True)
class SharedUnits:
    """Units that a group shares: read [hidden, channels (+ 1 of bias)], written [hidden, channels].

    norms: how each block reads them; scales: how each block's layer scale changes what they write.
    """

    read: Tensor
    written: Tensor
    norms: tuple[Reading, ...]
    scales: tuple[Reading, ...]

    def in_block(self, block: int) -> Units:
        return Units(self.norms[block].of(self.read), self.scales[block].of(self.written))


def fitted(
    targets: Sequence[Units],
    starts: Sequence[SharedUnits],
    *,
    own_norms: bool,
    tolerance: float,
    most: int,
) -> tuple[SharedUnits, float]:
    """The shared units nearest to every block's, and their relative error.

    The error is the mean of two, of what is read and of what is written, each relative to the
    targets'. It never rises: permutations (linear assignment), shared units and norms (least
    squares) in turn, from the best of the starts.

    Args:
        own_norms: whether the gains and shifts of `norms` are fitted.
    """
    weights = [1 / _total(targets, kind) for kind in ("read", "written")]
    matched = [(_matched(targets, start, weights), start) for start in starts]
    now, found = min(matched, key=lambda pair: error(*pair))
    left = error(now, found)
    for _ in range(most):
        if left <= 1e-14:
            break
        trial = _averaged(now, found)
        if own_norms:
            trial = replace(trial, norms=tuple(_norms(now, trial)))
        reordered = _matched(now, trial, weights)
        before, after = left, error(reordered, trial)
        if after > before:  # rounding, where nothing is left to gain
            break
        now, found, left = reordered, trial, after
        if before - after < tolerance:
            break
    return found, left


def error(targets: Sequence[Units], shared: SharedUnits) -> float:
    """Mean of the relative squared errors of what is read and what is written."""
    found = 0.0
    for kind in ("read", "written"):
        acting = (getattr(shared.in_block(block), kind) for block in range(len(targets)))
        pairs = zip(targets, acting, strict=True)
        squares = sum((getattr(one, kind) - other).square().sum().item() for one, other in pairs)
        found += squares / _total(targets, kind) / 2
    return found


def _total(targets: Sequence[Units], kind: str) -> float:
    tiny: float = torch.finfo(torch.float64).tiny
    return sum(getattr(one, kind).square().sum().item() for one in targets) or tiny


def _matched(
    targets: Sequence[Units], shared: SharedUnits, weights: Sequence[float]
) -> list[Units]:
    """The targets with their units in the order of the shared ones."""
    found = []
    for block, target in enumerate(targets):
        acting = shared.in_block(block)
        worth = weights[0] * (acting.read @ target.read.T)
        worth += weights[1] * (acting.written @ target.written.T)
        _, order = linear_sum_assignment(worth.numpy(), maximize=True)
        found.append(target.taken(torch.from_numpy(order)))
    return found


def _averaged(targets: Sequence[Units], shared: SharedUnits) -> SharedUnits:
    """The shared units by least squares."""
    matrices = [norm.matrix for norm in shared.norms]
    wanted = sum(
        (one.read @ matrix.T for one, matrix in zip(targets, matrices, strict=True)),
        torch.zeros_like(shared.read),
    )
    normal = torch.stack([matrix @ matrix.T for matrix in matrices]).sum(0)
    gains = torch.stack([scale.gain for scale in shared.scales])
    pairs = zip(targets, gains, strict=True)
    written = torch.stack([one.written * gain for one, gain in pairs]).sum(0)
    inverse = torch.linalg.pinv(normal, hermitian=True)
    return replace(shared, read=wanted @ inverse, written=_over(written, gains.square().sum(0)))


def _norms(targets: Sequence[Units], shared: SharedUnits) -> list[Reading]:
    """Gain by gain and shift by shift, least squares, given the shared units."""
    weight = shared.read[:, : len(shared.norms[0].gain)]
    squares = weight.square().sum(0)
    found = []
    for target, norm in zip(targets, shared.norms, strict=True):
        gain = _over((target.read[:, :-1] * weight).sum(0), squares)
        constant = target.read[:, -1] - (shared.read[:, -1] if norm.bias else 0)
        shift = torch.linalg.lstsq(weight, constant[:, None], driver="gelsd").solution[:, 0]
        found.append(Reading(gain, shift, norm.bias))
    return found


def _over(numbers: Tensor, by: Tensor) -> Tensor:
    """Divided where there is something to divide by, else zero."""
    return torch.where(by > 0, numbers / by.clamp(min=torch.finfo(by.dtype).tiny), 0.0)
