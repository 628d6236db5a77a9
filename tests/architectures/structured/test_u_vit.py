"""Long skips: which blocks they join, and that they start as the plain ViT."""

import pytest
import torch

from reference import random_moves as drawn
from vitarium import create_model
from vitarium.architectures.patch_tokens import require_plain
from vitarium.architectures.structured.u_vit import SkipBlock
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.testing import check_architecture

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "num_heads": 2}


def images():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def inputs_of_blocks(model):
    """Arguments of every block, and its output."""
    calls = []
    hooks = [
        block.register_forward_hook(lambda _, inputs, output: calls.append((*inputs, output)))
        for block in model.blocks
    ]
    model(images())
    for hook in hooks:
        hook.remove()
    return calls


def test_an_odd_number_of_blocks_keeps_to_the_contract():
    check_architecture("u_vit", depth=3, reg_tokens=1)


@pytest.mark.parametrize("depth", [3, 4, 7])
def test_it_starts_as_the_vit_of_the_same_seed(depth):
    outputs = []
    for name in ("vit", "u_vit"):
        torch.manual_seed(3)
        model = create_model(name, num_classes=4, depth=depth, **SIZES)
        outputs.append(model.eval()(images()))
    assert torch.allclose(*outputs, atol=1e-6)


@pytest.mark.parametrize(("depth", "skips"), [(3, 1), (4, 1), (7, 3), (8, 3)])
def test_each_late_block_reads_the_early_one_that_is_as_far_from_the_middle(depth, skips):
    model = drawn.scrambled(create_model("u_vit", num_classes=4, depth=depth, **SIZES), 0)
    calls = inputs_of_blocks(model)
    with_skip = [n for n, block in enumerate(model.blocks) if isinstance(block, SkipBlock)]
    assert with_skip == list(range(depth - skips, depth))
    for number in with_skip:
        tokens, early, _ = calls[number]
        assert early is calls[depth - 1 - number][-1]
        assert tokens is calls[number - 1][-1]


def test_a_block_reads_both_by_a_linear_layer():
    model = drawn.scrambled(create_model("u_vit", num_classes=4, depth=3, **SIZES), 0)
    block, (x, early) = model.blocks[2], torch.randn(2, 2, 5, 8)
    weight, bias = block.skip.weight, block.skip.bias
    tokens = x @ weight[:, :8].T + early @ weight[:, 8:].T + bias
    tokens = tokens + block.attn(block.norm1(tokens))
    expected = tokens + block.mlp(block.norm2(tokens))
    assert torch.allclose(block(x, early), expected, atol=1e-5)


def test_without_an_early_block_only_its_partner_and_what_follows_change():
    model = drawn.scrambled(create_model("u_vit", num_classes=4, depth=7, **SIZES), 0)
    before = inputs_of_blocks(model)
    with torch.no_grad():
        model.blocks[5].skip.weight[:, 8:] = 0
    after = inputs_of_blocks(model)
    same = [torch.equal(old[-1], new[-1]) for old, new in zip(before, after, strict=True)]
    assert same == [True] * 5 + [False] * 2


@pytest.mark.parametrize(
    ("side", "channels", "patch", "width", "depth", "heads", "labels", "published"),
    [
        (32, 3, 2, 512, 12, 8, 0, 44_255_328),  # CIFAR-10, S/2
        (64, 3, 4, 512, 12, 8, 0, 44_292_228),  # CelebA, S/4
        (64, 3, 4, 768, 16, 12, 1000, 130_940_292),  # ImageNet, M/4
        (64, 3, 4, 1024, 20, 16, 1000, 286_827_652),  # L/4
        (32, 4, 2, 1024, 20, 16, 1001, 286_763_172),  # latents of 256 pixels, L/2
        (32, 4, 2, 1152, 28, 16, 1001, 500_832_016),  # H/2
        (64, 4, 4, 1024, 20, 16, 1001, 286_861_524),  # latents of 512 pixels, L/4
        (64, 4, 4, 1152, 28, 16, 1001, 500_942_656),  # H/4
    ],
)
def test_blocks_have_the_published_models_parameters(
    side, channels, patch, width, depth, heads, labels, published
):
    """Of U-ViT's generative models there is all but the blocks here: labels, positions, decoder."""
    pixels, extra = channels * patch**2, 1 + bool(labels)  # the time, and the label
    rest = (pixels + 1) * width + (side**2 // patch**2 + extra) * width + labels * width
    rest += 2 * width + (width + 1) * pixels  # norm, decoder
    rest += 0 if width == 1152 else 9 * channels**2 + channels  # the huge ones have no convolution
    with meta_device():
        sizes = {"embed_dim": width, "num_heads": heads, "depth": depth + 1}
        model = create_model("u_vit", qkv_bias=False, **sizes)
    blocks = sum(parameter.numel() for parameter in model.blocks.parameters())
    assert blocks + rest == published
    skips = sum(p.numel() for name, p in model.named_parameters() if ".skip." in name)
    assert skips == depth // 2 * (2 * width**2 + width)


def test_too_few_blocks_are_refused():
    with pytest.raises(InvalidConfig, match="depth 2 leaves no two blocks with one between"):
        section("architecture", {"name": "u_vit", "depth": 2})


def test_blocks_that_need_early_ones_are_no_plain_ones():
    model = create_model("u_vit", depth=3, **SIZES)
    with pytest.raises(InvalidInput, match="masked modeling needs a plain vision transformer"):
        require_plain(model, "masked modeling")
    with pytest.raises(InvalidInput, match="take no attention mask"):
        model(images(), is_causal=True)
