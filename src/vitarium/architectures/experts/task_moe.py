"""M3ViT: a ViT with sparse experts for tokens, and routers of their own for each task."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.distributions import Normal

from vitarium.architectures.base import AuxiliaryLoss, architecture, without_hidden_units
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


class TaskMoe(Vit):
    """A ViT with sparse experts in every other block; by default M3ViT's ViT-Ti with one task.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    num_experts: PositiveInt = 16
    """Experts in each block that has some: the second block, the fourth, and so on."""
    top_k: PositiveInt = 4
    """Experts that compute a token: those that the router finds most likely."""
    expert_ratio: PositiveFloat = 1.0
    """Hidden width of each expert, as a multiple of embed_dim."""
    num_tasks: PositiveInt = 1
    """Routers in each of these blocks: tasks have routers of their own, and share the experts."""
    task: NonNegativeInt = 0
    """The task, from 0, by whose routers the model computes; the routers of others do not learn."""
    router_noise: NonNegativeFloat = 0.0
    """Standard deviation, times the number of experts, of the noise on logits in training."""
    balance: NonNegativeFloat = 0.01
    """Weight of the squared coefficients of variation of the experts' importance and load."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.top_k > self.num_experts:
            yield f"top_k {self.top_k} is more than num_experts {self.num_experts}"
        if self.task >= self.num_tasks:
            yield f"task {self.task} is none of num_tasks {self.num_tasks}: they count from 0"
        if self.depth < 2:
            yield "depth 1 has no second block, which would be the first with experts"
        yield from without_hidden_units(self.embed_dim, expert_ratio=self.expert_ratio)


class TaskExperts(RoutedExperts):
    """Experts for tokens, in the place of an MLP: [batch, tokens, width] -> the same."""

    def __init__(self, experts: nn.ModuleList, config: TaskMoe) -> None:
        super().__init__()
        self.experts = experts
        self.routers = nn.ModuleList()
        for task in range(config.num_tasks):
            router = nn.Linear(config.embed_dim, len(experts), bias=False)
            nn.init.trunc_normal_(router.weight, std=0.02)
            self.routers.append(router.requires_grad_(task == config.task))
        self.task, self.top_k = config.task, config.top_k
        self.noise = config.router_noise / len(experts)

    def forward(self, tokens: Tensor) -> Tensor:
        rows = tokens.flatten(0, -2)
        clean = self.routers[self.task](rows)
        noisy = clean
        if self.training and self.noise:
            noisy = clean + self.noise * torch.randn_like(clean)
        routing = route(noisy, self.top_k)
        self.decision = balance_of(routing, clean, self.noise) if self.training else None
        return mixed(rows, routing, list(self.experts)).view_as(tokens)


class Balance(NamedTuple):
    """How evenly experts are used, [experts] each; smooth_load has a graph where there is noise."""

    importance: Tensor
    smooth_load: Tensor
    loads: Tensor

    @property
    def loss(self) -> Tensor:
        return squared_variation(self.importance) + squared_variation(self.smooth_load)


def balance_of(routing: Routing, clean: Tensor, noise: float) -> Balance:
    """Of a routing of rows by logits that are the clean ones [rows, experts] with noise.

    Importance is the sum of an expert's gates, load the number of its rows; with noise the expected
    number, had the noise of that expert been drawn anew (Shazeer et al. 2017, arXiv 1701.06538,
    App. A), through which routers learn.
    """
    shares = torch.zeros_like(routing.logits, dtype=routing.gates.dtype)
    shares = shares.scatter(1, routing.chosen, routing.gates)
    loads, k = load(routing), routing.chosen.shape[1]
    smooth = loads.to(shares.dtype)
    if noise and k < clean.shape[1]:
        values = routing.logits.topk(k + 1, dim=1).values
        inside = torch.zeros_like(clean, dtype=torch.bool).scatter(1, routing.chosen, True)
        # what an expert's logit has to exceed: the k-th largest of the others
        threshold = torch.where(inside, values[:, k:], values[:, k - 1 : k])
        smooth = Normal(0.0, 1.0).cdf((clean - threshold) / noise).sum(0)
    return Balance(shares.sum(0), smooth, loads)


def squared_variation(values: Tensor) -> Tensor:
    """Variance over squared mean of values [n], a scalar; 0 of a single one."""
    if len(values) == 1:
        return values.new_zeros(())
    values = values.float()
    return values.var() / (values.mean().square() + 1e-10)


class TaskMoeTransformer(VisionTransformer):
    """Timm's, with experts for tokens in every other block."""

    def __init__(self, config: TaskMoe, num_classes: int) -> None:
        super().__init__(**config.arguments(), num_classes=num_classes)
        self.balance = config.balance
        self.routed = list(range(1, config.depth, 2))
        hidden = int(config.embed_dim * config.expert_ratio)
        block: Any
        for number in self.routed:
            block = self.blocks[number]
            experts = new_experts(block.mlp, config.num_experts, hidden)
            block.mlp = TaskExperts(experts, config)

    def auxiliary_loss(self, targets: Tensor) -> AuxiliaryLoss:
        """The experts' balance, summed over blocks, times its weight.

        Logged: it without the weight (balance_loss), and of each block how many experts are in use
        (`experts_in_use`).
        """
        balances: dict[int, Balance] = taken_decisions(self)
        if not balances:
            return AuxiliaryLoss(targets.new_zeros(()), {})
        loss = torch.stack([balance.loss for balance in balances.values()]).sum()
        metrics = {f"experts_{n}": experts_in_use(b.loads) for n, b in balances.items()}
        return AuxiliaryLoss(self.balance * loss, {**metrics, "balance_loss": loss.detach()})


@architecture(
    "task_moe",
    paper="Liang et al. 2022, arXiv 2210.14793",
    symmetries=ExpertsDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "router_noise", "balance"),
    presets={
        "m3vit_tiny_patch16_224": {},
        "m3vit_small_patch16_224": {"embed_dim": 384, "num_heads": 6},
        "edge_moe_tiny_patch16_224": {"top_k": 2, "expert_ratio": 2.0},
    },
    tiny={
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "num_experts": 3,
        "top_k": 2,
    },
)
def task_moe(config: TaskMoe, num_outputs: int) -> nn.Module:
    """A ViT with sparse experts for tokens, and routers of their own for each task (M3ViT).

    Gates are the softmax over all experts, of which the largest are kept as they are. Routers are
    drawn as other linear layers, where the release takes their outputs for inputs.
    """
    return TaskMoeTransformer(config, num_outputs)
