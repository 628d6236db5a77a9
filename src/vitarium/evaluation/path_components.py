"""Components of a model's last stream on images, and what sums of them say."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium.architectures.paths import classified, path_names, pooled_paths, recording_paths
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.evaluation.inputs import EvalModel
from vitarium.evaluation.scoring import Score


@dataclass(frozen=True)
class PathComponents:
    """What each residual path adds to what a classifier's head sees of images."""

    subject: EvalModel
    names: list[str]
    """Of the paths: "embed", "blocks.0.attn", "blocks.0.mlp", ..."""
    pooled: Tensor
    """[images, paths, width]"""
    labels: Tensor
    """int64 [images]"""

    def of_classes(self, outputs: Tensor) -> Tensor:
        """Outputs [..., outputs] -> those of the classes of the images, in their order."""
        numbers = self.subject.examples.outputs.numbers
        return outputs[..., list(numbers)] if numbers else outputs

    @torch.no_grad()
    def score(self, paths: list[int]) -> Score:
        """Accuracy and loss of the sum of paths with these numbers, through last norm and head."""
        outputs = classified(self.subject.model, self.pooled[:, paths].sum(1)).double()
        logits = self.of_classes(outputs)
        accuracy = (logits.argmax(1) == self.labels).double().mean().item()
        return Score(accuracy, F.cross_entropy(logits, self.labels).item())


@torch.no_grad()
def path_components(
    subject: EvalModel, num_images: int | None = None, batch_size: int = 256
) -> PathComponents:
    """Of at most so many images; None: all.

    Raises NotApplicable for anything but a plain ViT or a `path_ensemble`, for outputs that are not
    the images' classes, and where there are no images.
    """
    subject.check_classifier()
    model, examples = subject.model, subject.examples
    if num_images is not None:
        examples = examples.first(num_images)
    if not len(examples):
        raise NotApplicable("there are no images to classify")
    batches, labels = [], []
    try:
        names = path_names(model)
        with recording_paths(model) as recorded:
            for batch in examples.batches(batch_size):
                model(batch.images)
                batches.append(pooled_paths(model, recorded))
                labels.append(batch.labels)
    except InvalidInput as error:
        raise NotApplicable(f"{subject.name}: {error}") from None
    return PathComponents(subject, names, torch.cat(batches), torch.cat(labels))
