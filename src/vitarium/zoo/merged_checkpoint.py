"""A checkpoint whose weights have changes in factors (LoRA), seen as those of a plain model."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from vitarium.blueprint import Spec
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.registry import Section
from vitarium.zoo._format.description import content_of
from vitarium.zoo.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

_FACTORS = "adaptation."


def is_factor(name: str) -> bool:
    """Whether a tensor of a checkpoint is a factor of the change of another."""
    return name.startswith(_FACTORS) or f".{_FACTORS}" in name


def layer_weights(factors: Iterable[str]) -> set[str]:
    """Names of the weights that factors of these names change."""
    return {f"{name.partition(_FACTORS)[0]}weight" for name in factors} - {"weight"}


class MergedCheckpoint(Checkpoint):
    """Plain weights by name; those that an adaptation changes are merged when they are read.

    Args:
        stored: as it was trained.
        adaptation: whose `merge` gives a plain weight of the frozen one and the factors.
    """

    def __init__(self, stored: Checkpoint, adaptation: Section) -> None:
        super().__init__(stored.path, stored._find, marked=stored.is_sealed)
        self._all = self.tensors
        self.tensors = {n: about for n, about in self._all.items() if not is_factor(n)}
        self._merge = adaptation.plugin.facts["merge"]
        self._config = adaptation.config
        self.changed = layer_weights(filter(is_factor, self._all))
        """Names of the tensors that are merged."""

    def __getitem__(self, name: str) -> "Tensor":
        tensor = super().__getitem__(name)
        if name not in self.changed:
            return tensor
        merged: Tensor = self._merge(self._config, name, tensor, self._factors)
        return merged

    def rows(self, name: str, start: int, stop: int) -> "Tensor":
        """`tensor[start:stop]`, [stop - start, ...]; a merged tensor is read as a whole."""
        if name not in self.changed:
            return super().rows(name, start, stop)
        tensor = self[name]
        if not 0 <= start <= stop <= len(tensor):
            raise InvalidInput(f"{name} has {len(tensor)} rows, so none from {start} to {stop}")
        return tensor[start:stop]

    @cached_property
    def _factors(self) -> "dict[str, Tensor]":
        read = Checkpoint(self.path, self._find, marked=self.is_sealed)
        return {name: read[name] for name in self._all if is_factor(name)}

    @property
    def content(self) -> str:
        """Of what is stored, factors included."""
        return content_of(self._all)


def merged(stored: Checkpoint, spec: Callable[[], Spec]) -> Checkpoint:
    """The checkpoint as of a plain model: the stored one where it has no factors.

    `spec`, which says by what they are merged, is asked where it has. Raises MissingPlugin where
    the adaptation is not here, and CorruptFile where the recipe names none that merges.
    """
    if not any(map(is_factor, stored)):
        return stored
    adaptation = getattr(spec().origin, "adaptation", None)
    if adaptation is None or not adaptation.plugin.facts["merge"]:
        fault = "it has factors of an adaptation, and the model's recipe names none that merges"
        raise CorruptFile(stored.path, fault)
    return MergedCheckpoint(stored, adaptation)
