"""DualToken-ViT: local and global tokens, step by step."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reference.built_models import change_by_symmetries
from vitarium import create_model
from vitarium.architectures.tokens._dual_token_parts import Broadcast, Gate
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.registry import get

TINY = {"img_size": 32, "widths": (8, 12), "depths": (1, 2), "num_heads": (2, 3),
        "mlp_ratios": (2, 2), "global_side": 2, "stem_stride": 2}  # fmt: skip


def built(**settings):
    torch.manual_seed(0)
    model = create_model("dual_token", num_classes=3, **{**TINY, **settings}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(size=32):
    stream = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, size, size, generator=stream, dtype=torch.float64)


def test_the_defaults_have_three_stages_that_reduce_to_49_tokens():
    with meta_device():
        model = create_model("dual_token")
    assert [len(stage.blocks) for stage in model.stages] == [2, 6, 6]
    assert [len(stage.blocks[0].steps) for stage in model.stages] == [2, 1, 0]
    assert model.global_tokens.shape == (49, 64)


def test_global_tokens_are_as_many_after_every_stage():
    model, shapes = built(), []
    for stage in model.stages:
        stage.register_forward_hook(lambda module, inputs, out: shapes.append(out[1].shape))
    model(images())
    assert shapes == [(2, 4, 8), (2, 4, 12)]


def test_equal_global_tokens_add_one_vector_to_all_tokens():
    torch.manual_seed(0)
    broadcast = Broadcast(8, 2).double()
    tokens, token = torch.randn(2, 9, 8).double(), torch.randn(2, 1, 8).double()
    added = broadcast(tokens, token.expand(-1, 4, -1))
    assert torch.allclose(added, added[:, :1].expand_as(added))
    assert added.abs().max() > 0.01


def test_the_cost_of_the_broadcast_is_linear_in_the_tokens():
    broadcast, costs = Broadcast(8, 2), []
    for count in (16, 32, 64):
        counter = FlopCounterMode(display=False)
        with counter:
            broadcast(torch.randn(1, count, 8), torch.randn(1, 4, 8))
        costs.append(counter.get_total_flops())
    assert costs[2] - costs[1] == 2 * (costs[1] - costs[0]) > 0


@torch.no_grad()
def test_global_tokens_are_a_weighted_mean_through_their_mlp():
    block = built().stages[1].blocks[0]
    maps, own = torch.randn(2, 12, 8, 8).double(), torch.randn(2, 4, 12).double()
    reduced = maps
    for depthwise, norm, _, _ in block.steps:
        mixed = F.conv2d(reduced, depthwise.weight, padding=1, groups=12)
        spread = (norm.running_var + norm.eps).sqrt()[:, None, None]
        mixed = (mixed - norm.running_mean[:, None, None]) / spread
        mixed = F.gelu(mixed * norm.weight[:, None, None] + norm.bias[:, None, None])
        reduced = mixed.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
    tokens = reduced.flatten(2).mT
    tokens = tokens + block.attn(block.norm1(tokens))
    first, second = block.shares.exp() / block.shares.exp().sum()
    expected = first * tokens + second * own
    expected = expected + block.global_mlp(block.global_norm(expected))
    assert torch.allclose(block.refined(maps, own), expected)


@torch.no_grad()
def test_the_gate_is_a_factor_of_channels_times_one_of_tokens():
    torch.manual_seed(0)
    gate, tokens = Gate(8).double(), torch.randn(2, 5, 8).double()
    factors = gate(tokens) / tokens
    of_channels, of_tokens = factors[:, :1], factors[:, :, :1]
    assert torch.allclose(factors * factors[:, :1, :1], of_channels * of_tokens)
    normed = F.layer_norm(tokens, (8,), gate.norm.weight, gate.norm.bias)
    mean = F.gelu(normed.mean(1) @ gate.of_mean.weight.T + gate.of_mean.bias)
    channel = torch.sigmoid(mean @ gate.channels.weight.T + gate.channels.bias)
    each = F.gelu(normed[:, 3] @ gate.of_token.weight.T + gate.of_token.bias)
    token = torch.sigmoid(torch.cat([each, mean], 1) @ gate.tokens.weight.T + gate.tokens.bias)
    assert torch.allclose(factors[:, 3], channel * token)


@torch.no_grad()
def test_merging_is_of_two_by_two_cells():
    merge = built().stages[1].merge
    maps, own = torch.randn(2, 8, 4, 4).double(), torch.randn(2, 4, 8).double()
    merged, of_global = merge(maps, own)
    corner = maps[:, :, 2:, :2]
    cells = corner.flatten(2).flatten(1)  # channel by channel, row by row
    expected = merge.reduction(merge.norm(cells)) + merge.residual(corner.amax((2, 3)))
    assert torch.allclose(merged[:, :, 1, 0], expected)
    assert torch.allclose(of_global, merge.proj(merge.global_norm(own)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"img_size": 24}, "img_size 24 is not 8 .* times a power of 2"),
        ({"depths": (1,)}, "depths are of 1 stages, and widths of 2"),
        ({"num_heads": (3, 3)}, "width 8 has to be even, and divisible by its num_heads 3"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        built(**settings)


@pytest.mark.parametrize("stride", [2, 1])
def test_its_symmetries_change_no_output(stride):
    model = built(stem_stride=stride)
    change, moved_weights = change_by_symmetries("dual_token", model, images())
    assert change < 1e-12
    assert moved_weights > 0.9 * len(list(model.parameters()))


def test_streams_of_stages_heads_and_gates_can_be_exchanged():
    groups = get("architecture", "dual_token").facts["symmetries"](built()).groups
    sizes = {name: group.size for name, group in groups.items()}
    assert (sizes["stem.hidden"], sizes["stages.0.stream"], sizes["stages.1.stream"]) == (4, 8, 12)
    at = "stages.1.blocks.1"
    heads = [sizes[f"{at}.{part}.heads"] for part in ("attn", "broadcast")]
    channels = [sizes[f"{at}.broadcast.{part}"] for part in ("qk", "vo")]
    gates = [sizes[f"{at}.mlp.gate.{part}"] for part in ("of_mean", "of_token")]
    assert (heads, channels, gates) == ([3, 3], [4, 4], [3, 3])
    headless = create_model("dual_token", num_classes=0, **TINY)
    without = get("architecture", "dual_token").facts["symmetries"](headless).groups
    assert groups.keys() - without.keys() == {"stages.1.stream"}
