"""Decom-renorm-merge: task vectors of matrices merged in the singular basis that they share."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.task_vectors._task_vectors import (
    Election,
    Scaled,
    disjoint,
    thresholds,
    trimmed,
)

FUSED = ("qkv.weight", "in_proj_weight")
"""Names of matrices that are a query's, a key's and a value's, one on top of the other."""


class Drm(Scaled):
    """Base + scaling_factor x what was merged in the shared basis."""

    weights: dict[str, PositiveFloat] = {}
    """The paper's coefficients, by the first digits of the models' ids, e.g. {"3f2a": 0.5}; models
    that are not named have 1. They are factors: the mean is not divided by them."""
    form: Literal["horizontal", "vertical"] = "horizontal"
    """How the models' task vectors of a matrix are stacked: side by side, to share a basis of
    outputs (DRM-H, horizontal), or on top of each other, to share a basis of inputs (DRM-V,
    vertical)."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of entries that is kept, of all normalized blocks of a matrix together."""
    vector_density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each model's entries that is kept, of all tensors that are not matrices, taken as
    one vector."""
    smallest: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Singular values up to this share of the largest are dropped."""
    elect: bool = True
    """Average only entries that have the elected sign, as TIES does; false: average all entries."""


@operator(
    "drm",
    title="DRM",
    needs_base=True,
    paper="Chaichana et al. 2025, arXiv 2505.23117",
    identity_on_copies={"density": 1, "smallest": 0},
)
def drm(config: Drm, ingredients: Ingredients) -> NamedTensors:
    """DRM: merge task vectors in a shared singular basis, renormalized and pruned.

    Yields (name, tensor [*shape]) in float64. Matrices are tensors with two axes called weight; a
    fused qkv is three. Others are merged as TIES does it. With `density=1`, `elect=False` and
    `smallest=0` it is the mean, and copies of one model give it.
    """
    coefficients = config.of(ingredients)
    shapes = ingredients.shapes.items()
    matrices = [name for name, shape in shapes if len(shape) == 2 and name.endswith("weight")]
    rest = [name for name in ingredients.shapes if name not in matrices]

    vectors = trimmed(lambda: ingredients.deltas(rest), config.vector_density)
    election = Election(vectors, [1.0] * len(ingredients)) if config.elect else None
    for name, base, deltas in vectors():
        yield name, base + config.scaling_factor * _mean(deltas, coefficients, election)
    for name, base, deltas in ingredients.deltas(matrices):
        fused = name.endswith(FUSED) and base.shape[0] % 3 == 0
        merged = []
        for part in deltas.chunk(3 if fused else 1, 1):  # [models, outputs, inputs]
            if config.form == "vertical":
                merged.append(_side_by_side(part.mT, coefficients, config).T)
            else:
                merged.append(_side_by_side(part, coefficients, config))
        yield name, base + config.scaling_factor * torch.cat(merged)


def _side_by_side(deltas: Tensor, coefficients: list[float], config: Drm) -> Tensor:
    """One matrix of the models', which are overwritten.

    With the stacked matrices U S V', block i of S V' is U' times the i-th matrix. So the basis is
    all that is computed of the decomposition: S_ic, the singular value times the norm of the
    block's row, is the norm of a row of that product.
    """
    if not deltas.any():
        return torch.zeros_like(deltas[0])
    basis = _shared_basis(deltas, config.smallest)
    for delta in deltas:
        delta[: basis.shape[1]] = basis.T @ delta
    blocks = deltas[:, : basis.shape[1]]
    norms = blocks.norm(dim=2, keepdim=True)
    for block, norm in zip(blocks, norms, strict=True):
        block.masked_fill_(norm <= 1e-12 * norms.max(), 0)  # rounding, and no direction
    if config.density < 1:
        norms = norms.where(norms > 0, 1)
        pairs = list(zip(blocks, norms, strict=True))
        limit = thresholds(lambda: ((b / n)[None] for b, n in pairs), config.density)
        for block, norm in pairs:
            block.masked_fill_((block / norm).abs().float() < limit, 0)
    election = None
    if config.elect:
        election = Election(lambda: iter([("", blocks[0], blocks)]), [1.0] * len(blocks))
    return basis @ _mean(blocks, coefficients, election)


def _mean(deltas: Tensor, coefficients: list[float], election: Election | None) -> Tensor:
    """Of entries with the elected sign, times coefficients, which are no matter of the election."""
    signs = election.signs(deltas) if election else None
    for delta, coefficient in zip(deltas, coefficients, strict=True):
        delta *= coefficient
    return deltas.mean(0) if signs is None else disjoint(deltas, [1.0] * len(deltas), signs)


def _shared_basis(deltas: Tensor, smallest: float) -> Tensor:
    """Left singular vectors of the matrices side by side, [outputs, rank].

    Those of the triangle that is left after one QR decomposition for each matrix: as exact as if
    all were decomposed at once, and in the memory of one.
    """
    outputs = deltas.shape[1]
    triangle = deltas.new_empty(0, outputs)
    for delta in deltas:
        triangle = torch.linalg.qr(torch.cat([triangle, delta.T]), mode="r").R
    _, values, basis = torch.linalg.svd(triangle, full_matrices=False)
    rounding = max(outputs, deltas.shape[2] * len(deltas)) * torch.finfo(deltas.dtype).eps
    return basis[values > max(smallest, rounding) * values.max()].T
