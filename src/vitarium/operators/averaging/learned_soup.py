"""The learned soup: how much of each model is learned on held-out images."""

import math
from pathlib import Path
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vitarium.core.config import Config
from vitarium.core.scratch import scratch, temporary_folder
from vitarium.core.seeds import derive
from vitarium.evaluation.batch_statistics import has_statistics, recount
from vitarium.evaluation.losses import gradients, parameters
from vitarium.evaluation.scoring import Scorer, load
from vitarium.operators.base import Ingredients, NamedTensors, operator


class LearnedSoup(Config):
    per: Literal["model", "layer", "tensor"] = "model"
    """Granularity of the learned coefficients: one per model, or one per layer or tensor of each
    model."""
    temperature: bool = True
    """Also learn a temperature by which logits are divided; it is not part of the soup."""
    lr: PositiveFloat = 0.05
    """Learning rate of AdamW, without weight decay."""
    epochs: PositiveInt = 5
    """Passes over the held-out images."""
    batch_size: PositiveInt = 256
    """Images per training step."""
    num_images: PositiveInt | None = None
    """Largest number of held-out images to use; none: the whole split."""
    seed: NonNegativeInt = 0
    """Random seed of the order of the images."""


@operator(
    "learned_soup",
    title="Learned soup",
    split="val",
    paper="Wortsman et al. 2022, arXiv 2203.05482",
    tiny={"num_images": 32, "batch_size": 16, "epochs": 1},
)
def learned_soup(config: LearnedSoup, ingredients: Ingredients) -> NamedTensors:
    """Learned soup: weighted mean of the models, with coefficients learned on held-out images.

    Yields (name, tensor [*shape]) in float64. The weights are positive and sum to 1 (a softmax);
    they start equal. In memory are one running model and its gradient, and the tensors of one name.
    All models are unpacked into a temporary file, as large as they are, read twice in every step.
    """
    model, log, images = ingredients.model(), ingredients.log, ingredients.examples()
    scorer = Scorer(model, images, config.num_images, config.batch_size)
    log_factor = torch.zeros((), dtype=torch.float64, requires_grad=config.temperature)
    with temporary_folder() as folder:
        mixed = Mixed(model, ingredients, config.per, folder)
        learned = [mixed.logits, *([log_factor] if config.temperature else [])]
        optimizer = torch.optim.AdamW(learned, lr=config.lr, weight_decay=0.0)
        for epoch in range(config.epochs):
            ingredients.report(epoch, config.epochs)
            if has_statistics(model):
                load(model, mixed.tensors())
                recount(model, images)
            examples = scorer.examples.shuffled(derive(config.seed, "learned_soup", epoch))
            for batch in examples.batches(config.batch_size):
                _, slopes = mixed.gradients(model, batch.images, batch.labels, log_factor)
                for tensor, slope in zip(learned, slopes, strict=False):
                    tensor.grad = slope
                optimizer.step()
        log.metrics["logit_factor"] = log_factor.exp().item()
        load(model, mixed.tensors())
        recount(model, images)
        log.metrics.update(scorer.score_as_it_is().metrics(scorer.examples.split))
        log.lines.append(f"of {', '.join(ingredients.names)}")
        for part, row in zip(mixed.parts, mixed.shares(), strict=True):
            log.lines.append(f"{part or 'shares'}: {' '.join(f'{share:.4f}' for share in row)}")
        yield from mixed.tensors(torch.float64)


class Mixed:
    """A mean of models with weights that can be learned.

    The gradient with respect to a coefficient is the product of the soup's gradient and the model's
    weights. So the soup alone is differentiated, and the models are read from `folder`, never held.
    """

    def __init__(self, model: nn.Module, ingredients: Ingredients, per: str, folder: Path) -> None:
        is_double = [ingredients[0][n].dtype == torch.float64 for n in ingredients.shapes]
        dtype = torch.float64 if any(is_double) else torch.float32
        count = sum(map(math.prod, ingredients.shapes.values())) * len(ingredients)
        offset, mapped = 0, scratch(folder / "weights", count, dtype)
        self._stacks: dict[str, Tensor] = {}
        """By name, [models, *shape], in a file that is mapped into memory."""
        for name, stack in ingredients.tensors():
            self._stacks[name] = mapped[offset : offset + stack.numel()].view(stack.shape)
            self._stacks[name].copy_(stack)
            offset += stack.numel()
        parts = {name: part_of(name, per) for name in self._stacks}
        self.parts = list(dict.fromkeys(parts.values()))
        self._part = {name: self.parts.index(part) for name, part in parts.items()}
        self._learned = [name for name in parameters(model) if name in self._stacks]
        shape = (len(self.parts), len(ingredients))
        self.logits = torch.zeros(shape, dtype=torch.float64, requires_grad=True)

    def shares(self) -> Tensor:
        """Of every model in every part, float64 [parts, models]; every row sums to 1."""
        return self.logits.detach().softmax(1)

    def tensors(self, dtype: torch.dtype | None = None) -> NamedTensors:
        """The soup, tensor [*shape] by tensor, computed in the weights' dtype or in `dtype`."""
        shares = self.shares()
        for name, stack in self._stacks.items():
            wide = stack.to(dtype or stack.dtype)
            yield name, torch.tensordot(shares[self._part[name]].to(wide.dtype), wide, dims=1)

    def gradients(
        self, model: nn.Module, images: Tensor, labels: Tensor, log_factor: Tensor
    ) -> tuple[float, tuple[Tensor, Tensor]]:
        """The soup's mean loss on a batch, and its gradients by `logits` [parts, models] and by the
        logarithm [] of the factor of the model's outputs."""
        load(model, self.tensors())
        soup = {name: tensor.requires_grad_() for name, tensor in parameters(model).items()}
        factor = log_factor.detach().to(images.device).requires_grad_()
        with torch.enable_grad():
            outputs = functional_call(model, soup, (images,)).double() * factor.exp()
            value = F.cross_entropy(outputs, labels)
            *slopes, of_factor = gradients(value, [*(soup[n] for n in self._learned), factor])
        of_shares = torch.zeros(self.logits.shape, dtype=torch.float64)
        for name, tensor in zip(self._learned, slopes, strict=True):
            stack = self._stacks[name].flatten(1)
            of_shares[self._part[name]] += stack.double() @ tensor.cpu().double().flatten()
        with torch.enable_grad():
            (of_logits,) = torch.autograd.grad(self.logits.softmax(1), self.logits, of_shares)
        return value.item(), (of_logits, of_factor.cpu())


def part_of(name: str, per: str) -> str:
    """What a tensor shares its coefficients with: "blocks.0.attn.qkv", or "" with all."""
    return {"model": "", "layer": name.rpartition(".")[0] or name, "tensor": name}[per]
