"""The contract of initializations."""

from typing import Any

import torch

from vitarium.architectures.create import create_model
from vitarium.core import seeds
from vitarium.testing._rules import require, tiny_section

_SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


def check_initialization(name: str, **settings: Any) -> None:
    """Test that an initialization keeps to its contract (`architectures/base.py`), on a tiny ViT.

    In place, finite, and the same weights from the same seed of torch's global generator.

    Args:
        settings: used in place of the plug-in's `tiny` ones.

    Raises AssertionError that names the rule.
    """

    def rule(holds: bool, text: str) -> None:
        require(holds, "initialization", name, text)

    section = tiny_section("initialization", name, settings)
    models = []
    for _ in range(2):
        with seeds.seeded(0):
            model = create_model("vit", num_classes=3, **_SIZES)
        before = dict(model.named_parameters())
        with seeds.seeded(1):
            section(model)
        after = dict(model.named_parameters())
        rule(
            before.keys() == after.keys() and all(after[n] is w for n, w in before.items()),
            "weights have to be drawn in place: the parameters are others",
        )
        models.append(after)
    for parameter, weight in models[0].items():
        rule(bool(weight.isfinite().all()), f"{parameter} is not finite")
        rule(torch.equal(weight, models[1][parameter]), f"the same seed gave another {parameter}")
