"""Mini-DeiT: the published counts, timm's conveniences, and compiling."""

import copy

import pytest
import torch
from timm.models import group_parameters
from torch import nn

from vitarium import create_model
from vitarium.core.devices import meta_device

WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
ONLY_SHARING = {
    "class_token": True,
    "global_pool": "token",
    "relative_positions": None,
    "mix_before": False,
    "mix_after": False,
}


def count(name="mini_deit", **settings):
    with meta_device():
        return sum(p.numel() for p in create_model(name, **settings).parameters())


# Parameters


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("mini_deit_tiny_patch16_224", 3_090_304),
        ("mini_deit_small_patch16_224", 11_450_824),
        ("mini_deit_base_patch16_224", 44_098_408),
        ("mini_deit_base_patch16_384", 44_390_248),
        ("mini_deit_base_single_patch16_224", 8_674_408),
    ],
)
def test_presets_have_the_published_numbers_of_parameters(preset, parameters):
    assert count(preset) == parameters


@pytest.mark.parametrize(
    ("width", "share", "parameters"),
    [
        ("tiny", 3, 2_202_112),
        ("tiny", 4, 1_758_016),
        ("tiny", 6, 1_313_920),
        ("tiny", 12, 869_824),
        ("small", 3, 7_904_968),
        ("small", 4, 6_132_040),
        ("small", 6, 4_359_112),
        ("small", "all", 2_586_184),
        ("base", 3, 29_928_808),
        ("base", 4, 22_844_008),
        ("base", 6, 15_759_208),
    ],
)
def test_a_sweep_of_sharing_has_the_released_codes_numbers(width, share, parameters):
    assert count(f"mini_deit_{width}_patch16_224", share=share) == parameters


@pytest.mark.parametrize(
    ("width", "share", "parameters"),
    [
        ("base", 12, 8_634_856),
        ("base", 2, 44_058_856),
        ("small", 2, 11_413_096),
        ("tiny", 2, 3_052_840),
    ],
)
def test_sharing_with_separate_norms_alone_has_the_released_codes_numbers(width, share, parameters):
    assert count(f"mini_deit_{width}_patch16_224", share=share, **ONLY_SHARING) == parameters


@pytest.mark.parametrize("width", WIDTHS)
def test_without_sharing_and_what_each_block_adds_it_is_as_large_as_the_plain_model(width):
    dim, heads = WIDTHS[width]
    plain = count("vit", embed_dim=dim, num_heads=heads)
    assert count(f"mini_deit_{width}_patch16_224", share=1, **ONLY_SHARING) == plain


def test_a_small_model_has_the_number_of_the_released_code(reference):
    assert count(num_classes=10, **reference.SMALL) == 19_290


