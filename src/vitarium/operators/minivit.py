"""Weight multiplexing of a trained model: its twin, whose blocks share their large matrices."""

from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers.create_act import get_act_layer
from torch import Tensor

from vitarium.architectures.local_convolution import KernelSize, LocalNorm
from vitarium.architectures.mini_deit import MiniDeit
from vitarium.architectures.relative_positions import RelativePositionConfig
from vitarium.architectures.sharing import Sharing, group_sizes
from vitarium.config import Config
from vitarium.errors import IncompatibleWeights
from vitarium.operators.block_fitting import Parts, fitted
from vitarium.operators.ingredients import Ingredients, Made, Told, checked
from vitarium.operators.plain_vits import plain_factors
from vitarium.registry import Section, choose, operator


class Minivit(Config):
    """The twin, and what its shared weights start from."""

    share: Sharing = 2
    """Blocks to a set of weights: a number, "all", or a list of the groups' sizes."""
    init: Literal["first", "mean", "fit"] = "fit"
    """The shared weights: the first block's of each group, the mean of the group's blocks, or those
    nearest to what all blocks of the group do, with fitted head mixing and norms."""
    separate_norms: bool = True
    """Each block keeps its own LayerNorms."""
    mix_before: bool = True
    """A map over the heads of the attention's logits, in each block."""
    mix_after: bool = True
    """A map over the heads of the attention's probabilities, in each block."""
    relative_positions: RelativePositionConfig | None = Field(RelativePositionConfig())
    """Image relative position encoding in each block, from zero; null: none."""
    convolution: KernelSize = 0
    """Kernel size of a depth-wise convolution over the patches in each block, from zero; an odd
    number, or 0: none."""
    local_norm: LocalNorm = "branch"
    """Where the convolution's LayerNorm stands: in its branch, or in the stream of all tokens, as
    released for Mini-Swin; the latter changes what the model computes from the start."""


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
    for name in ingredients.shapes:
        if not name.startswith("blocks."):
            yield name, checked(model, name)
    section = _twin(config, plain_factors(model.skeleton))
    with torch.device("meta"):
        own = section(1).get_submodule("blocks").state_dict(prefix="blocks.")
    start = 0
    for group, size in enumerate(group_sizes(config.share, section.config.depth)):
        ingredients.report(start, section.config.depth)
        blocks = [_block(ingredients, number) for number in range(start, start + size)]
        shared, owned = _begun(config, section.config, blocks, ingredients.told, group)
        for part, tensor in shared.items():
            yield f"shared.{group}.{part}", tensor.to(blocks[0][part].dtype)
        for number, parts in enumerate(owned, start):
            at = f"blocks.{number}."
            for name, like in own.items():
                if name.startswith(at):
                    part = name.removeprefix(at)
                    found = parts[part] if part in parts else _start(part, like)
                    yield name, found.to(blocks[0]["attn.qkv.weight"].dtype)
        start += size


def _twin(config: Minivit, factors: dict[str, Any]) -> Section:
    depth = factors["depth"]
    try:
        group_sizes(config.share, depth)
    except ValueError as error:
        raise IncompatibleWeights(f"a model of {depth} blocks has no such twin: {error}") from None
    switches = {name: getattr(config, name) for name in Minivit.model_fields if name != "init"}
    return choose("architecture", "mini_deit", **factors, **switches, mixing_init="identity")


def _block(ingredients: Ingredients, number: int) -> Parts:
    at = f"blocks.{number}."
    names = [name for name in ingredients.shapes if name.startswith(at)]
    return {name.removeprefix(at): checked(ingredients[0], name) for name in names}


def _begun(
    config: Minivit, twin: MiniDeit, blocks: list[Parts], told: Told, group: int
) -> tuple[Parts, list[Parts]]:
    """What the blocks of a group share, and what each has of its own and of the model."""
    first, mean = blocks[0], {name: _mean([block[name] for block in blocks]) for name in blocks[0]}
    if config.init == "fit":
        found = fitted(
            blocks,
            [first, mean],
            num_heads=twin.num_heads,
            activation=get_act_layer(twin.act_layer)(),
            mix_before=config.mix_before,
            mix_after=config.mix_after,
            own_norms=config.separate_norms,
        )
        left = ", ".join(f"{part} {error:.3f}" for part, error in found.errors.items())
        told.lines.append(f"group {group}: relative error {left}")
        return found.shared, found.own
    start = first if config.init == "first" else mean
    own = ("norm", "ls") if config.separate_norms else ("ls",)
    shared = {name: start[name] for name in start if not name.startswith(own)}
    return shared, [{n: block[n] for n in block if n.startswith(own)} for block in blocks]


def _mean(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors).mean(0, dtype=torch.float64)


def _start(part: str, like: Tensor) -> Tensor:
    """With which a part that the model lacks changes nothing."""
    if part in ("attn.before.weight", "attn.after.weight"):
        return torch.eye(len(like))
    return torch.ones(like.shape) if part == "local.norm.weight" else torch.zeros(like.shape)
