"""What a family of models is: its settings in a config.json, and their counterpart here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from torch import Tensor

from vitarium.architectures.vit.dinov2 import ratio
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.formats._foreign_json import Depth, Epsilon, ForeignJson, Rate, Size

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
"""`hidden_act` -> `act_layer`."""

NamedWeights = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """Models that share settings and names of tensors."""

    config: "type[TransformersConfig]"
    section: "Callable[[Any, bool], Section]"
    """`(config, bare) -> architecture`, bare: of a model without a classifier. Raises InvalidInput
    for what has no exact counterpart here."""
    convert: Callable[[NamedWeights], NamedWeights] = lambda weights: weights
    """Of weights under timm's names (`formats._names.to_timm`), what is not a matter of names."""
    has_classifier: bool = True

    def outputs(self, config: "TransformersConfig") -> tuple[int, tuple[str, ...]]:
        """How many outputs a head has, and their names; none without a head."""
        if not self.has_classifier:
            return 0, ()
        if projection := getattr(config, "projection_dim", None):
            return projection, ()
        return len(config.classes), config.classes


@dataclass(frozen=True)
class Counterpart:
    """The way back: what models here become there."""

    fits: Callable[[Any], bool]
    """Whether a model that was built is of this family."""
    model_type: str
    """As a config.json has it."""
    classifier: str
    """The class of transformers with a head, a key of FAMILIES; empty where there is none."""
    bare: str
    """That without one, likewise."""
    names: Mapping[str, str]
    """Of its parts, from timm's (`formats._names.from_timm`)."""
    faults: Callable[[Any], Iterator[str]]
    """In what a model differs from those of the family."""
    settings: Callable[[Any], dict[str, Any]]
    """Of a model without faults, the family's own in its config.json."""
    convert: Callable[[NamedWeights], NamedWeights] = lambda weights: weights
    """The inverse of the Family's. Raises InvalidInput for weights that have no place there."""
    layer: str = "encoder.layer"
    """What a block is called there, before its number."""
    prefix: str | None = None
    """Before all names but those of heads; None: the model's type, and none of a bare model."""
    has_labels: bool = True
    """Whether the outputs of its head are classes."""


def _numbered(names: dict[str, Any]) -> dict[int, str]:
    if any(not name.isdecimal() for name in names):
        raise ValueError("its keys are not the numbers of classes, from 0")
    return {int(number): str(name) for number, name in names.items()}


Labels = Annotated[dict[str, str | int | float], AfterValidator(_numbered)]


class TransformersConfig(ForeignJson):
    """Base of what is used of a family's config.json."""

    id2label: Labels = Field({}, exclude=True)
    num_labels: Annotated[int, Field(ge=0, le=2**20)] = 2
    """transformers' default, for files that have neither this nor `id2label`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the outputs; none where the model has no classifier."""
        labels: Mapping[int, str] = self.id2label  # type: ignore[assignment]
        count = len(labels) if "id2label" in self.model_fields_set else self.num_labels
        return tuple(labels.get(number, f"LABEL_{number}") for number in range(count))


class EncoderConfig(TransformersConfig):
    """What the encoders of nearly all families have."""

    hidden_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    image_size: Size | list[Size]
    patch_size: Size | list[Size]
    num_channels: Size = 3
    hidden_act: str = "gelu"
    qkv_bias: bool = True
    hidden_dropout_prob: Rate = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    layer_norm_eps: Epsilon = 1e-12

    @property
    def act_layer(self) -> str:
        """Raises InvalidInput for an activation that is not known here."""
        if self.hidden_act not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise InvalidInput(f"its hidden_act is '{self.hidden_act}'; known are {known}")
        return ACTIVATIONS[self.hidden_act]

    def sizes(self) -> dict[str, Any]:
        """Settings that timm's vision transformers and ours share."""
        return {
            "img_size": side(self.image_size, "image_size"),
            "patch_size": side(self.patch_size, "patch_size"),
            "in_chans": self.num_channels,
            "embed_dim": self.hidden_size,
            "depth": self.num_hidden_layers,
            "num_heads": self.num_attention_heads,
        }

    def dropout(self) -> dict[str, float]:
        return {
            "pos_drop_rate": self.hidden_dropout_prob,
            "proj_drop_rate": self.hidden_dropout_prob,
            "attn_drop_rate": self.attention_probs_dropout_prob,
        }


class MlpConfig(EncoderConfig):
    intermediate_size: Size

    @property
    def mlp_ratio(self) -> float:
        return ratio(self.intermediate_size, self.hidden_size)


def side(value: int | list[int], name: str) -> int:
    """Of a square. Raises InvalidInput for any other rectangle."""
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise InvalidInput(f"its {name} is {value}; images and patches have to be square here")
    return sides.pop()


def layer_norm_eps(value: float, default: float) -> dict[str, float]:
    """The override of a model of timm, where its epsilon is another one."""
    return {} if value == default else {"layer_norm_eps": value}


def require(config: Any, **values: Any) -> None:
    """Raises InvalidInput for a setting of which timm knows only this value."""
    for name, value in values.items():
        if (actual := getattr(config, name)) != value:
            raise InvalidInput(f"its {name} is {actual!r}; timm's counterpart has {value!r} alone")