def test_a_set_of_weights_costs_the_same_however_many_there_are():
    dim = 192
    counts = {sets: count(share=12 // sets) for sets in (1, 3, 12)}
    one_set = 12 * dim**2 + 9 * dim
    assert counts == {sets: counts[1] + (sets - 1) * one_set for sets in counts}
    assert count(share=[1, 2, 3, 6]) == counts[1] + 3 * one_set


def test_what_a_block_has_of_its_own_costs_what_it_says():
    whole = count()
    norms, maps = 4 * 192, 9
    assert whole - count(separate_norms=False) == 6 * norms
    assert whole - count(mix_before=False) == 12 * maps
    assert whole - count(mix_after=False) == 12 * maps
    assert whole - count(relative_positions=None) == 12 * 64 * 49
    assert count(convolution=7) - whole == 12 * 192 * (49 + 1 + 2)
    assert count(init_values=1e-5) - whole == 12 * 2 * 192


def test_a_convolution_of_five_gives_the_papers_ratio_of_one_set():
    """The paper says 9.7; without the convolution it is 9.98."""
    single = count("mini_deit_base_single_patch16_224", convolution=5)
    bias_and_norm = 12 * 768 * 3
    assert count("vit", embed_dim=768, num_heads=12) / (single - bias_and_norm) == pytest.approx(
        9.72, abs=0.005
    )


# timm's conveniences


@pytest.fixture
def model(reference):
    tokens = {"class_token": True, "reg_tokens": 1, "global_pool": "token"}
    return reference.made(share=(1, 3), convolution=3, **tokens)


def test_intermediates_are_the_blocks_outputs(model, reference):
    found = {}
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, out, number=number: found.update({number: out}))
    images = reference.images(model)
    last, maps = model.forward_intermediates(images, indices=[0, 3])
    for number, each in zip((0, 3), maps, strict=True):
        assert torch.equal(each.flatten(2).mT, found[number][:, 2:])
    assert torch.equal(last, model.norm(found[3]))
    assert [info["module"] for info in model.feature_info] == [f"blocks.{i}" for i in range(4)]
    assert {(info["num_chs"], info["reduction"]) for info in model.feature_info} == {(24, 4)}


def test_the_classifier_is_had_and_replaced(model, reference):
    assert model.get_classifier() is model.head
    model.reset_classifier(3)
    assert model.double()(reference.images(model)).shape == (2, 3)
    model.reset_classifier(0, "avg")
    assert model(reference.images(model)).shape == (2, 24)


def test_no_weight_decay_names_parameters_that_there_are(model):
    names = {name for name, _ in model.named_parameters()}
    assert model.no_weight_decay() & names == {"pos_embed", "cls_token", "reg_token"}


def test_gradients_with_checkpointing_are_those_without(model, reference):
    images = reference.images(model)
    model(images).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing()
    model.train()(images).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-12, atol=1e-14), name


def test_rates_by_depth_take_shared_weights_with_their_first_block(model):
    groups = group_parameters(model, model.group_matcher())
    of = {name: number for number, names in groups.items() for name in names}
    assert set(of) == {name for name, _ in model.named_parameters()}
    assert of["shared.0.mlp.fc1.weight"] == of["blocks.0.norm1.weight"] == 1
    assert of["shared.1.mlp.fc1.weight"] == of["blocks.1.norm1.weight"] == 2
    assert of["blocks.3.norm1.weight"] == 4
    assert of["pos_embed"] == 0


def test_pruned_blocks_take_the_weights_that_they_alone_used_with_them(model, reference):
    images = reference.images(model)
    expected = model.forward_intermediates(images, indices=[0], intermediates_only=True)
    model.prune_intermediate_layers([0])
    found = model.forward_intermediates(images, indices=[0], intermediates_only=True)
    assert torch.equal(found[0], expected[0])
    assert (len(model.blocks), len(model.shared)) == (1, 1)


def test_an_attention_mask_is_refused(model, reference):
    with pytest.raises(TypeError, match="attn_mask"):
        model(reference.images(model), attn_mask=torch.zeros(66, 66, dtype=torch.float64))


def test_a_state_loads_at_another_size_with_only_the_position_embedding_changed(reference):
    small, large = (reference.made(img_size=size, convolution=3) for size in (32, 48))
    own, other = small.state_dict(), large.state_dict()
    assert {name for name in own if own[name].shape != other[name].shape} == {"pos_embed"}
    images = reference.images(large)
    small.set_input_size(48)
    large.load_state_dict(small.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(small(images), large(images))
    assert all(torch.equal(own[n], t) for n, t in small.state_dict().items() if n != "pos_embed")


def test_after_a_change_of_size_blocks_train_the_same_parameters(reference):
    model = reference.made(convolution=3)
    before = dict(model.named_parameters())
    model.set_input_size(24)
    model(torch.randn(2, 3, 24, 24, dtype=torch.float64)).sum().backward()
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(parameter.grad is not None for parameter in after.values())


def test_compiled_it_gives_the_same_outputs_and_gradients(reference):
    model = reference.made(share="all", depth=2, img_size=16, convolution=3)
    other = copy.deepcopy(model)
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    images = reference.images(model)
    for one in (model, compiled):
        nn.functional.cross_entropy(one(images), torch.tensor([1, 2])).backward()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12), name
