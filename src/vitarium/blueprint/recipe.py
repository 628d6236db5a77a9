"""The recipe of a model: every generating factor, resolved; or what is known of an imported one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from vitarium.blueprint.early_stopping import EarlyStopping
from vitarium.blueprint.evaluation_set import EvaluationSets, NamedEvaluationSets
from vitarium.blueprint.moving_average import Ema
from vitarium.blueprint.normalization import MeanStd, none_for_the_data
from vitarium.blueprint.progressive import Progressive
from vitarium.core.config import Config, InvalidConfig, Problem
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, SectionOf, section

if TYPE_CHECKING:
    from torch import nn


def _default(name: str) -> Any:
    return Field(name, validate_default=True)


MAX_EPOCHS = 10**6
"""Of a training; the epochs that are kept are listed in memory."""
TRAINABLE = "trainable"
"""What earlier versions called the adaptation, `all` or `head`."""


class Recipe(Config):
    """Everything that decides a model's weights, but its parent.

    Sections (architecture, data, ...) are plug-ins by name with their settings; see
    `vitarium plugins`. A field's default never changes once released: ids leave defaults out.
    """

    architecture: Annotated[Section, SectionOf("architecture")]
    head: Annotated[Section, SectionOf("head", "linear")] = _default("linear")
    initialization: Annotated[Section, SectionOf("initialization", "default")] = _default("default")
    data: Annotated[Section, SectionOf("dataset")]
    augmentation: Annotated[Section, SectionOf("augmentation", "standard")] = _default("standard")
    objective: Annotated[Section, SectionOf("objective", "supervised")] = _default("supervised")
    optimizer: Annotated[Section, SectionOf("optimizer", "adamw")] = _default("adamw")
    schedule: Annotated[Section, SectionOf("schedule", "constant")] = _default("constant")
    epochs: int = Field(gt=0, le=MAX_EPOCHS)
    early_stopping: EarlyStopping | None = None
    """End training before `epochs`, when a validation score becomes no better; None: never."""
    steps_per_epoch: PositiveInt | None = None
    """Steps of an epoch, which go on through the training images from one epoch to the next; None:
    as many as the images make full batches."""
    batch_size: PositiveInt
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """`balanced` draws images with replacement so that all classes are seen equally often, in as
    many steps an epoch; else each image is seen once."""
    accumulation: PositiveInt = 1
    """Parts of equal size in which a batch is computed, so that it needs the memory of one of them;
    a step is taken with the gradient of all."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest l2 norm of the gradient of all weights; None: no clipping."""
    clip_grad_value: PositiveFloat | None = None
    """Largest absolute value of an entry of the gradient; None: no clipping."""
    adaptive_clip: PositiveFloat | None = None
    """Largest l2 norm of the gradient of a unit (a row of a matrix), as a share of the norm of its
    weights, the head's left out (Brock et al. 2021, arXiv 2102.06171); None: no clipping."""
    adaptation: Annotated[Section, SectionOf("adaptation", "full")] = _default("full")
    """What of the model learns, and how."""
    weight_decay_on: Literal["all", "matrices"] = "all"
    """`matrices` leaves out norms, biases, positions and tokens, as timm does; the published recipe
    decays all alike."""
    seed: NonNegativeInt = 0
    checkpoints: Literal["all", "last"] | tuple[NonNegativeInt, ...] = "all"
    """Epochs that are kept: all from 0 (the initial state), the last, or a list and the last."""
    drop_path_schedule: Literal["constant", "linear_increase", "linear_decrease"] = "constant"
    """How rates of stochastic depth (`architecture.drop_path_rate`) change from the first step to
    the last: from 0 up to the architecture's, or from these down to 0 (Liu et al. 2023, arXiv
    2303.01500)."""
    ema: Ema | None = None
    """Keep a moving average of the weights beside them, and score it, too; None: none."""
    checkpoint_weights: Literal["trained", "ema"] = "trained"
    """Which weights are an epoch's checkpoint, and with it the model's: those that the steps end
    at, or their moving average."""
    checkpoint_precision: Literal["exact", "bf16"] = "exact"
    """`bf16` keeps weights rounded to bfloat16, in half the space or less: metrics are of the exact
    weights, but children start from the rounded ones."""
    keep_companions: bool = False
    """Keep what the objective brings beside the model (a decoder, a momentum teacher) after the
    last epoch, too: a later stage of the same objective goes on with it."""
    progressive: Progressive | None = None
    """Train in stages with rising image sizes; None: the model's size throughout."""
    normalization: Annotated[MeanStd | None, BeforeValidator(none_for_the_data)] = None
    """Mean and std of pixels in [0, 1] by which images are normalized; None: those of the data set.
    A child takes them from its parent where that was trained elsewhere, or has them itself."""
    evaluate_on: NamedEvaluationSets = EvaluationSets()
    """Further data sets, by name, on which the model is scored while it is trained. No part of the
    id, since they change no weights, but for one by which `early_stopping` ends training."""

    @model_validator(mode="before")
    @classmethod
    def _read_trainable(cls, values: Any) -> Any:
        """`trainable: head` of earlier versions is `adaptation: head`."""
        if not isinstance(values, Mapping) or TRAINABLE not in values:
            return values
        rest = {name: value for name, value in values.items() if name != TRAINABLE}
        if values[TRAINABLE] not in ("all", "head"):
            raise InvalidConfig([Problem((TRAINABLE,), "write `adaptation: full` or another")])
        if values[TRAINABLE] == "head":
            if rest.get("adaptation", "full") not in ("full", {"name": "full"}):
                raise InvalidConfig([Problem((TRAINABLE,), "leave it out beside `adaptation`")])
            rest["adaptation"] = "head"
        return rest

    @model_validator(mode="before")
    @classmethod
    def _without_head(cls, values: Any) -> Any:
        """An objective that trains no head has none by default; or the head that it needs."""
        if not isinstance(values, Mapping) or "head" in values or "objective" not in values:
            return values
        try:
            facts = section("objective", values["objective"]).facts
        except InvalidConfig:  # which its own field says
            return values
        needed = facts.get("head") or ("" if facts.get("trains_head", True) else "none")
        return {**values, "head": needed} if needed else values

    @field_validator("checkpoints", mode="after")
    @classmethod
    def _in_order(cls, epochs: Any) -> Any:
        return epochs if isinstance(epochs, str) else tuple(sorted(set(epochs)))

    @model_validator(mode="after")
    def _sections_go_together(self) -> Self:
        from vitarium.blueprint.recipe_rules import misfits

        if problems := misfits(self):
            raise InvalidConfig([Problem((factor,), text) for factor, text in problems.items()])
        return self

    @property
    def adds_modules(self) -> bool:
        """Whether its model has parts beside those of the architecture: prompts, adapters."""
        return bool(self.adaptation.facts.get("adds_modules"))

    @property
    def extra_channels(self) -> int:
        """Channels of an image beside those of the model: of a modality that its objective sees."""
        count = self.objective.facts.get("extra_channels")
        return int(count(self.objective.config)) if count else 0

    @property
    def image_size(self) -> tuple[int, int, int]:
        """Channels, height and width of the images of training: the model's, with extra ones."""
        channels, height, width = self.architecture.config.input_size
        return channels + self.extra_channels, height, width

    def identity(self) -> dict[str, Any]:
        """What enters the id, in the words of the version that first knew a factor."""
        values = self.factors(defaults=False)
        if values["adaptation"] in ({"name": "full"}, {"name": "head"}):
            name = values.pop("adaptation")["name"]
            values |= {TRAINABLE: name} if name == "head" else {}
        sets = values.pop("evaluate_on", {})
        ends_training = self.early_stopping and self.early_stopping.images
        deciding = {name: each for name, each in sets.items() if name == ends_training}
        return values | ({"evaluate_on": deciding} if deciding else {})

    def keeps(self, epoch: int) -> bool:
        """Whether the weights after that epoch (0: before training) stay in the zoo."""
        if epoch == self.epochs or self.checkpoints == "all":
            return True
        return self.checkpoints != "last" and epoch in self.checkpoints

    @property
    def kept_epochs(self) -> list[int]:
        return [epoch for epoch in range(self.epochs + 1) if self.keeps(epoch)]

    def build(self, num_outputs: int, *, plain: bool = True) -> "nn.Module":
        """The untrained model with its head: a function of the recipe alone, seeds included.

        plain: with no factors of its adaptation, which can be merged into the weights; with what
        else an adaptation adds (prompts, adapters).
        """
        model = self.build_unadapted(num_outputs)
        if not plain or self.adds_modules:
            self.adapt(model)
        return model

    def build_unadapted(self, num_outputs: int) -> "nn.Module":
        """As `build`, before its adaptation: what the parent's weights are loaded into."""
        from vitarium.core.seeds import derive, seeded  # imports torch

        with seeded(derive(self.seed, "architecture")):
            model: nn.Module = self.architecture(num_outputs)
            self.initialization(model)
        self.attach_head(model, num_outputs)
        return model

    def adapt(self, model: "nn.Module") -> None:
        """Let what the adaptation says learn, and add what it adds; raises InvalidInput."""
        from vitarium.core.seeds import derive, seeded

        with seeded(derive(self.seed, "adaptation")):
            self.adaptation(model)

    def attach_head(self, model: "nn.Module", num_outputs: int) -> None:
        """Replace the model's head by a new one, drawn from the head's own seed if it has one."""
        from vitarium.core.seeds import derive, seeded

        seed = getattr(self.head.config, "seed", None)
        with seeded(derive(self.seed if seed is None else seed, "head")):
            self.head(model, num_outputs)


