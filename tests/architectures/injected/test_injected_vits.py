"""ViTs with a side network: what it adds, and that it adds nothing at the start."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from reference.injected_models import NETWORKS, SIZES, built, images, scrambled
from reference.random_moves import random_moves
from vitarium import create_model
from vitarium.architectures.features import features
from vitarium.architectures.injected._declaration import MAPS
from vitarium.architectures.injected._pyramid import Maps
from vitarium.architectures.symmetries.base import moved
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("vit_adapter_tiny", 2_438_192),
        ("vit_adapter_small", 5_830_160),
        ("vit_adapter_base", 13_680_608),
        ("vit_adapter_large", 23_236_800),
        ("vit_comer_tiny", 3_211_232),
        ("vit_comer_small", 8_333_408),
        ("vit_comer_base", 22_335_872),
        ("vit_comer_large", 38_545_472),
        ("cellvta_large", 21_465_600),
        ("unirgb_ir_base", 8_904_400),
    ],
)
def test_side_networks_have_the_published_numbers_of_parameters(preset, parameters):
    with meta_device():
        side = create_model(preset).side
    scale = getattr(getattr(side, "read_out", None), "scale", torch.empty(0))
    assert count(side) - scale.numel() == parameters  # the scale is no part of the release


def test_parts_of_the_tiny_adapter_have_the_published_numbers_of_parameters():
    with meta_device():
        side = create_model("vit_adapter_tiny").side
    pyramid = count(side.stem) + count(side.pyramid) + count(side.read_out.fine)
    assert pyramid - side.pyramid.level_embed.numel() == 1_171_520
    assert count(side.injectors[0]) == 116_760
    assert count(side.extractors[0]) == 108_312
    assert count(side.last) == 2 * 108_312
    rest = 2_438_192 - 1_171_520 - 3 * 225_072 - 441_696
    assert (rest, 116_760 + 108_312) == (149_760, 225_072)  # deconvolution, norms, level embedding


def test_parts_of_unirgb_ir_have_the_published_numbers_of_parameters():
    with meta_device():
        side = create_model("unirgb_ir_base").side
    level_embed = side.pyramid.level_embed.numel()
    pool = count(side.first) + count(side.second) + count(side.fusion) + count(side.pyramid)
    assert (level_embed, pool - level_embed) == (2_304, 1_652_752)
    assert [count(gate) for gate in side.gates] == [1_180_416] * 3
    readings = [count(r) + g.numel() for r, g in zip(side.readings, side.gamma, strict=True)]
    assert readings == [927_024] * 4


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_at_the_start_it_is_the_plain_vit_of_the_same_seed_bit_by_bit(name, class_token):
    pooled = {} if class_token else {"class_token": False, "global_pool": "avg"}
    model = built(name, **pooled)
    names = ("img_size", "patch_size", "embed_dim", "depth", "num_heads")
    sizes = {key: SIZES[key] for key in names} | pooled
    sizes["init_values"] = NETWORKS[name].get("init_values")
    torch.manual_seed(0)
    plain = VisionTransformer(num_classes=3, **sizes).eval()
    own = model.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in plain.state_dict().items())
    batch = images(model)
    expected = plain(batch[:, :3])
    assert torch.equal(model(batch), expected)
    with torch.no_grad():
        gamma = [p for n, p in model.named_parameters() if n.endswith("gamma") and "side" in n]
        gamma[0].fill_(1.0)
    assert not torch.allclose(model(batch), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["vit_adapter", "vit_comer"])
def test_the_mean_of_the_maps_is_added_to_the_features(name):
    model = built(name)
    batch = images(model)
    before = features(model, batch)
    with torch.no_grad():
        model.side.read_out.scale.fill_(0.5)
        added = []
        model.side.read_out.register_forward_hook(lambda m, inputs, out: added.append(out))
        after = features(model, batch)
    assert torch.allclose(after, before + added[0], atol=1e-6)
    assert added[0].abs().min() > 0


@pytest.mark.parametrize("name", ["vit_adapter", "vit_comer"])
def test_without_reading_the_maps_parts_for_them_alone_are_left_out(name):
    model = built(name, read_maps=False)
    model(images(model)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert count(model) < count(built(name))


@pytest.mark.parametrize(("size", "stride"), [(64, 4), (32, 2), (16, 1)])
def test_maps_are_as_many_tokens_as_21_of_the_coarsest(size, stride):
    model = built("vit_adapter", img_size=size, stem_stride=stride)
    maps = model.side.start(images(model, size=size)).maps
    coarsest = (size // (8 * stride)) ** 2
    assert maps.tokens.shape[1] == 21 * coarsest
    assert maps.sizes[2] == (size // (8 * stride),) * 2


@pytest.mark.parametrize("name", NETWORKS)
def test_images_need_not_be_multiples_of_the_coarsest_map(name):
    model = scrambled(built(name, img_size=20))
    assert model(images(model, size=20)).isfinite().all()


def test_maps_are_their_tokens():
    maps = [torch.randn(2, 3, *size) for size in ((4, 2), (2, 1), (1, 1))]
    assert all(torch.equal(a, b) for a, b in zip(Maps.of(maps).apart(), maps, strict=True))
    centers = Maps.of(maps).centers
    assert torch.equal(centers[0], torch.tensor([0.25, 0.125]))
    assert torch.equal(centers[-1], torch.tensor([0.5, 0.5]))


def test_the_second_modality_reaches_the_outputs_by_prompts_alone():
    model = built("unirgb_ir")
    batch = images(model)
    changed = batch.clone()
    changed[:, 3] += 1
    assert torch.equal(model(batch), model(changed))
    scrambled(model)
    assert not torch.allclose(model(batch), model(changed), atol=1e-3)


@torch.no_grad()
def test_prompts_are_updated_by_a_gate_of_channels():
    model = scrambled(built("unirgb_ir").double())
    side, batch = model.side, images(model, dtype=torch.float64)
    state = side.start(batch)
    patches = Maps(torch.randn(2, 16, 24, dtype=torch.float64), ((4, 4),))
    first, state = side.inject(0, patches, state)
    last = state.prompt
    assert torch.allclose(first, patches.tokens + last)
    read = side.readings[1](patches.tokens, patches.centers, state.maps) * side.gamma[1]
    gate = side.gates[0](torch.cat([read.mean(1), last.mean(1)], 1)).sigmoid()[:, None]
    second, _ = side.inject(1, patches, state)
    assert torch.allclose(second, patches.tokens + gate * read + (1 - gate) * last)


@torch.no_grad()
def test_modalities_are_fused_by_shares_of_each_pixel():
    fusion = built("unirgb_ir").side.fusion
    same = torch.randn(2, 4, 5, 5)
    for second, first in zip(fusion.second, fusion.first, strict=True):
        second.load_state_dict(first.state_dict())
    expected = torch.cat([c(x) for c, x in zip(fusion.first, same.chunk(4, 1), strict=True)], 1)
    assert torch.allclose(fusion(same, same), expected, atol=1e-6)


def test_timms_intermediates_are_refused():
    model = built("vit_adapter")
    with pytest.raises(NotImplementedError, match="hooks"):
        model.forward_intermediates(images(model))


@pytest.mark.parametrize(
    ("name", "settings", "has_maps_of_its_own"),
    [
        ("vit_adapter", {"read_maps": False}, True),
        ("vit_adapter", {}, False),
        ("cellvta", {"read_maps": True}, False),
        ("vit_comer", {}, False),
        ("unirgb_ir", {}, True),
    ],
)
def test_permutations_of_the_declared_units_keep_the_function(name, settings, has_maps_of_its_own):
    model = scrambled(built(name, **settings)).double()
    batch = images(model, dtype=torch.float64)
    symmetries = registry.get("architecture", name).facts["symmetries"](model)
    assert (MAPS in symmetries.groups) == has_maps_of_its_own
    with torch.no_grad():
        expected = model(batch)
        moves = random_moves(symmetries, torch.Generator().manual_seed(0), mix=True)
        model.load_state_dict(moved(symmetries, model.state_dict(), moves))
        assert torch.allclose(model(batch), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vit_adapter", {"depth": 3}, "depth 3 is not divisible by interactions 2"),
        ("vit_adapter", {"side_heads": 5}, "embed_dim 24 times side_ratio 1 is not divisible by side_heads 5"),
        ("vit_comer", {"embed_dim": 18}, "embed_dim 18 is not divisible by 4"),
        ("unirgb_ir", {"in_chans": 3, "second_modality_channels": 3}, "leave nothing to the first"),
        ("unirgb_ir", {"stem_width": 6}, "stem_width 6 is not divisible by 4"),
        ("cellvta", {"stem_stride": 3}, "stem_stride"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(name, settings, message):
    with pytest.raises(InvalidConfig, match=message):
        built(name, **settings)
