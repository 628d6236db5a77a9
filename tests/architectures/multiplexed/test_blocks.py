"""Shared weights: what a model with them equals, and that they exist once."""

import copy

import pytest
import torch
from torch import nn

from vitarium import create_model

EXACT = {"rtol": 0, "atol": 1e-12}
POSITIONS = {"method": "cross", "on": ["q", "k", "v"], "shared_heads": False}
EVERYTHING = {"convolution": 3, "init_values": 0.5, "relative_positions": POSITIONS}


def made_plain(model):
    """Set what is each block's own to what does nothing."""
    with torch.no_grad():
        for block in model.blocks:
            for mixing in (block.attn.before, block.attn.after):
                mixing.weight.copy_(torch.eye(len(mixing.weight)))
            for table in block.attn.positions.parameters() if block.attn.positions else ():
                table.zero_()
            if not isinstance(block.local, nn.Identity):
                for parameter in block.local.convolution.parameters():
                    parameter.zero_()
    return model


def agree(one, other, images):
    with torch.no_grad():
        found, expected = one(images), other(images)
    assert expected.std() > 0.01
    return torch.allclose(found, expected, **EXACT)


@pytest.mark.parametrize("share", [1, 2, "all", (1, 3)])
def test_with_identity_mixing_and_zeros_it_is_timms_model_with_equal_blocks(reference, share):
    model = made_plain(reference.made(share=share, **EVERYTHING))
    assert agree(model, reference.plain(model), reference.images(model))


@pytest.mark.parametrize(
    "settings",
    [
        {"class_token": True, "global_pool": "token"},
        {"class_token": True, "global_pool": "token", "reg_tokens": 2},
        {"class_token": True, "global_pool": "avg"},
        {"reg_tokens": 1, "fc_norm": True},
        {"separate_norms": False},
        {"separate_norms": False, "norm_eps": 0.01, "act_layer": "silu"},
        {"qkv_bias": False, "mlp_ratio": 2.6, "in_chans": 1, "act_layer": "quick_gelu"},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_it_is_timms_model_with_any_tokens_pooling_norms_and_layers(reference, settings):
    model = made_plain(reference.made(convolution=3, **settings))
    assert agree(model, reference.plain(model), reference.images(model))


def test_the_identity_is_a_start_from_which_all_are_plain(reference):
    torch.manual_seed(0)
    identity = {"mixing_init": "identity", **EVERYTHING, **reference.SMALL}
    model = create_model("mini_deit", num_classes=10, **identity).double().eval()
    for parameter in (model.pos_embed, model.head.weight):
        nn.init.normal_(parameter)
    assert agree(model, reference.plain(model), reference.images(model))


def test_from_the_authors_start_it_is_another_model(reference):
    torch.manual_seed(0)
    model = create_model("mini_deit", num_classes=10, **reference.SMALL).double().eval()
    nn.init.normal_(model.head.weight)
    found, plain = (one(reference.images(model)) for one in (model, reference.plain(model)))
    assert (found - plain).abs().max() > 1e-3


def test_logits_are_those_of_the_papers_equations(reference):
    model = reference.made(share=(1, 3), img_size=24)
    images = reference.images(model)
    expected = torch.stack([reference.by_formula(model, image) for image in images])
    with torch.no_grad():
        assert torch.allclose(model(images), expected, **EXACT)


@pytest.mark.parametrize("share", [2, (1, 3), "all"])
@pytest.mark.parametrize("separate_norms", [True, False])
def test_a_shared_gradient_is_the_sum_over_the_untied_copies(reference, share, separate_norms):
    model = reference.made(share=share, separate_norms=separate_norms, **EVERYTHING)
    copies, images = reference.untied(model), reference.images(model)
    target = torch.randn(2, 10, dtype=torch.float64)
    for one in (model, copies):
        (one(images) * target).sum().backward()
    untied = {name: parameter.grad for name, parameter in copies.named_parameters()}
    block = 0
    for group, size in enumerate(model.group_sizes):
        own = f"shared.{group}."
        for name, parameter in model.shared[group].named_parameters():
            parts = [untied.pop(f"shared.{block + k}.{name}") for k in range(size)]
            scale = max(part.abs().max() for part in parts)
            assert scale > 0, own + name
            assert torch.allclose(parameter.grad, sum(parts), rtol=0, atol=1e-12 * scale)
        block += size
    for name, expected in untied.items():
        found = model.get_parameter(name).grad
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12 * expected.abs().max()), name


def test_permuting_heads_with_rows_and_columns_of_the_mixing_changes_nothing(reference):
    model = reference.made(share="all", **EVERYTHING)
    other, order = copy.deepcopy(model), torch.tensor([2, 0, 1])
    within = torch.arange(24).reshape(3, 8)[order].flatten()
    with torch.no_grad():
        attn = other.shared[0].attn
        for tensor in (attn.qkv.weight, attn.qkv.bias):
            tensor.copy_(tensor.unflatten(0, (3, 24))[:, within].flatten(0, 1))
        attn.proj.weight.copy_(attn.proj.weight[:, within])
        for block in other.blocks:
            for table in block.attn.positions.parameters():  # [heads, ...]
                table.copy_(table[order])
        unmixed = copy.deepcopy(other)
        for block in other.blocks:
            for mixing in (block.attn.before, block.attn.after):
                mixing.weight.copy_(mixing.weight[order][:, order])
    images = reference.images(model)
    assert agree(other, model, images)
    assert not agree(unmixed, model, images)


@pytest.mark.parametrize("positions", [True, False])
def test_only_positions_tell_patches_apart(reference, positions):
    none = {} if positions else {"relative_positions": None}
    model = reference.made(global_pool="avg", **none)
    with torch.no_grad():
        model.pos_embed.zero_()
    images = reference.images(model)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4)  # [batch, c, 8, 8, 4, 4]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    moved = patches.flatten(2, 3)[:, :, order].unflatten(2, (8, 8))
    moved = moved.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    assert agree(model, lambda _: model(moved), images) != positions


