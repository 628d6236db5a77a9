"""Project a trained ViT's matrices on low rank, block tensor trains, Monarch or Kronecker form."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitarium.architectures.base import Factorized
from vitarium.architectures.structured.structured_vit import Structure, StructuredVit
from vitarium.architectures.vit.vit import PlainVit
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._blocks import QUERY_KEY_VALUE, fused_block, split_block


def projected_architecture(config: Structure, architecture: Section | None) -> Section:
    """The structured one. Raises IncompatibleWeights for what is no `vit`, and for a structure that
    a model of these widths cannot have."""
    if architecture is None or type(architecture.config) not in (PlainVit, StructuredVit):
        name = architecture.name if architecture else "an unknown architecture"
        raise IncompatibleWeights(
            f"structured_projection needs a vit or a structured_vit, not {name}"
        )
    factors = architecture.factors(defaults=False)
    shared = {name: factors[name] for name in PlainVit.model_fields if name in factors}
    try:
        return choose("architecture", "structured_vit", **shared, **config.factors(defaults=False))
    except InvalidConfig as error:
        raise IncompatibleWeights(f"its layers cannot be {config.structure}: {error}") from None


@operator(
    "structured_projection",
    title="Structured projection",
    models=(1, 1),
    architecture=projected_architecture,
    compression="trained",
    paper="Qiu et al. 2024, arXiv 2406.06248; Van Loan and Pitsianis 1993",
)
def structured_projection(config: Structure, ingredients: Ingredients) -> NamedTensors:
    """The structured model whose matrices are nearest to a ViT's; it reports their error.

    Yields (name, tensor [*shape]) of a `structured_vit`, which is a `vit` but for the matrices of
    `structured_layers`. Each becomes the nearest of its form in Frobenius norm: a truncated SVD of
    the matrix (low_rank), of its slices (btt, monarch), or of the rearranged matrix (kronecker), in
    float64. The relative error, the root of the squares of the singular values that are left out
    over those of all, is logged. The matrices of a `structured_vit` are projected anew.
    """
    (model,) = ingredients
    vit: Any = model.skeleton
    pairs = config.pairs(vit.embed_dim, vit.blocks[0].mlp.fc2.in_features)
    with meta_device():
        layers: dict[str, Factorized] = {
            n: config.layer(pairs[n]) for n in config.structured_layers
        }
    for name in ingredients.shapes:
        if not name.startswith("blocks."):
            yield name, checked(model, name)
    squares: dict[str, list[float]] = {name: [0.0, 0.0] for name in layers}
    for number in range(len(vit.blocks)):
        ingredients.report(number, len(vit.blocks))
        tensors = _projected(split_block(model, f"blocks.{number}."), layers, squares)
        for name, tensor in tensors.items():
            yield f"blocks.{number}.{name}", tensor
    errors = {name: (missed / (total or 1)) ** 0.5 for name, (missed, total) in squares.items()}
    missed, total = map(sum, zip(*squares.values(), strict=True))
    ingredients.log.metrics["relative_error"] = (missed / (total or 1)) ** 0.5
    listed = ", ".join(f"{name} {error:.3g}" for name, error in errors.items())
    ingredients.log.lines.append(f"relative Frobenius error of the matrices: {listed}")


def _projected(
    tensors: Mapping[str, Tensor],
    layers: Mapping[str, Factorized],
    squares: Mapping[str, list[float]],
) -> dict[str, Tensor]:
    """A block with factors of the layers that have them; adds up squared errors and norms."""
    projected: dict[str, Tensor] = {}
    for path, tensor in tensors.items():
        path_of_layer, _, kind = path.rpartition(".")
        name = path_of_layer.rpartition(".")[2]
        if name not in layers or kind != "weight":
            projected[path] = tensor
            continue
        factors, error = layers[name].factored(tensor)
        squares[name][0] += error**2
        squares[name][1] += float(tensor.double().square().sum())
        for factor, core in factors.items():
            projected[f"{path_of_layer}.{factor}"] = core.to(tensor.dtype)
    return projected if set(QUERY_KEY_VALUE) & set(layers) else fused_block(projected)
