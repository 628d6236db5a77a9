"""What training and scoring see of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images ready for a model, with what is to be learned of them.

    images: float [batch, c, h, w], normalized. With two views (see `views` of an objective)
        [2 * batch, c, h, w]: all first views, then all second views in the same order.
    labels: int64 [batch], the images' own classes.
    targets: float [batch, num_classes], rows sum to 1: the classes after mixup and cutmix.
    teacher_outputs: a teacher's outputs for these very images, by name; see `objectives.base`.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor
    teacher_outputs: Mapping[str, Tensor] | None = None

    def parts(self, count: int) -> "list[Batch]":
        """The images in `count` parts, in order; equal where the number of images allows it.

        Of a batch without a teacher's outputs; views of an image stay in the same part.
        """
        if count == 1:
            return [self]
        views = self.images.unflatten(0, (-1, len(self.labels)))  # [views, batch, c, h, w]
        chunks = (views.chunk(count, 1), self.labels.chunk(count), self.targets.chunk(count))
        return [
            Batch(images.flatten(0, 1), labels, targets)
            for images, labels, targets in zip(*chunks, strict=True)
        ]
