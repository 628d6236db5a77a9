"""Which of timm's plain vision transformers has tensors of these names and shapes."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import timm

from vitarium.architectures.vit.dinov2 import ratio
from vitarium.architectures.vit.vit import Vit
from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section, choose
from vitarium.formats.importers._structure import Shapes

_SIZES: Mapping[tuple[int, int], tuple[str, int]] = {
    (192, 12): ("tiny", 3),
    (384, 12): ("small", 6),
    (512, 12): ("medium", 8),
    (768, 12): ("base", 12),
    (1024, 24): ("large", 16),
    (1280, 32): ("huge", 16),
    (1408, 40): ("giant", 16),
    (1664, 48): ("gigantic", 16),
}
"""By width and depth the sizes of Dosovitskiy et al. 2021, Touvron et al. 2021, Zhai et al. 2022:
what timm calls them, and their number of heads, which no shape tells."""
_DEFAULTS: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "in_chans": 3,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "class_token": True,
    "reg_tokens": 0,
    "no_embed_class": False,
    "global_pool": "token",
    "fc_norm": None,
    "init_values": None,
    "qk_norm": False,
}
"""Of timm's VisionTransformer."""
_ANY_SCALE = 1e-5  # what layer scales start from does not matter to weights
_DINOV2: dict[str, Any] = {"img_size": 518, "init_values": _ANY_SCALE}
_PRESETS: dict[str, dict[str, Any]] = {
    "224": {},
    "dinov2": _DINOV2,
    "reg4_dinov2": _DINOV2 | {"reg_tokens": 4, "no_embed_class": True},
}
"""How timm's names of models end, and what these have that is not the default."""
_ASSUMED: Mapping[str, tuple[str, ...]] = {
    "GELU": ("act_layer",),
    "LayerNorm's epsilon 1e-6": ("norm_eps", "layer_norm_eps"),
    "pre-norm blocks": ("block_fn",),
    "square images": ("img_size",),
}
"""What no shape tells, with the settings that say it."""
_UNTOLD = {
    "norm_pre": "CLIP's towers have GELU or its quick form",
    "attn_pool": "its attention pooling has a number of heads of its own",
    "dist_token": "it has two heads",
    "register_tokens": "its names are of Meta's release of DINOv2, not timm's",
    "embeddings": "it has the names of transformers; import its folder with config.json",
}
"""By the first part of a name, why shapes do not tell the whole architecture."""

_HEAD_WEIGHTS = {"head.weight", "head.0.weight", "head.2.weight"}


class AmbiguousShapes(InvalidInput):
    """Shapes leave a choice that a setting of the importer makes; the message names it."""


class InferredVit(NamedTuple):
    """An architecture's name and settings, and what of them no shape tells."""

    architecture: dict[str, Any]
    assumptions: list[str]


def infer_vit(shapes: Shapes, overrides: Mapping[str, Any]) -> InferredVit:
    """The plain ViT whose trunk has these tensors; what is overridden is not inferred.

    Raises InvalidInput with the reason where names and shapes do not tell it.
    """
    for name in shapes:
        if reason := _UNTOLD.get(name.partition(".")[0]):
            raise InvalidInput(reason)
    try:
        settings = _embedding(shapes, overrides) | _blocks(shapes) | _pooling(shapes)
        heads = _heads(shapes, settings["embed_dim"])
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        missing = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        if not isinstance(error, KeyError | ValueError):
            missing = "its tensors are shaped otherwise"
        raise InvalidInput(f"it is no plain ViT under timm's names ({missing})") from None
    if "cls_token" not in shapes and "global_pool" not in overrides:
        which = "a ViT without a class token may have blocks and activations of several kinds"
        plain = parameter("architecture.global_pool", "avg")
        raise AmbiguousShapes(f"{which}: {plain} says that it is plain")
    width, depth = settings["embed_dim"], settings["depth"]
    size, usual_heads = _SIZES.get((width, depth), (None, None))
    settings |= {"num_heads": heads or usual_heads, **overrides}
    if settings["num_heads"] is None:
        which = f"a ViT of width {width} and depth {depth} has no usual number of heads"
        how = parameter("architecture.num_heads", "N")
        raise AmbiguousShapes(f"{which}, and weights do not tell it: {how}")
    assumptions = [what for what, said_by in _ASSUMED.items() if not overrides.keys() & said_by]
    if "num_heads" not in overrides and "qk_norm" not in settings:
        assumptions.insert(0, f"{settings['num_heads']} heads")
    if "global_pool" not in overrides:
        pooled = "mean of the patches" if "global_pool" in settings else "class token"
        assumptions.append(f"a head that sees the {pooled}")
    return InferredVit(_named(settings, size, usual_heads), assumptions)


def _named(settings: dict[str, Any], size: str | None, usual_heads: int | None) -> dict[str, Any]:
    """A model of timm that the settings change least, or our plain ViT."""
    named = []
    for end, special in _PRESETS.items():
        model = f"vit_{size}_patch{settings['patch_size']}_{end}"
        if timm.is_model(model) and "norm_eps" not in settings:
            usual = _DEFAULTS | special | {"patch_size": settings["patch_size"]}
            usual |= {key: settings[key] for key in ("embed_dim", "depth")}
            usual["num_heads"] = usual_heads
            values = _DEFAULTS | settings
            changed = {key: v for key, v in values.items() if v != usual.get(key)}
            if None not in changed.values():
                named.append({"name": "timm", "model": model, **changed})
    if named:
        return min(named, key=len)
    if settings.keys() <= Vit.model_fields.keys():
        return {"name": "vit", **settings}
    return {"name": "timm", "model": "vit_base_patch16_224", **settings}


