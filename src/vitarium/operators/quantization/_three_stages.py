"""Smooth reconstruction in three stages: channels first, then one scale, then weights."""

from collections.abc import Callable

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from vitarium.architectures.quantized._quantizers import UniformQuantizer
from vitarium.architectures.quantized.quantized_vit import fit_weights
from vitarium.core import seeds
from vitarium.operators.base import Ingredients
from vitarium.operators.quantization._losses import squared_error
from vitarium.operators.quantization._parts import Task, reconstruct_parts
from vitarium.operators.quantization._reconstruction import reconstruct
from vitarium.operators.quantization._training import exact_weights, training
from vitarium.operators.quantization._twins import PostTraining, Twin, fit_activations
from vitarium.operators.quantization.repq import move_scales, normed_layers, repq_twin

Grid = Callable[[UniformQuantizer], tuple[Tensor, Tensor]]
"""`quantizer of channels -> their common scale and zero point`"""
STAGES = 2
"""In which all parts are reconstructed: the first and the third."""


class ThreeStages(PostTraining):
    """Settings of methods that reconstruct so."""

    reconstruction_images: PositiveInt = 256
    """Training images on which blocks are reconstructed (1,024 as published)."""
    steps: NonNegativeInt = 100
    """Steps for each part of the model in each of two stages (1,000 of 64 images with 3 and 4 bits
    as published, 200 with 6); 0: none."""
    batch_size: PositiveInt = 16
    """Images of a step."""
    lr: float = Field(4e-5, gt=0)
    """Learning rate of the weights, which falls to 0 by half a period of a cosine."""
    seed: NonNegativeInt = 0
    """Random seed of the images of each step."""


def reconstructed(config: ThreeStages, ingredients: Ingredients, grid: Grid) -> Twin:
    """A twin that is ready to be packed.

    Stage 1 fits each part's weights, not quantized, to the original's outputs while activations
    are, after LayerNorms channel by channel; stage 2 gives all channels one grid, which changes
    nothing that is computed but where values are clipped or rounded; stage 3 quantizes the weights
    and fits them again. Raises as `repq_twin`.
    """
    twin = repq_twin(config, ingredients)
    images = twin.examples.first(config.reconstruction_images)
    batch = next(images.batches(len(images))).images
    with seeds.seeded(config.seed):
        with exact_weights(twin.model):
            fit_activations(twin)
            _fit_parts(config, ingredients, twin, batch, stage=0)
        for norm, layer in normed_layers(twin.model).values():
            if isinstance(layer.input, UniformQuantizer):
                move_scales(norm, layer, *grid(layer.input))
        fit_weights(twin.model)
        _fit_parts(config, ingredients, twin, batch, stage=1)
    return twin


def _fit_parts(
    config: ThreeStages, ingredients: Ingredients, twin: Twin, images: Tensor, stage: int
) -> None:
    if not config.steps:
        return

    def fit(task: Task) -> None:
        weights = trained_weights(task.twin)
        with training(weights):
            reconstruct(
                task.twin,
                task.inputs,
                task.targets,
                squared_error,
                [{"params": weights, "lr": config.lr}],
                steps=config.steps,
                batch_size=config.batch_size,
            )

    def report(done: int, total: int) -> None:
        ingredients.report(stage * total + done, STAGES * total)

    reconstruct_parts(twin.original, twin.model, images, fit, report)


def trained_weights(part: nn.Module) -> list[nn.Parameter]:
    """All parameters of a part but those of norms."""
    of_norms = {p for m in part.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    return [parameter for parameter in part.parameters() if parameter not in of_norms]
