"""Depth pruning: blocks that change their tokens least are left out."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.features import blocks
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.core.seeds import derive
from vitarium.evaluation.data import EvalData
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._calibration import Calibration
from vitarium.operators.compression._plain_models import vit_section


class DepthPruning(Calibration):
    remove: PositiveInt = 1
    """Number of blocks that are left out."""
    distance: Literal["influence", "angular", "random"] = "influence"
    """Which: those of the smallest block influence, 1 - the cosine of a token before and after the
    block, mean over all tokens (influence); the consecutive ones over which the class token turns
    least (angular); or a random choice, to compare with."""
    seed: NonNegativeInt = 0
    """Random seed of the random choice."""


def shallower(config: DepthPruning, architecture: Section | None) -> Section:
    """The `vit` of fewer blocks. Raises IncompatibleWeights for what is no plain ViT, and where no
    block would be left."""
    section = vit_section(architecture, "depth_pruning")
    factors = section.factors(defaults=False)
    depth = section.factors()["depth"]
    if config.remove >= depth:
        raise IncompatibleWeights(f"it has {depth} blocks; give a smaller number for remove")
    factors |= {"depth": depth - config.remove}
    return choose("architecture", "vit", **{n: v for n, v in factors.items() if n != "name"})


@operator(
    "depth_pruning",
    title="Depth pruning",
    paper="Men et al. 2024, arXiv 2403.03853; Gromov et al. 2024, arXiv 2403.17887",
    models=(1, 1),
    split="train",
    architecture=shallower,
    compression="post_training",
    tiny={"num_images": 32, "batch_size": 16},
    tiny_architecture={"depth": 2},
)
def depth_pruning(config: DepthPruning, ingredients: Ingredients) -> NamedTensors:
    """Leave the blocks of a ViT out that change their tokens least on training images.

    Yields (name, tensor [*shape]), the model's own: what is left computes what the model did if
    both branches of the other blocks gave zero. Raises IncompatibleWeights for what is no plain
    ViT, and where no block would be left.
    """
    (model,) = ingredients
    weights = {name: checked(model, name) for name in ingredients.shapes}
    subject = ingredients.subject(0)
    depth = len(blocks(subject.model))
    if config.distance == "random":
        generator = torch.Generator().manual_seed(derive(config.seed, "depth"))
        left_out = torch.randperm(depth, generator=generator)[: config.remove].tolist()
    elif config.distance == "influence":
        influence = block_influence(config, subject.model, subject.examples)
        left_out = influence.argsort(stable=True)[: config.remove].tolist()
        listed = ", ".join(f"{value:.3g}" for value in influence.tolist())
        ingredients.log.lines.append(f"block influence: {listed}")
    else:
        turns = angular_distances(config, subject.model, subject.examples)
        start = int(turns.argmin())
        left_out = list(range(start, start + config.remove))
    left_out.sort()
    ingredients.log.lines.append(f"left out: blocks {', '.join(map(str, left_out))}")
    numbers = [number for number in range(depth) if number not in left_out]
    new_numbers = {old: new for new, old in enumerate(numbers)}
    for name, tensor in weights.items():
        stack, _, rest = name.partition(".")
        if stack != "blocks":
            yield name, tensor
            continue
        number, _, rest = rest.partition(".")
        if int(number) in new_numbers:
            yield f"blocks.{new_numbers[int(number)]}.{rest}", tensor


def block_influence(config: Calibration, model: nn.Module, examples: EvalData) -> Tensor:
    """1 - mean over images and tokens of cos(x_l, x_l+1), float64 [blocks]; 0 for an identity."""
    return _mean_over_images(config, model, examples, _influences)


def angular_distances(config: DepthPruning, model: nn.Module, examples: EvalData) -> Tensor:
    """acos(cos(x_l, x_l+n)) / pi for n blocks to be left out, float64 [blocks - n + 1].

    Of the class token, mean over images; of a model without one, of all tokens.
    """
    tokens = slice(0, 1) if getattr(model, "cls_token", None) is not None else slice(None)

    def turns(states: list[Tensor]) -> Tensor:
        pairs = zip(states, states[config.remove :], strict=False)
        cosines = [_cosine(first[:, tokens], last[:, tokens]) for first, last in pairs]
        return torch.stack([c.clamp(-1, 1).acos().mean(1).sum() / math.pi for c in cosines])

    return _mean_over_images(config, model, examples, turns)


def _influences(states: list[Tensor]) -> Tensor:
    """Sums over images, [blocks]."""
    pairs = pairwise(states)
    return torch.stack([(1 - _cosine(first, last)).mean(1).sum() for first, last in pairs])


def _cosine(first: Tensor, last: Tensor) -> Tensor:
    return F.cosine_similarity(first.double(), last.double(), dim=-1)


@torch.no_grad()
def _mean_over_images(
    config: Calibration,
    model: nn.Module,
    examples: EvalData,
    sums: Callable[[list[Tensor]], Tensor],
) -> Tensor:
    """Of sums over a batch's images, from the tokens before the first block and after each."""
    states: list[Tensor] = []
    chosen, total = examples.first(config.num_images), torch.zeros(())
    stack = list(blocks(model).values())
    with ExitStack() as hooks:
        hooks.enter_context(
            stack[0].register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
        )
        for block in stack:
            hooks.enter_context(
                block.register_forward_hook(lambda _, __, output: states.append(output))
            )
        for batch in chosen.batches(config.batch_size):
            states.clear()
            model(batch.images)
            total = total + sums(states).cpu()
    return total / len(chosen)
