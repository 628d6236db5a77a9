"""CI2P: the frozen codec, the two blocks after it, and that positions enter by convolutions alone."""

import pytest
import torch

from reference.built_models import build, images
from vitarium import create_model
from vitarium.architectures.tokens.ci2p import cosines
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device


def test_the_random_codec_has_the_published_size_and_maps():
    with meta_device():
        model = create_model("ci2p_vit_base", num_classes=10)
        maps = model.patch_embed.codec(torch.empty(1, 3, 256, 256))
        tokens = model.patch_embed(torch.empty(1, 3, 256, 256))
    codec = model.patch_embed.codec
    assert sum(t.numel() for t in codec.state_dict().values()) == 1_443_776
    assert not list(codec.parameters())
    assert maps.shape == (1, 192, 16, 16)
    assert tokens.shape == (1, 64, 768)


def inverted_residual(channels, hidden, width, kernel):
    expand, depthwise, project = channels * hidden, hidden * kernel**2, hidden * width
    norms, squeezed = 2 * (hidden + hidden + width), hidden // 4
    gate = hidden * squeezed + squeezed + squeezed * hidden + hidden
    return expand + depthwise + project + norms + gate


def test_weights_are_those_of_two_inverted_residuals_and_a_vit_without_positions():
    with meta_device():
        model = create_model("ci2p_vit_base", num_classes=10)
    mixers = inverted_residual(192, 768, 192, 3) + inverted_residual(192, 1152, 768, 5)
    expected = mixers + 12 * 7_087_872 + 2 * 768 + 769 * 10
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("size", [1, 2, 8])
def test_cosines_are_orthonormal_and_rise_in_frequency(size):
    waves = cosines(size)
    assert torch.allclose(waves @ waves.T, torch.eye(size, dtype=torch.float64))
    changes = [(row.sign().diff() != 0).sum().item() for row in waves]
    assert changes == list(range(size))


def test_all_frequencies_keep_the_energy_of_blocks_and_the_lowest_is_the_mean():
    model = build("ci2p", codec_channels=48)  # blocks of 4 x 4 pixels, 3 channels
    pixels = images(16)
    maps = model.patch_embed.codec(pixels)
    blocks = pixels.unfold(2, 4, 4).unfold(3, 4, 4)
    assert torch.allclose(maps.square().sum(1), blocks.square().sum((1, 4, 5)), atol=1e-5)
    assert torch.allclose(maps[:, :3], 4 * blocks.mean((4, 5)), atol=1e-5)
    few = build("ci2p").patch_embed.codec(pixels)  # its 4 lowest frequencies of each channel
    assert torch.allclose(few, maps[:, :12])


@pytest.mark.parametrize("codec", ["dct", "random", "trained"])
def test_the_codec_is_frozen_and_stays_in_eval_mode(codec):
    model = build("ci2p", codec=codec).train()
    assert not any(part.training for part in model.patch_embed.codec.modules())
    before = {n: t.clone() for n, t in model.patch_embed.codec.state_dict().items()}
    pixels = images(16).requires_grad_()
    model(pixels).sum().backward()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    optimizer.step()
    after = model.patch_embed.codec.state_dict()
    assert all(torch.equal(after[n], t) for n, t in before.items())
    assert pixels.grad is None


def test_every_seed_has_the_same_cosines_and_a_random_codec_of_its_own():
    def weight(codec, seed):
        return build("ci2p", seed, codec=codec).state_dict()["patch_embed.codec.0.weight"]

    assert torch.equal(weight("dct", 0), weight("dct", 1))
    assert torch.equal(weight("random", 0), weight("random", 0))
    assert not torch.equal(weight("random", 0), weight("random", 1))


@torch.no_grad()
def test_after_the_convolutions_the_order_of_tokens_does_not_count():
    model = build("ci2p", img_size=32).eval()
    tokens = model.patch_embed(images(32))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def outputs(tokens):
        return model.head(model.fc_norm(model.blocks(model._pos_embed(tokens)).mean(1)))

    assert torch.allclose(outputs(tokens), outputs(tokens[:, order]), atol=1e-12)
    assert torch.allclose(outputs(tokens), model(images(32)))
    flipped = model(images(32).flip(3))
    assert (flipped - model(images(32))).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 2, "codec_channels": 3}, "patch_size 2 is not a power of two from 4 on"),
        ({"patch_size": 4}, "a transform of blocks of 2 pixels has up to 4 frequencies"),
        ({"codec_channels": 100}, "codec_channels 100"),
        ({"no_embed_class": True}, "ci2p has no position"),
    ],
)
def test_codecs_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        create_model("ci2p", **settings)
