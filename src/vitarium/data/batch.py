"""What training and scoring see of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images ready for a model, with what is to be learned of them.

    images: float [batch, c, h, w], normalized. With two views (see `views` of an objective)
        [2 * batch, c, h, w]: all first views, then all second views in the same order.
    labels: int64 [batch], the images' own classes; of images with several labels bool
        [batch, num_classes].
    targets: float [batch, num_classes], rows sum to 1: the classes after mixup and cutmix; of
        images with several labels ones where an image has them, mixed likewise.
    teacher_outputs: a teacher's outputs for these very images, by name; see `objectives.base`.
    masks: bool [views * batch, patches], True: not seen; of objectives that hide patches. Of those
        that add noise it is the noise, [views * batch, ...].
    other_views: of each image, by name, e.g. small crops [8 * batch, c, h, w]: all first ones, then
        all second ones; see `Augmentation`.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor
    teacher_outputs: Mapping[str, Tensor] | None = None
    masks: Tensor | None = None
    other_views: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Any]:
        """All that is there, by the name of its field: what vmap maps over."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def of_model(self, k: int) -> "Batch":
        """Of the batches of several models, [k, ...], that of one of them."""
        return Batch(
            self.images[k],
            self.labels[k],
            self.targets[k],
            self.teacher_outputs and {name: t[k] for name, t in self.teacher_outputs.items()},
            masks=None if self.masks is None else self.masks[k],
            other_views={name: views[k] for name, views in self.other_views.items()},
        )

    def parts(self, count: int) -> "list[Batch]":
        """The images in `count` parts, in order; equal where the number of images allows it.

        Views of an image stay in the same part.
        """
        if count == 1:
            return [self]
        size = len(self.labels)

        def chunks(views: Tensor) -> list[Tensor]:
            """[views * batch, ...] -> of each part [views * its size, ...]"""
            of_parts = views.unflatten(0, (-1, size)).chunk(count, 1)
            return [part.flatten(0, 1) for part in of_parts]

        labels, targets = self.labels.chunk(count), self.targets.chunk(count)
        images = chunks(self.images)
        masks = [None] * len(labels) if self.masks is None else chunks(self.masks)
        others = {name: chunks(views) for name, views in self.other_views.items()}
        taught = {name: t.chunk(count) for name, t in (self.teacher_outputs or {}).items()}
        return [
            Batch(
                images[part],
                labels[part],
                targets[part],
                {name: chunks[part] for name, chunks in taught.items()} or None,
                masks=masks[part],
                other_views={name: views[part] for name, views in others.items()},
            )
            for part in range(len(labels))
        ]