def image_settings(shapes: Shapes) -> list[dict[str, Any]]:
    """Sizes of images and patches and numbers of channels that the embeddings may be of; none for
    what is no ViT under timm's names."""
    try:
        readings = _readings(shapes)
    except (KeyError, ValueError, IndexError):
        return []
    names = ("img_size", "patch_size", "in_chans")
    return [{name: settings[name] for name in names} for settings in readings]


def infer_head(shapes: Shapes) -> tuple[Section | None, int]:
    """The head that the weights have (None: one linear layer), and its number of outputs.

    Raises InvalidInput for any but a linear one, an MLP of two layers, or none.
    """
    if any(not shapes[name] for name in _HEAD_WEIGHTS & shapes.keys()):
        raise InvalidInput("its head is neither linear nor an MLP of two layers")
    if "head.weight" in shapes:
        return None, shapes["head.weight"][0]
    if {"head.0.weight", "head.2.weight"} <= shapes.keys():
        hidden = shapes["head.0.weight"][0]
        return choose("head", "mlp", hidden_dim=hidden), shapes["head.2.weight"][0]
    if any(name.startswith("head.") for name in shapes):
        raise InvalidInput("its head is neither linear nor an MLP of two layers")
    return choose("head", "none"), shapes["patch_embed.proj.weight"][0]


def _embedding(shapes: Shapes, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Raises InvalidInput where images of two sizes have that many positions."""
    readings = _readings(shapes)
    fitting = [settings for settings in readings if _agrees(settings, overrides)]
    if len(fitting) < 2:
        return (fitting or readings)[0]  # that others do not fit is seen when it is built
    among, alone = (settings["img_size"] for settings in fitting)
    raise AmbiguousShapes(
        f"its {shapes['pos_embed'][1]} positions are of images of {among} px if registers have "
        f"positions, too, and of {alone} px if patches alone have: say which, "
        f"{parameter('architecture.img_size', among)} (or {alone}), or "
        f"{parameter('architecture.no_embed_class', False)} (or true)"
    )


def _agrees(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> bool:
    has_none = settings.get("no_embed_class", False)
    if overrides.get("no_embed_class", has_none) != has_none:
        return False
    size = settings["img_size"]
    return overrides.get("img_size", size) in (size, [size, size])


def _readings(shapes: Shapes) -> list[dict[str, Any]]:
    """Settings that the embeddings may be of: all tokens have positions, or patches alone.

    Raises KeyError and ValueError where there are none.
    """
    projection, positions = shapes["patch_embed.proj.weight"], shapes["pos_embed"]
    if (len(projection), len(positions)) != (4, 3):
        raise ValueError("its embeddings are shaped otherwise")
    (width, channels, patch, patch_width), tokens = projection, positions[1]
    settings: dict[str, Any] = {"embed_dim": width, "patch_size": patch, "in_chans": channels}
    prefix = int("cls_token" in shapes)
    if not prefix:
        settings["class_token"] = False
    if "reg_token" in shapes:
        settings["reg_tokens"] = shapes["reg_token"][1]
        prefix += settings["reg_tokens"]
    if patch != patch_width:
        raise ValueError("its patches are not square")
    readings = []
    if _is_square(tokens - prefix):
        readings.append({**settings, "img_size": math.isqrt(tokens - prefix) * patch})
    if prefix and _is_square(tokens):
        size = math.isqrt(tokens) * patch
        readings.append({**settings, "no_embed_class": True, "img_size": size})
    if not readings:
        raise ValueError("its images are not square")
    return readings


def _blocks(shapes: Shapes) -> dict[str, Any]:
    blocks = {int(match[1]) for name in shapes if (match := re.match(r"blocks\.(\d{1,6})\.", name))}
    if blocks != set(range(len(blocks))) or not blocks:
        raise ValueError("its blocks are not numbered one after the other")
    hidden, width = shapes["blocks.0.mlp.fc1.weight"]
    if shapes["blocks.0.mlp.fc2.weight"][1] != hidden:
        raise ValueError("its MLPs are gated")
    settings: dict[str, Any] = {"depth": len(blocks)}
    if hidden != 4 * width:
        settings["mlp_ratio"] = ratio(hidden, width)
    if "blocks.0.attn.qkv.bias" not in shapes:
        settings["qkv_bias"] = False
    if "blocks.0.ls1.gamma" in shapes:
        settings["init_values"] = _ANY_SCALE
    if "blocks.0.attn.q_norm.weight" in shapes:
        settings["qk_norm"] = True
    return settings


def _pooling(shapes: Shapes) -> dict[str, Any]:
    if "fc_norm.weight" in shapes:
        return {"global_pool": "avg"}
    return {} if "cls_token" in shapes else {"global_pool": "avg", "fc_norm": False}


def _heads(shapes: Shapes, width: int) -> int | None:
    """From the norm of queries, which is as wide as a head."""
    norm = shapes.get("blocks.0.attn.q_norm.weight")
    return width // norm[0] if norm else None


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count
