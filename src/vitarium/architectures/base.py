"""The contracts of architectures, heads and initializations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from vitarium.core.config import Config
from vitarium.core.registry import contract, register

Build = TypeVar("Build", bound=Callable[[Any, int], nn.Module])
PutHead = TypeVar("PutHead", bound=Callable[[Any, nn.Module, int], None])
Initialize = TypeVar("Initialize", bound=Callable[[Any, nn.Module], None])


class ArchitectureConfig(Config):
    """Base of an architecture's configuration; it knows the images that the model takes."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        raise TypeError(f"{type(self).__name__} has to define input_size")

    @property
    def needs_parent(self) -> str:
        """Why no model of it can be trained from scratch, and what to do; "" where it can."""
        return ""

    @property
    def fixed_weights(self) -> str:
        """Why its weights can be neither trained nor combined with others', and what to do; ""
        where they can."""
        return ""


DROP_RATES = ("drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
"""Of `TransformerConfig`: factors that act in training alone."""


class TransformerConfig(ArchitectureConfig):
    """Base of a transformer's configuration: square images that are cut into patches."""

    img_size: PositiveInt = 224
    """Height and width of the input images, in pixels."""
    patch_size: PositiveInt = 16
    """Height and width of a patch, in pixels."""
    in_chans: PositiveInt = 3
    """Channels of the input images: 3 for RGB, 1 for gray."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of each MLP, as a multiple of embed_dim."""
    qkv_bias: bool = True
    """Add a bias to queries, keys and values."""
    drop_rate: float = Field(0.0, ge=0, lt=1)
    """Dropout rate before the head, in [0, 1)."""
    proj_drop_rate: float = Field(0.0, ge=0, lt=1)
    """Dropout rate after the output projection of attention and in the MLPs, in [0, 1)."""
    attn_drop_rate: float = Field(0.0, ge=0, lt=1)
    """Dropout rate of the attention probabilities, in [0, 1)."""
    drop_path_rate: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth rate of the last block, in [0, 1); it rises linearly from 0 at the first
    block."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        return (self.in_chans, self.img_size, self.img_size)

    def mismatches(self) -> Iterator[str]:
        """All that does not go together; an architecture adds its own."""
        if self.img_size % self.patch_size:
            yield f"img_size {self.img_size} is not divisible by patch_size {self.patch_size}"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if faults := list(self.mismatches()):
            raise ValueError("; ".join(faults))
        return self


def without_hidden_units(width: int, **ratios: float) -> Iterator[str]:
    """Of hidden widths of MLPs as multiples of a width, by their settings' names, those below one
    unit, each as a sentence."""
    for name, ratio in ratios.items():
        if int(width * ratio) < 1:
            yield f"{name} {ratio:g} leaves an MLP of width {width} no hidden unit"


@runtime_checkable
class ActsAfterSteps(Protocol):
    """A part of a model that changes its weights by itself, too; such models are never stacked."""

    def after_step(self) -> None:
        """Called after every step of the optimizer."""


@runtime_checkable
class FollowsEpochs(Protocol):
    """A part of a model that acts otherwise in some epochs of its training; never stacked."""

    def at_epoch(self, epoch: int) -> None:
        """Called before every step; the first epoch is 1."""


@runtime_checkable
class TrainsSingly(Protocol):
    """A part of a model that cannot be computed for several models at once, by torch.func.vmap;
    such models are never stacked."""

    trains_singly: str
    """Why, as what its name is followed by: "chooses experts by their values"."""


@runtime_checkable
class ScalesRates(Protocol):
    """A model or a part of it whose parameters learn at multiples of the rate; never stacked."""

    def lr_multipliers(self) -> Mapping[str, float]:
        """By the name that a parameter has in this module; 1 for those that it does not name. Where
        a model and its parts name the same one, its multiples are multiplied."""


@runtime_checkable
class Factorized(Protocol):
    """A linear layer whose matrix is made of other parameters, its factors. A mean of models'
    factors makes no mean of their matrices: merging combines the matrices, and the result has the
    nearest factors."""

    in_features: int
    out_features: int

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Of the parameters that the matrix is made of; all others are as in any layer."""

    def matrix(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Of factors, by these names, the matrix [out_features, in_features] in float64."""

    def factored(self, matrix: Tensor) -> tuple[dict[str, Tensor], float]:
        """Of a matrix [out_features, in_features] the nearest factors, by these names, in float64,
        and the Frobenius norm of what they leave out."""


@runtime_checkable
class SamplesSubnetworks(Protocol):
    """A model of which other parts learn in each step; never stacked, nor compiled.

    In training mode it computes what was selected, before that and in eval mode everything.
    """

    def sample(self, epoch: int, count: int) -> None:
        """Draw what learns in a step, for each of the `count` parts in which its batch is computed;
        called before every step, with torch's global generator seeded for it. The first epoch is 1.

        Raises InvalidInput where no part of the model can learn by itself.
        """

    def select(self, part: int) -> None:
        """Compute the following images by what was drawn for that part, from 0."""


@runtime_checkable
class PacksNumbers(Protocol):
    """A part of a model whose tensors have another number of entries than they stand for."""

    @property
    def packed_counts(self) -> Mapping[str, int]:
        """By the name that such a tensor has in this module, how many parameters it holds."""


def packed_counts(model: nn.Module) -> dict[str, int]:
    """Of all parts of a model (`PacksNumbers`), by the tensors' names in its state_dict."""
    return {
        f"{name}.{tensor}" if name else tensor: count
        for name, part in model.named_modules()
        if isinstance(part, PacksNumbers)
        for tensor, count in part.packed_counts.items()
    }


class AuxiliaryLoss(NamedTuple):
    """What is added to the objective's loss (a scalar with a graph), and what is logged (scalars by
    name, the same names in each step)."""

    value: Tensor
    metrics: Mapping[str, Tensor]


@runtime_checkable
class HasAuxiliaryLoss(Protocol):
    """A model that adds to the loss of whatever objective trains it; never stacked."""

    def auxiliary_loss(self, targets: Tensor) -> AuxiliaryLoss:
        """Of the images that it computed last, in training mode, with targets [batch, classes].

        Called after the objective, for each part in which a batch is computed; of several views of
        an image all first ones were computed first, then all second ones. Raises InvalidInput.
        """


@contract
def architecture(
    name: str,
    *,
    paper: str = "",
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    timm: Callable[[Any], tuple[str, dict[str, Any]]] | None = None,
    symmetries: Callable[[nn.Module], Any] | str | None = None,
    training_factors: Sequence[str] = (),
    tiny: Mapping[str, Any] | None = None,
) -> Callable[[Build], Build]:
    """Register an architecture: a function `(config, num_outputs) -> nn.Module`.

    The module is the plain model, images [batch, *config.input_size] -> outputs [batch,
    num_outputs], with random weights from torch's global generator; outputs are classes, or the
    projection of an objective without labels. It has timm's `forward_features` and `forward_head`,
    its blocks are at `blocks`, `layers` or `stages`, and its head is at `head` or where
    `pretrained_cfg["classifier"]` says. Measures of attention see what the module of a block that
    has `fused_attn` passes through its `attn_drop`, probabilities [batch, heads, queries, keys]
    (or through the module that it names as `probabilities_to`). Equal configurations give equal
    state_dict keys and shapes.

    Parts of it may act after steps (`ActsAfterSteps`), follow epochs (`FollowsEpochs`), ask for
    learning rates of their own (`ScalesRates`), have factors for a matrix (`Factorized`), or be no
    matter of a stack (`TrainsSingly`).

    What its forward pass cannot compute, such as a part of its patches, it refuses there by
    InvalidInput: when a blueprint is read, a step of training is tried on the meta device.

    Args:
        paper: authors, year and arXiv number, or an address.
        presets: models of this architecture by name, as settings of `config`; names for
            `create_model`.
        timm: of a configuration the name of a model of timm and the overrides that make it the same
            model, where timm has one; raises InvalidInput where it has none.
        symmetries: of a built model its Symmetries (`architectures/symmetries/base.py`), so that
            alignment works; raises IncompatibleWeights. A text: why there are none, as
            "experts are chosen by their values".
        training_factors: factors that act before or during training alone, e.g. `drop_path_rate`:
            models that differ in nothing else compute the same function of their weights, and can
            be merged. All other factors count (`architectures/compare.py`).
        tiny: settings of a small model, for the contract tests; None: the defaults.

    `vitarium.testing.check_architecture(name)` tests all of it.
    """
    return register("architecture", **locals())


@contract
def head(
    name: str,
    *,
    paper: str = "",
    training_factors: Sequence[str] = (),
    tiny: Mapping[str, Any] | None = None,
) -> Callable[[PutHead], PutHead]:
    """Register a head: a function `(config, model, num_outputs) -> None`.

    It replaces the module at the model's `head_prefix` by one from features [batch, num_features]
    to outputs [batch, num_outputs], and sets `model.num_classes`. `paper`, `training_factors` and
    `tiny` are as of `architecture`; `vitarium.testing.check_head(name)` tests all of it.
    """
    return register("head", name, paper=paper, training_factors=training_factors, tiny=tiny)


@contract
def initialization(
    name: str, *, paper: str = "", tiny: Mapping[str, Any] | None = None
) -> Callable[[Initialize], Initialize]:
    """Register an initialization: a function `(config, module) -> None`.

    It draws a module's weights anew in place, from torch's global generator alone, which is seeded
    before. `paper` and `tiny` are as of `architecture`;
    `vitarium.testing.check_initialization(name)` tests all of it.
    """
    return register("initialization", name, paper=paper, tiny=tiny)
