"""What self-distillation has in common: a student, a momentum teacher, targets and schedules."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from vitarium.architectures.heads import num_features
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import ScoredByFeatures
from vitarium.objectives.companions import Companions, MomentumTeacher, Progress, cosine
from vitarium.objectives.self_distillation._crop_tokens import misfit_of_sizes
from vitarium.objectives.self_distillation._gram import GramAnchoring, GramTeacher
from vitarium.objectives.self_distillation._head import ProjectionHead

if TYPE_CHECKING:
    from vitarium.blueprint.recipe import Recipe

_LARGEST_MOMENTUM = 0.996
_REPLACEMENTS = 10.0
"""(1 - momentum) * steps at the start, at least: exp(-10 / 2) of the first teacher is left then."""


class SelfDistillation(ScoredByFeatures):
    """Settings of the head, of the teacher, and of its targets."""

    prototypes: int = Field(1024, ge=2)
    """Width of the head's output; 65,536 in the paper, where it suits ViTs of 22 million
    parameters and more."""
    hidden_dim: PositiveInt = 256
    """Width of the head's hidden layers; 2,048 in the paper."""
    bottleneck_dim: PositiveInt = 64
    """Width of what is normalized and compared with the prototypes; 256 in the paper."""
    head_layers: PositiveInt = 3
    """Linear layers of the head before the prototypes."""
    trains_gain: bool = False
    """Let the lengths of the prototypes learn; else they stay 1."""
    frozen_last_layer_epochs: NonNegativeInt = 1
    """Epochs at the start in which the prototypes do not learn."""
    student_temperature: PositiveFloat = 0.1
    """Temperature of the student's softmax."""
    teacher_temperature: PositiveFloat = 0.04
    """Temperature of the teacher's softmax: less is sharper."""
    warmup_teacher_temperature: PositiveFloat = 0.04
    """Temperature of the teacher's softmax at the start, if it is warmed up."""
    teacher_temperature_warmup_epochs: NonNegativeInt = 0
    """Epochs in which the teacher's temperature goes from the one to the other, linearly."""
    momentum: float | None = Field(None, ge=0, le=1)
    """Share of the teacher that stays in a step, at the start; 0.996 in the paper. None: that, and
    less in runs of under 2,500 steps, so that at the end 0.7 % of the first teacher is left."""
    momentum_half_life: PositiveFloat | None = None
    """In the place of `momentum`: epochs in which half of the teacher is replaced at the start."""
    final_momentum: float = Field(1.0, ge=0, le=1)
    """Share of the teacher that stays at the end; in between by half a period of a cosine."""
    center_momentum: float = Field(0.9, ge=0, le=1)
    """Share of the center of the teacher's logits that stays in a step; 1: no centering."""
    gram: GramAnchoring | None = None
    """Gram anchoring; none: without."""

    @model_validator(mode="after")
    def _one_momentum(self) -> Self:
        if self.momentum is not None and self.momentum_half_life is not None:
            raise ValueError("momentum and momentum_half_life say the same: leave one of them out")
        return self


def first_momentum(config: SelfDistillation, steps: int, epochs: int) -> float:
    """Of the first of `steps` steps in `epochs` epochs."""
    if config.momentum_half_life is not None:
        return float(0.5 ** (epochs / (config.momentum_half_life * steps)))
    if config.momentum is not None:
        return config.momentum
    return max(0.0, min(_LARGEST_MOMENTUM, 1 - _REPLACEMENTS / steps))


def teacher_temperature(config: SelfDistillation, progress: Progress) -> float:
    """At a step; linear in the steps of the warm-up."""
    warmup = config.teacher_temperature_warmup_epochs * progress.steps // progress.epochs
    share = min(1.0, progress.step / warmup) if warmup else 1.0
    start = config.warmup_teacher_temperature
    return start + (config.teacher_temperature - start) * share


