"""Whether two models compute the same function of equal weights, and what differs where not.

Equal shapes do not tell: the number of heads, activations, the epsilon of norms, pooling show in no
tensor.
"""

import enum
import functools
import hashlib
import math
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.layers.activations import GELU, GELUTanh, Swish
from timm.layers.drop import DropPath
from timm.layers.norm import LayerNorm
from timm.layers.patch_dropout import PatchDropout
from torch import nn

from vitarium.architectures.heads import head_prefix
from vitarium.blueprint import Imported, Recipe
from vitarium.core.devices import meta_device
from vitarium.core.registry import Section

Differences = Mapping[str, tuple[object, object]]
"""By factor ("num_heads") or by module and attribute ("blocks.0.attn.num_heads"), both values."""

_TRAINING_MODULES = (nn.modules.dropout._DropoutNd, DropPath, PatchDropout, nn.Identity)
"""Do nothing outside of training."""
_NO_FUNCTION = {"training", "num_classes", "pretrained_cfg", "default_cfg", "grad_checkpointing"}
_NO_FUNCTION |= {"fused_attn", "feature_info", "weight_init_mode", "fix_init", "inplace"}
_NO_FUNCTION |= {"pretrained_model_args", "init_values"}
"""Attributes of timm's modules that decide what is drawn, remembered, or fast."""
_ACTIVATIONS = {GELU: "gelu", GELUTanh: "gelu_tanh", Swish: "silu", nn.SiLU: "silu"}
_TOLD_BY_TEXT = (complex, bytes, range, np.generic, torch.dtype, torch.device)
_MAX_DEPTH = 8  # of values inside of values, which may go round in a circle
_TRUSTED = ("torch.", "timm.", "vitarium.")
"""Packages whose modules' attributes tell what they compute."""


def architecture_differences(
    first: Recipe | Imported, second: Recipe | Imported, *, head: bool = True
) -> dict[str, tuple[object, object]]:
    """The factors in which two models' functions of their weights differ, with both values.

    Architectures of one plug-in differ by all their factors but those that act in training alone
    (`training_factors`), defaults filled in; others, and timm's, whose defaults only timm knows, by
    what is built. Of imported models without an architecture nothing is known: no differences.

    Args:
        head: whether heads have to be the same, too.
    """
    architecture, compared = first.architecture, second.architecture
    if architecture is None or compared is None:
        return {}
    differences = _settings(architecture, compared) | adaptation_differences(first, second)
    if architecture.is_missing or compared.is_missing:
        return differences
    is_open = architecture.config.model_config.get("extra") == "allow"
    if architecture.name != compared.name or (differences and is_open):
        differences = _built(first, second, differences, head=False)
    if head and first.head != second.head:
        if first.head and second.head and first.head.name == second.head.name:
            of_head = _settings(first.head, second.head)
            differences |= {f"head.{name}": values for name, values in of_head.items()}
        else:
            differences |= _built(first, second, {}, head=True)
    return differences


def adaptation_differences(
    first: Recipe | Imported, second: Recipe | Imported
) -> dict[str, tuple[object, object]]:
    """What adaptations that add modules make different; others leave a plain model's function.

    Settings that act in training alone are left out.
    """
    sections = [
        model.adaptation if isinstance(model, Recipe) and model.adds_modules else None
        for model in (first, second)
    ]
    names = [section.name if section else "none" for section in sections]
    if sections[0] and sections[1] and names[0] == names[1]:
        settings = _settings(sections[0], sections[1])
        return {f"adaptation.{name}": values for name, values in settings.items()}
    return {} if names[0] == names[1] else {"adaptation": (names[0], names[1])}


def module_differences(first: nn.Module, second: nn.Module) -> dict[str, tuple[object, object]]:
    """By module and attribute, what decides two models' functions beside their tensors."""
    return _different(dict(_attributes(first)), dict(_attributes(second)))


def described(differences: Differences, limit: int = 3) -> str:
    """The first of them, for a message: "num_heads (2 and 4), act_layer (gelu and relu)"."""
    parts = [
        f"{name or 'class'} ({a} and {b})" for name, (a, b) in list(differences.items())[:limit]
    ]
    more = len(differences) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _settings(first: Section, second: Section) -> dict[str, tuple[object, object]]:
    """Factors of two plug-ins that decide functions and differ, those of sections inside too."""
    if first == second:
        return {}
    if first.name != second.name:
        return {first.kind: (first.name, second.name)}
    acting = [_acting(section.config, section) for section in (first, second)]
    return _different(*acting)


