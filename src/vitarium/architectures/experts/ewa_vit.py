"""Experts weights averaging: a ViT that is trained as a mixture of experts and used as a plain one.

The partition, the averaging and the conversion are the paper's; the rest was chosen here.
"""

from copy import deepcopy
from typing import Any, Literal

import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call

from vitarium.architectures.base import architecture
from vitarium.architectures.features import blocks
from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit

PART = "experts"
"""What the experts of an MLP stand in: `blocks.1.mlp.experts.0.fc1.weight`."""


class EwaVit(Vit):
    """A ViT with experts in the place of some MLPs, to be trained with experts weights averaging.

    The operator `experts_average` makes a `vit` of it, with the same outputs.
    """

    num_experts: int = Field(4, ge=2)
    """Experts per mixture-of-experts layer, each of the size of an MLP."""
    expert_blocks: Literal["every_other", "all"] = "every_other"
    """Blocks whose MLP is replaced by experts: every other block, counted back from the last, or
    all."""
    share_rate: float = Field(0.3, ge=0, le=1)
    """How far experts move toward their mean after each training step, from 0 (not at all) to 1
    (they become equal); constant during training."""


class Experts(nn.Module):
    """MLPs that share the tokens of a batch: [batch, tokens, width] -> the same.

    In training all tokens of the batch are cut at random into equal parts, one for each expert (the
    first ones get one more where they cannot be divided); after every step of the optimizer the
    experts move towards their mean. In eval mode it is the MLP with the mean of their weights.
    """

    def __init__(self, mlp: nn.Module, count: int, share_rate: float) -> None:
        super().__init__()
        self.experts = nn.ModuleList([mlp, *(deepcopy(mlp) for _ in range(count - 1))])
        self.share_rate = share_rate

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.training:
            mean = {n: torch.stack(list(same)).mean(0) for n, same in self._by_parameter().items()}
            return functional_call(self.experts[0], mean, (tokens,))
        rows = tokens.flatten(0, -2)
        order = torch.randperm(len(rows), device=rows.device)
        parts = order.tensor_split(len(self.experts))
        by_expert = [expert(rows[part]) for expert, part in zip(self.experts, parts, strict=True)]
        return torch.cat(by_expert)[order.argsort()].view_as(tokens)

    @torch.no_grad()
    def after_step(self) -> None:
        """w <- (1 - share_rate) w + share_rate mean, of all experts; what is frozen stays."""
        if not self.training:
            return
        for same in self._by_parameter().values():
            mean = torch.stack(list(same)).mean(0)
            for weight in filter(lambda weight: weight.requires_grad, same):
                weight.lerp_(mean, self.share_rate)

    def _by_parameter(self) -> dict[str, tuple[nn.Parameter, ...]]:
        """The same parameter of all experts, by its name in each."""
        by_expert = [dict(expert.named_parameters()) for expert in self.experts]
        return {name: tuple(parameters[name] for parameters in by_expert) for name in by_expert[0]}


class EwaVisionTransformer(VisionTransformer):
    """A class of its own, since not every shortcut through timm's holds for it."""


class EwaDeclaration(VitDeclaration):
    """All experts of an MLP have the same hidden units in the same order: their mean counts."""

    def block(self, at: str, block: Any) -> None:
        if not isinstance(block.mlp, Experts):
            super().block(at, block)
            return
        self.norm(f"{at}.norm1", block.norm1, self.attention(f"{at}.attn", block.attn))
        group, readers = f"{at}.mlp", list[tuple[str, Any]]()
        experts: Any = block.mlp.experts
        for number, expert in enumerate(experts):
            name = f"{group}.experts.{number}"
            self.groups[group] = UnitGroup(expert.fc2.in_features)
            self.linear(f"{name}.fc1", Axis(group), self.read, expert.fc1)
            self.linear(f"{name}.fc2", self.written, Axis(group, reads=True), expert.fc2)
            readers.append((f"{name}.fc1", expert.fc1))
        self.norm(f"{at}.norm2", block.norm2, readers)


@architecture(
    "ewa_vit",
    paper="Huang et al. 2023, arXiv 2308.06093",
    symmetries=EwaDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "share_rate"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def ewa_vit(config: EwaVit, num_outputs: int) -> nn.Module:
    """A ViT with experts in place of some MLPs (mixture of experts), for experts weights averaging.

    The experts of an MLP start as copies of the one that `vit` would have. An `initialization`
    other than the default draws each by itself.
    """
    model = EwaVisionTransformer(**config.arguments(), num_classes=num_outputs)
    step = 2 if config.expert_blocks == "every_other" else 1
    for name in list(blocks(model))[::-step]:
        mlp = model.get_submodule(f"{name}.mlp")
        experts = Experts(mlp, config.num_experts, config.share_rate)
        model.set_submodule(f"{name}.mlp", experts)
    return model
