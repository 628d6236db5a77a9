"""A ViT as a chain of parts, its embedding, blocks and head, which are reconstructed in turn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitarium.architectures.quantized._layers import FloatWeight

Enter = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """A module of a plain ViT and of its twin."""

    name: str
    enter: Enter
    """`(model, outputs of the part before) -> inputs`, both [n, ...]"""

    def of(self, model: nn.Module) -> nn.Module:
        """The module in a model."""
        return model.get_submodule(self.name)


@dataclass(frozen=True)
class Task:
    """A part to be reconstructed."""

    number: int
    """Of the part in `parts_of`."""
    name: str
    twin: nn.Module
    """The part in the twin."""
    inputs: Tensor
    """As the twin's parts before it make them: [images, ...]"""
    exact_inputs: Tensor
    """As the original's parts make them: [images, ...]"""
    targets: Tensor
    """The original's outputs: [images, ...]"""
    logits: Callable[[Tensor], Tensor]
    """`outputs [b, ...] -> logits [b, classes]` by the original's parts after this one."""


def parts_of(model: Any) -> list[Part]:
    """The embedding, all blocks and the head of a plain ViT or its twin, in their order."""
    names = [f"blocks.{number}" for number in range(len(model.blocks))]
    first, *rest = [*names, "head"]
    middle = [Part(name, _as_they_are) for name in rest[:-1]]
    return [
        Part("patch_embed", _as_they_are),
        Part(first, _with_positions),
        *middle,
        Part("head", _pooled),
    ]


def logits_from(model: nn.Module, number: int) -> Callable[[Tensor], Tensor]:
    """Makes logits of the outputs of the part of that number; of -1, of images."""
    chain = parts_of(model)[number + 1 :]

    def rest(outputs: Tensor) -> Tensor:
        for part in chain:
            outputs = part.of(model)(part.enter(model, outputs))
        return outputs

    return rest


def reconstruct_parts(
    original: nn.Module,
    twin: Any,
    images: Tensor,
    fit: Callable[[Task], None],
    report: Callable[[int, int], None],
) -> None:
    """Let `fit` change the twin's parts one after another, each behind those that are done.

    Parts without weights to be quantized, as a head that is not linear, are left out. images
    [n, c, h, w]; `report` is told how many parts are done, and of how many.
    """
    chain = parts_of(original)
    outputs = exact = images
    for number, part in enumerate(chain):
        report(number, len(chain))
        module = part.of(twin)
        inputs = outputs_of(partial(part.enter, twin), outputs)
        exact_inputs = outputs_of(partial(part.enter, original), exact)
        exact = outputs_of(part.of(original), exact_inputs)
        if any(isinstance(layer, FloatWeight) for layer in module.modules()):
            rest = logits_from(original, number)
            fit(Task(number, part.name, module, inputs, exact_inputs, exact, rest))
        outputs = outputs_of(module, inputs)


@torch.no_grad()
def outputs_of(compute: Callable[[Tensor], Tensor], inputs: Tensor, batch_size: int = 32) -> Tensor:
    """Outputs [images, ...] of inputs [images, ...], a batch at a time."""
    return torch.cat([compute(batch) for batch in inputs.split(batch_size)])


def _as_they_are(model: Any, outputs: Tensor) -> Tensor:
    return outputs


def _with_positions(model: Any, patches: Tensor) -> Tensor:
    """Patches [b, n, width] -> tokens [b, prefix + n, width]"""
    tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(patches)))
    return tokens


def _pooled(model: Any, tokens: Tensor) -> Tensor:
    """Tokens [b, n, width] -> features [b, width]"""
    features: Tensor = model.forward_head(model.norm(tokens), pre_logits=True)
    return features
