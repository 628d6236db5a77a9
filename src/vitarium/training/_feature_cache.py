"""Features of a frozen backbone, computed once for each image: linear probes."""

from functools import cache

import torch
import xxhash
from torch import Tensor, nn

from vitarium.architectures.heads import head_prefix, is_head
from vitarium.blueprint import Recipe
from vitarium.core.devices import meta_device
from vitarium.core.registry import Section
from vitarium.training.options import TrainOptions

_MOST_BYTES = 2 * 2**30
"""Of features that are remembered; others are computed whenever they are needed."""


def caches_features(recipe: Recipe, options: TrainOptions) -> bool:
    """Whether only the head learns, of the last features alone, and the objective calls the model
    and does nothing else."""
    facts = recipe.adaptation.facts
    is_probe = facts["frozen_in_eval_mode"] and not facts["adds_modules"]
    is_plain = options.device == "cpu" and not (options.compiled or options.stacked)
    if not (is_probe and is_plain and recipe.objective.name == "supervised"):
        return False
    return not _has_exits(recipe.architecture)


@cache
def _has_exits(architecture: Section) -> bool:
    """Whether its blocks have classifiers, which learn as the head does."""
    with meta_device():
        return hasattr(architecture(1), "exit_prefixes")


class FeatureCache:
    """Called as the model whose head alone learns; images that it has seen cost their head.

    Images are known by the hash of their pixels, so whatever augments them is of no matter; where
    no training image comes again (`num_images` of them there are), none is remembered any longer.

    A row of a batch has to have the same bits in any place of it, which is tried for each size of
    batch: only then are the bits those of a model that computes all features anew.

    Args:
        num_images: of the training split.
    """

    def __init__(self, model: nn.Module, num_images: int) -> None:
        self.model, self._num_images = model, num_images
        self._head = model.get_submodule(head_prefix(model))
        self._known: dict[bool, dict[bytes, Tensor]] = {True: {}, False: {}}
        self._is_invariant: dict[tuple[int, ...], bool] = {}
        self._bytes, self._come_again = 0, True
        learning = [name for name, p in model.named_parameters() if p.requires_grad]
        assert all(is_head(model, name) for name in learning)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [batch, c, h, w] -> outputs [batch, outputs]"""
        known = self._known[self._head.training]
        if not self._may_be_cached(images):
            computed: Tensor = self.model(images)
            return computed
        keys = [xxhash.xxh3_128_digest(image.numpy().data) for image in images.contiguous()]
        if all(key in known for key in keys):
            rows = torch.stack([known[key] for key in keys])
        else:
            rows = self._features(images)
            self._remember(known, keys, rows)
        outputs: Tensor = self._head(rows)
        return outputs

    def _may_be_cached(self, images: Tensor) -> bool:
        """Not where images change from epoch to epoch, or bits with an image's place."""
        if self._head.training and not self._come_again:
            return False
        shape = tuple(images.shape)
        if shape not in self._is_invariant:
            forward, backward = self._features(images), self._features(images.flip(0))
            self._is_invariant[shape] = torch.equal(forward, backward.flip(0))
        return self._is_invariant[shape]

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        """What the head takes, [batch, features]."""
        seen: list[Tensor] = []
        hook = self._head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.model(images)
        finally:
            hook.remove()
        return seen[0]

    def _remember(self, known: dict[bytes, Tensor], keys: list[bytes], rows: Tensor) -> None:
        if self._bytes > _MOST_BYTES:
            return
        for key, row in zip(keys, rows.unbind(), strict=True):
            if key not in known:
                known[key] = row.clone()
                self._bytes += row.nbytes
        if len(self._known[True]) > self._num_images:  # they do not come again
            self._bytes -= sum(row.nbytes for row in self._known[True].values())
            self._known[True].clear()
            self._come_again = False
