"""One way to choose a plug-in as its tests do, and to say which rule it breaks."""

from collections.abc import Iterator
from typing import Any, get_args

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from vitarium.architectures.base import HasAuxiliaryLoss
from vitarium.core.registry import choose, get

TINY_VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


class Contract:
    """A plug-in with its `tiny` settings, or those given in their place; called with a condition
    and a rule, it raises AssertionError that names the plug-in and the rule unless that holds."""

    def __init__(self, kind: str, name: str, settings: Any = None) -> None:
        self.kind, self.name = kind, name
        self.plugin = get(kind, name)
        self.facts = self.plugin.facts
        tiny = self.facts.get("tiny") or {}
        self.section = choose(kind, name, **{**tiny, **(settings or {})})
        self._described()

    def __call__(self, holds: object, rule: str) -> None:
        if not holds:
            raise AssertionError(f"{self.kind} '{self.name}': {rule}")

    def _described(self) -> None:
        """Its docstring begins with a sentence, and each of its settings has a description."""
        summary = self.plugin.summary
        sentence = 10 < len(summary) <= 100 and summary.endswith(".")
        self(sentence, "its docstring begins with a sentence of 10 to 100 characters")
        for setting, description in _descriptions(self.plugin.config):
            self(description.strip(), f"give its setting '{setting}' a docstring")

    def reaches_all(self, outputs: Tensor, model: nn.Module) -> None:
        """Gradients of the outputs [batch, outputs], and of what the model adds to the loss, reach
        all parameters."""
        with_auxiliary_losses(outputs.sum(), model, outputs).backward()
        without = [n for n, parameter in model.named_parameters() if parameter.grad is None]
        self(not without, f"no gradient reaches {', '.join(without[:3])}")

    def equal_weights(self, model: nn.Module, expected: nn.Module, rule: str) -> None:
        """Both state_dicts have the same tensors, bit for bit."""
        tensors, reference = model.state_dict(), expected.state_dict()
        self(tensors.keys() == reference.keys(), rule)
        for name, tensor in tensors.items():
            self(torch.equal(tensor, reference[name]), f"{rule}, and {name} differs")


def with_auxiliary_losses(loss: Tensor, model: nn.Module, outputs: Tensor) -> Tensor:
    """A scalar, and what parts of the model add to it; outputs [batch, outputs] are as classes."""
    targets = torch.eye(outputs.shape[1])[torch.arange(len(outputs)) % outputs.shape[1]]
    for module in model.modules():
        if isinstance(module, HasAuxiliaryLoss):
            loss = loss + module.auxiliary_loss(targets).value
    return loss


def _descriptions(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each setting with its description, those of settings within settings, too."""
    for name, field in config.model_fields.items():
        yield f"{prefix}{name}", field.description or ""
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _descriptions(inner, f"{prefix}{name}.")
