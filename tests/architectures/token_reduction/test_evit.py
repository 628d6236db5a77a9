"""EViT, beside what its formulas give step by step."""

import math

import pytest
import torch

from vitarium.architectures.patch_tokens import require_plain
from vitarium.architectures.token_reduction.evit import kept_count
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose

SIZES = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "num_heads": 2}


def pair(**settings):
    """EViT and the `vit` of the same weights, and images."""
    torch.manual_seed(0)
    sizes = {**SIZES, "depth": 2}
    plain = choose("architecture", "vit", **sizes)(3).eval()
    for tensor in plain.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    reduced = choose("architecture", "evit", **sizes, **settings)(3).eval()
    reduced.load_state_dict(plain.state_dict())
    return plain, reduced, torch.randn(4, 1, 16, 16)


def by_hand(model, images, count, fuse):
    """One image at a time, with one reducing block, the last."""
    outputs = []
    for image in images:
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))
        tokens = model.blocks[0](tokens)
        block = model.blocks[1]
        width, heads = 24, 2
        qkv = block.attn.qkv(block.norm1(tokens))[0]
        rows = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            q, k = qkv[:, :width][:, part], qkv[:, width : 2 * width][:, part]
            rows.append(torch.softmax(k @ q[0] / math.sqrt(width // heads), 0))
        attention = torch.stack(rows).mean(0)[1:]
        tokens = tokens + block.attn(block.norm1(tokens))
        order = sorted(range(16), key=lambda patch: -attention[patch])
        reduced = [tokens[0, 0], *(tokens[0, 1 + patch] for patch in order[:count])]
        if fuse:
            reduced.append(sum(attention[patch] * tokens[0, 1 + patch] for patch in order[count:]))
        tokens = torch.stack(reduced)[None]
        tokens = tokens + block.mlp(block.norm2(tokens))
        outputs.append(model.forward_head(model.norm(tokens)))
    return torch.cat(outputs)


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("fuse", [True, False])
def test_patches_go_on_by_the_class_tokens_attention(fuse, pool):
    sizes = {**SIZES, "depth": 2, "global_pool": pool}
    settings = {"keep_rate": 0.4, "reducing_blocks": [1], "fuse": fuse}
    torch.manual_seed(1)
    model = choose("architecture", "evit", **sizes, **settings)(3).eval().double()
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.3)
    images = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        # the class attention is computed in float32
        torch.testing.assert_close(
            model(images), by_hand(model, images, 7, fuse), atol=1e-6, rtol=1e-5
        )


def test_a_keep_rate_of_one_is_the_vit_bit_by_bit():
    plain, reduced, images = pair(keep_rate=1.0)
    assert torch.equal(plain(images), reduced(images))


def test_where_rounding_leaves_all_nothing_is_done():
    plain, reduced, images = pair(keep_rate=0.95)  # ceil(15.2) of 16
    assert kept_count(16, 0.95) == 16
    assert torch.equal(plain(images), reduced(images))


def test_counts_have_no_errors_of_binary_fractions():
    assert kept_count(30, 0.1) == 3  # 0.1 * 3 * 10 > 3 in floating point
    assert kept_count(10, 0.7) == 7
    assert kept_count(196, 0.7) == 138


def test_outputs_are_the_same_for_patches_in_another_order():
    _, model, images = pair(keep_rate=0.5)
    order = torch.randperm(16)
    with torch.no_grad():
        expected = model(images)
        embedded = model._pos_embed(model.patch_embed(images))
        shuffled = torch.cat([embedded[:, :1], embedded[:, 1:][:, order]], dim=1)
        outputs = model.forward_head(model.norm(model.blocks(shuffled)))
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)


def test_a_random_choice_is_the_same_each_time_and_another_one_than_by_attention():
    _, by_attention, images = pair(keep_rate=0.5)
    _, model, _ = pair(keep_rate=0.5, ranking="random")
    assert torch.equal(model(images), model(images))
    assert torch.equal(model(images)[1:], model(images[1:]))
    assert not torch.allclose(model(images), by_attention(images))


def test_the_keep_rate_falls_by_a_cosine_while_training():
    config = choose("architecture", "evit", keep_rate=0.5, shrink_start=2, shrink_epochs=4).config
    rates = [config.rate_in(epoch) for epoch in range(1, 9)]
    half = math.sqrt(0.5) / 2
    expected = [1, 1, 1, (1.5 + half) / 2, 0.75, (1.5 - half) / 2, 0.5, 0.5]
    assert rates == pytest.approx(expected)


def test_the_schedule_counts_in_training_mode_alone():
    _, model, images = pair(keep_rate=0.5, shrink_epochs=2)
    plain = pair()[0]
    for block in model.blocks:
        block.at_epoch(1)
    torch.testing.assert_close(model.train()(images), plain(images))
    assert not torch.allclose(model.eval()(images), plain(images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_rate": 0}, "keep_rate"),
        ({"keep_rate": 1.1}, "keep_rate"),
        ({"class_token": False, "global_pool": "avg"}, "class token's attention"),
        ({"reducing_blocks": [1, 2]}, "reducing_blocks 2: there are blocks 0 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        choose("architecture", "evit", **SIZES, depth=2, **settings)


@pytest.mark.parametrize("name", ["evit", "tome", "mctf"])
def test_what_hides_patches_refuses_models_that_leave_some_out(name):
    model = choose("architecture", name, **SIZES, depth=2)(3)
    with pytest.raises(InvalidInput, match="mae needs"):
        require_plain(model, "mae")
