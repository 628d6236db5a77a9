"""Condition number of the neural tangent kernel: how evenly a network learns what images show."""

import torch
from pydantic import Field
from torch import Tensor

from vitarium.measures.base import Config, EvalModel, NotApplicable, Values, measure
from vitarium.measures.training_free._features import SummedFeatures, without_norms


class TangentKernel(Config):
    num_images: int = Field(16, ge=2)
    """Largest number of images of the split to use; the kernel has a row for each, and their
    gradients are in memory together."""


@measure(
    "ntk_condition",
    unit="ratio",
    title="NTK condition number",
    quick=False,
    paper="Chen et al. 2022, As-ViT, arXiv 2202.11921; Xiao et al. 2020, arXiv 1912.13053",
    tiny={"num_images": 4},
)
def ntk_condition(config: TangentKernel, subject: EvalModel) -> Values:
    """Condition number of the neural tangent kernel of images, at least 1.

    The kernel [n, n] holds the inner products of the gradients of each image's summed features,
    before the last norm and the head, after all parameters that are called `weight`; of it the
    largest eigenvalue over the smallest. Of untrained models (epoch 0) a lower one goes with higher
    accuracy. Parts: "" is the condition number, "trace" the mean of the diagonal.

    Raises NotApplicable where the kernel is singular: two images are alike, say.
    """
    gradients = weight_gradients(subject, config.num_images)
    kernel = gradients @ gradients.T
    if not bool(kernel.isfinite().all()):
        raise NotApplicable(f"{subject.name}: its tangent kernel is not finite")
    eigenvalues = torch.linalg.eigvalsh(kernel)
    smallest, largest = eigenvalues[0].item(), eigenvalues[-1].item()
    if smallest <= 1e-12 * largest:
        raise NotApplicable(f"{subject.name}: the tangent kernel of the images is singular")
    return {"": largest / smallest, "trace": kernel.diagonal().mean().item()}


def weight_gradients(subject: EvalModel, num_images: int) -> Tensor:
    """Of each image's summed features, after all weights: float64 [num_images, weights]

    The features are those before the last norm: a layer norm's sum is constant.
    """
    summed, rows = SummedFeatures(without_norms(subject.model, last_alone=True)), []
    named = dict(summed.requires_grad_().named_parameters())
    weights = [weight for name, weight in named.items() if name.endswith(".weight")]
    for batch in subject.examples.first(num_images).batches(1):
        slopes = torch.autograd.grad(summed(batch.images), weights, materialize_grads=True)
        rows.append(torch.cat([slope.double().flatten() for slope in slopes]))
    return torch.stack(rows)
