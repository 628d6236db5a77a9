"""Fusion of the parts of a model that was split by classes."""

from typing import Any

import torch

from vitarium.architectures.elastic.ed_vit_fusion import EdVitFusion, fused_name
from vitarium.architectures.elastic.uneven_vit import UnevenVit
from vitarium.architectures.heads import head_prefix
from vitarium.architectures.vit.vit import PlainVit
from vitarium.core.config import NoConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.compression._plain_models import vit_section
from vitarium.zoo import Model


def fused_architecture(config: NoConfig, *architectures: Section | None) -> Section:
    """ViTs side by side, as the first. Raises IncompatibleWeights for anything but a plain ViT."""
    first = architectures[0]
    if first is None or type(first.config) not in (PlainVit, UnevenVit):
        named = first.name if first else "an unknown architecture"
        raise IncompatibleWeights(f"ed_vit_fusion needs parts of a plain vit, not {named}")
    factors = first.factors(defaults=False)
    if extra := sorted(factors.keys() - EdVitFusion.model_fields.keys() - {"name"}):
        raise IncompatibleWeights(f"ed_vit_fusion takes no parts with {extra[0]}")
    shared: dict[str, Any] = {name: value for name, value in factors.items() if name != "name"}
    return choose("architecture", "ed_vit_fusion", parts=len(architectures), **shared)


def fusion_training(config: NoConfig, model: Model, num_outputs: int) -> dict[str, Any]:
    """Only an MLP on the parts' features learns, as wide inside as the original."""
    width = vit_section(model.spec.origin.architecture, "ed_vit_fusion").config.embed_dim
    head = {"name": "mlp", "hidden_dim": width, "activation": "gelu"}
    return {"head": head, "adaptation": "head", "objective": "soft_distillation"}


@operator(
    "ed_vit_fusion",
    title="ED-ViT fusion",
    ordered=True,
    architecture=fused_architecture,
    training=fusion_training,
    paper="Liu et al. 2024, arXiv 2410.11650",
    identity_on_copies=False,
)
def ed_vit_fusion(config: NoConfig, ingredients: Ingredients) -> NamedTensors:
    """Fuse parts of a model that was split by classes: side by side, with the mean of their logits.

    Yields (name, tensor [*shape]) of an `ed_vit_fusion`. The parts' own tensors stay, bit for bit;
    the head is linear on the features of all parts, concatenated. Train a head on them next, as
    `vitarium compress --method ed_vit` does. Raises IncompatibleWeights for other heads.
    """
    parts, head = len(ingredients), head_prefix(ingredients[0].skeleton)
    names = {name for name in ingredients.shapes if name.startswith(f"{head}.")}
    if names != {f"{head}.weight", f"{head}.bias"}:
        raise IncompatibleWeights(f"{ingredients[0].name}: ed_vit_fusion needs linear heads")
    for name in ingredients.in_turn():
        tensors = list(ingredients.model_tensors(name))
        if name == f"{head}.weight":
            yield name, torch.cat(tensors, dim=1) / parts
        elif name == f"{head}.bias":
            yield name, torch.stack(tensors).mean(0, dtype=torch.float64)
        else:
            for number, tensor in enumerate(tensors):
                yield fused_name(name, number), tensor
