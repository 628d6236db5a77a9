"""Low rank: matrices of a ViT as products of two thin ones, by plain or whitened SVD."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import torch
from pydantic import AfterValidator, Field, PositiveInt, model_validator
from torch import Tensor

from vitarium.architectures.structured.structured_vit import (
    LAYERS,
    Layer,
    Structure,
    StructuredVit,
    distinct,
)
from vitarium.core.config import Config
from vitarium.core.registry import Section
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._blocks import QUERY_KEY_VALUE, fused_block, split_block
from vitarium.operators.compression._calibration import (
    Calibration,
    gram,
    input_means,
    linear_layers,
)
from vitarium.operators.compression._plain_models import vit_section
from vitarium.operators.compression.structured_projection import (
    projected_architecture,
    structured_projection,
)

_RATIO = 0.5
_NOT_DEFINITE = 1e-12


class LowRankFactors(Config):
    rank: PositiveInt | None = None
    """Rank of each matrix; null: parameter_ratio says it."""
    parameter_ratio: float | None = Field(None, gt=0, le=1)
    """Parameters of both factors, as a share of the matrix's; null: 0.5, where no rank is given."""
    structured_layers: Annotated[
        tuple[Layer, ...], Field(min_length=1), AfterValidator(distinct)
    ] = LAYERS
    """Layers of each block that are factored: q, k, v, proj (of attention), fc1, fc2 (of the
    MLP)."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.rank is not None and self.parameter_ratio is not None:
            raise ValueError("rank and parameter_ratio say the same; leave one of them out")
        return self

    def structure(self) -> Structure:
        """As `structured_vit` has it."""
        share = self.parameter_ratio
        if self.rank is None and share is None:
            share = _RATIO
        settings = {"structure": "low_rank", "rank": self.rank, "parameter_ratio": share}
        return Structure.read({**settings, "structured_layers": self.structured_layers})


class WhitenedSvd(LowRankFactors, Calibration):
    """Settings of the truncation-aware SVD."""


def factored_architecture(config: LowRankFactors, architecture: Section | None) -> Section:
    """A `structured_vit` of low rank. Raises IncompatibleWeights for what is no plain ViT."""
    if architecture is None or type(architecture.config) is not StructuredVit:
        architecture = vit_section(architecture, "a low-rank factorization")
    return projected_architecture(config.structure(), architecture)


def whitened_architecture(config: WhitenedSvd, architecture: Section | None) -> Section:
    """As `factored_architecture`; a `structured_vit` is refused, too."""
    return factored_architecture(config, vit_section(architecture, "whitened_svd"))


@operator(
    "svd",
    title="SVD",
    paper="Eckart & Young 1936",
    models=(1, 1),
    architecture=factored_architecture,
    compression="post_training",
)
def svd(config: LowRankFactors, ingredients: Ingredients) -> NamedTensors:
    """Factor the matrices of a ViT's blocks by a truncated SVD, the nearest of that rank.

    Yields (name, tensor [*shape]) of a `structured_vit`. The relative Frobenius error follows from
    the singular values that are left out, and is logged as `relative_error`. Raises
    IncompatibleWeights for what is no plain ViT, and for a rank that layers cannot have.
    """
    yield from structured_projection(config.structure(), ingredients)


@operator(
    "whitened_svd",
    title="Whitened SVD",
    paper="Wang et al. 2024, arXiv 2403.07378",
    models=(1, 1),
    split="train",
    architecture=whitened_architecture,
    compression="post_training",
    tiny={"num_images": 32, "batch_size": 16},
)
def whitened_svd(config: WhitenedSvd, ingredients: Ingredients) -> NamedTensors:
    """Factor the matrices of a ViT's blocks so that their outputs on training images stay nearest.

    Yields (name, tensor [*shape]) of a `structured_vit`; biases stay. Inputs are those of the model
    itself. The relative error of all outputs of the layers, biases left out, follows from the
    singular values that are left out, and is logged as `relative_error`. Raises IncompatibleWeights
    for what is no plain ViT, and for a rank that layers cannot have.
    """
    (model,) = ingredients
    for name in ingredients.shapes:
        if not name.startswith("blocks."):
            yield name, checked(model, name)
        else:
            checked(model, name)
    structure, subject = config.structure(), ingredients.subject(0)
    layers = linear_layers(subject.model, ingredients.shapes)
    squares: dict[str, list[float]] = {name: [0.0, 0.0] for name in config.structured_layers}
    for done, (block, linear) in enumerate(layers.items()):
        ingredients.report(done, len(layers))
        grams = input_means(subject.model, block, linear, subject.examples, config, gram)
        by_layer = {name.split(".")[-2]: mean for name, mean in grams.items()}
        tensors = split_block(model, f"{block}.")
        for name, tensor in _factored(tensors, structure, by_layer, squares).items():
            yield f"{block}.{name}", tensor
    missed, total = map(sum, zip(*squares.values(), strict=True))
    ingredients.log.metrics["relative_error"] = (missed / (total or 1)) ** 0.5
    errors = {name: (missed / (total or 1)) ** 0.5 for name, (missed, total) in squares.items()}
    listed = ", ".join(f"{name} {error:.3g}" for name, error in errors.items())
    ingredients.log.lines.append(f"relative error of the layers' outputs: {listed}")


def _factored(
    tensors: Mapping[str, Tensor],
    structure: Structure,
    grams: Mapping[str, Tensor],
    squares: Mapping[str, list[float]],
) -> dict[str, Tensor]:
    """A block with factors of the layers that have them; adds up squared errors and norms."""
    factored: dict[str, Tensor] = {}
    for path, tensor in tensors.items():
        layer, _, kind = path.rpartition(".")
        name: Any = layer.rpartition(".")[2]
        if name not in squares or kind != "weight":
            factored[path] = tensor
            continue
        mean = grams["qkv" if name in QUERY_KEY_VALUE else name]
        out_features, in_features = tensor.shape
        rank = structure.rank_of(in_features, out_features)
        core_out, core_in, left_out, total = whitened_factors(tensor, mean, rank)
        squares[name][0] += left_out
        squares[name][1] += total
        factored[f"{layer}.core_in"] = core_in.to(tensor.dtype)
        factored[f"{layer}.core_out"] = core_out.to(tensor.dtype)
    return factored if set(QUERY_KEY_VALUE) & set(squares) else fused_block(factored)


def whitened_factors(
    weight: Tensor, mean_gram: Tensor, rank: int
) -> tuple[Tensor, Tensor, float, float]:
    """Factors [out, rank] and [rank, in], float64, of the matrix of that rank whose outputs are
    nearest to those of a weight [out, in], with E|(W - W')x|^2 and E|W x|^2.

    With S the lower Cholesky factor of E[x x'] and W S = U diag(s) V', W' is U_k diag(s_k) V_k'
    S^-1, and the error is the sum of the squares of the singular values that are left out (Sec. 3).
    Where E[x x'] is not positive definite, its diagonal gets |smallest eigenvalue| + 1e-6 of its
    mean, and the error is at most that.

    Args:
        mean_gram: E[x x'], [in, in], float64.
    """
    values = torch.linalg.eigvalsh(mean_gram)
    if values[0] <= _NOT_DEFINITE * values[-1]:
        ridge = values[0].abs() + 1e-6 * mean_gram.diagonal().mean().clamp(min=_NOT_DEFINITE)
        mean_gram = mean_gram + ridge * torch.eye(len(mean_gram), dtype=mean_gram.dtype)
    root = torch.linalg.cholesky(mean_gram)
    u, values, v = torch.linalg.svd(weight.double() @ root, full_matrices=False)
    scale = values[:rank].sqrt()
    unwhitened = torch.linalg.solve_triangular(root, v[:rank], upper=False, left=False)
    core_out, core_in = u[:, :rank] * scale, scale.unsqueeze(1) * unwhitened
    left_out = values[rank:].square().sum().item()
    return core_out.contiguous(), core_in.contiguous(), left_out, values.square().sum().item()
