"""What the reconstruction of a block minimizes: errors of its outputs, weighted by importance.

All take outputs and targets [b, n, width].
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

TEMPERATURE = 20.0
"""By which the logits of the loss are divided whose derivatives tell importance (APHQ, FIMA)."""


BlockLoss = Callable[[Tensor, Tensor], Tensor]
"""`(outputs, targets) -> a scalar`, both [b, n, width]"""


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of a block's outputs."""
    return F.mse_loss(outputs, targets)


class ImportanceLoss:
    """APHQ: squared errors weighted by importance [n, width], twice its share of the first loss.

    Wu et al. 2025, arXiv 2504.02508, as released.
    """

    def __init__(self, importance: Tensor) -> None:
        self.importance = importance
        self._start: Tensor | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = ((outputs - targets).square() * self.importance).mean()
        if self._start is None:
            self._start = loss.detach()
        return 2 * _share(loss, self._start)


class FisherLoss:
    """FIMA: a low-rank and a diagonal estimate of the Fisher information of a block's outputs.

    loss = mean(A B A') / its first value + mean(|error|^2 * mean_i g_i) / its first value, where
    A = |error| G' [b, k] and B = (D D')^-1; rows d_i of D and g_i of G, both [n * width], are the
    mean absolute errors and derivatives of the divergence when row i was added. First values are
    taken anew with each row, so that the loss is 2 then. Wang et al. 2025, arXiv 2506.11543.
    """

    def __init__(self) -> None:
        self._errors: list[Tensor] = []
        self._slopes: list[Tensor] = []
        self._inverse = self._diagonal = torch.empty(0)
        self._starts: tuple[Tensor, Tensor] | None = None

    @property
    def rank(self) -> int:
        """Number of rows."""
        return len(self._errors)

    def add(self, errors: Tensor, slopes: Tensor) -> None:
        """Add a row: a block's errors and the divergence's derivatives [images, n, width]."""
        self._errors.append(errors.abs().mean(0).flatten())
        self._slopes.append(slopes.abs().mean(0).flatten())
        rows = torch.stack(self._errors).double()
        # rows that are nearly multiples of each other leave their product without an inverse
        self._inverse = torch.linalg.pinv(rows @ rows.T, hermitian=True).to(errors)
        self._diagonal = torch.stack(self._slopes).mean(0)
        self._starts = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if not self.rank:
            raise ValueError("add a row first")
        errors = (outputs - targets).abs().flatten(1)
        projected = errors @ torch.stack(self._slopes).T
        low_rank = (projected @ self._inverse * projected).sum(1).mean()
        diagonal = (errors.square() * self._diagonal).mean()
        if self._starts is None:
            self._starts = low_rank.detach(), diagonal.detach()
        return _share(low_rank, self._starts[0]) + _share(diagonal, self._starts[1])


def _share(loss: Tensor, start: Tensor) -> Tensor:
    """Of the first loss, which is 0 where nothing was lost."""
    return loss / start.clamp(min=torch.finfo(loss.dtype).tiny)


def divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || logits) [b, classes], both softened, summed over the images.

    Its derivatives are 0 where the logits are the reference.
    """
    log_probabilities = (logits / TEMPERATURE).log_softmax(-1)
    target = (reference / TEMPERATURE).softmax(-1)
    return F.kl_div(log_probabilities, target, reduction="sum")


def slopes(rest: Callable[[Tensor], Tensor], outputs: Tensor, reference: Tensor) -> Tensor:
    """Derivatives of the divergence by a block's outputs, [b, n, width].

    Args:
        rest: makes logits of the outputs of the block.
        reference: logits [b, classes] of the full-precision model.
    """
    point = outputs.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(divergence(rest(point), reference), point)
    return slope


def perturbation_importance(
    rest: Callable[[Tensor], Tensor], outputs: Tensor, reference: Tensor
) -> Tensor:
    """How the divergence's derivatives change with a shift of all outputs: |H 1|, [b, n, width].

    APHQ's |J(+eps) - J(-eps)| / (2 eps) (Sec. 3.2) in the limit of small shifts, by a product with
    the Hessian: released differences at +-1e-6 are mostly rounding in float32.
    """
    gradient = grad(lambda point: divergence(rest(point), reference))
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
        change: Tensor = jvp(gradient, (outputs,), (torch.ones_like(outputs),))[1]
    return change.abs()
