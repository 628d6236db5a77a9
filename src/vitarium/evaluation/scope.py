"""Scope of a comparison: all tensors, or all but the head's, which differ between tasks."""

from typing import Literal

from vitarium.architectures.heads import is_head
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.evaluation.inputs import Weights

Scope = Literal["trunk", "all"]
"""trunk: without the head."""

HEADS = ("head", "heads", "head_dist", "fc", "classifier")
"""What heads are called in models of timm, torchvision and Hugging Face."""


def in_scope(weights: Weights, scope: Scope) -> list[str]:
    """Names of a model's tensors of real numbers, with or without its head's."""
    names = list(weights.shapes)
    if scope == "all":
        return names
    try:
        skeleton = weights.skeleton
        return [name for name in names if not is_head(skeleton, name)]
    except (NotApplicable, InvalidInput):  # no architecture, or one with several heads
        return [name for name in names if name.split(".")[0] not in HEADS]
