"""MAE: the loss by its definition, what it may depend on, and published numbers of parameters."""

import pytest
import torch
from torch.nn import functional as F

from reference.masked_autoencoders import positions_2d
from vitarium.architectures.create import create_model
from vitarium.architectures.features import features
from vitarium.architectures.patch_tokens import (
    embed,
    encode,
    patch_pixels,
    sin_cos_positions,
    visible_patches,
    with_mask_tokens,
)
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.objectives.masked.base import (
    encode_visible,
    mean_over_hidden,
    normalized_patches,
    random_masks,
)

SIZES = {"S": (384, 12, 6), "B": (768, 12, 12)}


def by_definition(correction):
    def loss(reference, image, ids_shuffle, visible):
        encoded, _ = reference.encode(image, ids_shuffle[:visible])
        x = reference.decode(reference.shuffled_tokens(encoded, ids_shuffle))
        predicted = reference.predict(x, ids_shuffle)
        return reference.loss(image, predicted, ids_shuffle[visible:], correction)

    return loss


@pytest.mark.parametrize(
    "architecture",
    [
        {},
        {"reg_tokens": 2},
        {"reg_tokens": 2, "no_embed_class": True},
        {"class_token": False, "global_pool": "avg"},
    ],
)
@pytest.mark.parametrize(("normalized", "correction"), [(True, 1), (False, None)])
def test_the_loss_is_its_definition(setup, architecture, normalized, correction):
    mae = setup("mae", architecture, normalize_targets=normalized)
    expected = mae.mean_over_images(by_definition(correction))
    assert mae.loss().value.item() == pytest.approx(expected, rel=2e-5)


def test_every_parameter_learns_also_the_norm_of_a_model_that_averages(setup):
    mae = setup("mae", {"class_token": False, "global_pool": "avg"})
    mae.loss().value.backward()
    for part in (mae.model, mae.companions):
        for name, parameter in part.named_parameters():
            assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name


