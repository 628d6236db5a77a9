"""MiniViT's weight multiplexing: a model whose blocks share their large matrices in groups."""

from itertools import accumulate
from typing import Literal

import torch
from pydantic import Field
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
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._plain_models import plain_factors, swin_factors


class Minivit(Config):
    share: StageSharing = 2
    """Blocks that share one set of weights: a number, "all" (of a stage), or a list of group sizes;
    for a Swin, a list with one entry for each stage: a number, "all", or a list of group sizes."""
    init: Literal["first", "mean"] = "first"
    """Initial value of the shared weights: those of the first block of each group, or the mean of
    the group's blocks."""
    separate_norms: bool = True
    """Keep each block's own LayerNorms."""
    mix_before: bool = True
    """Give each block a linear map across heads for its attention logits, before the softmax."""
    mix_after: bool = True
    """Give each block a linear map across heads for its attention probabilities, after the
    softmax."""
    relative_positions: RelativePositionConfig | None = Field(RelativePositionConfig())
    """Image relative position encoding in each block, initially zero; null: none. A compressed Swin
    has Swin's own position bias instead, one table per group."""
    convolution: KernelSize | None = None
    """Kernel size (odd) of a depth-wise convolution over the patches in each block, initially zero;
    0: none; null: 7 for a Swin, else none."""
    local_norm: LocalNorm = "branch"
    """Where the convolution's LayerNorm acts: in its branch, or on the stream of all tokens, as
    released for Mini-Swin; the latter changes the model's outputs from the start."""


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
    models=(1, 1),
    architecture=compressed_architecture,
    compression="trained",
    paper="Zhang et al. 2022, arXiv 2204.07154",
    tiny={"share": "all"},
)
def minivit(config: Minivit, ingredients: Ingredients) -> NamedTensors:
    """MiniViT's weight multiplexing: groups of a model's blocks share their large matrices.

    Yields (name, tensor [*shape]). Of a plain ViT, or of timm's Swin. Head mixing starts from the
    identity, tables and convolutions from zero: where the blocks of each group are equal, the
    result computes what the model does. Means are of float64; the dtype is the model's. Raises
    IncompatibleWeights.
    """
    (model,) = ingredients
    section = _compressed(config, model.skeleton)
    groups = _groups(section.config)
    prefixes = [prefix for group in groups.values() for prefix in group]
    for name in ingredients.shapes:
        if not name.startswith(tuple(prefixes)):
            yield name, checked(model, name)
    with meta_device():
        student_state = section(1).state_dict()
    per_block = ("norm", "ls") if config.separate_norms else ("ls",)
    for shared, group in groups.items():
        ingredients.report(prefixes.index(group[0]), len(prefixes))
        blocks: list[dict[str, Tensor]] = []
        for prefix in group:
            names = [name for name in model.shapes if name.startswith(prefix)]
            blocks.append({name.removeprefix(prefix): checked(model, name) for name in names})
        for part, tensor in blocks[0].items():
            if config.init == "mean":
                mean = torch.stack([block[part] for block in blocks]).mean(0, dtype=torch.float64)
                tensor = mean.to(tensor.dtype)
            if not part.startswith(per_block):
                yield shared + part, tensor
        for prefix, block in zip(group, blocks, strict=True):
            for name, like in student_state.items():
                if name.startswith(prefix):
                    part = name.removeprefix(prefix)
                    tensor = block[part] if part in block else _neutral(part, like)
                    yield name, tensor.to(block["attn.qkv.weight"].dtype)


def _groups(architecture: MiniDeit | MiniSwin) -> dict[str, list[str]]:
    """The blocks that share weights, by where these are; all as beginnings of names."""
    if isinstance(architecture, MiniDeit):
        stages = [("", group_sizes(architecture.share, architecture.depth))]
    else:
        stages = [(f"layers.{n}.", sizes) for n, sizes in enumerate(architecture.group_sizes)]
    return {
        f"{stage}shared.{number}.": [f"{stage}blocks.{n}." for n in range(end - size, end)]
        for stage, sizes in stages
        for number, (size, end) in enumerate(zip(sizes, accumulate(sizes), strict=True))
    }


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


def _neutral(part: str, like: Tensor) -> Tensor:
    """With which a part that the model lacks changes nothing."""
    if part in ("attn.before.weight", "attn.after.weight"):
        return torch.eye(len(like))
    return torch.ones(like.shape) if part == "local.norm.weight" else torch.zeros(like.shape)
