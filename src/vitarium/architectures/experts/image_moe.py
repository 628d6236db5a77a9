"""Mobile V-MoE: a ViT whose last blocks have experts, chosen once for all tokens of an image."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import AuxiliaryLoss, architecture
from vitarium.architectures.experts._routing import (
    ExpertsDeclaration,
    RoutedExperts,
    Routing,
    experts_in_use,
    load,
    mixed,
    new_experts,
    route,
    taken_decisions,
)
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.errors import InvalidInput


class ImageMoe(Vit):
    """A ViT with sparse experts; by default Mobile V-MoE's ViT-Ti with ten in the last two blocks.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    num_experts: PositiveInt = 10
    """Experts in each of the blocks that have some, each of the size of an MLP."""
    top_k: PositiveInt = 2
    """Experts that compute an image: those that the router finds most likely."""
    expert_blocks: PositiveInt = 2
    """Blocks, counted from the last, that have experts in the place of the MLP."""
    router_input: Literal["mean", "token"] = "mean"
    """What a router sees of an image, after the block's norm: the mean of its tokens, or its class
    token."""
    super_classes: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)
    """Number of the expert, from 0, to which images of each class should go, in the order of the
    data set's classes; the measure `super_classes` finds some. None: routers learn from the classes
    alone."""
    guidance: NonNegativeFloat = 0.3
    """Weight of the cross-entropy of the routers with the super-classes."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.top_k > self.num_experts:
            yield f"top_k {self.top_k} is more than num_experts {self.num_experts}"
        if self.expert_blocks > self.depth:
            yield f"expert_blocks {self.expert_blocks} is more than depth {self.depth}"
        if self.router_input == "token" and not self.class_token:
            yield "router_input 'token' needs the class token; use 'mean' without it"
        if self.super_classes and max(self.super_classes) >= self.num_experts:
            yield (
                f"super_classes name expert {max(self.super_classes)}, and the last of "
                f"num_experts {self.num_experts} is {self.num_experts - 1}"
            )


class ImageExperts(RoutedExperts):
    """Experts for images, in the place of an MLP: [batch, tokens, width] -> the same."""

    def __init__(self, experts: nn.ModuleList, width: int, top_k: int, router_input: str) -> None:
        super().__init__()
        self.experts = experts
        self.router = nn.Linear(width, len(experts), bias=False)
        nn.init.trunc_normal_(self.router.weight, std=0.02)
        self.top_k, self.router_input = top_k, router_input

    def forward(self, tokens: Tensor) -> Tensor:
        seen = tokens.mean(1) if self.router_input == "mean" else tokens[:, 0]
        routing = route(self.router(seen), self.top_k)
        self.decision = routing if self.training else None
        return mixed(tokens, routing, list(self.experts))


class ImageMoeTransformer(VisionTransformer):
    """Timm's, with experts for images in its last blocks."""

    def __init__(self, config: ImageMoe, num_classes: int) -> None:
        super().__init__(**config.arguments(), num_classes=num_classes)
        self.super_classes, self.guidance = config.super_classes, config.guidance
        self.num_experts = config.num_experts
        self.routed = list(range(config.depth - config.expert_blocks, config.depth))
        block: Any
        for number in self.routed:
            block = self.blocks[number]
            experts = new_experts(block.mlp, config.num_experts, block.mlp.fc1.out_features)
            block.mlp = ImageExperts(experts, config.embed_dim, config.top_k, config.router_input)

    def auxiliary_loss(self, targets: Tensor) -> AuxiliaryLoss:
        """The routers' cross-entropy with the super-classes, mean over routers, times `guidance`.

        Logged: it without the weight (router_loss), how often a router's first choice is the
        super-class (router_accuracy), and of each block how many experts are in use
        (`experts_in_use`). Raises InvalidInput for another number of classes.
        """
        routings: dict[int, Routing] = taken_decisions(self)
        metrics = {f"experts_{n}": experts_in_use(load(r)) for n, r in routings.items()}
        if self.super_classes is None or not routings:
            return AuxiliaryLoss(targets.new_zeros(()), metrics)
        logits = [routing.logits for routing in routings.values()]
        wanted = self._wanted(targets, len(logits[0]))
        losses = [F.cross_entropy(each.float(), wanted) for each in logits]
        right = [(each.argmax(1) == wanted.argmax(1)).float().mean() for each in logits]
        loss = torch.stack(losses).mean()
        metrics |= {"router_loss": loss.detach(), "router_accuracy": torch.stack(right).mean()}
        return AuxiliaryLoss(self.guidance * loss, metrics)

    def _wanted(self, targets: Tensor, images: int) -> Tensor:
        """Targets [batch, classes] as those of the experts: [views * batch, experts]"""
        assert self.super_classes is not None
        if targets.shape[1] != len(self.super_classes):
            raise InvalidInput(
                f"super_classes has {len(self.super_classes)} numbers, and the data "
                f"{targets.shape[1]} classes"
            )
        experts = torch.tensor(self.super_classes, device=targets.device)
        by_expert = targets.new_zeros(len(targets), self.num_experts).index_add(1, experts, targets)
        return by_expert.repeat(images // len(targets), 1)


@architecture(
    "image_moe",
    paper="Daxberger et al. 2023, arXiv 2309.04354",
    symmetries=ExpertsDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "super_classes", "guidance"),
    presets={"mobile_vmoe_tiny_patch16_224": {}},
    tiny={
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "num_experts": 3,
        "expert_blocks": 1,
    },
)
def image_moe(config: ImageMoe, num_outputs: int) -> nn.Module:
    """A ViT with sparse experts that are chosen once for all tokens of an image (Mobile V-MoE).

    No code was published: the router's input, and that it chooses without noise, are ours. Raises
    InvalidInput for other numbers of super-classes than of outputs.
    """
    classes = len(config.super_classes or ())
    if classes and num_outputs > 1 and num_outputs != classes:  # 1: their number is not known yet
        raise InvalidInput(
            f"super_classes has {classes} numbers, and the model {num_outputs} outputs; name the "
            "expert of each class, or leave them out for an objective without classes"
        )
    return ImageMoeTransformer(config, num_outputs)
