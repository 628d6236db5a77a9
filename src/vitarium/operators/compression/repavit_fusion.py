"""A trained RePaViT with the batch norms and idle units of its MLPs fused into few matrices."""

from typing import Any

import torch
from torch import Tensor

from vitarium.architectures.reparameterized.repavit import Repavit
from vitarium.core.config import NoConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator


def fused_section(config: NoConfig, architecture: Section | None) -> Section:
    """The fused form of a `repavit`. Raises IncompatibleWeights for anything else."""
    name = architecture.name if architecture else "an unknown architecture"
    if architecture is None or not isinstance(repavit := architecture.config, Repavit):
        raise IncompatibleWeights(f"repavit_fusion needs a repavit, not {name}")
    if repavit.fused:
        raise IncompatibleWeights("it is fused already; name the model that it was made of")
    factors = {**architecture.factors(defaults=False), "fused": True, "proj_drop_rate": 0.0}
    return choose("architecture", factors.pop("name"), **factors)


@operator(
    "repavit_fusion",
    title="RePaViT fusion",
    paper="Xu et al. 2025, arXiv 2505.21847",
    models=(1, 1),
    architecture=fused_section,
    compression="post_training",
    tiny_architecture={"name": "repavit"},
)
def repavit_fusion(config: NoConfig, ingredients: Ingredients) -> NamedTensors:
    """Fuse batch norms, idle units and residual of a RePaViT's MLPs: the same function, smaller.

    Yields (name, tensor [*shape]) of a `repavit` that is `fused`; products are of float64. Raises
    IncompatibleWeights for what is no `repavit`, and for one that is fused.
    """
    (model,) = ingredients
    vit: Any = model.skeleton
    for name in ingredients.shapes:
        tensor = checked(model, name)
        parts = name.split(".")
        if parts[0] != "blocks" or parts[2] not in ("norm2", "mlp"):
            yield name, tensor
    for number, block in enumerate(vit.blocks):
        ingredients.report(number, len(vit.blocks))
        at = f"blocks.{number}."
        dtype = model.dtype(f"{at}mlp.fc1.weight")
        for name, tensor in fused_mlp(model, at, block).items():
            yield f"{at}mlp.{name}", tensor.to(dtype)


def fused_mlp(model: Weights, at: str, block: Any) -> dict[str, Tensor]:
    """Tensors [*shape] of the fused MLP of a block, by name, in float64.

    With W1, b1 and W2, b2 the layers after their norms are folded into them, and A active units:
    fc1 is W1[:A], fc2 W2[:, :A], and skip 1 + W2[:, A:] W1[A:] with bias W2[:, A:] b1[A:] + b2.
    """
    first, first_bias = _folded(model, f"{at}norm2", block.norm2.eps, f"{at}mlp.fc1")
    second, second_bias = _folded(model, f"{at}mlp.norm", block.mlp.norm.eps, f"{at}mlp.fc2")
    active = block.mlp.active
    idle = second[:, active:]
    tensors = {
        "skip.weight": torch.eye(len(second), dtype=second.dtype) + idle @ first[active:],
        "skip.bias": idle @ first_bias[active:] + second_bias,
    }
    if active:
        tensors |= {"fc1.weight": first[:active], "fc1.bias": first_bias[:active]}
        tensors["fc2.weight"] = second[:, :active].contiguous()
    return tensors


def _folded(model: Weights, norm: str, eps: float, layer: str) -> tuple[Tensor, Tensor]:
    """A linear layer that computes what it does after a batch norm in eval mode: its weight
    [outputs, inputs] and its bias [outputs], in float64."""
    mean, variance = (checked(model, f"{norm}.running_{of}").double() for of in ("mean", "var"))
    weight, bias = (checked(model, f"{layer}.{of}").double() for of in ("weight", "bias"))
    scale = checked(model, f"{norm}.weight").double() / (variance + eps).sqrt()
    shift = checked(model, f"{norm}.bias").double() - mean * scale
    return weight * scale, weight @ shift + bias
