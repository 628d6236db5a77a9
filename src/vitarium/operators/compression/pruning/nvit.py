"""NViT: heads, their channels, hidden units and channels of the stream compete for what they cost.

As published, but for what `nvit` says.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from vitarium.architectures.elastic._uneven_attention import UnevenDeclaration
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section
from vitarium.evaluation.inputs import EvalModel, finite
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression.pruning._block_cost import (
    BlockCost,
    block_sizes,
    grid_points,
    interpolated,
    measured,
    multiply_adds,
    token_count,
)
from vitarium.operators.compression.pruning._saliency import Saliency, best, unit_scores
from vitarium.operators.compression.pruning._structures import Sizes, prunable, sliced

Structure = Literal["embed_dim", "heads", "qk_dims", "v_dims", "hidden"]
STRUCTURES: tuple[Structure, ...] = ("embed_dim", "heads", "qk_dims", "v_dims", "hidden")
_GROUPS: Mapping[str, int] = {"embed_dim": 16, "heads": 2, "qk_dims": 8, "v_dims": 8, "hidden": 16}
"""Units that go together, as published; fewer where there would be less than `_LEAST_GROUPS`."""
_LEAST_GROUPS = 4
_DIVISORS: Mapping[str, int] = {"embed_dim": 12, "heads": 6, "qk_dims": 2, "v_dims": 2, "hidden": 1}
"""Of a unit's sum of weight times gradient, as released."""


class RemainingSizes(Config):
    """How many units of each structure are left."""

    embed_dim: PositiveInt
    """Channels of the stream."""
    heads: tuple[PositiveInt, ...]
    """Attention heads of each block."""
    qk_dims: tuple[PositiveInt, ...]
    """Channels of each head's queries and keys, of each block."""
    v_dims: tuple[PositiveInt, ...]
    """Channels of each head's values, of each block."""
    hidden: tuple[PositiveInt, ...]
    """Hidden units of each block's MLP."""


class Nvit(Saliency):
    target: float = Field(0.5, gt=0, lt=1)
    """Cost of the blocks that is left, as a share of the original's."""
    importance: Literal["taylor", "magnitude", "random"] = "taylor"
    """What units are ranked by: the squared sum of weight times gradient, mean over batches
    (taylor); the sum of squared weights (magnitude); or at random, to compare with."""
    cost: Literal["multiply_adds", "latency"] = "multiply_adds"
    """What is counted: multiply-adds, or the time of blocks that are measured on this machine."""
    cost_weight: NonNegativeFloat = 0.1
    """Weight of the share of the cost that a group saves, against its share of the saliency."""
    structures: tuple[Structure, ...] = Field(STRUCTURES[1:], min_length=1)
    """What may become smaller: each block's heads, the channels of its queries and keys (qk_dims)
    and of its values (v_dims), its hidden units (hidden); and as published the stream's width
    (embed_dim), without which channels a model needs training."""
    latency_batch_size: PositiveInt = 8
    """Images at a time where latency is measured."""
    sizes: RemainingSizes | None = None
    """What is left of each structure; null: it is searched for, and kept with the model."""


def searched(config: Nvit, subject: EvalModel) -> Nvit:
    """The settings with the sizes that a search gives, where they have none.

    Raises IncompatibleWeights for what is no plain ViT, and for a target out of reach, and
    NotApplicable for entries that are not finite.
    """
    section = prunable(getattr(subject.origin, "architecture", None), "nvit")
    if config.sizes is not None:
        return config
    for name, parameter in subject.model.named_parameters():
        finite(f"{subject.name}: {name}", parameter)
    original = Sizes.of_section(section)
    if config.cost == "latency":
        points = grid_points(original, config.structures)
        device = str(subject.examples.device)
        table = measured(section, points, batch_size=config.latency_batch_size, device=device)
        cost = interpolated(points, table)
    else:
        cost = multiply_adds(token_count(subject.model))
    sizes = cheaper(config, original, _scores(config, subject, original), cost)
    return config.changed({"sizes": RemainingSizes.read(sizes.remaining())})


def pruned_architecture(config: Nvit, architecture: Section | None) -> Section:
    """The `vit` or `uneven_vit` of the sizes. Raises IncompatibleWeights for what is no plain ViT,
    and for sizes that it has not."""
    section = prunable(architecture, "nvit")
    assert config.sizes, "sizes are searched for first"
    original = Sizes.of_section(section)
    return _wanted(config.sizes, original).section(section)


