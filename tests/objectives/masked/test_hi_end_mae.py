"""Hi-End-MAE: the loss by its definition in shuffled order, and who sees which level."""

import pytest
import torch
from torch.nn import functional as F

from reference.masked_autoencoders import attend, linear, mlp, norm, self_attention
from vitarium.architectures.create import create_model
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.objectives.masked.base import encode_visible
from vitarium.objectives.masked.hi_end_mae import CrossBlock

TAPS = {"taps": (0, 1)}


def cross_block(weights, name, x, level, heads):
    x = x + self_attention(weights, f"{name}.attn", norm(weights, f"{name}.norm0", x), heads)
    queries = linear(weights, f"{name}.cross_attn.q", norm(weights, f"{name}.norm1", x))
    keys, values = linear(weights, f"{name}.cross_attn.kv", level).chunk(2, dim=-1)
    x = x + linear(weights, f"{name}.cross_attn.proj", attend(queries, keys, values, heads))
    return x + mlp(weights, f"{name}.mlp", norm(weights, f"{name}.norm2", x))


def by_definition(reference, image, ids_shuffle, visible):
    """Never unshuffled before the loss, as the paper's code; the deepest level comes first."""
    encoded, outputs = reference.encode(image, ids_shuffle[:visible])
    x = reference.decode(reference.shuffled_tokens(encoded, ids_shuffle))
    for number, tap in enumerate((1, 0)):
        level = linear(reference.decoder, f"decoder.embed_levels.{number}", outputs[tap])
        name = f"decoder.cross_blocks.{number}"
        x = cross_block(reference.decoder, name, x, level, reference.decoder_heads)
    predicted = reference.predict(x, ids_shuffle)
    return reference.loss(image, predicted, ids_shuffle[visible:], correction=0)


@pytest.mark.parametrize("architecture", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}])  # fmt: skip
def test_the_loss_is_its_definition_in_shuffled_order(setup, architecture):
    hi_end = setup("hi_end_mae", architecture, **TAPS)
    expected = hi_end.mean_over_images(by_definition)
    assert hi_end.loss().value.item() == pytest.approx(expected, rel=2e-5)


def decoded(hi_end):
    """The decoder, and what it is called with: tokens, masks and levels."""
    with torch.no_grad():
        encoded, levels = encode_visible(
            hi_end.objective.config, hi_end.model, hi_end.batch, hi_end.companions.taps
        )
    return hi_end.companions.decoder, encoded, hi_end.batch.masks, levels


def test_a_shallow_level_changes_only_what_comes_after_the_deeper_ones(setup):
    decoder, encoded, masks, levels = decoded(setup("hi_end_mae", taps=(0, 1, 2)))
    outputs = []
    for block in decoder.cross_blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    decoder(encoded, masks, levels)
    decoder(encoded, masks, [torch.randn_like(levels[0]), *levels[1:]])
    before, after = outputs[:3], outputs[3:]
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[2], after[2])


def test_the_order_of_a_levels_tokens_does_not_matter(setup):
    decoder, encoded, masks, levels = decoded(setup("hi_end_mae", **TAPS))
    permuted = [level[:, torch.randperm(level.shape[1])] for level in levels]
    torch.testing.assert_close(decoder(encoded, masks, permuted), decoder(encoded, masks, levels))


def test_without_its_output_cross_attention_leaves_ordinary_blocks(setup):
    decoder, encoded, masks, levels = decoded(setup("hi_end_mae", **TAPS))
    for block in decoder.cross_blocks:
        for parameter in block.cross_attn.proj.parameters():
            parameter.data.zero_()
    tokens = decoder.start(encoded, masks)
    for block in decoder.blocks:
        tokens = block(tokens)
    for block in decoder.cross_blocks:
        tokens = tokens + block.attn(block.norm0(tokens))
        tokens = tokens + block.mlp(block.norm2(tokens))
    torch.testing.assert_close(
        decoder(encoded, masks, levels), decoder.pixels(tokens), rtol=0, atol=0
    )


def test_a_level_learns_through_its_cross_block_alone(setup):
    decoder, encoded, masks, levels = decoded(setup("hi_end_mae", **TAPS))
    levels = [level.requires_grad_(True) for level in levels]
    decoder(encoded, masks, levels).pow(2).sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in levels)


def test_targets_are_normalized_by_the_biased_variance(setup):
    hi_end = setup("hi_end_mae", **TAPS)
    for parameter in hi_end.companions.decoder.predict.parameters():
        parameter.data.zero_()
    assert hi_end.loss().value.item() == pytest.approx(1, rel=1e-4)
    plain = setup("hi_end_mae", normalize_targets=False, **TAPS)
    for parameter in plain.companions.decoder.predict.parameters():
        parameter.data.zero_()
    images, hidden = plain.batch.images, plain.batch.masks.unflatten(1, (1, 4, 4)).float()
    weight = F.interpolate(hidden, scale_factor=4).expand_as(images)
    expected = (images**2 * weight).sum() / weight.sum()
    torch.testing.assert_close(plain.loss().value, expected)


def companions(depth, width=12, **settings):
    objective = section("objective", {"name": "hi_end_mae", **settings})
    with meta_device():
        model = create_model("vit", img_size=224, patch_size=16, embed_dim=width, depth=depth, num_heads=3, num_classes=0)  # fmt: skip
        return objective.facts["companions"](objective.config, model, 10)


def test_there_are_as_many_parameters_as_published():
    decoder = companions(12, 768).decoder
    assert sum(p.numel() for p in decoder.parameters()) == 20_887_296
    assert sum(p.numel() for p in decoder.blocks[0].parameters()) == 3_152_384
    assert sum(p.numel() for p in CrossBlock(512, 16).parameters()) == 4_204_032


@pytest.mark.parametrize(("depth", "taps"), [(12, (3, 6, 9)), (24, (6, 13, 19)), (6, (1, 3, 4)), (2, (0, 1)), (1, (0,))])  # fmt: skip
def test_taps_of_other_depths_are_those_of_the_same_relative_depth(depth, taps):
    assert companions(depth).taps == taps


@pytest.mark.parametrize(
    ("taps", "message"),
    [((1, 4), "no block 4, the last is 3"), ((2, 1), "have to rise"), ((), "needs a block to attend")],
)  # fmt: skip
def test_taps_that_are_not_there_are_refused(taps, message):
    with pytest.raises(InvalidInput, match=message):
        companions(4, taps=taps)
