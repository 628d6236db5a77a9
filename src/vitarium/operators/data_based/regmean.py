"""RegMean: linear layers that answer to their inputs as much like the models' own as they can."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vitarium.architectures.features import blocks
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.evaluation.inputs import EvalModel
from vitarium.operators.base import Ingredients, NamedTensors, operator


class RegMean(Config):
    num_images: PositiveInt = 256
    """Largest number of each model's training images to use."""
    off_diagonal: float = Field(0.9, ge=0, le=1)
    """Factor of the off-diagonal entries of the inputs' Gram matrix, in [0, 1]; 0 treats inputs as
    uncorrelated."""
    ridge: float = Field(1e-6, gt=0)
    """Regularization added to the Gram matrix's diagonal, as a share of its mean."""
    batch_size: PositiveInt = 64
    """Images per forward pass; affects memory and speed only."""


@operator(
    "regmean",
    title="RegMean",
    split="train",
    paper="Jin et al. 2023, arXiv 2212.09849",
    tiny={"num_images": 32, "batch_size": 16},
)
def regmean(config: RegMean, ingredients: Ingredients) -> NamedTensors:
    """RegMean: merge linear layers by least squares, so that outputs stay near the models' own.

    W = (sum_i G_i)^-1 sum_i G_i W_i for weights [inputs, outputs], in float64, with
    G_i = X_i' X_i / n of what the layer is given in model i on training images of that model's own
    data, not augmented; a fused qkv is one layer. Biases and all other tensors get the plain mean,
    and so do layers that see nothing but zeros. In memory: one model, its weights in float64, and
    of every linear layer two matrices [inputs, inputs] and one [inputs, outputs], too.
    """
    yield from _merged(config, ingredients, [sorted(ingredients.shapes)])


@operator(
    "regmean_plus_plus",
    title="RegMean++",
    split="train",
    paper="Nguyen et al. 2025, arXiv 2508.03121",
    tiny={"num_images": 32, "batch_size": 16},
)
def regmean_plus_plus(config: RegMean, ingredients: Ingredients) -> NamedTensors:
    """RegMean++: RegMean block by block, with inputs from the merged blocks before.

    Yields (name, tensor [*shape]). Inside of a block, what its layers are given comes from the
    model's own ones, on the merged blocks' outputs for images of that model's data. The tensors
    before the blocks come first, those after them last; of a model without blocks every linear
    layer is one. All else is as in `regmean`, which this is as slow as times the number of blocks.
    """
    yield from _merged(config, ingredients, _stages(ingredients))


def _merged(
    config: RegMean, ingredients: Ingredients, stages: Sequence[Sequence[str]]
) -> NamedTensors:
    """Tensors stage by stage; in each, the tensors of earlier stages are the merged ones."""
    merged: dict[str, Tensor] = {}
    rounds = len(stages) * len(ingredients)
    for stage_number, stage in enumerate(stages):
        means: dict[str, Tensor] = {}
        for name in stage:
            total = torch.zeros(ingredients.shapes[name], dtype=torch.float64)
            for tensor in ingredients.model_tensors(name):
                total += tensor
            means[name] = total / len(ingredients)
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for number, model in enumerate(ingredients):
            ingredients.report(stage_number * len(ingredients) + number, rounds)
            subject = ingredients.subject(number)
            subject.model.load_state_dict(merged, strict=False)
            for name, gram in input_products(config, subject, means).items():
                # Of the differences to the mean, so that copies of one model give its very bits.
                change = gram @ (model[name].double() - means[name]).T
                if name in sums:
                    change += sums[name][1]
                    gram += sums[name][0]
                sums[name] = gram, change
        for name, mean in means.items():
            if name in sums:
                gram, change = sums[name]
                mean = mean + torch.cholesky_solve(change, torch.linalg.cholesky(gram)).T
            merged[name] = mean.float()
            yield name, mean


def input_products(
    config: RegMean, subject: EvalModel, names: Collection[str]
) -> dict[str, Tensor]:
    """G of every linear layer whose weight is among the names, by that name.

    [inputs, inputs], float64, on the CPU, made milder as the settings say. Layers that are never
    called, or see nothing but zeros, are left out.
    """
    layers = {
        f"{name}.weight": layer
        for name, layer in subject.model.named_modules()
        if isinstance(layer, nn.Linear) and f"{name}.weight" in names
    }
    products: dict[str, Tensor] = {}  # sums of x x' over all rows x that layers are given
    counts: dict[str, int] = {}

    def collect(name: str, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        rows = arguments[0].flatten(0, -2).double()
        products[name] = products.get(name, 0) + rows.T @ rows
        counts[name] = counts.get(name, 0) + len(rows)

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(collect, name)))
        for batch in subject.examples.first(config.num_images).batches(config.batch_size):
            subject.model(batch.images)
    grams: dict[str, Tensor] = {}
    for name, count in counts.items():
        product = products.pop(name)
        squares = product.diagonal().clone()
        if squares.any():
            product *= config.off_diagonal
            product.diagonal().copy_(squares + config.ridge * squares.mean())
            grams[name] = (product / count).cpu()
    return grams


def _stages(ingredients: Ingredients) -> list[list[str]]:
    """Names of tensors: those before the blocks, each block's, and those after them."""
    model = ingredients.subject(0).model
    try:
        prefixes = list(blocks(model))
    except InvalidInput:
        prefixes = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    stages: list[list[str]] = [[] for _ in range(len(prefixes) + 2)]
    current = 0
    for name in model.state_dict():
        if name not in ingredients.shapes:
            continue
        inside = [at for at, prefix in enumerate(prefixes, 1) if name.startswith(f"{prefix}.")]
        current = inside[0] if inside else (0 if current == 0 else len(stages) - 1)
        stages[current].append(name)
    return [stage for stage in stages if stage]