class SelfDistillationCompanions(Companions):
    """The student's head, the teacher of model and head, its temperature and its center."""

    def __init__(self, config: SelfDistillation, model: nn.Module) -> None:
        super().__init__()
        self.temperature: Tensor
        self.center: Tensor
        self.config = config
        self.head = self._new_head(num_features(model))
        self.teacher = MomentumTeacher(model)
        self.teacher_head = MomentumTeacher(self.head)
        self.gram = GramTeacher(config.gram, model) if config.gram else None
        start = torch.tensor(float(config.teacher_temperature))
        self.register_buffer("temperature", start, persistent=False)
        self.register_buffer("center", torch.zeros(config.prototypes))

    def _new_head(self, width: int) -> ProjectionHead:
        return ProjectionHead(
            width,
            prototypes=self.config.prototypes,
            hidden_dim=self.config.hidden_dim,
            bottleneck_dim=self.config.bottleneck_dim,
            layers=self.config.head_layers,
            trains_gain=self.config.trains_gain,
        )

    def before_step(self, progress: Progress) -> None:
        self.temperature.fill_(teacher_temperature(self.config, progress))
        for module in self.modules():
            if isinstance(module, ProjectionHead):
                learns = progress.epoch > self.config.frozen_last_layer_epochs
                module.prototypes.learns.fill_(learns)
        if self.gram is not None:
            self.gram.before_step(progress)

    def after_step(
        self, model: nn.Module, statistics: Mapping[str, Tensor], progress: Progress
    ) -> None:
        """The teacher follows after the step of the optimizer, the center after the loss."""
        start = first_momentum(self.config, progress.steps, progress.epochs)
        momentum = cosine(start, self.config.final_momentum, progress.step, progress.steps)
        self._follow(model, momentum)
        for name, mean in statistics.items():
            self.get_buffer(name).lerp_(mean, 1 - self.config.center_momentum)
        if self.gram is not None:
            self.gram.after_step(self.teacher, progress)

    def _follow(self, model: nn.Module, momentum: float) -> None:
        self.teacher.follow(model, momentum)
        self.teacher_head.follow(self.head, momentum)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Of the student, by its logits: [..., prototypes] -> the same"""
        return (logits.float() / self.config.student_temperature).log_softmax(-1)


def by_view(rows: Tensor, batch: Batch) -> Tensor:
    """[views * batch, ...] -> [views, batch, ...]"""
    return rows.unflatten(0, (-1, len(batch.labels)))


def common_misfits(config: SelfDistillation, recipe: "Recipe", *, plain: bool) -> dict[str, str]:
    """What is wrong by the recipe's factor. plain: it needs the architecture's patches anyway."""
    problems = {}
    frozen, epochs = config.frozen_last_layer_epochs, recipe.epochs
    if frozen >= epochs:
        problems["objective"] = (
            f"frozen_last_layer_epochs is {frozen}, so the prototypes would learn in none of "
            f"{epochs} epochs: give fewer"
        )
    elif config.gram and config.gram.from_epoch > epochs:
        problems["objective"] = f"gram.from_epoch {config.gram.from_epoch} is after the last epoch"
    if problem := _misfit_of_crops(config, recipe, plain=plain):
        problems["augmentation"] = problem
    return problems


def _misfit_of_crops(config: SelfDistillation, recipe: "Recipe", *, plain: bool) -> str:
    if recipe.architecture.is_missing:
        return ""
    size = recipe.architecture.config.input_size
    try:
        others = recipe.augmentation(size, 1).other_views
    except InvalidInput:  # which is said of the augmentation itself
        return ""
    sizes = [(views.size[1], views.size[2]) for views in others.values()]
    if not (plain or config.gram or sizes):
        return ""
    crops = "" if plain or config.gram else " with crops of other sizes"
    purpose = f"objective '{recipe.objective.name}'{crops}"
    return misfit_of_sizes(recipe.architecture, (size[1:], *sizes), purpose)
