"""MCTF: what fusing keeps, and that ToMe's merging is a case of it."""

import pytest
import torch

from vitarium.architectures.token_reduction._merging import Merge, alternating, cosines
from vitarium.core.registry import choose

SIZES = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "num_heads": 2}
IMAGES = torch.randn(3, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def model_of(name="mctf", **settings):
    torch.manual_seed(0)
    model = choose("architecture", name, **SIZES, depth=3, **settings)(3).eval()
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    return model.double()


def fused_of(**settings):
    """Tokens and attention before and after the second block fuses, and the sizes."""
    model = model_of(r=6, **settings)
    block = model.blocks[1]
    embedded = model.blocks[0](model._pos_embed(model.patch_embed(IMAGES)))
    attention = block._attention(embedded, None)
    tokens, fused = block._fused(embedded, attention, 6)
    return embedded, attention, tokens, fused, block.sizes.patches


@pytest.mark.parametrize("pooling", ["attention", "size"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_sizes_add_up_and_rows_of_attention_sum_to_one(pooling, bidirectional):
    _, _, tokens, attention, sizes = fused_of(pooling=pooling, bidirectional=bidirectional)
    assert tokens.shape == (3, 11, 24)
    assert attention.shape == (3, 2, 11, 11)
    assert torch.equal(sizes.sum(1), torch.full((3, 1), 16.0, dtype=torch.float64))
    torch.testing.assert_close(
        attention.sum(-1), torch.ones(3, 2, 11, dtype=torch.float64), atol=1e-14, rtol=0
    )


@pytest.mark.parametrize(("pooling", "conserves"), [("size", True), ("attention", False)])
def test_pooling_by_size_alone_conserves_the_sum(pooling, conserves):
    before, _, after, _, sizes = fused_of(pooling=pooling)
    sums = (sizes * after[:, 1:]).sum(1), before[:, 1:].sum(1)
    assert torch.allclose(*sums, atol=1e-12) is conserves
    assert torch.equal(after[:, 0], before[:, 0])


def test_attention_to_a_fused_token_is_the_sum_and_of_it_the_mean():
    """Dense, by the matrix of which token is in which."""
    before, attention, _, fused, _ = fused_of(pooling="attention")
    block = model_of(r=6).blocks[1]
    patches, importance = before[:, 1:], attention.mean((1, 2))[:, 1:, None]
    fusion = block._fusion(patches, importance, torch.ones_like(importance), 6)
    identity = torch.eye(16, dtype=torch.float64).expand(3, -1, -1)
    a, b = fusion[0].summed(*alternating(identity))
    b, a = fusion[1].summed(b, a)
    members = torch.zeros(3, 11, 17, dtype=torch.float64)
    members[:, 0, 0] = 1
    members[:, 1:, 1:] = torch.cat([a, b], dim=1)
    assert torch.equal(members.sum(1), torch.ones(3, 17, dtype=torch.float64))
    weights = torch.cat([torch.ones(3, 1, 1, dtype=torch.float64), importance], 1).transpose(1, 2)
    rows = members * weights / (members * weights).sum(-1, keepdim=True)
    dense = rows[:, None] @ attention @ members[:, None].transpose(-2, -1)
    torch.testing.assert_close(fused, dense, atol=1e-14, rtol=1e-12)


def test_without_the_other_criteria_it_fuses_what_tome_would():
    settings = {"tau_information": 0, "tau_size": 0, "pooling": "size", "bidirectional": False}
    before, _, after, _, _ = fused_of(**settings)
    patches = before[:, 1:]
    merge = Merge.of(cosines(*alternating(patches)), 6)
    sums = torch.cat(merge.summed(*alternating(patches)), 1)
    counts = torch.cat(merge.summed(*alternating(torch.ones_like(patches[..., :1]))), 1)
    assert torch.equal(after[:, 1:], sums / counts)


def test_an_r_of_zero_is_the_vit_bit_by_bit():
    assert torch.equal(model_of(r=0)(IMAGES), model_of("vit")(IMAGES))


def test_where_nothing_is_fused_the_attention_ahead_is_the_vits():
    """The values' path, too: a block that fuses nothing computes what the plain one does."""
    model = model_of(r=1)
    block, tokens = model.blocks[1], torch.randn(2, 9, 24, dtype=torch.float64)
    attention = block._attention(tokens, None)
    expected = block.attn(block.norm1(tokens))
    torch.testing.assert_close(block._mixed(block.norm1(tokens), attention), expected)
