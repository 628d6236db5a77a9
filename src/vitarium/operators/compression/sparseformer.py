"""Bootstrapping of SparseFormer: a trained ViT's last blocks behind tokens that focus."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

from vitarium.architectures.heads import head_prefix
from vitarium.architectures.tokens._focusing import NORM_EPS
from vitarium.core import seeds
from vitarium.core.config import Config, InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._plain_models import plain_factors

_FOCUSING = 2
"""Blocks that focus, before those of the ViT."""


class Bootstrapped(Config):
    inherit_from: float = Field(1 / 3, ge=0, lt=1)
    """Depth from which on blocks of the ViT are taken over, as a share of its depth."""
    latent_tokens: PositiveInt = 48
    """Latent tokens, about a quarter of the ViT's patches as published."""
    focusing: Literal["first", "bootstrapped"] = "first"
    """How tokens focus: as in the first version, or as the bootstrapped models that were released;
    see the architecture."""
    focus_dim: int = Field(384, ge=4)
    """Width of the tokens while they focus."""
    focus_heads: PositiveInt = 6
    """Attention heads while the tokens focus; focus_dim has to be a multiple of it."""
    points: int = Field(16, ge=2)
    """Points that each token reads in its box."""
    stem_width: PositiveInt = 64
    """Channels of the map that is read."""
    stem_stride: int = 4
    """Pixels between cells of that map: 1, 2 or 4."""
    seed: NonNegativeInt = 0
    """Random seed of the parts that the ViT does not have."""


def sparse_architecture(config: Bootstrapped, architecture: Section | None) -> Section:
    """The SparseFormer. Raises IncompatibleWeights for anything but a plain ViT."""
    if architecture is None:
        raise IncompatibleWeights("sparseformer needs a plain ViT, not an unknown architecture")
    with meta_device():
        model = architecture(1)
    return _sparse(config, model)


@operator(
    "sparseformer",
    title="SparseFormer bootstrapping",
    models=(1, 1),
    architecture=sparse_architecture,
    compression="trained",
    paper="Gao et al. 2024, arXiv 2312.01987",
    tiny={"focus_dim": 8, "focus_heads": 2, "latent_tokens": 4, "points": 4, "stem_width": 4},
    identity_on_copies=False,
)
def sparseformer(config: Bootstrapped, ingredients: Ingredients) -> NamedTensors:
    """A SparseFormer with a ViT's last blocks, norm and head behind new tokens that focus.

    Yields (name, tensor [*shape]). The class token starts with its position added; what the ViT
    does not have is drawn by `seed`. Train it by the objective `bootstrapping` next. Raises
    IncompatibleWeights for anything but a plain ViT.
    """
    (model,) = ingredients
    section = _sparse(config, model.skeleton)
    with seeds.seeded(config.seed):
        started: nn.Module = section(1)
    head = f"{head_prefix(started)}."
    inherited = _inherited(config, model.skeleton)
    for name, drawn in started.state_dict().items():
        if name.startswith(head):
            continue
        source = inherited.get(name)
        if source is None:
            yield name, drawn
        elif name == "cls_token" and not model.skeleton.no_embed_class:
            yield name, checked(model, source) + checked(model, "pos_embed")[:, :1]
        else:
            yield name, checked(model, source)
    for name in ingredients.shapes:
        if name.startswith(head):
            yield name, checked(model, name)


def _first(config: Bootstrapped, depth: int) -> int:
    """The first block that is taken over."""
    return int(depth * config.inherit_from + 1e-9)


def _inherited(config: Bootstrapped, vit: Any) -> dict[str, str]:
    """By name in the SparseFormer, the ViT's name of what it takes over."""
    first = _first(config, len(vit.blocks))
    names = {"cls_token": "cls_token"} if vit.cls_token is not None else {}
    norm = "fc_norm" if isinstance(vit.fc_norm, nn.LayerNorm) else "norm"
    names |= {f"norm.{part}": f"{norm}.{part}" for part in ("weight", "bias")}
    for number, block in enumerate(vit.blocks[first:], _FOCUSING):
        for part in block.state_dict():
            names[f"blocks.{number}.{part}"] = f"blocks.{number - _FOCUSING + first}.{part}"
    return names


def _sparse(config: Bootstrapped, vit: Any) -> Section:
    factors = plain_factors(vit, "SparseFormer", "name a plain vision transformer")
    refused: dict[str, Any] = {
        "reg_tokens": 0,
        "qkv_bias": True,
        "init_values": None,
        "act_layer": "gelu",
    }
    refused["norm_eps"] = NORM_EPS
    faults = [
        f"{name} {factors[name]}" for name, value in refused.items() if factors[name] != value
    ]
    if factors["class_token"] != (factors["global_pool"] == "token"):
        faults.append(f"global_pool '{factors['global_pool']}' beside its class token")
    if faults:
        raise IncompatibleWeights(f"no SparseFormer has what this ViT has: {', '.join(faults)}")
    depth = factors["depth"]
    own = config.model_dump(exclude={"inherit_from", "seed"})
    shared = {name: factors[name] for name in ("img_size", "in_chans", "embed_dim", "num_heads")}
    shared |= {"mlp_ratio": factors["mlp_ratio"], "class_token": factors["class_token"]}
    try:
        return choose(
            "architecture",
            "sparseformer",
            **shared,
            **own,
            depth=1 + depth - _first(config, depth),
        )
    except InvalidConfig as error:
        raise IncompatibleWeights(f"this ViT has no such SparseFormer: {error}") from None
