"""The contract of heads."""

from typing import Any

import torch

from vitarium.architectures.create import create_model
from vitarium.architectures.features import features
from vitarium.architectures.heads import head_prefix, is_head
from vitarium.core import seeds
from vitarium.testing._rules import require, tiny_section

_OUTPUTS = 5
_SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


def check_head(name: str, **settings: Any) -> None:
    """Test that a head keeps to its contract (`architectures/base.py`), on a tiny ViT.

    Width of the outputs, gradients, the same weights from the same seed, and a backbone that stays
    as it was.

    Args:
        settings: used in place of the plug-in's `tiny` ones.

    Raises AssertionError that names the rule.
    """

    def rule(holds: bool, text: str) -> None:
        require(holds, "head", name, text)

    section = tiny_section("head", name, settings)
    models = []
    for _ in range(2):
        with seeds.seeded(0):
            model = create_model("vit", num_classes=3, **_SIZES)
            backbone = {n: w.clone() for n, w in model.named_parameters() if not is_head(model, n)}
            section(model, _OUTPUTS)
        models.append(model.eval())
    model, same_seed = models
    weights = dict(model.named_parameters())
    for parameter, weight in same_seed.named_parameters():
        rule(torch.equal(weight, weights[parameter]), f"the same seed gave another {parameter}")
    for parameter, weight in backbone.items():
        rule(
            parameter in weights and torch.equal(weight, weights[parameter]),
            f"it changes {parameter}, which is not in {head_prefix(model)}",
        )
    images = torch.randn(2, 3, 16, 16)
    outputs, width = model(images), features(model, images).shape[1]
    rule(
        outputs.shape[1] in (_OUTPUTS, width),
        f"outputs have width {outputs.shape[1]}, neither {_OUTPUTS} nor that of the features",
    )
    rule(
        model.num_classes == outputs.shape[1],
        f"model.num_classes is {model.num_classes}, but outputs have width {outputs.shape[1]}",
    )
    outputs.sum().backward()
    without = [n for n, w in weights.items() if w.grad is None]
    rule(not without, f"no gradient reaches {', '.join(without[:3])}")