def test_as_many_patches_are_hidden_in_each_image_by_its_own_numbers():
    for size, patch, ratio, visible in ((28, 4, 0.75, 12), (32, 4, 0.75, 16), (16, 4, 0.6, 6)):
        model = create_model("vit", img_size=size, patch_size=patch, embed_dim=12, depth=1, num_classes=0)  # fmt: skip
        masks = random_masks(
            section("objective", {"name": "mae", "mask_ratio": ratio}).config, model
        )
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand(50, masks.numbers, dtype=torch.float64, generator=generator)
        hidden = masks.masks(drawn)
        assert hidden.shape == (50, (size // patch) ** 2)
        assert ((~hidden).sum(1) == visible).all()
        assert len({tuple(row) for row in hidden.tolist()}) > 45
        by_threshold = drawn >= drawn.sort(dim=1).values[:, visible : visible + 1]
        assert torch.equal(hidden, by_threshold)


def test_the_encoder_does_not_see_hidden_pixels_and_the_loss_no_visible_targets(setup):
    mae = setup("mae", normalize_targets=False)
    model, masks = mae.model, mae.batch.masks
    pixels = patch_pixels(mae.batch.images, (4, 4))

    def images(patches):
        blocks = patches.unflatten(1, (4, 4)).unflatten(3, (4, 4, 3))
        return blocks.permute(0, 5, 1, 3, 2, 4).reshape(3, 3, 16, 16)

    torch.testing.assert_close(images(pixels), mae.batch.images, rtol=0, atol=0)
    other = torch.where(masks.unsqueeze(-1), torch.randn_like(pixels), pixels)
    config = mae.objective.config

    def encoded(pixels):
        batch = type(mae.batch)(images(pixels), mae.batch.labels, mae.batch.targets, masks=masks)
        return encode_visible(config, model, batch)[0]

    assert torch.equal(encoded(other), encoded(pixels))
    leaf = pixels.clone().requires_grad_(True)
    with torch.no_grad():
        tokens = encoded(pixels)
        predicted = mae.companions.decoder(tokens, masks)
    mean_over_hidden((predicted - leaf) ** 2, masks).backward()
    assert not leaf.grad[~masks].any()
    assert leaf.grad[masks].all()


def test_targets_of_a_constant_patch_are_zero_and_else_have_an_unbiased_variance_of_one():
    assert not normalized_patches(torch.full((1, 2, 48), 0.3)).any()
    pixels = torch.randn(5, 7, 48, dtype=torch.float64) * 3 + 2
    normalized = normalized_patches(pixels)
    torch.testing.assert_close(normalized.var(-1), torch.ones(5, 7).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close((normalized**2).mean(-1), torch.full((5, 7), 47 / 48).double(), rtol=1e-5, atol=0)  # fmt: skip


def test_a_prediction_of_zero_has_the_loss_of_an_unbiased_variance(setup):
    mae = setup("mae")
    for parameter in mae.companions.decoder.predict.parameters():
        parameter.data.zero_()
    assert mae.loss().value.item() == pytest.approx(47 / 48, rel=1e-4)


def test_hidden_patches_are_put_back_where_they_were(setup):
    masks = setup("mae").batch.masks
    patches, token = torch.randn(3, 16, 5), torch.full((5,), 9.0)
    visible = visible_patches(patches, masks, 4)
    restored = with_mask_tokens(visible, masks, token)
    assert torch.equal(restored[~masks], patches[~masks])
    assert (restored[masks] == 9).all()
    none = torch.zeros(3, 16, dtype=torch.bool)
    assert torch.equal(with_mask_tokens(visible_patches(patches, none, 16), none, token), patches)


@pytest.mark.parametrize("architecture", [{}, {"reg_tokens": 3}, {"no_embed_class": True, "reg_tokens": 1}])  # fmt: skip
def test_without_hidden_patches_the_encoder_is_the_model(setup, architecture):
    model = setup("mae", architecture).model.eval()
    images = torch.randn(2, 3, 16, 16)
    tokens, tapped = encode(model, embed(model, images), taps=(0, 2))
    torch.testing.assert_close(tokens, model.forward_features(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokens[:, 0], features(model, images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.norm(tapped[1]), tokens, rtol=0, atol=0)


@pytest.mark.parametrize(("architecture", "rows"), [({"reg_tokens": 2}, 3), ({"reg_tokens": 2, "no_embed_class": True}, 0)])  # fmt: skip
def test_positions_are_fixed_and_those_of_prefix_tokens_zero(setup, architecture, rows):
    model = setup("mae", architecture).model
    assert not model.pos_embed.requires_grad
    assert not model.pos_embed[:, :rows].any()
    torch.testing.assert_close(model.pos_embed[0, rows:].double(), positions_2d(4, 16), rtol=0, atol=1e-6)  # fmt: skip


def test_positions_of_a_parent_stay_and_those_that_learn_are_the_architectures():
    model = create_model("vit", img_size=16, patch_size=4, embed_dim=12, depth=1, num_classes=0)
    before, plugin = model.pos_embed.detach().clone(), section("objective", "mae")
    plugin.facts["prepare"](plugin.config, model, False)
    assert torch.equal(model.pos_embed, before)
    assert not model.pos_embed.requires_grad
    model.pos_embed.requires_grad_(True)
    learned = section("objective", {"name": "mae", "fixed_positions": False})
    learned.facts["prepare"](learned.config, model, True)
    assert torch.equal(model.pos_embed, before)
    assert model.pos_embed.requires_grad


@pytest.mark.parametrize(("side", "width"), [(4, 16), (14, 512), (7, 768)])
def test_positions_encode_the_column_then_the_row(side, width):
    torch.testing.assert_close(sin_cos_positions((side, side), width).double(), positions_2d(side, width), rtol=0, atol=1e-6)  # fmt: skip
    rows, columns = sin_cos_positions((2, 3), 8), sin_cos_positions((3, 2), 8)
    half = rows.shape[1] // 2
    assert torch.equal(rows[0, half:], rows[2, half:])  # of the same row
    assert torch.equal(columns[0, :half], columns[2, :half])  # of the same column
    with pytest.raises(InvalidInput, match="a width that 4 divides, and it is 6"):
        sin_cos_positions((2, 2), 6)


@pytest.mark.parametrize(
    ("size", "encoder", "decoder", "trained"),
    [("S", 21_665_664, 25_912_576, 47_401_728), ("B", 85_798_656, 26_109_184, 111_655_680)],
)
def test_there_are_as_many_parameters_as_published(size, encoder, decoder, trained):
    width, depth, heads = SIZES[size]
    objective = section("objective", "mae")
    with meta_device():
        model = create_model("vit", img_size=224, patch_size=16, embed_dim=width, depth=depth, num_heads=heads, num_classes=0)  # fmt: skip
        objective.facts["prepare"](objective.config, model, True)
        companions = objective.facts["companions"](objective.config, model, 10)
    parameters = [*model.parameters(), *companions.parameters()]
    assert sum(p.numel() for p in model.parameters()) == encoder
    positions = companions.decoder.positions.numel() + 512  # that of the class token, which is zero
    assert sum(p.numel() for p in companions.parameters()) + positions == decoder
    assert sum(p.numel() for p in parameters if p.requires_grad) == trained


def test_the_decoder_starts_as_published(setup):
    decoder = setup("mae", decoder_dim=256, decoder_heads=4).companions.decoder
    weight = decoder.blocks[0].mlp.fc1.weight
    bound = (6 / (256 + 1024)) ** 0.5
    assert 0.98 * bound < weight.abs().max() <= bound
    assert decoder.norm.eps == decoder.blocks[1].norm2.eps == 1e-6


def test_windows_and_pooling_by_attention_are_refused():
    objective = section("objective", "mae")
    swin = create_model("mini_swin", num_classes=0, img_size=32, patch_size=4, window_size=4, embed_dim=12, depths=(2,), num_heads=(3,), share=1)  # fmt: skip
    with pytest.raises(InvalidInput, match="needs a plain vision transformer"):
        objective.facts["companions"](objective.config, swin, 10)


def test_a_batch_in_parts_has_the_mean_of_their_losses(setup):
    mae = setup("mae")
    losses = [mae.objective(mae.model, part, mae.companions).value for part in mae.batch.parts(3)]
    torch.testing.assert_close(torch.stack(losses).mean(), mae.loss().value)
    assert F.mse_loss(torch.stack(losses), mae.loss().value.expand(3)) > 0