def _wanted(remaining: RemainingSizes, original: Sizes) -> Sizes:
    """Raises IncompatibleWeights for sizes that the original has not."""
    sizes = Sizes(head_dim=original.head_dim, **dict(remaining))
    for name in STRUCTURES:
        left, available = (_numbers(getattr(each, name)) for each in (sizes, original))
        if len(left) != len(available) or any(map(int.__gt__, left, available)):
            raise IncompatibleWeights(
                f"sizes: {name} {list(left)} are not within the model's {list(available)}"
            )
    return sizes


def _numbers(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)


@operator(
    "nvit",
    title="NViT",
    paper="Yang et al. 2023, arXiv 2110.04869",
    models=(1, 1),
    split="train",
    architecture=pruned_architecture,
    settled=searched,
    compression="post_training",
    tiny={"num_images": 32, "batch_size": 16},
)
def nvit(config: Nvit, ingredients: Ingredients) -> NamedTensors:
    """Cut out of a whole ViT what it needs least for what it costs, until it costs a target.

    Yields (name, tensor [*shape]), rows and columns of the model's own. Of each block heads,
    channels of queries and keys and of values, and hidden units, and channels of the stream where
    `structures` has them, compete in groups of 2, 8, 8, 16 and 16, or of a quarter where that is
    less. That group goes first whose share of the saliency minus `cost_weight` times the share of
    the cost that it saves is lowest; one of each structure stays. Without channels of the stream a
    norm's mean and variance are others, so that the model then needs training.

    Otherwise than published, saliency is that of the cross-entropy of labels, as distillation from
    the model itself has no gradient, and it is taken once: weights do not learn meanwhile. Raises
    IncompatibleWeights for what is no plain ViT, and for a target out of reach, and NotApplicable
    where the model's outputs are not the classes of its data.
    """
    (model,) = ingredients
    assert config.sizes, "sizes are searched for first"
    weights = {name: checked(model, name) for name in ingredients.shapes}
    original = Sizes.of(model.skeleton)
    sizes = _wanted(config.sizes, original)
    scores, counts = _scores(config, ingredients.subject(0), original), sizes.groups()
    selected = {group: best(score, counts[group]) for group, score in scores.items()}
    cost = multiply_adds(token_count(model.skeleton))
    before, after = (sum(map(cost, block_sizes(each))) for each in (original, sizes))
    ingredients.log.metrics["multiply_adds_left"] = after / before
    ingredients.log.lines += [f"{name} {value}" for name, value in sizes.remaining().items()]
    symmetries = UnevenDeclaration.symmetries(model.skeleton)
    yield from sliced(symmetries, weights, selected, sizes)


def _scores(config: Nvit, subject: EvalModel, original: Sizes) -> dict[str, Tensor]:
    """By group of the symmetries, the saliency of each unit of what may become smaller, [units]."""
    structures = original.structures()
    groups = [group for group, name in structures.items() if name in config.structures]
    symmetries = UnevenDeclaration.symmetries(subject.model)
    scores = unit_scores(config, subject, symmetries, groups)
    return {g: score / _DIVISORS[structures[g]] ** 2 for g, score in scores.items()}


def cheaper(
    config: Nvit, original: Sizes, scores: Mapping[str, Tensor], block_cost: BlockCost
) -> Sizes:
    """The sizes after groups are taken away one by one until the target is reached.

    Args:
        scores: by group of the symmetries, the saliency of each unit, [units].

    Raises IncompatibleWeights for a target out of reach.
    """
    total = sum(float(score.sum()) for score in scores.values()) or 1.0
    queues: dict[str, list[tuple[int, float]]] = {}
    structures = original.structures()
    for group, score in scores.items():
        size = min(_GROUPS[structures[group]], max(len(score) // _LEAST_GROUPS, 1))
        parts = score.sort().values.split(size)
        queues[group] = [(len(part), float(part.sum()) / total) for part in parts[:-1]]

    def cost_of(sizes: Sizes) -> float:
        return sum(map(block_cost, block_sizes(sizes)))

    sizes, full = original, cost_of(original)
    cost = full
    while cost > config.target * full:
        options = []
        for group, queue in queues.items():
            if queue:
                count, saliency = queue[0]
                smaller = sizes.with_groups({group: sizes.groups()[group] - count})
                left = cost_of(smaller)
                balance = saliency - config.cost_weight * (cost - left) / full
                options.append((balance, group, left, smaller))
        if not options:
            raise IncompatibleWeights(
                f"target {config.target:g} is out of reach: with a group of each of "
                f"{', '.join(config.structures)} it still costs {cost / full:.3g} of the original"
            )
        _, group, cost, sizes = min(options, key=lambda option: option[:2])
        del queues[group][0]
    return sizes
