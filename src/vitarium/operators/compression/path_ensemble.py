"""Paths of a ViT that do not help its head are left out of the sum that it sees."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from vitarium.architectures.vit.path_ensemble import PathEnsembleVit
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.evaluation.path_components import path_components
from vitarium.evaluation.scoring import Score
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._plain_models import vit_section
from vitarium.zoo import Model

SCALES = "path_scales"


class PathPruning(Config):
    depth: PositiveInt | None = None
    """Blocks that stay: those after them are left out with all their paths; null: all."""
    max_dropped: NonNegativeInt | None = None
    """Most paths of these blocks that are left out of the sum; null: any number; 0: none."""
    tolerance: NonNegativeFloat | None = None
    """Validation loss, in nats, by which the sum may be worse than that of all paths; null: paths
    go only while the loss falls."""
    num_images: PositiveInt | None = None
    """Largest number of validation images to select by; null: the whole split."""
    batch_size: PositiveInt = 256
    """Images per forward pass; affects memory and speed only."""


def ensemble_architecture(config: PathPruning, architecture: Section | None) -> Section:
    """The `path_ensemble` of a `vit`, or of one that is one already, with the blocks that stay.

    Raises IncompatibleWeights for anything else, and for more blocks than it has.
    """
    if architecture is None or not isinstance(architecture.config, PathEnsembleVit):
        architecture = vit_section(architecture, "path_ensemble")
    vit: Any = architecture.config
    if config.depth is not None and config.depth > vit.depth:
        raise IncompatibleWeights(f"depth {config.depth} is more than its {vit.depth} blocks")
    factors = architecture.factors(defaults=False)
    shared: dict[str, Any] = {name: value for name, value in factors.items() if name != "name"}
    return choose("architecture", "path_ensemble", **{**shared, "depth": config.depth or vit.depth})


def ensemble_training(config: PathPruning, model: Model, num_outputs: int) -> dict[str, Any]:
    """Its short paths learn from the sum of all (`path_self_distillation`)."""
    return {"objective": "path_self_distillation"}


@operator(
    "path_ensemble",
    title="Path ensemble",
    models=(1, 1),
    split="val",
    architecture=ensemble_architecture,
    compression="post_training",
    training=ensemble_training,
    paper="Chang et al. 2023, arXiv 2308.06548",
    tiny={"num_images": 32},
)
def path_ensemble(config: PathPruning, ingredients: Ingredients) -> NamedTensors:
    """Leave residual paths out of the sum that a ViT's head sees, while the validation loss falls.

    Yields (name, tensor [*shape]) of a `path_ensemble`: the model's own, and `path_scales`, which
    are 0 for paths that are left out, 1 for others, or the model's own. Later blocks still see
    every path. One path at a time goes, that without which the validation loss is lowest, while it
    falls, or as far as `tolerance` says. Raises IncompatibleWeights for anything but a plain ViT,
    and NotApplicable where outputs are not classes.
    """
    (model,) = ingredients
    skeleton: Any = model.skeleton
    depth, width = config.depth or len(skeleton.blocks), skeleton.embed_dim
    count = 2 * depth + 1
    scales = checked(model, SCALES) if SCALES in model.shapes else torch.ones(count, width)
    present = [path for path in range(count) if scales[path].any()]
    subject = ingredients.subject(0)
    components = path_components(subject, config.num_images, config.batch_size)
    full = current = components.score(present)
    remaining, lines = list(present), list[str]()
    for path, score in dropped(components.score, present, config.tolerance):
        if len(present) - len(remaining) == config.max_dropped:
            break
        ingredients.report(len(present) - len(remaining), len(present))
        remaining.remove(path)
        current = score
        lines.append(f"without {components.names[path]}: {_described(score)}")
    counted = (
        f"{len(remaining)} of {len(present)} paths: {_described(current)} on validation images"
    )
    ingredients.log.lines += [f"{counted}, {_described(full)} with all of them", *lines]
    ingredients.log.metrics.update(current.metrics(subject.examples.split))
    remains = torch.zeros(count, 1, dtype=scales.dtype)
    remains[remaining] = 1
    yield SCALES, scales[:count] * remains
    stays = tuple(f"blocks.{number}." for number in range(depth))
    for name in ingredients.shapes:
        if name != SCALES and (not name.startswith("blocks.") or name.startswith(stays)):
            yield name, checked(model, name)


def dropped(
    score: Callable[[list[int]], Score], paths: list[int], tolerance: float | None
) -> Iterator[tuple[int, Score]]:
    """One path after the other that is left out, and the score without it and those before it.

    Always that without which the loss is lowest, of equal ones the last; until one path is left,
    or the loss would no longer fall, or be higher than that of all paths by more than `tolerance`.
    """
    left, current = list(paths), score(list(paths))
    ceiling = None if tolerance is None else current.loss + tolerance
    while len(left) > 1:
        trials = {path: score([other for other in left if other != path]) for path in left}
        path = min(trials, key=lambda path: (trials[path].loss, -path))
        trial = trials[path]
        if trial.loss >= current.loss if ceiling is None else trial.loss > ceiling:
            return
        left.remove(path)
        current = trial
        yield path, trial


def _described(score: Score) -> str:
    return f"loss {score.loss:.4f}, accuracy {score.accuracy:.4f}"
