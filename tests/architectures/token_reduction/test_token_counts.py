"""How many tokens blocks leave: the authors' counts, of a ViT of 12 blocks and 196 patches."""

import pytest
import torch

from vitarium.core.registry import choose


def token_counts(name, **settings):
    """Tokens that each block's MLP is given."""
    model = choose("architecture", name, embed_dim=12, num_heads=3, **settings)(2).eval()
    counts = []
    for block in model.blocks:
        block.mlp.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].shape[1]))
    with torch.no_grad():
        model(torch.randn(1, 3, 224, 224))
    return counts


@pytest.mark.parametrize(
    ("keep_rate", "fused", "unfused"),
    [
        (0.5, [100, 52, 28], [99, 50, 26]),
        (0.6, [120, 74, 46], [119, 72, 44]),
        (0.7, [140, 100, 72], [139, 98, 69]),
        (0.8, [159, 129, 105], [158, 127, 102]),
        (0.9, [179, 163, 148], [178, 161, 145]),
    ],
)
def test_evit(keep_rate, fused, unfused):
    for fuse, expected in ((True, fused), (False, unfused)):
        counts = token_counts("evit", keep_rate=keep_rate, fuse=fuse)
        assert [counts[number] for number in (3, 6, 9)] == expected
        assert counts[:3] == [197] * 3
        assert counts[3:6] == [expected[0]] * 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"r": 8}, list(range(189, 100, -8))),
        ({"r": 13}, [184, 171, 158, 145, 132, 119, 106, 93, 80, 67, 54, 41]),
        ({"r": 16}, [181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11]),
        ({"r": 20}, [177, 157, 137, 117, 97, 77, 57, 37, 19, 10, 6, 4]),
        ({"r": 13, "inflect": -1}, [171, 148, 127, 109, 93, 79, 68, 59, 52, 48, 46, 46]),
    ],
)
def test_tome(settings, expected):
    assert token_counts("tome", **settings) == expected


def test_the_decreasing_schedule_of_tome():
    config = choose("architecture", "tome", r=13, inflect=-1).config
    assert config.schedule == [26, 23, 21, 18, 16, 14, 11, 9, 7, 4, 2, 0]
    assert choose("architecture", "tome", r=13).config.schedule == [13] * 12


def test_mctf():
    assert token_counts("mctf") == list(range(197, 20, -16))
    fast = token_counts("mctf", fused_share=0.35)
    assert fast == [197] * 3 + [129] * 3 + [85] * 3 + [56] * 3
