"""ToMe, beside its merging by hand."""

import pytest
import torch

from vitarium.architectures.token_reduction._merging import Merge, alternating, cosines
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose

SIZES = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "num_heads": 2}


def model_of(name="tome", depth=3, **settings):
    torch.manual_seed(0)
    model = choose("architecture", name, **SIZES, depth=depth, **settings)(3).eval()
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    return model.double()


IMAGES = torch.randn(3, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def source_matrix(metric, r):
    """Of each token that is left, which tokens are in it: [batch, n - r, n]"""
    merge = Merge.of(cosines(*alternating(metric)), r)
    identity = torch.eye(metric.shape[1]).expand(len(metric), -1, -1)
    return torch.cat(merge.summed(*alternating(identity)), dim=1)


def test_the_pairs_with_the_highest_cosine_are_merged():
    """Brute force over all pairs of the two sets."""
    metric = torch.randn(1, 9, 5, generator=torch.Generator().manual_seed(0))
    merge = Merge.of(cosines(*alternating(metric)), 3)
    unit = torch.nn.functional.normalize(metric[0], dim=-1)
    a, b = range(1, 9, 2), range(0, 9, 2)
    best = {i: max(b, key=lambda j: float(unit[i] @ unit[j])) for i in a}
    ranked = sorted(a, key=lambda i: -float(unit[i] @ unit[best[i]]))[:3]
    assert {2 * int(s) + 1: 2 * int(t) for s, t in zip(*merge[1:], strict=True) for s, t in
            zip(s, t, strict=True)} == {i: best[i] for i in ranked}  # fmt: skip
    assert merge.unmerged[0].tolist() == sorted(i // 2 for i in a if i not in ranked)


def test_every_token_is_in_one_token_and_sizes_add_up():
    sources = source_matrix(torch.randn(4, 15, 6), 5)
    assert sources.shape == (4, 10, 15)
    assert torch.equal(sources.sum(1), torch.ones(4, 15))
    assert torch.equal(sources.sum((1, 2)), torch.full((4,), 15.0))


@pytest.mark.parametrize("class_token", [True, False])
def test_sizes_add_up_to_the_patches_at_every_depth(class_token):
    pool = "token" if class_token else "avg"
    model = model_of(r=5, class_token=class_token, global_pool=pool)
    sums = []
    for block in model.blocks:
        block.register_forward_hook(lambda b, i, o: sums.append(b.sizes.patches.sum(1).flatten()))
    model(IMAGES)
    assert torch.equal(torch.stack(sums), torch.full((3, 3), 16.0, dtype=torch.float64))
    assert model.sizes.patches is None  # nothing stays


def test_one_merge_conserves_the_sum_of_sizes_times_tokens():
    model = model_of(depth=1, r=6)
    block, seen = model.blocks[0], {}
    block.mlp.register_forward_pre_hook(lambda *_: seen.update(sizes=block.sizes.patches))
    block.norm2.register_forward_pre_hook(lambda _, inputs: seen.update(tokens=inputs[0]))
    embedded = model._pos_embed(model.patch_embed(IMAGES))
    before = embedded + block.attn(block.norm1(embedded))
    model(IMAGES)
    tokens, sizes = seen["tokens"], seen["sizes"]
    assert torch.equal(tokens[:, 0], before[:, 0])  # the class token is as it was
    sums = (sizes * tokens[:, 1:]).sum(1)
    torch.testing.assert_close(sums, before[:, 1:].sum(1), atol=1e-12, rtol=1e-12)


def test_merging_equal_tokens_changes_no_attention_where_it_is_proportional():
    """A token of size two is attended to as two."""
    for proportional, is_same in ((True, True), (False, False)):
        model = model_of(depth=2, r=1, proportional=proportional)
        plain = model_of("vit", depth=2)
        with torch.no_grad():  # patches 0 and 1 are one and the same, alike in no other
            images = IMAGES.clone()
            images[:, :, :4, 4:8] = images[:, :, :4, :4]
            for each in (model, plain):
                each.pos_embed[:, 2] = each.pos_embed[:, 1]
            model.blocks[1].r = 0
            assert torch.allclose(model(images), plain(images), atol=1e-12) is is_same


def test_an_r_of_zero_is_the_vit_bit_by_bit():
    assert torch.equal(model_of(r=0)(IMAGES), model_of("vit")(IMAGES))


def test_registers_and_the_class_token_are_never_merged():
    model = model_of(r=8, reg_tokens=3)
    counts = []
    for block in model.blocks:
        block.register_forward_hook(lambda b, i, o: counts.append(o.shape[1]))
    model(IMAGES)
    assert counts == [12, 8, 6]  # of 4 + 16


def test_more_than_there_is_to_merge_is_refused():
    with pytest.raises(InvalidConfig, match="r 17: an image has 16 patches"):
        model_of(r=17)
