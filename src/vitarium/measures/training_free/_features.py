"""Networks without norms, and their pooled features."""

from copy import deepcopy

from torch import Tensor, nn

from vitarium.architectures.features import features

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
_LAST = ("norm", "fc_norm", "norm_head", "head.norm")
"""Names of the norms between the last block and the classifier, of ours and of timm's models."""


def without_norms(model: nn.Module, *, last_alone: bool) -> nn.Module:
    """A copy whose layer, RMS and group norms are the identity: those after the last block, or all;
    batch norms stay, which are about the identity in eval mode at the start."""
    copy = deepcopy(model).eval()
    for name, part in list(copy.named_modules()):
        if isinstance(part, _NORMS) and (name in _LAST or not last_alone):
            copy.set_submodule(name, nn.Identity())
    return copy


class SummedFeatures(nn.Module):
    """Images [batch, c, h, w] -> the sum of their pooled features, scalar."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return features(self.model, images).sum()
