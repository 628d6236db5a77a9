"""An adapter of peft, in the files that peft writes: untrusted input, checked against its base."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitarium.adaptations._factors import parts_of
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.formats._foreign_json import ForeignJson, Positive, Size, read_object
from vitarium.formats._names import timm_name
from vitarium.formats.weights import read_shapes, read_weights, root_of

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
"""Before the names of all tensors: of the wrapper, and of the model in it."""
_FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
_UNFUSED = re.compile(r"(.+\.attn)\.([qkv])\.weight")
_OTHER_FUNCTIONS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
)
"""With these, an adapted layer computes something else than W + scale * B A."""
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initializations that take from the base's weights what the factors begin with."""

Shapes = Mapping[str, torch.Size]
NamedTensors = dict[str, Tensor]


class AdapterConfig(ForeignJson):
    """What of adapter_config.json decides the function."""

    peft_type: str
    r: Size
    lora_alpha: Positive
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, Size] | None = None
    alpha_pattern: dict[str, Positive] | None = None
    use_rslora: bool = False
    init_lora_weights: bool | str | None = True
    layers_to_transform: Any = None
    exclude_modules: Any = None

    def rank(self, layer: str) -> int:
        return _matching(self.rank_pattern or {}, layer, self.r)

    def scale(self, layer: str) -> float:
        """Of a layer's B A."""
        alpha, rank = _matching(self.alpha_pattern or {}, layer, self.lora_alpha), self.rank(layer)
        return float(alpha / (rank**0.5 if self.use_rslora else rank))


class Rows(NamedTuple):
    """Rows [start, stop) of a weight: all, or queries, keys or values of a fused one."""

    weight: str
    start: int
    stop: int


