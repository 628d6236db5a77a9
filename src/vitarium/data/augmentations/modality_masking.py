"""Full-modality masking: each view loses one modality, the channels of which become the mean."""

from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, SectionOf
from vitarium.data._to_device import to_device
from vitarium.data.augmentations.base import Augmentation, OtherViews, augmentation


class ModalityMasking(Config):
    """Another augmentation, after which one modality of each view is hidden.

    Its channels become 0 after normalization, i.e. the mean of the data set. Small crops and other
    views that an augmentation adds stay whole.
    """

    views: Annotated[Section, SectionOf("augmentation")] = Field("standard", validate_default=True)
    """The augmentation before it, a name or a mapping with a name."""
    modalities: tuple[PositiveInt, ...] | None = None
    """Channels of each modality, in their order, e.g. [3, 1] of RGB and depth; none: each channel
    is one."""
    probability: float = Field(1.0, ge=0, le=1)
    """Probability that a view loses one."""

    @model_validator(mode="after")
    def _frames_as_usual(self) -> "ModalityMasking":
        if self.views.facts["own_plain"]:
            raise ValueError(f"{self.views.name} scores images in frames of its own: take another")
        return self

    # what is known of an augmentation by its settings

    @property
    def resize(self) -> int | None:
        return getattr(self.views.config, "resize", None)

    @property
    def interpolation(self) -> str:
        return getattr(self.views.config, "interpolation", "bilinear")

    @property
    def mixup(self) -> float:
        return getattr(self.views.config, "mixup", 0.0)

    @property
    def cutmix(self) -> float:
        return getattr(self.views.config, "cutmix", 0.0)

    @property
    def repeats(self) -> int:
        return getattr(self.views.config, "repeats", 1)


@augmentation(
    "modality_masking",
    paper="Scholz et al. 2025, MM-DINOv2, MICCAI",
    tiny={"views": {"name": "standard", "crop": "random_resized"}, "probability": 0.7},
)
def modality_masking(
    config: ModalityMasking, input_size: tuple[int, int, int], num_classes: int
) -> Augmentation:
    """Full-modality masking: one randomly chosen modality of each view becomes its mean."""
    groups = _groups(config, input_size[0])
    inner: Augmentation = config.views(input_size, num_classes)
    own = inner.numbers

    def mix(images: Tensor, targets: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        images, targets = inner.mix(images, targets, drawn[..., :own])
        hidden = hidden_channels(groups, drawn[..., own:], config.probability)
        return images.masked_fill(to_device(hidden, images.device)[..., None, None], 0.0), targets

    def without_own(function: Any) -> Any:
        """A function of numbers [..., own + 2] that sees those of the augmentation before."""
        return lambda images, drawn: function(images, drawn[..., :own])

    def frame(drawn: Tensor, height: int, width: int) -> Any:
        return inner.frame(drawn[..., :own], height, width)

    return replace(
        inner,
        numbers=own + 2,
        frame=frame,
        change=without_own(inner.change),
        changes=tuple(map(without_own, inner.changes)),
        mix=mix,
        other_views={name: _other(views, own) for name, views in inner.other_views.items()},
    )


def hidden_channels(groups: Tensor, drawn: Tensor, probability: float) -> Tensor:
    """groups: of each channel the number of its modality, [c]; drawn [..., 2]: whether a view loses
    one, and which -> bool [..., c], True: hidden."""
    count = int(groups.max()) + 1
    chosen = (drawn[..., 1] * count).long().clamp_max(count - 1)
    loses = drawn[..., 0] < probability
    return (groups == chosen.unsqueeze(-1)) & loses.unsqueeze(-1)


def _groups(config: ModalityMasking, channels: int) -> Tensor:
    """Of each channel the number of its modality, [channels]. Raises InvalidInput."""
    widths = config.modalities or (1,) * channels
    if sum(widths) != channels:
        what = f"modalities have {' + '.join(map(str, widths))} channels"
        raise InvalidInput(f"{what}, and the images {channels}: name each channel once")
    if len(widths) < 2:
        raise InvalidInput(
            "modality_masking would hide all of an image of one modality: give several "
            "`modalities`, or take the augmentation before it alone"
        )
    return torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))


def _other(views: OtherViews, own: int) -> OtherViews:
    """Views that are made by the numbers of the objective's views see those without the last."""
    if views.numbers:
        return views
    return replace(
        views,
        frame=lambda drawn, height, width: views.frame(drawn[..., :own], height, width),
        change=lambda images, drawn: views.change(images, drawn[..., :own]),
    )
