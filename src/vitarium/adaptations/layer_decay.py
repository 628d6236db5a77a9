"""Layer-wise decay of the learning rate."""

from collections.abc import Mapping

from pydantic import Field
from torch import nn

from vitarium.adaptations._selection import block_names
from vitarium.adaptations.base import adaptation
from vitarium.architectures.heads import is_head
from vitarium.core.config import Config


class LayerDecay(Config):
    decay: float = Field(0.75, gt=0, le=1)
    """Factor of the learning rate from a layer to the one before it, in (0, 1]."""


def _rates(config: LayerDecay, model: nn.Module) -> Mapping[str, float]:
    blocks = block_names(model, "layer_decay")
    depth_of = {f"{name}.": number for number, name in enumerate(blocks, 1)}
    last = len(blocks) + 1
    rates = {}
    for name, _ in model.named_parameters():
        depths = [depth for prefix, depth in depth_of.items() if name.startswith(prefix)]
        after = is_head(model, name) or name.startswith(("norm.", "fc_norm."))
        depth = depths[0] if depths else last if after else _stage_depth(name, blocks)
        rates[name] = config.decay ** (last - depth)
    return rates


def _stage_depth(name: str, blocks: list[str]) -> int:
    """Of what is in no block: what comes before all of them is 0; the joint of two stages of a
    hierarchical model counts with the blocks of its stage."""
    stage = ".".join(name.split(".")[:2])
    inside = [number for number, block in enumerate(blocks, 1) if block.startswith(f"{stage}.")]
    return inside[0] if inside else 0


@adaptation(
    "layer_decay",
    title="layer-wise learning-rate decay",
    paper="Clark et al. 2020, arXiv 2003.10555; Bao et al. 2022, arXiv 2106.08254",
    needs_parent=False,
    rates=_rates,
)
def layer_decay(config: LayerDecay, model: nn.Module) -> None:
    """All weights learn, and the learning rate shrinks with each layer away from the head.

    Layer l of L blocks gets `decay ** (L + 1 - l)` of the rate: the embedding is 0, the head and
    the last normalization are L + 1 (as MAE and DINOv2 fine-tune).
    """
    block_names(model, "layer_decay")
