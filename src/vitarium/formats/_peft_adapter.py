"""An adapter of peft, in the files that peft writes: untrusted input, checked against its base."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.formats._foreign_json import ForeignJson, Positive, Size, read_object
from vitarium.formats.weights import read_shapes, read_weights, root_of

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
"""Before the names of all tensors: of the wrapper, and of the model in it."""
_FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
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


@dataclass(frozen=True)
class Adapter:
    """A folder's adapter. Its factors and weights are read when they are asked for."""

    config: AdapterConfig
    config_file: Path
    file: Path
    """With the tensors."""

    @classmethod
    def read(cls, folder: Path) -> "Adapter":
        """Raises InvalidInput for what is no plain LoRA, CorruptFile and UntrustedFile."""
        config_file = folder / CONFIG
        config = _read_config(config_file)
        file = next((f for f in (folder / name for name in WEIGHTS) if f.is_file()), None)
        if file is None:
            raise CorruptFile(folder, f"it has none of {', '.join(WEIGHTS)}")
        return cls(config, config_file, file)

    @cached_property
    def shapes(self) -> Shapes:
        """By the file's names."""
        return read_shapes(self.file, root_of(self.file.parent))

    @cached_property
    def factors(self) -> dict[str, dict[str, str]]:
        """By linear layer, the file's names of its A and B. Raises InvalidInput where one is
        missing."""
        factors: dict[str, dict[str, str]] = {}
        for name in self.shapes:
            if match := _FACTOR.fullmatch(self._inner(name)):
                factors.setdefault(match[1], {})[match[2]] = name
        for layer, names in factors.items():
            if len(names) == 1:
                (present,), (missing,) = names, {"A", "B"} - names.keys()
                raise self._fault(
                    names[present], f"there is no lora_{missing} of {layer} beside it"
                )
        return factors

    @cached_property
    def replaced(self) -> dict[str, str]:
        """By the model's names, the file's names of what stands in the place of its weights."""
        factors = {name for names in self.factors.values() for name in names.values()}
        replaced = {}
        for name in self.shapes:
            inner = self._inner(name).replace(".base_layer.", ".")
            if name not in factors and ".lora_" in inner:
                raise self._fault(name, "it is of a variant of LoRA that is not read here")
            if name not in factors and (
                inner in replaced or inner.removesuffix(".weight") in self.factors
            ):
                raise self._fault(name, f"{inner} is changed by another tensor of the file, too")
            if name not in factors:
                replaced[inner] = name
        return replaced

    def check(self, base: Shapes, head: Iterable[str] = ()) -> None:
        """Raises InvalidInput that names the file and the tensor which does not fit the base.

        Args:
            base: shapes of the base's weights by name.
            head: names that the model may have in other shapes, or has and the base does not.
        """
        for layer in self.factors:
            self._check_factors(layer, base)
        for name, stored in self.replaced.items():
            if name in head:
                continue
            if name not in base:
                raise self._fault(stored, f"the base has no {name}")
            if self.shapes[stored] != base[name]:
                raise self._fault(
                    stored, f"it is {list(self.shapes[stored])}, the base's {list(base[name])}"
                )
        self._check_targets(base)

    def merged(self, base: Mapping[str, Tensor], head: Iterable[str] = ()) -> dict[str, Tensor]:
        """Plain weights: the base's with the changes of the adapter, computed in float64, in the
        base's types, and in the file's what stands in their place.

        Args:
            base: by name, of shapes that were checked.
            head: names of the base that are left out where the adapter does not have them.

        Raises InvalidInput for numbers that are not finite, CorruptFile and UntrustedFile.
        """
        tensors = read_weights(self.file, root_of(self.file.parent))
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                raise self._fault(name, f"it is of {tensor.dtype}, not of real numbers")
            if not tensor.isfinite().all():
                raise self._fault(name, "it has numbers that are not finite")
        weights = {n: t for n, t in base.items() if n not in head or n in self.replaced}
        for layer, names in self.factors.items():
            weight = weights[f"{layer}.weight"]
            a, b = (tensors[names[factor]].double().flatten(1) for factor in "AB")
            change = self.config.scale(layer) * (b @ a).reshape(weight.shape)
            weights[f"{layer}.weight"] = (weight.double() + change).to(weight.dtype)
        return weights | {name: tensors[stored] for name, stored in self.replaced.items()}

    def _check_factors(self, layer: str, base: Shapes) -> None:
        """A [rank, in, ...] and B [out, rank, ...] of a weight [out, in, ...]."""
        names, rank = self.factors[layer], self._of_patterns(layer)
        weight = base.get(f"{layer}.weight")
        if weight is None or len(weight) < 2:
            raise self._fault(names["A"], f"the base has no layer {layer} with a matrix")
        ones = (1,) * (len(weight) - 2)
        for factor, expected in (("A", (rank, *weight[1:])), ("B", (weight[0], rank, *ones))):
            shape = self.shapes[names[factor]]
            if tuple(shape) != expected:
                what = f"it is {list(shape)}, not {list(expected)}"
                why = f"{CONFIG} has rank {rank}, and the base's weight is {list(weight)}"
                raise self._fault(names[factor], f"{what}: {why}")

    def _of_patterns(self, layer: str) -> int:
        try:
            self.config.scale(layer)
            return self.config.rank(layer)
        except InvalidInput as error:
            raise InvalidInput(f"{self.config_file}: {error}") from None

    def _check_targets(self, base: Shapes) -> None:
        """Every layer that the configuration names has its factors; not of expressions."""
        config = self.config
        layers = [
            n.removesuffix(".weight")
            for n, s in base.items()
            if n.endswith(".weight") and len(s) > 1
        ]
        for target in config.target_modules if isinstance(config.target_modules, list) else ():
            named = [layer for layer in layers if _ends_with(layer, target)]
            if not named:
                raise InvalidInput(
                    f"{self.config_file}: target_modules: the base has no layer '{target}'"
                )
            skipped = config.layers_to_transform is not None or config.exclude_modules
            missing = [
                n for n in named if n not in self.factors and f"{n}.weight" not in self.replaced
            ]
            if missing and not skipped:
                what = f"it has no lora_A and lora_B of {missing[0]}"
                raise InvalidInput(f"{self.file}: {what}, which {CONFIG} names in target_modules")

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
