"""MiniViT's weight multiplexing: a model whose blocks share their large matrices in groups."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from pydantic import Field
from timm.layers.create_act import get_act_layer
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from vitarium.architectures.multiplexed._relative_positions import RelativePositionConfig
from vitarium.architectures.multiplexed._sharing import KernelSize, LocalNorm, group_sizes
from vitarium.architectures.multiplexed.mini_deit import MiniDeit
from vitarium.architectures.multiplexed.mini_swin import MiniSwin, StageSharing
from vitarium.core.config import Config, InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, OperatorLog, checked, operator
from vitarium.operators.compression._block_fitting import Parts, fitted
from vitarium.operators.compression._plain_models import plain_factors, swin_factors


class Minivit(Config):
    """The compressed model, and what its shared weights start from."""

    share: StageSharing = 2
    """Blocks to a set of weights: a number, "all" (of a stage), or a list: of the groups' sizes, or
    for a Swin with one entry for each stage, such a number, "all", or such a list."""
    init: Literal["first", "mean", "fit"] = "fit"
    """The shared weights: the first block's of each group, the mean of the group's blocks, or those
    nearest to what all blocks of the group do, with fitted head mixing."""
    separate_norms: bool = True
    """Each block keeps its own LayerNorms."""
    mix_before: bool = True
    """A map over the heads of the attention's logits, in each block."""
    mix_after: bool = True
    """A map over the heads of the attention's probabilities, in each block."""
    relative_positions: RelativePositionConfig | None = Field(RelativePositionConfig())
    """Image relative position encoding in each block, from zero; null: none. A compressed Swin
    has Swin's own instead, a table of each group."""
    convolution: KernelSize | None = None
    """Kernel size of a depth-wise convolution over the patches in each block, from zero; an odd
    number, or 0: none; null: 7 for a Swin, else none."""
    local_norm: LocalNorm = "branch"
    """Where the convolution's LayerNorm stands: in its branch, or in the stream of all tokens, as
    released for Mini-Swin; the latter changes what the model computes from the start."""


def compressed_architecture(config: Minivit, architecture: Section | None) -> Section:
    """The multiplexed one. Raises IncompatibleWeights where there is none of that `share`."""
    if architecture is None:
        raise IncompatibleWeights("minivit needs a vision transformer, not an unknown architecture")
    with meta_device():
        model = architecture(1)
    # it is not lost where depth is 1
    return _compressed(config, model, getattr(architecture.config, "drop_path_rate", None))


@operator(
    "minivit",
    title="MiniViT",
    config=Minivit,
    models=(1, 1),
    architecture=compressed_architecture,
    paper="Zhang et al. 2022, arXiv 2204.07154",
    tiny={"share": "all"},
)
def minivit(config: Minivit, ingredients: Ingredients) -> NamedTensors:
    """Weight multiplexing of one model: its blocks share their large matrices in groups.

    Yields (name, tensor [*shape]). Of a plain ViT, or of timm's Swin. Head mixing starts from the
    identity, tables and convolutions from zero: where the blocks of each group are equal, the
    result computes what the model does. In float64; the dtype is the model's. Raises
    IncompatibleWeights.
    """
    (model,) = ingredients
    section = _compressed(config, model.skeleton)
    groups = _groups(section.config)
    prefixes = [prefix for group in groups for prefix in group.blocks]
    for name in ingredients.shapes:
        if not name.startswith(tuple(prefixes)):
            yield name, checked(model, name)
    with meta_device():
        student_state = section(1).state_dict()
    for group in groups:
        ingredients.report(prefixes.index(group.blocks[0]), len(prefixes))
        blocks: list[Parts] = []
        for prefix in group.blocks:
            names = [name for name in model.shapes if name.startswith(prefix)]
            blocks.append({name.removeprefix(prefix): checked(model, name) for name in names})
        shared, owned = _init_student(config, group, blocks, ingredients.log)
        for part, tensor in shared.items():
            yield group.shared + part, tensor.to(blocks[0][part].dtype)
        for prefix, parts in zip(group.blocks, owned, strict=True):
            for name, like in student_state.items():
                if name.startswith(prefix):
                    part = name.removeprefix(prefix)
                    tensor = parts[part] if part in parts else _neutral(part, like)
                    yield name, tensor.to(blocks[0]["attn.qkv.weight"].dtype)


