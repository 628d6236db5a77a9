"""The last blocks learn."""

from pydantic import PositiveInt
from torch import nn

from vitarium.adaptations._selection import block_names, train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput


class LastBlocks(Config):
    count: PositiveInt = 1
    """Number of blocks that learn, counted from the last."""


@adaptation(
    "last_blocks",
    title="last blocks",
    paper="Yosinski et al. 2014, arXiv 1411.1792",
    needs_parent=False,
    stackable=True,
)
def last_blocks(config: LastBlocks, model: nn.Module) -> None:
    """The last blocks learn, with all that follows them: the last normalization and the head."""
    blocks = block_names(model, "last_blocks")
    if config.count > len(blocks):
        raise InvalidInput(
            f"adaptation 'last_blocks': count is {config.count}, and the model has "
            f"{len(blocks)} blocks"
        )
    learning = tuple(f"{name}." for name in blocks[-config.count :])
    learning += ("norm.", "fc_norm.")
    train_only(model, lambda name: name.startswith(learning))
