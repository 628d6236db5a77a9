"""Build a model by name."""

from typing import Any

import timm
from torch import nn

from vitarium.core import registry
from vitarium.core.errors import UnknownName


def create_model(name: str, *, num_classes: int = 1000, **overrides: Any) -> nn.Module:
    """A new model with random weights: a registered architecture, a preset, or a model of timm.

        create_model("vit", num_classes=10, img_size=28, patch_size=7, depth=4)
        create_model("vit_small_patch16_224", num_classes=100, img_size=96)

    `overrides` are settings of the architecture; for a model of timm, parameters of its class.
    Raises UnknownName with the nearest name there is, and InvalidConfig.
    """
    values = named_architecture(name)
    plugin = registry.get("architecture", values.pop("name"))
    return plugin.function(plugin.config.read({**values, **overrides}), num_classes)


def named_architecture(name: str) -> dict[str, Any]:
    """The architecture's `name` and settings, of a registered one, a preset, or a model of timm.

    Raises UnknownName with the nearest name there is.
    """
    architectures = registry.plugins("architecture")
    presets = {
        preset: {"name": plugin.name, **settings}
        for plugin in architectures.values()
        for preset, settings in (plugin.facts["presets"] or {}).items()
    }
    if name in architectures:
        return {"name": name}
    if name in presets:
        return presets[name]
    if timm.is_model(name):
        return {"name": "timm", "model": name}
    raise UnknownName("model", name, [*architectures, *presets, *timm.list_models()])