@dataclass(frozen=True)
class _Group:
    """Blocks that share weights: where these are, and the blocks, as beginnings of names."""

    shared: str
    blocks: list[str]
    num_heads: int
    activation: Callable[[Tensor], Tensor]


def _groups(architecture: MiniDeit | MiniSwin) -> list[_Group]:
    if isinstance(architecture, MiniDeit):
        activation = get_act_layer(architecture.act_layer)()
        stages = [("", group_sizes(architecture.share, architecture.depth), architecture.num_heads)]
    else:
        activation = nn.GELU()
        stage_groups = enumerate(zip(architecture.group_sizes, architecture.num_heads, strict=True))
        stages = [(f"layers.{stage}.", sizes, heads) for stage, (sizes, heads) in stage_groups]
    groups = []
    for at, sizes, heads in stages:
        for number, end in enumerate(accumulate(sizes)):
            blocks = [f"{at}blocks.{block}." for block in range(end - sizes[number], end)]
            groups.append(_Group(f"{at}shared.{number}.", blocks, heads, activation))
    return groups


def _compressed(config: Minivit, model: nn.Module, drop_path_rate: float | None = None) -> Section:
    """Of a model; given is its drop_path_rate, where that is known."""
    left_out = {"init"} | ({"convolution"} if config.convolution is None else set())
    if type(model) is SwinTransformer:
        name, factors = "mini_swin", swin_factors(model)
        depths = " + ".join(map(str, factors["depths"]))
        if config.relative_positions not in (None, RelativePositionConfig()):
            raise IncompatibleWeights(
                "a compressed Swin has Swin's own position bias; leave out relative_positions"
            )
        left_out.add("relative_positions")
    else:
        name, factors = "mini_deit", plain_factors(model)
        depths = factors["depth"]
    switches = {field: getattr(config, field) for field in Minivit.model_fields.keys() - left_out}
    if drop_path_rate is not None:
        factors["drop_path_rate"] = drop_path_rate
    try:
        return choose("architecture", name, **factors, **switches, mixing_init="identity")
    except InvalidConfig as error:
        raise IncompatibleWeights(
            f"a model of {depths} blocks has no such multiplexed version: {error}"
        ) from None


def _init_student(
    config: Minivit, group: _Group, blocks: list[Parts], log: OperatorLog
) -> tuple[Parts, list[Parts]]:
    """What the blocks of a group share, and what each has of its own and of the model."""
    first, mean = blocks[0], Parts()
    for name in first:
        mean[name] = torch.stack([block[name] for block in blocks]).mean(0, dtype=torch.float64)
    if config.init == "fit":
        fit = fitted(
            blocks,
            [first, mean],
            num_heads=group.num_heads,
            activation=group.activation,
            mix_before=config.mix_before,
            mix_after=config.mix_after,
            own_norms=config.separate_norms,
        )
        left = ", ".join(f"{part} {error:.3f}" for part, error in fit.errors.items())
        log.lines.append(f"{group.shared[:-1]}: relative error {left}")
        return fit.shared, fit.per_block
    start = first if config.init == "first" else mean
    prefixes = ("norm", "ls") if config.separate_norms else ("ls",)
    shared = {name: start[name] for name in start if not name.startswith(prefixes)}
    return shared, [{n: block[n] for n in block if n.startswith(prefixes)} for block in blocks]


def _neutral(part: str, like: Tensor) -> Tensor:
    """With which a part that the model lacks changes nothing."""
    if part in ("attn.before.weight", "attn.after.weight"):
        return torch.eye(len(like))
    return torch.ones(like.shape) if part == "local.norm.weight" else torch.zeros(like.shape)
