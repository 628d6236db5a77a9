"""Sparse experts: rows of a batch go to the experts that a router chooses for them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from timm.layers.mlp import Mlp
from timm.models._manipulate import named_apply
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from vitarium.architectures.symmetries.vit import NOTHING, Readers, VitDeclaration


class Routing(NamedTuple):
    """What a router decided for rows: images, or tokens.

    logits: [rows, experts]; chosen: int64 [rows, k], the k most likely experts of each row;
    gates: [rows, k], the probabilities of these among all experts, which sum to 1 or less.
    """

    logits: Tensor
    chosen: Tensor
    gates: Tensor


def route(logits: Tensor, k: int) -> Routing:
    """The softmax over all experts, and the k largest of it, which are not normalized again."""
    gates, chosen = logits.softmax(dim=-1).topk(k, dim=-1)
    return Routing(logits, chosen, gates)


def mixed(rows: Tensor, routing: Routing, experts: Sequence[nn.Module]) -> Tensor:
    """The sum of each row's experts' outputs times their gates: [rows, ..., width] -> the same.

    Each expert computes its own rows alone, in one call. While a model is exported or compiled all
    experts compute all rows, by operators whose shapes do not depend on what was chosen.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state():
        shares = torch.zeros_like(routing.logits)
        shares = shares.scatter(1, routing.chosen, routing.gates.to(shares.dtype))
        by_expert = torch.stack([expert(rows) for expert in experts], dim=1)
        return _weighted(by_expert, shares)
    k, flat = routing.chosen.shape[1], routing.chosen.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=len(experts)).tolist()
    queues = rows[order // k].split(counts)
    # also of no rows: so that an expert without any has a gradient of zeros
    outputs = torch.cat([expert(queue) for expert, queue in zip(experts, queues, strict=True)])
    by_choice = outputs[order.argsort()].unflatten(0, (len(rows), k))
    return _weighted(by_choice, routing.gates)


def _weighted(outputs: Tensor, gates: Tensor) -> Tensor:
    """[rows, k, ..., width] and [rows, k] -> [rows, ..., width]"""
    shaped = gates.to(outputs.dtype).view(*gates.shape, *[1] * (outputs.ndim - 2))
    return (outputs * shaped).sum(1)


def load(routing: Routing) -> Tensor:
    """How many rows each expert has: [experts], with a sum of k * rows."""
    return torch.bincount(routing.chosen.flatten(), minlength=routing.logits.shape[-1])


def experts_in_use(loads: Tensor) -> Tensor:
    """exp of the entropy of the experts' shares of the rows: from 1 (one has all) to as many as
    there are (all have as many); loads [experts] -> scalar."""
    shares = loads / loads.sum()
    return torch.special.entr(shares).sum().exp()


def new_experts(mlp: Any, count: int, hidden: int) -> nn.ModuleList:
    """MLPs of that many hidden units, otherwise such as `mlp`, drawn as timm draws a ViT's."""
    experts = nn.ModuleList()
    for _ in range(count):
        expert = Mlp(mlp.fc1.in_features, hidden, drop=mlp.drop1.p)
        expert.act = type(mlp.act)()
        experts.append(expert)
    named_apply(init_weights_vit_timm, experts, "experts")
    return experts


class RoutedExperts(nn.Module):
    """Base of experts in the place of an MLP; copies of it have no graph."""

    decision: Any = None
    """What the loss needs of the images computed last in training mode, with its graph."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"decision": None}


def taken_decisions(model: Any) -> dict[int, Any]:
    """Of a model's `routed` blocks, by number, the decisions on the last images, which are let go;
    none where there were no images: their features had been stored."""
    decisions = {}
    for number in model.routed:
        layer = model.blocks[number].mlp
        if layer.decision is not None:
            decisions[number], layer.decision = layer.decision, None
    return decisions


class ExpertsDeclaration(VitDeclaration):
    """Of a ViT with `experts` in the place of some MLPs, and linear routers that read what they do.

    Hidden units of each expert can be exchanged; that experts can, too, is not declared.
    """

    # a norm's shift goes into the routers' logits, and these have no bias to take it up
    mixes_stream = False

    def branches(self, at: str, block: Any) -> None:
        """See the base; there are no layer scales."""
        self.norm(f"{at}.norm1", block.norm1, self.attention(f"{at}.attn", block.attn))
        self.norm(f"{at}.norm2", block.norm2, self.mlp(f"{at}.mlp", block.mlp))

    def mlp(self, at: str, mlp: Any) -> Readers:
        """See the base."""
        if not hasattr(mlp, "experts"):
            return super().mlp(at, mlp)
        readers: list[Any] = []
        for number, expert in enumerate(mlp.experts):
            readers += super().mlp(f"{at}.experts.{number}", expert)
        for name, router in mlp.named_modules():
            if isinstance(router, nn.Linear) and not name.startswith("experts."):
                self.piece(f"{at}.{name}.weight", router.weight.shape, (NOTHING, self.read))
                readers.append((f"{at}.{name}", router))
        return readers
