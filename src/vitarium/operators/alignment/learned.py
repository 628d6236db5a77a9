"""Align two models by training the maps of their units, for a low loss between them."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from vitarium.architectures.symmetries._folding import folded, unfolded
from vitarium.architectures.symmetries.base import Symmetries, moved
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import choose, get
from vitarium.core.seeds import derive
from vitarium.evaluation.losses import mean_loss
from vitarium.operators.alignment import _trained_maps as unit_maps
from vitarium.operators.alignment._matching import Tensors
from vitarium.operators.alignment._midpoint import Midpoint
from vitarium.operators.alignment._search import model_weights
from vitarium.operators.base import Ingredients, NamedTensors, operator


class LearnedMatching(Config):
    maps: Literal["full", "permutations"] = "full"
    """Kind of maps: all that the architecture allows (full: orthogonal maps of the residual stream,
    and maps inside the heads, once norms are folded into their neighbors), or permutations of units
    only."""
    learn: Literal["stream", "mixed", "all"] = "mixed"
    """Which of the full maps are trained: those of the residual stream, of all units that can be
    mixed, or of all units; the others stay as at the start. Permutations are all trained."""
    channels: Literal["orthogonal", "invertible"] = "orthogonal"
    """Constraint of the full maps inside attention heads."""
    start: str | None = None
    """Alignment operator whose result training starts from; "none": the model as it is; null:
    "orthogonal_matching", or "weight_matching" for permutations."""
    steps: PositiveInt = 500
    """Training steps, each at one random point between the models."""
    lr: PositiveFloat = 0.05
    """Peak learning rate of Adam: it rises over the first tenth of the steps, then falls linearly
    toward zero."""
    batch_size: PositiveInt = 128
    """Images per training step."""
    num_images: PositiveInt = 50_000
    """Largest number of training images to use, without augmentation."""
    spread: float = Field(default=0.1, ge=0, le=0.5)
    """Largest distance of the random points from the midpoint: t ~ U(1/2 - spread, 1/2 +
    spread)."""
    seed: NonNegativeInt = 0
    """Random seed of the order of the images and of the points."""


@operator(
    "learned_matching",
    title="Learned matching",
    paper="Theus et al. 2025, arXiv 2506.22712",
    aligns=True,
    split="train",
    tiny={"num_images": 32, "batch_size": 16, "steps": 2},
)
def learned_matching(config: LearnedMatching, ingredients: Ingredients) -> NamedTensors:
    """Learned matching: train maps of the second model's units so that it connects to the first.

    Yields (name, tensor [*shape]) of the second model, which computes what it did: what was trained
    is projected on exact maps in float64. Where the midpoint's loss does not rise above the mean of
    the ends, or training does not lower it on training images, the start is kept. Raises
    IncompatibleWeights for an architecture without declared symmetries, or none that is to be
    learned, for norms that cannot be folded, and where the head is left out; UnknownName and
    InvalidInput for a start that does not align.
    """
    full, symmetries = config.maps == "full", ingredients.symmetries
    maps = _maps(config, symmetries)
    start = config.start or ("orthogonal_matching" if full else "weight_matching")
    reference, source = model_weights(ingredients)
    if start != "none":
        if not get("operator", start).facts["aligns"]:
            raise InvalidInput(f"start: '{start}' does not align models")
        source = dict(choose("operator", start)(ingredients))
    midpoint = Midpoint(ingredients, config.num_images)

    def trained() -> Iterator[Tensors]:
        fixed, moving = (folded(symmetries, w) if full else w for w in (reference, source))
        _train(config, midpoint, maps, (fixed, moving))
        exact = {group: unit_map.exact().cpu() for group, unit_map in maps.items()}
        aligned = moved(symmetries, moving, exact)
        yield unfolded(symmetries, aligned, reference) if full else aligned

    yield from midpoint.best(reference, source, trained()).items()


def _maps(config: LearnedMatching, symmetries: Symmetries) -> dict[str, unit_maps.UnitMap]:
    """Those that are to be trained, by group. Raises IncompatibleWeights where there are none."""
    maps: dict[str, unit_maps.UnitMap] = {}
    for name, group in symmetries.groups.items():
        heads = symmetries.groups[group.inside].size if group.inside else None
        if config.maps == "permutations" or group.maps == "permutation":
            if config.maps == "permutations" or config.learn == "all":
                maps[name] = unit_maps.Exchange(group.size, heads)
        elif group.maps == "orthogonal":
            maps[name] = unit_maps.Rotation(group.size, heads, keeps_mean=True)
        elif config.learn != "stream":
            kind = unit_maps.Invertible if config.channels == "invertible" else unit_maps.Rotation
            maps[name] = kind(group.size, heads)
    if not maps:
        raise IncompatibleWeights(
            f"learn '{config.learn}': the architecture has no such units that can be mixed; learn "
            "'all', or maps 'permutations'"
        )
    return maps


def _train(
    config: LearnedMatching,
    midpoint: Midpoint,
    maps: Mapping[str, unit_maps.UnitMap],
    models: tuple[Tensors, Tensors],
) -> None:
    symmetries = midpoint.ingredients.symmetries
    fixed, moving = (midpoint.running(model) for model in models)
    free = [unit_map.to(midpoint.examples.device).free for unit_map in maps.values()]
    optimizer = torch.optim.Adam(free, config.lr)
    positions = torch.Generator().manual_seed(derive(config.seed, "learned_matching", "places"))
    batches = midpoint.examples.endless(config.batch_size, config.seed, "learned_matching")
    for step, batch in enumerate(islice(batches, config.steps)):
        midpoint.ingredients.report(step, config.steps)
        draw = torch.rand((), dtype=torch.float64, generator=positions).item()
        t = 0.5 + config.spread * (2 * draw - 1)
        optimizer.zero_grad()
        with torch.enable_grad():
            matrices = {group: unit_map() for group, unit_map in maps.items()}
            point = unit_maps.rearranged(symmetries, moving, matrices)
            point = {name: torch.lerp(fixed[name], tensor, t) for name, tensor in point.items()}
            mean_loss(midpoint.model, point, batch.images, batch.labels).backward()
        rise, fall = 10 * (step + 1) / config.steps, 1 - step / config.steps
        optimizer.param_groups[0]["lr"] = config.lr * min(rise, fall)
        optimizer.step()
