"""What each residual path of a ViT does for its outputs: the embedding, attentions and MLPs."""

import torch
from pydantic import PositiveInt

from vitarium.architectures.paths import contributions
from vitarium.core.errors import InvalidInput
from vitarium.evaluation.path_components import path_components
from vitarium.measures.base import Config, EvalModel, NotApplicable, Values, measure

PAPER = "Chang et al. 2023, arXiv 2308.06548"


class ResidualPaths(Config):
    num_images: PositiveInt = 1024
    """Largest number of images of the split to use."""
    batch_size: PositiveInt = 256
    """Images per forward pass; affects memory and speed only."""


@measure("path_contribution", unit="logits", paper=PAPER)
def path_contribution(config: ResidualPaths, subject: EvalModel) -> Values:
    """What each residual path adds to the label's logit, beside the mean of all logits.

    Mean over the images, of the components of the last stream: parts are "embed", "blocks.0.attn",
    "blocks.0.mlp", ... and "constant", the head's bias and what comes of the last norm's; they add
    up to the whole. Exact with the norm's statistics those of the full sum. Of plain ViTs with a
    linear head.
    """
    components = path_components(subject, config.num_images, config.batch_size)
    try:
        by_path, constant = contributions(subject.model, components.pooled)
    except InvalidInput as error:
        raise NotApplicable(f"{subject.name}: {error}") from None
    terms = torch.cat([by_path, constant.expand(len(by_path), 1, -1)], dim=1)
    terms = components.of_classes(terms).double()
    labels = components.labels[:, None, None].expand(-1, terms.shape[1], 1)
    of_label = terms.gather(2, labels).squeeze(2)
    means = (of_label - terms.mean(2)).mean(0).tolist()
    return {"": sum(means), **dict(zip([*components.names, "constant"], means, strict=True))}


@measure("accuracy_without_path", unit="fraction", held_out=True, paper=PAPER)
def accuracy_without_path(config: ResidualPaths, subject: EvalModel) -> Values:
    """Accuracy of a ViT whose head does not see one residual path; the whole sees all of them.

    Parts are "embed", "blocks.0.attn", "blocks.0.mlp", ... A path is left out of the sum before the
    last norm alone: later blocks see it. Of plain ViTs.
    """
    components = path_components(subject, config.num_images, config.batch_size)
    paths = list(range(len(components.names)))
    without = ([other for other in paths if other != path] for path in paths)
    accuracies = [components.score(others).accuracy for others in without]
    full = components.score(paths).accuracy
    return {"": full, **dict(zip(components.names, accuracies, strict=True))}
