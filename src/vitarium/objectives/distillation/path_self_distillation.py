"""Self-distillation of residual paths: short ones follow the sum of all."""

from pydantic import NonNegativeFloat, PositiveFloat
from torch import nn
from torch.nn import functional as F

from vitarium.architectures.paths import classified, pooled_paths, recording_paths
from vitarium.core.config import Config
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import CLASSIFICATION, accuracy
from vitarium.objectives.distillation.base import at_least_float32


class PathSelfDistillation(Config):
    """cross-entropy with the classes + weight T^2 mean_l KL(all paths || those of l blocks)."""

    weight: NonNegativeFloat = 1.0
    """Weight of the divergences; at 0 only the classes count."""
    temperature: PositiveFloat = 1.0
    """Temperature of the softmax: all logits are divided by it."""


@objective(
    "path_self_distillation",
    paper="Chang et al. 2023, arXiv 2308.06548",
    records_blocks=True,
    **CLASSIFICATION,
)
def path_self_distillation(config: PathSelfDistillation, model: nn.Module, batch: Batch) -> Loss:
    """Learn the classes, and let short paths say what the sum of all paths says.

    Outputs [batch, num_classes] against targets of that shape. Short paths are the sums of what the
    embedding and the first l blocks add, for each l from 0 to depth - 1, through the last norm and
    the head; no gradient goes to the outputs that they follow. Of a plain `vit` or a
    `path_ensemble`; others are refused.
    """
    with recording_paths(model) as recorded:
        outputs = model(batch.images)
    sums = pooled_paths(model, recorded).cumsum(1)[:, :-1:2]
    log_q = (at_least_float32(classified(model, sums)) / config.temperature).log_softmax(-1)
    log_p = (at_least_float32(outputs.detach()) / config.temperature).log_softmax(-1)[:, None]
    # vmap has no rule of its own for F.kl_div
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    short = config.temperature**2 * divergence
    loss = F.cross_entropy(outputs, batch.targets) + config.weight * short
    return Loss(loss, short_paths=short, accuracy=accuracy(outputs, batch))