class Imported(Config):
    """What is known of a model that was trained elsewhere; stands where others have a Recipe."""

    source: str
    """The importer that read it, e.g. "vit_zoo"."""
    name: str
    """What it is called there, e.g. "pretraining/sl_vit_s_16_224_seed_42"."""
    weights: str
    """SHA-256 of its last checkpoint's tensors (`formats.weights.fingerprint`), so that the
    id tells it from every other model."""
    architecture: Annotated[Section, SectionOf("architecture")] | None = None
    """What builds it; None: its tensors can be read and measured, but not run."""
    head: Annotated[Section, SectionOf("head")] | None = None
    """None: as the architecture comes."""
    settings: dict[str, JsonValue] = {}
    """Its generating factors by dotted name: ours (`optimizer.lr`) where they mean the same."""
    initial_epoch: NonNegativeInt | None = None
    """The epoch whose weights are those before training; None: none that is known of. No part of
    the id: it says what the weights are, and does not change them."""

    @property
    def adds_modules(self) -> bool:
        """As of a `Recipe`: it has the parts of its architecture alone."""
        return False

    def identity(self) -> dict[str, Any]:
        """What enters the id."""
        values = self.factors(defaults=False)
        values.pop("initial_epoch", None)
        return values

    def build(self, num_outputs: int, *, plain: bool = True) -> "nn.Module":
        """The model with random weights; it is plain. InvalidInput where nothing here builds it."""
        if self.architecture is None:
            raise InvalidInput(
                f"{self.name} came as tensors, and nothing here builds its architecture; read them "
                "with Zoo.state_dict or Zoo.tensor"
            )
        model: nn.Module = self.architecture(num_outputs)
        if self.head:
            self.head(model, num_outputs)
        return model


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings on one level: {"optimizer": {"lr": 1}} -> {"optimizer.lr": 1}.

    A section's own name stands at the section's path: {"optimizer": {"name": "sgd"}} ->
    {"optimizer": "sgd"}.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            flat.update(flatten(value, path))
        elif key == "name" and prefix:
            flat[prefix] = value
        else:
            flat[path] = value
    return flat


def described_import(values: Mapping[str, Any]) -> dict[str, Any]:
    """As `Imported.described`, of what `Imported.factors` gave."""
    sections = {key: values[key] for key in ("architecture", "head") if values[key]}
    names = {key: values[key] for key in ("source", "name")}
    return {**names, **flatten(sections), **values["settings"]}