def test_each_shared_matrix_is_one_parameter_and_one_tensor_of_the_state(reference):
    model = reference.made(**EVERYTHING)
    large = [n for n, p in model.named_parameters() if p.ndim == 2 and p.numel() >= 24 * 24]
    assert len([name for name in large if name.startswith("shared.")]) == 4 * 2
    assert not [name for name in large if name.startswith("blocks.")]
    state = model.state_dict()
    assert set(state) == {name for name, _ in model.named_parameters()}
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert model.blocks[0].attn.qkv.lender is model.blocks[1].attn.qkv.lender
    assert model.blocks[1].attn.qkv.lender is not model.blocks[2].attn.qkv.lender


def test_its_state_loads_into_another_one(reference):
    model, other = reference.made(**EVERYTHING), reference.made(seed=1, **EVERYTHING)
    images = reference.images(model)
    assert not agree(other, model, images)
    other.load_state_dict(model.state_dict(), strict=True)
    assert agree(other, model, images)
    other.load_state_dict({n: t.clone() for n, t in model.state_dict().items()}, assign=True)
    assert agree(other, model, images)


def test_a_copy_shares_inside_itself_and_nothing_with_the_original(reference):
    model = reference.made()
    images = reference.images(model)
    before = model(images)
    other = copy.deepcopy(model)
    assert len(list(other.parameters())) == len(list(model.parameters()))
    for number in (0, 1):
        assert other.blocks[number].attn.qkv.lender is other.shared[0].attn.qkv
        assert other.blocks[number].mlp.lender is other.shared[0].mlp
    with torch.no_grad():
        other.shared[0].mlp.fc1.weight.zero_()
    assert torch.equal(model(images), before)
    assert not torch.equal(other(images), before)


def test_an_optimiser_keeps_a_shared_matrix_once(reference):
    model = reference.made()
    optimizer = torch.optim.AdamW(model.parameters())
    model(reference.images(model)).sum().backward()
    optimizer.step()
    kept = sum(state["exp_avg"].numel() for state in optimizer.state.values())
    assert kept == sum(parameter.numel() for parameter in model.parameters())
    assert sum(p is model.shared[0].attn.qkv.weight for p in optimizer.state) == 1


def test_the_use_of_a_shared_matrix_can_be_watched_in_each_block(reference):
    model = reference.made(share="all")
    found = {}
    for number, block in enumerate(model.blocks):
        for name in ("attn.qkv", "attn.proj", "mlp"):
            block.get_submodule(name).register_forward_hook(
                lambda _, __, output, place=(number, name): found.update({place: output})
            )
    model(reference.images(model))
    assert len(found) == 4 * 3
    assert not torch.equal(found[0, "attn.qkv"], found[1, "attn.qkv"])


def test_a_block_runs_by_itself_whatever_ran_before(reference):
    model = reference.made(share="all")
    tokens = torch.randn(2, 64, 24, dtype=torch.float64)
    alone = [block(tokens) for block in model.blocks]
    model(reference.images(model))
    for block, earlier in reversed(list(zip(model.blocks, alone, strict=True))):
        assert torch.equal(block(tokens), earlier)


@pytest.mark.parametrize(
    "rate", ["pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "drop_rate"]
)
def test_every_rate_drops_in_training_alone(reference, rate):
    model = reference.made(**{rate: 0.5})
    images = reference.images(model)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))
    without = reference.made()
    without.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(images), without(images))


def test_stochastic_depth_rises_over_the_blocks_whatever_they_share(reference):
    model = reference.made(share="all", drop_path_rate=0.3)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
