"""Settings of every architecture: what is accepted when it is read, computes and learns."""

import typing
from typing import Any

import pytest
import torch

from vitarium.architectures.base import HasAuxiliaryLoss, SamplesSubnetworks
from vitarium.architectures.vit.vit import Vit
from vitarium.core import seeds
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import get, plugins

NAMES = [name for name in plugins("architecture") if name != "timm"]
SHARED = {
    "img_size": (12,),
    "patch_size": (1, 3),
    "in_chans": (1,),
    "embed_dim": (1, 6),
    "depth": (1,),
    "num_heads": (5,),
    "mlp_ratio": (0.01,),
    "class_token": (True, False),
    "no_embed_class": (True, False),
    "global_pool": ("token", "avg"),
}
"""Of `Vit`: those that an architecture may have to refuse or to change."""


def values_of(name: str, annotation: Any, default: Any) -> tuple[Any, ...]:
    """A few values near to what a setting may be, and beyond it."""
    if name in SHARED:
        return SHARED[name]
    if name in Vit.model_fields:
        return ()
    if isinstance(default, (list, tuple)):
        first = default[:1]
        return ((), default[:-1], [*default, *default[-1:]], default[::-1], [*first] * 3, [0], [5])
    if choices := [c for c in typing.get_args(annotation) if isinstance(c, (str, int))]:
        return (*choices,)
    if annotation is bool:
        return (True, False)
    return (-1, 0, 0.01, 1, 3, None)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_accepted_when_it_is_read_computes_and_learns(name):
    plugin = get("architecture", name)
    tiny = plugin.facts["tiny"] or {}
    defaults = plugin.config.read(tiny)
    accepted = 0
    for setting, field in plugin.config.model_fields.items():
        for value in values_of(setting, field.annotation, getattr(defaults, setting)):
            try:
                config = plugin.config.read({**tiny, setting: value})
            except InvalidConfig:
                continue
            accepted += 1
            with seeds.seeded(0):
                model = plugin.function(config, 5)
                if isinstance(model, SamplesSubnetworks):
                    model.sample(1, 1)
                    model.select(0)
                outputs = model(torch.randn(2, *config.input_size))
            assert outputs.shape == (2, 5), (setting, value)
            assert outputs.isfinite().all(), (setting, value)
            loss = outputs.square().sum()
            if isinstance(model, HasAuxiliaryLoss):
                loss = loss + model.auxiliary_loss(torch.eye(5)[:2]).value
            loss.backward()
            gradients = [w.grad for w in model.parameters() if w.grad is not None]
            assert all(g.isfinite().all() for g in gradients), (setting, value)
    assert accepted
