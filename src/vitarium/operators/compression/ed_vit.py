"""ED-ViT: a ViT is split by classes into smaller ones, each for some of the classes."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

from vitarium.architectures.heads import head_prefix
from vitarium.architectures.symmetries.vit import STREAM
from vitarium.core.config import Config
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._plain_models import vit_section
from vitarium.operators.compression._unit_importance import (
    Divergences,
    Importances,
    Structure,
    dependences,
)
from vitarium.operators.compression._vit_slices import Sizes, sizes_of, sliced, smaller
from vitarium.zoo import Model

Share = float | None
_STRUCTURES: tuple[Structure, ...] = ("channels", "heads", "hidden")


class EdVit(Config):
    """Classes are cut into parts of equal size, and each part gets the units that it needs most."""

    parts: PositiveInt = 2
    """Models into which one is split."""
    part: NonNegativeInt | None = None
    """Number of the part that is made, from 0; null: `compress`, and `merge --all`, make all."""
    keep: float = Field(0.5, gt=0, le=1)
    """Share of the channels, of the heads and of each MLP's hidden units that stay: int(share *
    number) of them, at least one."""
    keep_channels: Share = Field(None, gt=0, le=1)
    """Of the channels of the residual stream, where that is another share; null: keep."""
    keep_heads: Share = Field(None, gt=0, le=1)
    """Of the attention heads; null: keep."""
    keep_hidden: Share = Field(None, gt=0, le=1)
    """Of the hidden units; null: keep."""
    class_seed: NonNegativeInt | None = 42
    """Random seed of the order in which classes are cut into parts; null: as they are numbered."""
    importance: Literal["kl", "hsic"] = "kl"
    """Units that stay: those without which outputs would change most (kl: KL divergence, one at a
    time), or on which outputs depend most (hsic: DeViT's, in one forward pass)."""
    at_once: PositiveInt = 1
    """Hidden units that `kl` leaves out together: with more it takes less time, and tells less."""
    num_images: PositiveInt = Field(64, ge=2)
    """Largest number of training images of the part's classes to rank by."""
    batch_size: PositiveInt = 64
    """Images per forward pass of `kl`; affects memory and speed only."""

    def share(self, structure: Structure) -> float:
        """Of a structure's units those that stay."""
        share: Share = getattr(self, f"keep_{structure}")
        return self.keep if share is None else share

    def sizes(self, full: Sizes) -> Sizes:
        """Of a part of a ViT of these sizes."""
        shares = [self.share(structure) for structure in _STRUCTURES]
        return Sizes(*(max(int(n * s + 1e-9), 1) for n, s in zip(full, shares, strict=True)))

    def classes(self, num_classes: int) -> list[int]:
        """The classes of the part that is made. Raises IncompatibleWeights where it has none."""
        groups = class_groups(num_classes, self.parts, self.class_seed)
        assert self.part is not None
        return groups[self.part]


def class_groups(num_classes: int, parts: int, seed: int | None) -> list[list[int]]:
    """Classes in order, or shuffled, cut at floor(i K / parts): a partition, as DeViT makes it.

    Raises IncompatibleWeights for more parts than classes.
    """
    if parts > num_classes:
        raise IncompatibleWeights(f"{parts} parts of {num_classes} classes: give fewer parts")
    order = torch.arange(num_classes)
    if seed is not None:
        order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    ends = [number * num_classes // parts for number in range(parts + 1)]
    return [sorted(order[a:b].tolist()) for a, b in pairwise(ends)]


def part_architecture(config: EdVit, architecture: Section | None) -> Section:
    """A `vit`, or where heads do not fill the width an `uneven_vit`.

    Raises IncompatibleWeights for what is no plain ViT, and where no part or no such part is named.
    """
    if config.part is None:
        how = parameter("part", 0)
        raise IncompatibleWeights(f"ed_vit makes one part at a time: name it, e.g. {how}")
    if config.part >= config.parts:
        fault = f"there is no part {config.part} of {config.parts}"
        raise IncompatibleWeights(f"{fault}: they are numbered from 0")
    plain = vit_section(architecture, "ed_vit")
    return smaller(plain, config.sizes(sizes_of(plain.config)))


def part_settings(model: Model, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each part, or of the one that the settings name."""
    config = EdVit.read(settings)
    numbers = range(config.parts) if config.part is None else [config.part]
    return [{"part": number} for number in numbers]


def part_training(config: EdVit, model: Model, num_outputs: int) -> dict[str, Any]:
    """A part learns from images of its classes, and from what the original says of them (DeViT)."""
    classes = config.classes(num_outputs)
    return {"data.train_classes": classes, "objective": "hard_distillation"}


@operator(
    "ed_vit",
    title="ED-ViT",
    models=(1, 1),
    split="train",
    architecture=part_architecture,
    compression="trained",
    members=part_settings,
    fused_by="ed_vit_fusion",
    training=part_training,
    paper="Liu et al. 2024, arXiv 2410.11650",
    tiny={"part": 0, "num_images": 4, "at_once": 16},
)
def ed_vit(config: EdVit, ingredients: Ingredients) -> NamedTensors:
    """Split a ViT by classes: a smaller one for a part of the classes, with the units they need.

    Yields (name, tensor [*shape]), the weights of the units that stay. The classes are cut into
    parts; on training images of a part's own, channels of the stream, heads of each block and
    hidden units of each MLP are ranked, and the most important ones stay. A part has an output for
    every class. With `keep` 1 it is the model. Raises IncompatibleWeights for what is no plain ViT
    with a linear head, and InvalidInput where a part has no training images.
    """
    (model,) = ingredients
    assert model.origin
    architecture = vit_section(model.origin.architecture, "ed_vit")
    section = part_architecture(config, architecture)
    symmetries = ingredients.symmetries
    if (
        STREAM not in symmetries.groups
        or f"{head_prefix(model.skeleton)}.weight" not in model.shapes
    ):
        raise IncompatibleWeights(f"{model.name}: ed_vit needs a linear head")
    weights = {name: checked(model, name) for name in ingredients.shapes}
    importances = _importances(config, ingredients, architecture)
    remaining = {}
    for group, values in importances.items():
        structure = _structure(group)
        count = max(int(len(values) * config.share(structure) + 1e-9), 1)
        remaining[group] = values.argsort(descending=True, stable=True)[:count].sort().values
    with meta_device():
        built: nn.Module = section(model.skeleton.num_classes)
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    yield from sliced(symmetries, weights, remaining, shapes).items()


def _importances(config: EdVit, ingredients: Ingredients, architecture: Section) -> Importances:
    """Of the structures that lose units, on images of the part's classes."""
    structures = {structure for structure in _STRUCTURES if config.share(structure) < 1}
    subject = ingredients.subject(0)
    classes = config.classes(subject.examples.num_classes)
    listed = ", ".join(map(str, classes))
    ingredients.log.lines.append(f"part {config.part} of {config.parts}: classes {listed}")
    if not structures:
        return {}
    examples = subject.examples.of_classes(classes).first(config.num_images)
    if len(examples) < 2:
        raise InvalidInput(
            f"ed_vit: part {config.part} ranks units by training images of classes {listed}, and "
            f"there are {len(examples)}; give fewer parts"
        )
    if config.importance == "hsic":
        return dependences(subject.model, examples, structures)
    rank = Divergences(subject.model, architecture, ingredients.symmetries, config.at_once)
    return rank(examples, structures, config.batch_size, ingredients.report)


def _structure(group: str) -> Structure:
    """Of a group of the symmetries, the structure that it is of."""
    if group == STREAM:
        return "channels"
    return "heads" if group.endswith(".heads") else "hidden"
