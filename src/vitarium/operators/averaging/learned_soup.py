"""The learned soup: how much of each model is learned on held-out images."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.core.config import Config
from vitarium.core.seeds import derive
from vitarium.evaluation.losses import gradients, parameters
from vitarium.evaluation.scoring import Scorer, load
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.zoo._scratch import scratch, temporary_folder


class LearnedSoup(Config):
    """What is learned, and how."""

    per: Literal["model", "layer", "tensor"] = "model"
    """A coefficient for each model, or for each layer or tensor of each."""
    temperature: bool = True
    """Learn a factor of the logits, too (one over their temperature). It is no part of the soup."""
    lr: PositiveFloat = 0.05
    """Learning rate of AdamW, without weight decay."""
    epochs: PositiveInt = 5
    """Passes over the images."""
    batch_size: PositiveInt = 256
    """Images in a step."""
    images: PositiveInt | None = None
    """At most so many held-out images; none: all of the split."""
    seed: NonNegativeInt = 0
    """Of the order of the images."""


@operator(
    "learned_soup",
    title="Learned soup",
    config=LearnedSoup,
    split="val",
    paper="Wortsman et al. 2022, arXiv 2203.05482",
    tiny={"images": 32, "batch_size": 16, "epochs": 1},
)
def learned_soup(config: LearnedSoup, ingredients: Ingredients) -> NamedTensors:
    """Weighted mean of the models, the weights learned on held-out images.

    Yields (name, tensor [*shape]) in float64. The weights are positive and sum to 1 (a softmax);
    they start equal. In memory are one running model and its gradient, and the tensors of one name.
    All models are unpacked into a temporary file, as large as they are together, which every step
    reads twice.
    """
    model, log = ingredients.model(), ingredients.log
    scorer = Scorer(model, ingredients.examples(), config.images, config.batch_size)
    with temporary_folder() as folder:
        mixed = Mixed(model, ingredients, config.per, folder)
        log.metrics["logit_factor"] = _learn(config, model, scorer, mixed, ingredients)
        load(model, mixed.tensors(mixed.shares()))
        log.metrics.update(scorer.score_as_it_is().metrics(scorer.examples.split))
        log.lines += mixed.describe(ingredients.names)
        yield from mixed.tensors(mixed.shares(), torch.float64)


def _learn(
    config: LearnedSoup, model: nn.Module, scorer: Scorer, mixed: "Mixed", ingredients: Ingredients
) -> float:
    """Learn the coefficients; returns the logits' factor."""
    log_factor = torch.zeros((), dtype=torch.float64, requires_grad=config.temperature)
    learned = [mixed.logits, *([log_factor] if config.temperature else [])]
    optimizer = torch.optim.AdamW(learned, lr=config.lr, weight_decay=0.0)
    for epoch in range(config.epochs):
        ingredients.report(epoch, config.epochs)
        examples = scorer.examples.shuffled(derive(config.seed, "learned_soup", epoch))
        for batch in examples.batches(config.batch_size):
            _, coefficient_gradients = mixed.gradients(
                model, batch.images, batch.labels, log_factor
            )
            for tensor, gradient in zip(learned, coefficient_gradients, strict=False):
                tensor.grad = gradient
            optimizer.step()
    return log_factor.exp().item()


class Mixed:
    """A mean of models with weights that can be learned.

    The gradient with respect to a coefficient is the product of the soup's gradient and the model's
    weights. So the soup alone is differentiated, and the models are read, never held.

    Args:
        per: what has coefficients of its own.
        folder: where the models' weights are laid down.
    """

    def __init__(self, model: nn.Module, ingredients: Ingredients, per: str, folder: Path) -> None:
        self._stacks = dict(_write_weights(ingredients, folder / "weights"))
        parts = {name: part_of(name, per) for name in self._stacks}
        self.parts = list(dict.fromkeys(parts.values()))
        self._part = {name: self.parts.index(part) for name, part in parts.items()}
        self._learned = [name for name in parameters(model) if name in self._stacks]
        self.logits = torch.zeros(
            len(self.parts), len(ingredients), dtype=torch.float64, requires_grad=True
        )

    def shares(self) -> Tensor:
        """Of every model in every part, float64 [parts, models]; every row sums to 1."""
        return self.logits.detach().softmax(1)

    def tensors(
        self, shares: Tensor, dtype: torch.dtype | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """The soup, tensor [*shape] by tensor, computed in the weights' dtype or in `dtype`."""
        for name, stack in self._stacks.items():
            wide = stack.to(dtype or stack.dtype)
            yield name, torch.tensordot(shares[self._part[name]].to(wide.dtype), wide, dims=1)

    def gradients(
        self, model: nn.Module, images: Tensor, labels: Tensor, log_factor: Tensor
    ) -> tuple[float, tuple[Tensor, Tensor]]:
        """The soup's mean loss on a batch, and its gradients.

        They are those of `logits` [parts, models] and of the logarithm [] of the factor of the
        model's outputs.
        """
        load(model, self.tensors(self.shares()))
        soup_parameters = {
            name: tensor.requires_grad_() for name, tensor in parameters(model).items()
        }
        factor = log_factor.detach().to(images.device).requires_grad_()
        with torch.enable_grad():
            outputs = (
                torch.func.functional_call(model, soup_parameters, (images,)).double()
                * factor.exp()
            )
            value = F.cross_entropy(outputs, labels)
            *weight_gradients, of_factor = gradients(
                value, [*(soup_parameters[n] for n in self._learned), factor]
            )
        of_shares = torch.zeros(self.logits.shape, dtype=torch.float64)
        for name, tensor in zip(self._learned, weight_gradients, strict=True):
            stack = self._stacks[name].flatten(1)
            of_shares[self._part[name]] += stack.double() @ tensor.cpu().double().flatten()
        with torch.enable_grad():
            (of_logits,) = torch.autograd.grad(self.logits.softmax(1), self.logits, of_shares)
        return value.item(), (of_logits, of_factor.cpu())

    def describe(self, names: list[str]) -> list[str]:
        """The coefficients in words: of each part the models' in order."""
        rows = [" ".join(f"{share:.4f}" for share in row) for row in self.shares()]
        lines = [f"{part or 'shares'}: {row}" for part, row in zip(self.parts, rows, strict=True)]
        return [f"of {', '.join(names)}", *lines]


def part_of(name: str, per: str) -> str:
    """What a tensor shares its coefficients with: "blocks.0.attn.qkv", or "" with all."""
    return {"model": "", "layer": name.rpartition(".")[0] or name, "tensor": name}[per]


def _write_weights(ingredients: Ingredients, file: Path) -> Iterator[tuple[str, Tensor]]:
    """The models' tensors name by name, [models, *shape], in a file that is mapped into memory."""
    count = sum(map(math.prod, ingredients.shapes.values())) * len(ingredients)
    offset, room = 0, scratch(file, count, _dtype(ingredients))
    for name, stacked in ingredients.tensors():
        stored = room[offset : offset + stacked.numel()].view(stacked.shape)
        stored.copy_(stacked)
        offset += stacked.numel()
        yield name, stored


def _dtype(ingredients: Ingredients) -> torch.dtype:
    """float32, or float64 where the weights are."""
    wide = any(ingredients[0][name].dtype == torch.float64 for name in ingredients.shapes)
    return torch.float64 if wide else torch.float32
