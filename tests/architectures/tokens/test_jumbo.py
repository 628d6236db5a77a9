"""The jumbo token: its shared MLP, its published sizes, and what it does not depend on."""

import math
from copy import deepcopy

import pytest
import torch
from torch.func import functional_call

from reference import random_moves as drawn
from vitarium import create_model
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.registry import section

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "num_heads": 2, "depth": 3}


def build(**settings):
    """A float64 model none of whose weights is zero."""
    sizes = SIZES | {"jumbo_ratio": 2} | settings
    return drawn.scrambled(create_model("jumbo", num_classes=4, **sizes), 0).double()


def pixels(side=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 1, side, side, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("preset", "width", "published", "shared", "block"),
    [
        ("jumbo_pico_patch16_224", 96, 4_779_496, 2_657_088, 112_992),
        ("jumbo_nano_patch16_224", 128, 8_141_800, 4_722_432, 199_808),
        ("jumbo_tiny_patch16_224", 192, 17_520_616, 10_622_592, 447_168),
        ("jumbo_small_patch16_224", 384, 66_890_728, 42_478_848, 1_779_072),
        ("jumbo_base_patch16_224", 768, 131_407_336, 42_478_848, 7_092_480),
    ],
)
def test_parameters_are_as_many_as_published(preset, width, published, shared, block):
    with meta_device():
        model = create_model(preset)

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(model) == published - width  # whose class token is unused
    assert count(model.jumbo_mlp) == shared
    assert [count(each) for each in model.blocks] == [block] * 12


def test_the_shared_mlp_is_stored_once_also_in_a_copy():
    for model in (build(), deepcopy(build())):
        shared = [name for name in model.state_dict() if "jumbo_mlp" in name]
        assert shared == [f"jumbo_mlp.fc{n}.{part}" for n in (1, 2) for part in ("weight", "bias")]
        assert all(block._jumbo_mlp[0] is model.jumbo_mlp for block in model.blocks)


def test_gradients_of_the_shared_mlp_are_the_sum_over_blocks():
    model, images = build(), pixels()
    by_block = deepcopy(model)
    copies = []
    for block in by_block.blocks:
        copies.append(deepcopy(by_block.jumbo_mlp))
        block._jumbo_mlp = (copies[-1],)
    for each in (model, by_block):
        each(images).square().sum().backward()
    for name, weight in model.jumbo_mlp.named_parameters():
        summed = sum(mlp.get_parameter(name).grad for mlp in copies)
        assert torch.allclose(weight.grad, summed, rtol=1e-10)
        assert weight.grad.abs().max() > 0


def test_weights_put_in_from_outside_are_those_of_all_blocks():
    model, images = build(), pixels()
    changed = {"jumbo_mlp.fc2.weight": 2 * model.jumbo_mlp.fc2.weight}
    outputs = functional_call(model, changed, (images,))
    model.load_state_dict(changed, strict=False)
    assert torch.equal(outputs, model(images))


def test_outputs_start_alike_for_all_classes_and_images():
    model = create_model("jumbo", num_classes=7, **SIZES)
    assert torch.equal(model(torch.randn(3, 1, 8, 8)), torch.full((3, 7), -math.log(7)))


def test_a_block_is_attention_of_all_tokens_then_an_mlp_of_patches_and_one_of_the_wide_token():
    model = build()
    block, tokens = model.blocks[1], torch.randn(2, 6, 8, dtype=torch.float64)
    attended = tokens + block.attn(block.norm1(tokens))
    wide = torch.cat([attended[:, 0], attended[:, 1]], dim=1)  # token by token
    wide = wide + model.jumbo_mlp(block.norm3(wide))
    patches = attended[:, 2:] + block.mlp(block.norm2(attended[:, 2:]))
    expected = torch.stack([wide[:, :8], wide[:, 8:], *patches.unbind(1)], dim=1)
    assert torch.allclose(block(tokens), expected, atol=1e-12)


def test_parts_of_the_wide_token_see_each_other():
    block, tokens = build().blocks[0], torch.randn(1, 6, 8, dtype=torch.float64)
    changed = tokens.clone()
    changed[:, 1, 0] += 1
    attended, moved = (block.attn(block.norm1(each)) for each in (tokens, changed))
    assert (attended[:, 0] - moved[:, 0]).abs().max() > 1e-3


def test_without_its_mlp_the_wide_token_is_changed_by_attention_alone():
    model, tokens = build(), torch.randn(2, 6, 8, dtype=torch.float64)
    for parameter in model.jumbo_mlp.fc2.parameters():
        torch.nn.init.zeros_(parameter)
    block = model.blocks[0]
    attended = tokens + block.attn(block.norm1(tokens))
    assert torch.allclose(block(tokens)[:, :2], attended[:, :2], atol=1e-12)


def test_patches_exchanged_with_their_positions_change_nothing():
    model, images = build(), pixels()
    before = model(images)
    rows = images.unflatten(2, (2, 4)).unflatten(4, (2, 4))  # [batch, 1, rows, 4, columns, 4]
    model.pos_embed.data = model.pos_embed.data[:, [3, 1, 2, 0]]
    exchanged = rows.clone()
    exchanged[:, :, 0, :, 0], exchanged[:, :, 1, :, 1] = rows[:, :, 1, :, 1], rows[:, :, 0, :, 0]
    assert torch.allclose(model(exchanged.flatten(4).flatten(2, 3)), before, atol=1e-12)


def test_the_head_sees_the_wide_token_and_the_mean_patch_after_the_last_norm():
    model, images = build(), pixels()
    tokens = model.forward_features(images)
    features = torch.cat([tokens[:, 0], tokens[:, 1], tokens[:, 2:].mean(1)], dim=1)
    assert torch.allclose(model(images), model.head(features), atol=1e-12)
    assert torch.allclose(tokens, model.norm(tokens_before_norm(model, images)), atol=1e-12)


def tokens_before_norm(model, images):
    patches = model.patch_embed(images) + model.pos_embed
    return model.blocks(torch.cat([model.reg_token.expand(len(images), -1, -1), patches], dim=1))


def test_the_shared_mlp_runs_once_for_an_image_whatever_its_size():
    for side in (8, 16):
        model, shapes = build(img_size=side), []
        model.jumbo_mlp.register_forward_pre_hook(lambda _, x, to=shapes: to.append(x[0].shape))
        model(pixels(side))
        assert shapes == [(3, 16)] * 3


def test_stochastic_depth_reaches_the_wide_token():
    model = create_model("jumbo", num_classes=4, drop_path_rate=0.3, **SIZES)
    rates = [getattr(block.drop_path3, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0, 0.15, 0.3])


def test_registers_are_refused():
    with pytest.raises(InvalidConfig, match="reg_tokens stand where the jumbo token does"):
        section("architecture", {"name": "jumbo", "reg_tokens": 2})
