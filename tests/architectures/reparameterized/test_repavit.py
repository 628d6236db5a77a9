"""RePaViT: idle hidden units, and what training and fused form have in common."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vitarium.architectures.reparameterized.repavit import FusedMlp, IdleMlp
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.repavit_fusion import fused_section, repavit_fusion

SIZES = {"img_size": 16, "patch_size": 8, "in_chans": 1, "embed_dim": 12, "num_heads": 2}
IMAGES = torch.randn(4, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def trained(**settings):
    section = choose("architecture", "repavit", **SIZES, depth=2, **settings)
    torch.manual_seed(0)
    model = section(3).double()
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, mean=0.1, std=0.3)
    for _ in range(20):
        model(IMAGES)  # statistics
    return section, model.eval()


def fused_of(section, model):
    weights = Weights("m@1", model.state_dict(), skeleton=lambda: model)
    buffers = [name for name, _ in model.named_buffers()]
    twin = fused_section(None, section)(3).to(IMAGES.dtype)
    twin.load_state_dict(dict(repavit_fusion(None, Ingredients([weights], buffers=buffers))))
    return twin.eval()


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("pre_norm", [True, False])
def test_fused_it_computes_the_same(ratio, pre_norm):
    section, model = trained(idle_ratio=ratio, pre_norm=pre_norm)
    twin = fused_of(section, model)
    torch.testing.assert_close(twin(IMAGES), model(IMAGES), rtol=1e-11, atol=1e-11)
    single, images = model.float(), IMAGES.float()
    torch.testing.assert_close(twin.float()(images), single(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "heads", "count", "fused_count"),
    [
        (192, 3, 5_736_040, 3_494_248),
        (384, 6, 22_087_912, 13_180_648),
        (768, 12, 86_642_152, 51_132_904),
    ],
)
def test_parameters_are_the_published_ones(width, heads, count, fused_count):
    for fused, expected in ((False, count), (True, fused_count)):
        section = choose("architecture", "repavit", embed_dim=width, num_heads=heads, fused=fused)
        with meta_device():
            model = section(1000)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(("width", "count"), [(192, 110_976), (384, 443_136), (768, 1_771_008)])
def test_a_fused_mlp_has_three_squares_of_the_width(width, count):
    with meta_device():
        mlp = FusedMlp(width, width, torch.nn.GELU())
    assert sum(parameter.numel() for parameter in mlp.parameters()) == count


def test_operations_of_a_fused_mlp_fall_with_the_idle_ratio():
    counts = []
    for ratio in (0.0, 0.25, 0.5, 0.75, 1.0):
        config = choose("architecture", "repavit", **SIZES, idle_ratio=ratio).config
        mlp = FusedMlp(12, config.active, torch.nn.GELU())
        with FlopCounterMode(display=False) as counter:
            mlp(torch.zeros(1, 1, 12))
        counts.append(counter.get_total_flops())
        assert counts[-1] == 2 * (12**2 + 2 * config.active * 12)
    assert counts == sorted(counts, reverse=True)


def test_active_units_are_counted_without_rounding_errors():
    for width, ratio, active in (
        (192, 0.9, 77),
        (768, 0.9, 308),
        (192, 0.7, 231),
        (192, 0.75, 192),
    ):
        assert (
            choose("architecture", "repavit", embed_dim=width, idle_ratio=ratio).config.active
            == active
        )


def test_the_activation_is_of_the_first_units_alone():
    mlp = IdleMlp(4, 8, 3, torch.nn.GELU(), 0.0).double().eval()
    tokens = torch.randn(2, 5, 4, dtype=torch.float64)
    hidden, active = mlp.fc1(tokens), torch.arange(8) < 3
    masked = torch.where(active, F.gelu(hidden), hidden)
    torch.testing.assert_close(mlp(tokens), mlp.fc2(mlp.norm(masked)))


def test_norms_count_over_all_tokens():
    _, model = trained()
    norm = model.blocks[0].norm2.train()
    tokens = torch.randn(3, 5, 12, dtype=torch.float64)
    rows = (norm(tokens) - norm.bias) / norm.weight
    torch.testing.assert_close(rows.mean((0, 1)), torch.zeros(12, dtype=torch.float64))
    expected = torch.ones(12, dtype=torch.float64)
    torch.testing.assert_close(rows.square().mean((0, 1)), expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_fused_is_refused():
    with pytest.raises(IncompatibleWeights, match="repavit_fusion needs a repavit, not vit"):
        fused_section(None, choose("architecture", "vit"))
    with pytest.raises(IncompatibleWeights, match="it is fused already"):
        fused_section(None, choose("architecture", "repavit", fused=True))
