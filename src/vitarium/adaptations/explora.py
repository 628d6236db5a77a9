"""ExPLoRA: an objective goes on with LoRA, and a block or two unfrozen."""

from pydantic import PositiveFloat, PositiveInt
from torch import nn

from vitarium.adaptations._selection import block_names, chosen_blocks, norm_names, train_only
from vitarium.adaptations.base import adaptation
from vitarium.adaptations.lora import LowRank, Matrices, add_lora, merge


class Explora(LowRank):
    rank: PositiveInt = 64
    """Rank r of each change."""
    alpha: PositiveFloat = 1.0
    """A change is alpha / rank times the product of its factors."""
    unfrozen: tuple[int, ...] = (-1,)
    """Numbers of the blocks that learn entirely; negative ones count from the last."""
    matrices: Matrices = ("q", "v")
    """Which matrices of the other blocks have factors."""
    class_token: bool = True
    """The class token learns."""


@adaptation(
    "explora",
    title="ExPLoRA",
    paper="Khanna et al. 2025, arXiv 2406.10973",
    merge=merge,
    stackable=True,
    tiny={"rank": 2},
)
def explora(config: Explora, model: nn.Module) -> None:
    """ExPLoRA: pre-training goes on in another domain with LoRA and few unfrozen blocks.

    Name the same objective as the parent's, and keep its head (`start: {keep_head: true}`). All
    normalization layers learn, too; the patch embedding and the positions stay.
    """
    unfrozen = tuple(f"{name}." for name in chosen_blocks(model, "explora", config.unfrozen))
    norms = norm_names(model)
    tokens = {"cls_token"} if config.class_token else set()
    train_only(model, lambda name: name.startswith(unfrozen) or name in norms | tokens)
    names = block_names(model, "explora")
    others = [number for number, name in enumerate(names) if f"{name}." not in unfrozen]
    if others:
        add_lora(config, model, "explora", config.matrices, others)