def _acting(config: Any, section: Section) -> dict[str, object]:
    skipped = section.facts.get("training_factors", ())
    return {name: _plain(value) for name, value in config if name not in skipped}


def _plain(value: Any) -> object:
    if isinstance(value, Section):
        return (value.name, *sorted(_acting(value.config, value).items()))
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value


def _built(
    first: Recipe | Imported, second: Recipe | Imported, settings: Differences, *, head: bool
) -> dict[str, tuple[object, object]]:
    """Of backbones, or of heads, as they are built; factors' names where they tell the same."""
    built = []
    for model in (first, second):
        assert model.architecture
        structure = _structure(model.architecture, model.head)
        if not structure.is_trusted and settings:
            return dict(settings)
        built.append(structure.head if head else structure.backbone)
    differences = _different(*built)
    attributes = {name.rpartition(".")[2]: values for name, values in differences.items()}
    return {name: attributes[name] for name in settings if name in attributes} or differences


class _Structure(NamedTuple):
    """What decides the functions of a backbone and of a head, by module and attribute."""

    backbone: Mapping[str, object]
    head: Mapping[str, object]
    is_trusted: bool  # whether the attributes tell all


@functools.lru_cache(maxsize=256)
def _structure(architecture: Section, head: Section | None) -> _Structure:
    with meta_device():
        model = architecture(1)
        if head:
            head(model, 1)
    prefix, parts = head_prefix(model), (dict[str, object](), dict[str, object]())
    for name, value in _attributes(model):
        parts[name == prefix or name.startswith(f"{prefix}.")][name] = value
    packages = {type(module).__module__ for module in model.modules()}
    return _Structure(*parts, all(package.startswith(_TRUSTED) for package in packages))


def _attributes(model: nn.Module) -> Iterator[tuple[str, object]]:
    for name, module in model.named_modules():
        if isinstance(module, _TRAINING_MODULES):
            continue
        if activation := _activation(module):
            yield name, activation
            continue
        kind = nn.LayerNorm if type(module) is LayerNorm else type(module)  # timm's is a faster one
        yield name, kind.__name__
        prefix = f"{name}." if name else ""
        for key, value in vars(module).items():
            if not key.startswith("_") and key not in _NO_FUNCTION and value is not None:
                yield f"{prefix}{key}", _value(value)


def _activation(module: nn.Module) -> str | None:
    if type(module) is nn.GELU:
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    return _ACTIVATIONS.get(type(module))


def _value(value: Any, depth: int = 0) -> object:
    """As a value that can be compared; of objects that cannot, their class."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, _TOLD_BY_TEXT):
        return repr(value)
    if isinstance(value, torch.Tensor | np.ndarray):
        return _numbers(value)
    inner = functools.partial(_value, depth=depth + 1)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return tuple(sorted(((repr(key), inner(v)) for key, v in value.items()), key=_first))
        if isinstance(value, Sequence):
            return tuple(map(inner, value))
        if isinstance(value, Set):
            return tuple(sorted(map(repr, value)))
        if isinstance(value, functools.partial):
            return (inner(value.func), inner(value.args), inner(value.keywords))
        if isinstance(value, types.FunctionType):
            cells = [cell for cell in value.__closure__ or () if cell != types.CellType()]
            captured = inner([cell.cell_contents for cell in cells])
            return (value.__qualname__, _code(value.__code__), captured)
    return getattr(value, "__qualname__", type(value).__qualname__)


def _code(code: types.CodeType) -> str:
    """A hash of what a function does, beside what it captured."""
    constants = [repr(value) for value in code.co_consts if not isinstance(value, types.CodeType)]
    return hashlib.sha256(code.co_code + "".join(constants).encode()).hexdigest()[:12]


def _first(pair: tuple[str, object]) -> str:
    return pair[0]


def _numbers(array: Any) -> object:
    """Shape, dtype and a hash of what stands in it; of a tensor without memory, its shape."""
    shape, dtype = tuple(array.shape), str(array.dtype)
    if isinstance(array, torch.Tensor):
        if array.is_meta or array.layout != torch.strided or array.is_quantized:
            return shape
        flat = array.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        array = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0)
    return (shape, dtype, hashlib.sha256(array.tobytes()).hexdigest()[:12])


def _different(
    first: Mapping[str, object], second: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    names = dict.fromkeys([*first, *second])
    pairs = {name: (first.get(name, "none"), second.get(name, "none")) for name in names}
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b or type(a) is not type(b)}
