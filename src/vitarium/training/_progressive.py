"""Images of rising sizes for a model whose positions are those of the largest."""

from typing import Any, cast

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.patch_tokens import embed, encode, patch_size, require_plain
from vitarium.blueprint import Recipe
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.data.loader import Batches

_PURPOSE = "progressive image size"


def image_sizes(recipe: Recipe, model: nn.Module) -> list[tuple[int, int]]:
    """Height and width of the images of each stage. Raises InvalidInput for a model that takes
    images of one size alone, and for a first size that is not smaller."""
    progressive = recipe.progressive
    assert progressive
    plain = require_plain(model, _PURPOSE)
    _, *full = recipe.architecture.config.input_size
    if progressive.smallest >= full[0]:
        raise InvalidInput(
            f"{_PURPOSE}: it rises from {progressive.smallest} pixels, and the model's is {full[0]}"
        )
    return progressive.sizes((full[0], full[1]), patch_size(plain))


def take_all_sizes(model: nn.Module) -> None:
    """Let a plain vision transformer take images of any size, in place.

    Positions are resampled from the model's own at each step, never from other resampled ones;
    images of the model's size are computed as before.
    """
    kind = type(require_plain(model, _PURPOSE))
    model.__class__ = type(kind.__name__, (_AnySize, kind), {})


class _AnySize:
    """Of a VisionTransformer."""

    def forward_features(self: Any, x: Tensor, *more: Any, **named: Any) -> Any:
        if tuple(x.shape[-2:]) == tuple(self.patch_embed.img_size):
            return super().forward_features(x, *more, **named)  # type: ignore[misc]
        return encode(self, embed(self, x))[0]


class StageBatches:
    """The batches of each epoch of a recipe, with the images of its stage.

    Args:
        own: batches of the model's own image size.
        sizes: of each stage's images; empty: its own alone.
    """

    def __init__(self, recipe: Recipe, own: Batches, sizes: list[tuple[int, int]]) -> None:
        self._recipe = recipe
        self._of_stages = [_resized(recipe, own, stage, size) for stage, size in enumerate(sizes)]
        self._own = own

    def of_epoch(self, epoch: int) -> Batches:
        """With the images of an epoch, from 1: it follows from its number alone."""
        progressive = self._recipe.progressive
        if progressive is None:
            return self._own
        return self._of_stages[progressive.stage_of(epoch, self._recipe.epochs)]

    def tokens(self, epoch: int, model: nn.Module) -> dict[str, float]:
        """Patches that the model has seen in an epoch; nothing of a recipe without stages."""
        if self._recipe.progressive is None:
            return {}
        batches, patch = self.of_epoch(epoch), patch_size(cast(VisionTransformer, model))
        _, height, width = batches.input_size
        patches = (height // patch[0]) * (width // patch[1])
        images = batches.steps * batches.batch_size * batches.views
        return {"train_tokens": float(images * patches)}


def _resized(recipe: Recipe, own: Batches, stage: int, size: tuple[int, int]) -> Batches:
    progressive = recipe.progressive
    assert progressive
    if stage == progressive.stages - 1:
        return own
    input_size = (own.input_size[0], *size)
    augmentation = _weakened(recipe.augmentation, progressive.share(stage), size[0], recipe)
    return Batches(
        own.dataset,
        augmentation(input_size, own.dataset.num_classes),
        input_size,
        own.batch_size,
        own.seed,
        views=own.views,
        sampling=own.sampling,
        steps_per_epoch=recipe.steps_per_epoch,
        normalization=own.normalization,
        device=str(own.device),
        loader_workers=own.loader_workers,
    )


def _weakened(section: Section, share: float, height: int, recipe: Recipe) -> Section:
    """An augmentation for smaller images, with that share of its strength."""
    config, changes = section.config, {}
    for name in ("mixup", "cutmix"):
        if getattr(config, name, 0):
            changes[name] = share * getattr(config, name)
    if getattr(config, "resize", None):
        full = recipe.architecture.config.input_size[1]
        changes["resize"] = round(config.resize * height / full)
    policy = getattr(config, "policy", None)
    if policy and hasattr(policy.config, "magnitude"):
        assert recipe.progressive
        smallest = min(recipe.progressive.smallest_magnitude, policy.config.magnitude)
        magnitude = round(smallest + (policy.config.magnitude - smallest) * share)
        of_policy = policy.config.changed({"magnitude": magnitude})
        changes["policy"] = Section(policy.kind, policy.name, of_policy)
    return Section(section.kind, section.name, config.changed(changes))
