"""Largest eigenvalues of the Hessian of the loss."""

from typing import Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt

from vitarium.core.seeds import derive
from vitarium.measures.base import EvalModel, NotApplicable, Values, measure
from vitarium.measures.landscape._hessian import Curvature, Hessian


class HessianEigenvalues(Curvature):
    count: PositiveInt = 1
    """Number of eigenvalues; each one more takes more products with the Hessian."""
    end: Literal["largest", "smallest", "magnitude"] = "largest"
    """Which eigenvalues: the largest, the smallest (most negative), or those of largest
    magnitude."""
    tolerance: PositiveFloat = 1e-3
    """Relative accuracy at which Lanczos' method stops."""
    restarts: PositiveInt = 50
    """Largest number of restarts of Lanczos' method."""


@measure(
    "hessian_eigenvalues",
    unit="nats",
    title="Hessian eigenvalues",
    quick=False,
    paper="Yao et al. 2020, PyHessian, arXiv 1912.07145",
)
def hessian_eigenvalues(config: HessianEigenvalues, subject: EvalModel) -> Values:
    """Largest eigenvalues of the Hessian of the mean loss, by Lanczos' method.

    Parts: "1", "2", ... from the end that is asked for; "" is the first of them. Raises
    NotApplicable where they do not converge, or where there are no more parameters.
    """
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    hessian = Hessian(subject, config)
    size = hessian.shape[0]
    if config.count >= size:
        fewer = f"fewer eigenvalues than that can be found, not {config.count}"
        raise NotApplicable(f"{subject.name} has {size} parameters: {fewer}")
    generator = torch.Generator().manual_seed(derive(config.seed, "hessian_eigenvalues"))
    start = torch.randn(size, generator=generator, dtype=hessian.dtype)

    def product(vector: np.ndarray) -> np.ndarray:
        return (hessian @ torch.from_numpy(vector)).numpy()

    operator = LinearOperator(hessian.shape, matvec=product, dtype=start.numpy().dtype)
    which = {"largest": "LA", "smallest": "SA", "magnitude": "LM"}[config.end]
    limits = {"which": which, "tol": config.tolerance, "maxiter": config.restarts}
    try:
        eigenvalues = eigsh(
            operator, config.count, v0=start.numpy(), return_eigenvectors=False, **limits
        )
    except ArpackNoConvergence:
        raise NotApplicable(
            f"{subject.name}: the {config.count} eigenvalues of its Hessian did not converge; "
            f"allow more restarts ({config.restarts}) or a larger tolerance ({config.tolerance:g})"
        ) from None
    except ArpackError as error:  # its faults are numbers: see which it was
        image = hessian @ start
        if image.any():
            reason = error if image.isfinite().all() else "its entries are not finite"
            message = f"{subject.name}: its Hessian has no eigenvalues: {reason}"
            raise NotApplicable(message) from None
        eigenvalues = np.zeros(config.count)  # a loss without curvature
    keys = {"largest": -eigenvalues, "smallest": eigenvalues, "magnitude": -np.abs(eigenvalues)}
    ordered = eigenvalues[np.argsort(keys[config.end])].tolist()
    return {"": ordered[0]} | {str(number): value for number, value in enumerate(ordered, start=1)}