@dataclass(frozen=True)
class Adapter:
    """A folder's adapter of a base. Its tensors are read when they are asked for."""

    config: AdapterConfig
    config_file: Path
    file: Path
    """With the tensors."""
    base: Shapes
    """Of the base's weights."""
    head: Collection[str]
    """Names of tensors that the base may have in other shapes, or not at all."""

    @classmethod
    def read(cls, folder: Path, base: Shapes, head: Collection[str] = ()) -> "Adapter":
        """An adapter that fits the base. Raises CorruptFile, UntrustedFile, and InvalidInput that
        names the file and the tensor, or the setting, for what does not fit or is no plain LoRA."""
        config_file = folder / CONFIG
        config = _read_config(config_file)
        file = next((f for f in (folder / name for name in WEIGHTS) if f.is_file()), None)
        if file is None:
            raise CorruptFile(folder, f"it has none of {', '.join(WEIGHTS)}")
        adapter = cls(config, config_file, file, base, head)
        adapter._check()
        return adapter

    @cached_property
    def shapes(self) -> Shapes:
        """By the file's names."""
        return read_shapes(self.file, root_of(self.file.parent))

    @cached_property
    def factors(self) -> dict[str, dict[str, str]]:
        """By linear layer, as the file calls it, the file's names of its A and B."""
        factors: dict[str, dict[str, str]] = {}
        for name in self.shapes:
            if match := _FACTOR.fullmatch(self._inner(name)):
                factors.setdefault(match[1], {})[match[2]] = name
        for layer, names in factors.items():
            if len(names) == 1:
                (present,), (missing,) = names, {"A", "B"} - names.keys()
                why = f"there is no lora_{missing} of {layer} beside it"
                raise self._fault(names[present], why)
        return factors

    @cached_property
    def replaced(self) -> dict[str, str]:
        """By the base's names, the file's names of what stands in the place of its weights."""
        factors = {name for names in self.factors.values() for name in names.values()}
        changed = {self._rows(layer).weight for layer in self.factors}
        replaced: dict[str, str] = {}
        for stored in (name for name in self.shapes if name not in factors):
            inner = self._inner(stored).replace(".base_layer.", ".")
            if ".lora_" in inner:
                raise self._fault(stored, "it is of a variant of LoRA that is not read here")
            name = next((n for n in (inner, timm_name(inner)) if n in {*self.base, *self.head}), "")
            if not name:
                raise self._fault(stored, f"the base has no {inner}")
            if name in replaced or name in changed:
                raise self._fault(stored, f"{name} is changed by another tensor of the file, too")
            replaced[name] = stored
        return replaced

    def merged(self, base: Mapping[str, Tensor], dropped: Collection[str] = ()) -> NamedTensors:
        """Plain weights: the base's with the changes of the adapter, computed in float64, in the
        base's types, and in the file's what stands in their place.

        Args:
            base: its weights.
            dropped: names of what is left out where the adapter does not have it.

        Raises InvalidInput for numbers that are not finite, CorruptFile and UntrustedFile.
        """
        tensors = read_weights(self.file, root_of(self.file.parent))
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                raise self._fault(name, f"it is of {tensor.dtype}, not of real numbers")
            if not tensor.isfinite().all():
                raise self._fault(name, "it has numbers that are not finite")
        weights = {n: t for n, t in base.items() if n not in dropped or n in self.replaced}
        for layer, names in self.factors.items():
            name, start, stop = self._rows(layer)
            weight = weights[name].double()
            a, b = (tensors[names[factor]].double().flatten(1) for factor in "AB")
            change = self.config.scale(layer) * (b @ a).reshape(weight[start:stop].shape)
            parts = [weight[:start], weight[start:stop] + change, weight[stop:]]
            weights[name] = torch.cat(parts).to(weights[name].dtype)
            if not weights[name].isfinite().all():
                raise self._fault(names["A"], f"with it, {name} has numbers that are not finite")
        return weights | {name: tensors[stored] for name, stored in self.replaced.items()}

    def _check(self) -> None:
        if not self.factors:
            raise InvalidInput(f"{self.file}: it has no factors of LoRA")
        for layer in self.factors:
            self._check_factors(layer)
        for name, stored in self.replaced.items():
            shape = self.shapes[stored]
            if name not in self.head and shape != self.base[name]:
                what = f"it is {list(shape)}, the base's {list(self.base[name])}"
                raise self._fault(stored, what)
        if isinstance(self.config.target_modules, list):
            for target in self.config.target_modules:
                self._check_target(target)

    def _rows(self, layer: str) -> Rows:
        """Which of the base's weight a layer of the file is. Raises InvalidInput for none."""
        names = f"{layer}.weight", timm_name(f"{layer}.weight")
        for name in names:
            if len(self.base.get(name, ())) > 1:
                return Rows(name, 0, self.base[name][0])
        if match := _UNFUSED.fullmatch(names[1]):
            fused = f"{match[1]}.qkv"
            rows = self.base.get(f"{fused}.weight", (0,))[0]
            for part in parts_of(fused, rows) if rows else ():
                if part.matrix == match[2]:
                    return Rows(f"{fused}.weight", part.start, part.stop)
        raise self._fault(self.factors[layer]["A"], f"the base has no layer {layer} with a matrix")

    def _check_factors(self, layer: str) -> None:
        """A [rank, in, ...] and B [out, rank, ...] of a weight [out, in, ...]."""
        (name, start, stop), rank = self._rows(layer), self._of_patterns(layer)
        names, weight = self.factors[layer], (stop - start, *self.base[name][1:])
        ones = (1,) * (len(weight) - 2)
        for factor, expected in (("A", (rank, *weight[1:])), ("B", (weight[0], rank, *ones))):
            shape = self.shapes[names[factor]]
            if tuple(shape) != expected:
                what = f"it is {list(shape)}, not {list(expected)}"
                why = f"{CONFIG} has rank {rank}, and the base's weight is {list(weight)}"
                raise self._fault(names[factor], f"{what}: {why}")

    def _check_target(self, target: str) -> None:
        """A layer that the configuration names is in the base, and has its factors."""
        matrices = (n for n, s in self.base.items() if n.endswith(".weight") and len(s) > 1)
        layers = [name.removesuffix(".weight") for name in matrices]
        named = [layer for layer in layers if _ends_with(layer, target)]
        if not named and not any(_ends_with(layer, target) for layer in self.factors):
            what = f"target_modules: the base has no layer '{target}'"
            raise InvalidInput(f"{self.config_file}: {what}")
        if self.config.layers_to_transform is not None or self.config.exclude_modules:
            return
        for layer in named:
            if layer not in self.factors and f"{layer}.weight" not in self.replaced:
                what = f"it has no lora_A and lora_B of {layer}"
                raise InvalidInput(f"{self.file}: {what}, which {CONFIG} names in target_modules")

    def _of_patterns(self, layer: str) -> int:
        try:
            self.config.scale(layer)
            return self.config.rank(layer)
        except InvalidInput as error:
            raise InvalidInput(f"{self.config_file}: {error}") from None

    def _inner(self, name: str) -> str:
        if not name.startswith(PREFIX):
            raise self._fault(name, f"names of an adapter begin with {PREFIX}")
        return name.removeprefix(PREFIX)

    def _fault(self, name: str, reason: str) -> InvalidInput:
        return InvalidInput(f"{self.file}: {name}: {reason}")


def _read_config(file: Path) -> AdapterConfig:
    values = read_object(file)
    config = AdapterConfig.parse(values, file)
    if config.peft_type != "LORA":
        raise InvalidInput(f"{file}: peft_type: '{config.peft_type}' is not read here; LORA is")
    for key in _OTHER_FUNCTIONS:
        if values.get(key):
            raise InvalidInput(f"{file}: {key}: this variant of LoRA is not read here")
    start = config.init_lora_weights
    if isinstance(start, str) and start.startswith(_OTHER_BASES):
        hint = "convert it with path_initial_model_for_weight_conversion of peft's save_pretrained"
        raise InvalidInput(f"{file}: init_lora_weights: '{start}' changes the base, too; {hint}")
    return config


def _matching(patterns: Mapping[str, Any], layer: str, default: Any) -> Any:
    """As peft looks for it, the first that the layer's name ends with; but of names alone, as an
    expression of someone else could take forever. Raises InvalidInput for an expression."""
    for pattern, value in patterns.items():
        name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.]+", name):
            raise InvalidInput(f"the pattern {pattern!r:.80} is no name of a layer")
        if layer == name or (not pattern.startswith("^") and _ends_with(layer, name)):
            return value
    return default


def _ends_with(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")
