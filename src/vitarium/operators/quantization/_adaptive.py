"""Block-wise reconstruction in which weights learn their rounding, and activations their scales."""

from collections.abc import Callable

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.quantized._layers import FloatWeight
from vitarium.architectures.quantized._quantizers import UniformQuantizer
from vitarium.operators.base import Ingredients
from vitarium.operators.quantization._learned_scales import fixed_scales, learn_scales
from vitarium.operators.quantization._losses import BlockLoss
from vitarium.operators.quantization._parts import Task, reconstruct_parts
from vitarium.operators.quantization._reconstruction import reconstruct
from vitarium.operators.quantization._rounding import LearnedRounding, annealed_beta
from vitarium.operators.quantization._training import training
from vitarium.operators.quantization._twins import PostTraining, Twin

_PENALTY = 0.01
"""Factor of the penalty that drives weights onto the grid, as published."""


class AdaptiveRounding(PostTraining):
    """Settings of methods that reconstruct so."""

    reconstruction_images: PositiveInt = 256
    """Training images on which blocks are reconstructed (1,024 as published)."""
    sensitivity_images: PositiveInt = 32
    """Of these, those by which it is measured how the predictions depend on a block (all as
    published)."""
    steps: NonNegativeInt = 200
    """Steps for each part of the model (20,000 as published); 0: none."""
    batch_size: PositiveInt = 16
    """Images of a step (32 as published)."""
    rounding_lr: float = Field(0.02, gt=0)
    """Learning rate by which weights are rounded up or down (1e-3 as published, for a hundred times
    as many steps)."""
    scale_lr: float = Field(4e-5, gt=0)
    """Learning rate of the activations' scales, which falls to 0 by half a period of a cosine."""
    drop: float = Field(0.5, ge=0, lt=1)
    """Probability with which an activation is not quantized in a step (QDrop)."""
    seed: NonNegativeInt = 0
    """Random seed of the images of each step, and of what is not quantized in it."""


NewLoss = Callable[[Task], tuple[BlockLoss, Callable[[], None] | None]]
"""The loss of a part of the model, and what is called after each step, if anything."""


def round_adaptively(
    config: AdaptiveRounding,
    ingredients: Ingredients,
    twin: Twin,
    images: Tensor,
    new_loss: NewLoss,
) -> None:
    """Fit the rounding of a twin's weights, and its activations' scales, part by part, in place.

    Args:
        twin: all of its quantizers are fitted.
        images: [n, c, h, w].
        new_loss: of each part but the head, whose loss is the divergence of what it predicts.

    Weights become what they are rounded to.
    """

    def fit(task: Task) -> None:
        loss, follow = new_loss(task) if task.name != "head" else (prediction_loss, None)
        _fit(config, task, loss, follow)

    if config.steps:
        reconstruct_parts(twin.original, twin.model, images, fit, ingredients.report)


def prediction_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """KL(targets || outputs) of logits [b, classes], in nats per image."""
    return F.kl_div(outputs.log_softmax(-1), targets.softmax(-1), reduction="batchmean")


def _fit(
    config: AdaptiveRounding, task: Task, loss: BlockLoss, follow: Callable[[], None] | None
) -> None:
    roundings = _learn_rounding(task.twin)
    scales = learn_scales(task.twin, config.drop)

    def penalty(step: int) -> Tensor | None:
        beta = annealed_beta(step, config.steps)
        if beta is None:
            return None
        return _PENALTY * torch.stack([r.penalty(beta) for r in roundings]).sum()

    def after() -> None:
        for scale in scales:
            scale.bound()
        if follow:
            follow()

    raw = [rounding.raw for rounding in roundings]
    groups = [{"params": raw, "lr": config.rounding_lr, "constant": True}]
    learned = [parameter for scale in scales for parameter in scale.parameters()]
    if learned:
        groups.append({"params": learned, "lr": config.scale_lr})
    with training([*raw, *learned]):
        reconstruct(
            task.twin,
            task.inputs,
            task.targets,
            loss,
            groups,
            steps=config.steps,
            batch_size=config.batch_size,
            exact_inputs=task.exact_inputs,
            drop=config.drop,
            after=after,
            penalty=penalty,
        )
    fixed_scales(task.twin)
    for rounding in roundings:
        rounding.soft = False


def _learn_rounding(part: nn.Module) -> list[LearnedRounding]:
    """Let the quantizers of all weights in a part of a model learn."""
    learned: list[LearnedRounding] = []
    for module in part.modules():
        if isinstance(module, FloatWeight) and isinstance(module.quantizer, UniformQuantizer):
            learned.append(LearnedRounding(module.quantizer, module.values))
            module.quantizer = learned[-1]
    return learned
