"""What is fitted to a group of blocks, against the starts: errors are written out here."""

from itertools import permutations

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Block
from torch.nn.functional import gelu

from vitarium.operators.compression._block_fitting import fitted

HEADS, DIM, CHANNELS = 2, 3, 6
TABLE = "attn.relative_position_bias_table"


def blocks(seed, count=2, **more):
    torch.manual_seed(seed)
    found = [Block(CHANNELS, HEADS, mlp_ratio=2, **more) for _ in range(count)]
    return [
        {n: t + 0.3 * torch.randn(t.shape) for n, t in block.double().state_dict().items()}
        for block in found
    ]


def mean(models):
    return {name: sum(one[name] for one in models) / len(models) for name in models[0]}


def attention_forms(block, norm, scale):
    """Written out [heads, ...]: logits' [channels + 1, channels], values' [channels, channels + 1].

    The last row and column are those of the constant; the keys' constant does not count.
    """
    gain, shift = (norm[f"norm1.{name}"].numpy() for name in ("weight", "bias"))
    weight = block["attn.qkv.weight"].numpy().reshape(3, HEADS, DIM, CHANNELS)
    bias = block.get("attn.qkv.bias", torch.zeros(3 * CHANNELS)).numpy().reshape(3, HEADS, DIM)
    constant = weight @ shift + bias
    acting = np.concatenate([weight * gain, constant[..., None]], -1)
    written = block["attn.proj.weight"].numpy().reshape(CHANNELS, HEADS, DIM)
    written = written * scale.numpy()[:, None, None]
    logits = np.einsum("hdi,hdj->hij", acting[0], acting[1][..., :-1])
    return logits, np.einsum("ohd,hdi->hoi", written, acting[2])


def relative_errors(models, shared, own):
    """Of logits and values together, in the best order of each block's heads."""
    worth, totals = errors_by_order(models, shared, own)
    return sum((one / totals).sum(1).min() for one in worth)


def errors_by_order(models, shared, own):
    """Of logits and values for each block and order of its heads, and what both have in all."""
    worth, totals = [], np.zeros(2)
    for model, parts in zip(models, own, strict=True):
        scale = model.get("ls1.gamma", torch.ones(CHANNELS).double())
        wanted = attention_forms(model, model, scale)
        found = attention_forms(shared, {**shared, **parts}, scale)
        eye = torch.eye(HEADS).double()
        before, after = (parts.get(f"attn.{n}.weight", eye).numpy() for n in ("before", "after"))
        found = np.tensordot(before, found[0], 1), np.tensordot(after.T, found[1], 1)
        totals += [np.square(one).sum() for one in wanted]
        worth.append(
            [
                [np.square(a[list(order)] - b).sum() for a, b in zip(wanted, found, strict=True)]
                for order in permutations(range(HEADS))
            ]
        )
    return np.array(worth), totals


def norms(models):
    return [{n: t for n, t in model.items() if "norm" in n} for model in models]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ({"qkv_bias": True}, {}),
        ({"qkv_bias": True}, {"mix_before": False, "mix_after": False}),
        ({"init_values": 0.5}, {"own_norms": False}),
    ],
)
def test_the_error_is_as_told_and_at_most_that_of_first_and_mean(seed, more, settings):
    models = blocks(seed, 3, **more)
    starts = [models[0], mean(models)]
    found = fitted(models, starts, num_heads=HEADS, activation=gelu, **settings)
    own = norms(models) if settings.get("own_norms", True) else [{}] * 3
    begun = [relative_errors(models, start, own) for start in starts]
    left = relative_errors(models, found.shared, found.per_block)
    assert left <= min(begun)
    assert left < 0.999 * min(begun)
    assert np.isclose(left, found.errors["logits"] + found.errors["values"], rtol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"mix_before": False}])
def test_a_position_bias_is_the_one_whose_mixtures_are_nearest_to_the_blocks(settings):
    models = blocks(0, 3, qkv_bias=True)
    for model in models:
        model[TABLE] = torch.randn(9, HEADS).double()
    found = fitted(models, [models[0], mean(models)], num_heads=HEADS, activation=gelu, **settings)
    mixing = [
        parts.get("attn.before.weight", torch.eye(HEADS).double()) for parts in found.per_block
    ]
    worth, totals = errors_by_order(models, found.shared, found.per_block)
    best = [list(permutations(range(HEADS)))[(one / totals).sum(1).argmin()] for one in worth]
    # of found forms in the order of the block's heads -> of the block's in the order of the found
    wanted = [
        model[TABLE].numpy()[:, np.argsort(order)].T
        for model, order in zip(models, best, strict=True)
    ]
    expected = np.linalg.lstsq(np.concatenate(mixing), np.concatenate(wanted))[0].T
    np.testing.assert_allclose(found.shared[TABLE], expected, rtol=0, atol=1e-10)


def test_blocks_that_do_nothing_are_met_exactly():
    models = blocks(0, 2, qkv_bias=True)
    for model in models:
        for name in ("attn.proj.weight", "mlp.fc2.weight", "mlp.fc2.bias"):
            model[name].zero_()
    found = fitted(models, [models[0], mean(models)], num_heads=HEADS, activation=gelu)
    assert found.errors["values"] == found.errors["mlp"] == 0
    assert not found.shared["attn.proj.weight"].any()


def test_a_fit_is_the_same_bits_again():
    models = blocks(0, 2)
    starts = [models[0], mean(models)]
    one, other = (fitted(models, starts, num_heads=HEADS, activation=gelu) for _ in range(2))
    assert all(torch.equal(tensor, other.shared[name]) for name, tensor in one.shared.items())
