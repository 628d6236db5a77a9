"""Fisher merging: every weight counts as much as the model's outputs depend on it."""

from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitarium.core.config import Config
from vitarium.core.seeds import derive
from vitarium.evaluation.inputs import EvalModel
from vitarium.evaluation.losses import parameters
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator


class FisherMerging(Config):
    num_images: PositiveInt = 256
    """Largest number of each model's training images to use."""
    labels: Literal["expected", "sampled", "true"] = "expected"
    """Classes for which gradients are taken: all, each with the probability that the model gives it
    (expected; one backward pass per image and class, or fewer); one drawn from these probabilities
    for each image (sampled); or the image's true class (true, the "empirical Fisher")."""
    tolerance: float = Field(1e-3, ge=0, lt=1)
    """Share of each image's Fisher information, that of the model's outputs, that may be left out
    with expected labels; saves backward passes for improbable classes."""
    floor: float = Field(1e-6, gt=0)
    """Smallest Fisher information of a weight; where no model has more, the plain mean is taken."""
    equal_norms: bool = False
    """Divide each model's Fisher information by its norm, so that less certain models do not weigh
    more."""
    batch_size: PositiveInt = 4
    """Images at a time, each with a gradient of its own; affects memory and speed only."""
    seed: NonNegativeInt = 0
    """Random seed of the sampled labels."""


@operator(
    "fisher_merging",
    title="Fisher merging",
    split="train",
    paper="Matena & Raffel 2022, arXiv 2111.09832",
    tiny={"num_images": 32, "batch_size": 16},
)
def fisher_merging(config: FisherMerging, ingredients: Ingredients) -> NamedTensors:
    """Fisher merging: mean of the models, each weight weighted by its diagonal Fisher information.

    Yields (name, tensor [*shape]): theta = sum_i F_i theta_i / sum_i F_i, in float64. F_i is
    computed on training images of the model's own data, not augmented, under the model's own head;
    the floor is applied before the norms are made equal. Tensors that are no parameters get the
    plain mean. In memory: a model, a batch's gradients, and three times its weights in float64.

    Raises NotApplicable for a model whose outputs are not the classes of its data.
    """
    totals = {name: torch.zeros(shape).double() for name, shape in ingredients.shapes.items()}
    weights = {name: torch.zeros(shape).double() for name, shape in ingredients.shapes.items()}
    for number, model in enumerate(ingredients):
        ingredients.report(number, len(ingredients))
        tensors = {name: checked(model, name) for name in ingredients.shapes}
        fisher = diagonal_fisher(config, ingredients.subject(number))
        importance = {n: fisher[n].clamp(min=config.floor) for n in tensors if n in fisher}
        if config.equal_norms:
            squares = torch.stack([tensor.square().sum() for tensor in importance.values()])
            importance = {n: tensor / squares.sum().sqrt() for n, tensor in importance.items()}
        for name, tensor in tensors.items():
            weight = importance.get(name, torch.ones(tensor.shape, dtype=torch.float64))
            totals[name] += weight * tensor
            weights[name] += weight
    for name, total in totals.items():
        yield name, total / weights[name]


def diagonal_fisher(config: FisherMerging, subject: EvalModel) -> dict[str, Tensor]:
    """The expected square of the gradient of log p(class | image), image by image.

    By the names of the model's parameters, float64 [*shape], on the CPU:
    F = 1/n sum_x sum_c p(c | x) (d log p(c | x) / d theta)^2.
    """
    subject.check_classifier()
    model, model_parameters = subject.model, parameters(subject.model)
    examples = subject.examples.first(config.num_images)
    sums = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in model_parameters.items()}
    # Drawn at once, so that the size of batches changes no label.
    generator = torch.Generator().manual_seed(derive(config.seed, "labels", subject.name))
    draws = torch.rand(len(examples), generator=generator, dtype=torch.float64).to(examples.device)
    done = 0

    def squares_of_image(image: Tensor, passes: Tensor) -> dict[str, Tensor]:
        """Its squared gradients, summed over its backward passes."""

        def outputs(point: dict[str, Tensor]) -> Tensor:
            logits: Tensor = functional_call(model, point, (image.unsqueeze(0),))
            return logits[0]

        _, back = vjp(outputs, dict(model_parameters))[:2]
        squares = {name: torch.zeros_like(tensor) for name, tensor in model_parameters.items()}
        for cotangent in passes:
            (slopes,) = back(cotangent)
            squares = {n: torch.addcmul(t, slopes[n], slopes[n]) for n, t in squares.items()}
        return squares

    # The fused kernels of attention take one image after the other under vmap.
    with sdpa_kernel(SDPBackend.MATH):
        for batch in examples.batches(config.batch_size):
            images, own_draws = batch.images, draws[done : done + len(batch.images)]
            done += len(images)
            cotangents = _cotangents(config, model, images, batch.labels, own_draws)
            for name, squares in vmap(squares_of_image)(images, cotangents).items():
                sums[name] += squares.sum(0, dtype=torch.float64)
    return {name: total.cpu() / len(examples) for name, total in sums.items()}


@torch.no_grad()
def _cotangents(
    config: FisherMerging, model: nn.Module, images: Tensor, labels: Tensor, draws: Tensor
) -> Tensor:
    """Vectors of the outputs whose products with their derivatives are squared and summed.

    [batch, backward passes, classes]. The Fisher information of the outputs is
    A = diag(p) - p p'; with A = sum_k s_k s_k', that of the weights is the sum of (J' s_k)^2, so
    the largest eigenvectors stand for it in the fewest passes.
    """
    p = model(images).double().softmax(1)
    classes = p.shape[1]
    if config.labels == "expected":
        values, vectors = torch.linalg.eigh(p.diag_embed() - p.unsqueeze(2) * p.unsqueeze(1))
        values = values.clamp(min=0)  # they rise
        small = values.cumsum(1) <= config.tolerance * values.sum(1, keepdim=True)
        values[small] = 0
        count = int((~small).sum(1).max())
        factors = (vectors * values.sqrt().unsqueeze(1)).mT[:, classes - count :]
        return factors.to(images)
    if config.labels == "sampled":
        labels = (p.cumsum(1) < draws.unsqueeze(1)).sum(1).clamp(max=classes - 1)
    return (nn.functional.one_hot(labels, classes) - p).unsqueeze(1).to(images)
