"""Batch norms of timm's models become parts of the layers before them, and change no output."""

import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import get
from vitarium.core.registry import section as as_section
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.batch_norm_folding import batch_norm_folding, fused_section

LEVIT = get("operator", "batch_norm_folding").facts["tiny_architecture"]
IMAGES = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1)).double()


def trained():
    """With statistics and weights of norms far from the first ones."""
    section = as_section("architecture", LEVIT)
    torch.manual_seed(0)
    model = section(3)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith((".bn.weight", "running_var")):
                tensor.uniform_(0.5, 2)
            if name.endswith((".bn.bias", "running_mean")):
                tensor.normal_(std=0.3)
    return section, model.eval().double()


def fused_of(section, model):
    weights = Weights("m@1", model.state_dict(), skeleton=lambda: model)
    twin = fused_section(None, section)(3).double()
    parameters = dict(batch_norm_folding(None, Ingredients([weights], model=lambda: model)))
    statistics = {n: b for n, b in model.state_dict().items() if n in dict(model.named_buffers())}
    assert parameters.keys() == dict(twin.named_parameters()).keys()
    twin.load_state_dict({n: (parameters | statistics)[n] for n in twin.state_dict()})
    return twin.eval()


@torch.no_grad()
def test_fused_it_computes_the_same():
    section, model = trained()
    expected = model(IMAGES)
    twin = fused_of(section, model)
    assert expected.std(0).max() > 1e-5  # far above the rounding to float32
    torch.testing.assert_close(twin(IMAGES), expected, rtol=0, atol=1e-7)


def test_batch_norms_stay_in_the_heads_alone_and_the_rest_learns():
    section, _ = trained()
    twin = fused_section(None, section)(3)
    norms = [
        n for n, m in twin.named_modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)
    ]
    assert norms == ["head.bn"]
    twin.eval()(IMAGES.float()).sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())


def test_what_cannot_be_fused_is_refused():
    vit = {"name": "timm", "model": "vit_tiny_patch16_224"}
    for architecture, message in (
        ({"name": "vit"}, "needs a model of timm"),
        ({"name": "repavit"}, "of a repavit, use repavit_fusion"),
        (LEVIT | {"fused": True}, "it is fused already"),
        (vit, "no batch norms to fuse in vit_tiny_patch16_224; choose a model"),
    ):
        with pytest.raises(IncompatibleWeights, match=message):
            fused_section(None, as_section("architecture", architecture))
    with pytest.raises(
        InvalidConfig, match="no batch norms to fuse in vit_tiny_patch16_224; leave"
    ):
        as_section("architecture", vit | {"fused": True})
