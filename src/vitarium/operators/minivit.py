"""Weight multiplexing of a trained model: its twin, whose blocks share their large matrices."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vitarium.architectures.mini_deit import MiniDeit
from vitarium.architectures.relative_positions import RelativePositionConfig
from vitarium.architectures.sharing import Sharing, group_sizes
from vitarium.config import Config
from vitarium.errors import IncompatibleWeights
from vitarium.operators.ingredients import Ingredients, Made, checked
from vitarium.operators.plain_vits import plain_factors
from vitarium.registry import Section, choose, operator


class Minivit(Config):
    """The twin, and what its shared weights start from."""

    share: Sharing = 2
    """Blocks to a set of weights: a number, "all", or a list of the groups' sizes."""
    init: Literal["first", "mean"] = "mean"
    """The shared weights: the first block's of each group, or the mean of the group's blocks."""
    separate_norms: bool = True
    """Each block keeps its own LayerNorms."""
    mix_before: bool = True
    """A map over the heads of the attention's logits, in each block."""
    mix_after: bool = True
    """A map over the heads of the attention's probabilities, in each block."""
    relative_positions: RelativePositionConfig | None = Field(RelativePositionConfig())
    """Image relative position encoding in each block, from zero; null: none."""


def twin(config: Minivit, architecture: Section | None) -> Section:
    """The architecture of a multiplexed twin, of the same sizes, tokens, norms and rates.

    Raises IncompatibleWeights for a model that has none, or whose blocks `share` does not divide.
    """
    if architecture is None:
        raise IncompatibleWeights("minivit needs a vision transformer, not an unknown architecture")
    with torch.device("meta"):
        factors = plain_factors(architecture(1))
    given = getattr(architecture.config, "drop_path_rate", None)  # not lost where depth is 1
    return _twin(config, factors if given is None else factors | {"drop_path_rate": given})


@operator(
    "minivit",
    config=Minivit,
    count=(1, 1),
    architecture=twin,
    paper="Zhang et al. 2022, arXiv 2204.07154",
)
def minivit(config: Minivit, ingredients: Ingredients) -> Made:
    """The multiplexed twin of one model: its blocks share their large matrices in groups.

    Head mixing starts from the identity, tables and convolutions from zero: where the blocks of
    each group are equal, the twin computes what the model does. In float64; the dtype is the
    model's. Raises IncompatibleWeights.
    """
    (model,) = ingredients
    section = _twin(config, plain_factors(model.skeleton))
    made = set()
    for name, tensor in _multiplexed(config, section.config, ingredients):
        made.add(name)
        yield name, tensor
    dtype = model.dtype("blocks.0.attn.qkv.weight")
    with torch.device("meta"):
        own = section(1).get_submodule("blocks").state_dict(prefix="blocks.")
    for name, tensor in own.items():
        if name not in made:
            yield name, _start(name, tensor).to(dtype)


def _twin(config: Minivit, factors: dict[str, Any]) -> Section:
    depth = factors["depth"]
    try:
        group_sizes(config.share, depth)
    except ValueError as error:
        raise IncompatibleWeights(f"a model of {depth} blocks has no such twin: {error}") from None
    switches = {name: getattr(config, name) for name in Minivit.model_fields if name != "init"}
    return choose("architecture", "mini_deit", **factors, **switches, mixing_init="identity")


def _multiplexed(config: Minivit, twin: MiniDeit, ingredients: Ingredients) -> Made:
    """What the model has, under the twin's names."""
    (model,) = ingredients
    for name in ingredients.shapes:
        if not name.startswith("blocks."):
            yield name, checked(model, name)
    parts = [name.removeprefix("blocks.0.") for name in ingredients.shapes]
    parts = [part for part in parts if f"blocks.0.{part}" in ingredients.shapes]
    start = 0
    for group, size in enumerate(group_sizes(config.share, twin.depth)):
        ingredients.report(start, twin.depth)
        blocks = range(start, start + size)
        for part in parts:
            tensors = [checked(model, f"blocks.{block}.{part}") for block in blocks]
            if part.startswith("norm") and config.separate_norms:
                yield from zip((f"blocks.{block}.{part}" for block in blocks), tensors, strict=True)
            else:
                yield f"shared.{group}.{part}", _one(config, tensors)
        start += size


def _one(config: Minivit, tensors: list[Tensor]) -> Tensor:
    if config.init == "first":
        return tensors[0]
    return torch.stack(tensors).mean(0, dtype=torch.float64).to(tensors[0].dtype)


def _start(name: str, like: Tensor) -> Tensor:
    """With which a part that the model lacks changes nothing."""
    if name.endswith((".before.weight", ".after.weight")):
        return torch.eye(len(like))
    return torch.zeros(like.shape)
