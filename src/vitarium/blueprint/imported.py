"""What is known of a model that was trained elsewhere."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import JsonValue

from vitarium.blueprint.recipe import flatten
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, SectionOf

if TYPE_CHECKING:
    from torch import nn


class Imported(Config):
    """Stands where a recipe stands for the models that are grown here."""

    source: str
    """The importer that read it, e.g. "vit_zoo"."""
    name: str
    """What it is called there, e.g. "pretraining/sl_vit_s_16_224_seed_42"."""
    weights: str
    """SHA-256 of its last checkpoint's tensors (`formats.weights.fingerprint`), so that the
    id tells it from every other model."""
    architecture: Annotated[Section, SectionOf("architecture")] | None = None
    """What builds it; None: its tensors can be read and measured, but not run."""
    head: Annotated[Section, SectionOf("head")] | None = None
    """None: as the architecture comes."""
    settings: dict[str, JsonValue] = {}
    """Its generating factors by dotted name: ours (`optimizer.lr`) where they mean the same."""

    def build(self, num_outputs: int) -> "nn.Module":
        """The model with random weights. Raises InvalidInput where nothing here can build it."""
        if self.architecture is None:
            raise InvalidInput(
                f"{self.name} came as tensors, and nothing here builds its architecture; read them "
                "with Zoo.state_dict or Zoo.tensor"
            )
        model: nn.Module = self.architecture(num_outputs)
        if self.head:
            self.head(model, num_outputs)
        return model

    def described(self) -> dict[str, Any]:
        """Every factor by its dotted name, on one level."""
        return described_import(self.factors())


def described_import(values: Mapping[str, Any]) -> dict[str, Any]:
    """As `Imported.described`, of what `Imported.factors` gave."""
    sections = {key: values[key] for key in ("architecture", "head") if values[key]}
    names = {key: values[key] for key in ("source", "name")}
    return {**names, **flatten(sections), **values["settings"]}
