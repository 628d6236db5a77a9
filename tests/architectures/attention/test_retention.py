"""Retention: three forms of one function, causal, with the class token at the end."""

import pytest
import torch

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.attention._retaining import (
    SEQUENCE,
    Layout,
    chunked,
    decay_mask,
    parallel,
    recurrent,
)
from vitarium.architectures.attention.retention import (
    BidirectionalRetention,
    RetentionDeclaration,
    head_decays,
)
from vitarium.architectures.patch_tokens import require_plain
from vitarium.architectures.symmetries._folding import folded
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.testing import check_architecture

SIZES = {"img_size": 12, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "depth": 2, "num_heads": 2}
DECAYS = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64)
LAYOUTS = {"1d": SEQUENCE, "2d": Layout(4, 3)}


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads(count=14):
    return [drawn(2, 3, count, 4, seed=seed) for seed in (1, 2, 3)]


def visible(i, j, layout):
    """Steps from token j to token i, or none where i does not see j; by coordinates."""
    if not layout.columns:
        return i - j if i >= j else None

    def cell(number):
        beyond = number - layout.patches
        inside = divmod(number, layout.columns)
        return inside if beyond < 0 else (layout.rows + beyond, layout.columns - 1)

    down, right = (a - b for a, b in zip(cell(i), cell(j), strict=True))
    return down + right if down >= 0 and right >= 0 else None


def brute_force(query, key, value, decays, layout):
    outputs = torch.zeros_like(value)
    for i in range(query.shape[-2]):
        for j in range(query.shape[-2]):
            steps = visible(i, j, layout)
            if steps is not None:
                product = (query[..., i, :] * key[..., j, :]).sum(-1, keepdim=True)
                outputs[..., i, :] += (decays**steps)[:, None] * product * value[..., j, :]
    return outputs


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_forms_are_the_sum_over_what_a_token_sees(name):
    parts, layout = heads(), LAYOUTS[name]
    expected = brute_force(*parts, DECAYS, layout)
    for form in (parallel, recurrent):
        torch.testing.assert_close(form(*parts, DECAYS, layout), expected, rtol=0, atol=1e-13)
    for length in (1, 4, 5, 6, 14, 20):
        outputs = chunked(*parts, DECAYS, layout, length=length)
        torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", LAYOUTS)
def test_forms_agree_in_float32(name):
    parts, layout = [part.float() for part in heads()], LAYOUTS[name]
    expected = parallel(*parts, DECAYS.float(), layout)
    scale = expected.abs().max()
    for outputs in (
        recurrent(*parts, DECAYS.float(), layout),
        chunked(*parts, DECAYS.float(), layout, length=6),
    ):
        assert outputs.dtype == torch.float32
        assert (outputs - expected).abs().max() < 1e-5 * scale


def test_without_decay_it_is_prefix_linear_attention():
    query, key, value = heads()
    sums = (key.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(2)
    expected = (query.unsqueeze(-2) @ sums).squeeze(-2)
    outputs = parallel(query, key, value, torch.ones(3).double(), SEQUENCE)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAYOUTS)
def test_with_full_decay_a_token_reads_itself(name):
    query, key, value = heads()
    expected = (query * key).sum(-1, keepdim=True) * value
    outputs = parallel(query, key, value, torch.zeros(3).double(), LAYOUTS[name])
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-13)


def test_rows_of_the_mask_are_geometric_series():
    sums = decay_mask(DECAYS[:2], 9).sum(-1)
    count = torch.arange(1, 10)
    for head, gamma in enumerate(DECAYS[:2]):
        torch.testing.assert_close(sums[head], (1 - gamma**count) / (1 - gamma))


def test_the_mask_of_a_grid_is_the_kronecker_product_of_two():
    for gamma in DECAYS:
        down, right = (decay_mask(gamma.view(1), side)[0] for side in (4, 3))
        mask = decay_mask(gamma.view(1), 12, Layout(4, 3))[0]
        torch.testing.assert_close(mask, torch.kron(down, right), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("count", "decays"),
    [
        (1, [0.96875]),
        (3, [0.96875, 0.992188, 0.998047]),
        (6, [0.96875, 0.982052, 0.989691, 0.994079, 0.996599, 0.998047]),
    ],
)
def test_decays_are_the_released_ones(count, decays):
    of_heads = head_decays(count, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(of_heads, torch.tensor(decays).double(), rtol=0, atol=1e-6)


def model_of(**settings):
    """Of equal weights, scrambled, so that layer scales are not nearly zero."""
    model = create_model("retention", num_classes=3, **SIZES | settings)
    return random_moves.scrambled(model, 0).double()


ORDERS = [{"decay": "1d"}, {"decay": "2d"}, {"bidirectional": True}]
READOUTS = [{}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 2}]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("settings", READOUTS)
def test_models_of_all_forms_compute_the_same(order, settings):
    images = drawn(2, 1, 12, 12)
    expected = model_of(**order, **settings)(images)
    for form in ({"form": "recurrent"}, {"form": "chunk", "chunk": 4}):
        outputs = model_of(**order, **form, **settings)(images)
        torch.testing.assert_close(outputs, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("decay", ["1d", "2d"])
def test_a_patch_changes_what_sees_it_and_the_class_token_alone(decay):
    model, images = model_of(decay=decay), drawn(2, 1, 12, 12)
    before = model.forward_features(images)
    layout = Layout(3, 3) if decay == "2d" else SEQUENCE
    for patch in (0, 4, 5, 8):
        row, column = divmod(patch, 3)
        changed = images.clone()
        changed[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
        differs = (model.forward_features(changed) != before).any(-1).all(0)
        expected = [visible(i, patch, layout) is not None for i in range(9)]
        assert differs[1:].tolist() == expected
        assert differs[0]  # the class token sees every patch


def test_patches_do_not_see_the_class_token():
    model, images = model_of(), drawn(2, 1, 12, 12)
    before = model.forward_features(images)
    model.cls_token.data += 1
    differs = (model.forward_features(images) != before).any(-1).all(0)
    assert differs.tolist() == [True] + [False] * 9


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vir_small_patch16_224", 22_059_496),
        ("vir_base_patch16_224", 86_585_320),
        # blocks, patches, class token and norm, positions, layer scales, head
        (
            "vir_large_patch16_224",
            24 * (12 * 1024**2 + 13 * 1024) + 1024 * (769 + 3 + 196 + 2 * 24) + 1_025_000,
        ),
        (
            "vir_large_patch14_224",
            24 * (12 * 1024**2 + 13 * 1024) + 1024 * (589 + 3 + 256 + 2 * 24) + 1_025_000,
        ),
    ],
)
def test_presets_have_the_published_numbers_of_parameters(name, count):
    with meta_device():
        assert sum(p.numel() for p in create_model(name).parameters()) == count


def test_it_has_no_more_parameters_than_attention():
    with meta_device():
        sizes = {n: p.shape for n, p in create_model("retention", **SIZES).named_parameters()}
        settings = SIZES | {"model": "vit_tiny_patch16_224", "init_values": 1e-5}
        vit = create_model("timm", no_embed_class=True, **settings)
    assert sizes == {n: p.shape for n, p in vit.named_parameters()}


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_declared_symmetries_change_nothing(order, mix):
    model, images = model_of(**order), drawn(3, 1, 12, 12)
    symmetries = RetentionDeclaration.symmetries(model)
    expected, weights = model(images), model.state_dict()
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(1), mix=mix)
    weights = folded(symmetries, weights) if mix else weights
    model.load_state_dict(moved(symmetries, weights, moves))
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", READOUTS)
def test_a_bidirectional_model_is_a_causal_one_of_the_sequence_and_its_flip(settings):
    model, images = model_of(bidirectional=True, **settings), drawn(2, 1, 12, 12)
    causal = model_of(**settings)
    causal.load_state_dict(model.state_dict(), strict=True)
    patches = causal.patch_embed(images) + causal.pos_embed
    prefix = causal.num_prefix_tokens
    sequence = causal._pos_embed(causal.patch_embed(images))
    assert torch.equal(sequence[:, prefix:], patches)
    sequence = torch.cat([patches, sequence[:, :prefix].flip(1)], 1)
    tokens = torch.cat([sequence, sequence.flip(1)], 1)
    for block in causal.blocks:
        block.attn.prefix = 0  # tokens are in their order
        tokens = block(tokens)
    tokens = causal.norm(tokens)
    read = tokens[:, -1]
    if settings.get("global_pool") == "avg":
        is_patch = torch.ones(9 + prefix, dtype=torch.bool)
        is_patch[9:] = False
        read = tokens[:, torch.cat([is_patch, is_patch.flip(0)])].mean(1)
    torch.testing.assert_close(model(images), causal.head(causal.fc_norm(read)))
    assert model.forward_features(images).shape == (2, 2 * (9 + prefix), 8)


def test_tokens_of_the_flip_are_read_after_the_sequence_from_its_end():
    times = [4, 3, 0, 1, 2, 7, 6, 5]  # class token of the flip, of the sequence, and patches
    attention = BidirectionalRetention(4, 1).double()
    attention.prefix, attention.patches = 2, 3
    tokens = drawn(1, 8, 4)
    before = attention(tokens)
    for number, time in enumerate(times):
        changed = tokens.clone()
        changed[:, number] += 1
        differs = (attention(changed) != before).any(-1)[0]
        assert differs.tolist() == [later >= time for later in times]


def test_what_is_read_of_both_orders_sees_every_patch_twice():
    model, images = model_of(bidirectional=True), drawn(2, 1, 12, 12)
    before, outputs = model.forward_features(images), model(images)
    for patch in range(9):
        row, column = divmod(patch, 3)
        changed = images.clone()
        changed[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
        differs = (model.forward_features(changed) != before).any(-1).all(0)
        assert differs.tolist() == [True] * 2 + [i >= patch for i in range(9)] + [True] * 9
        assert (model(changed) != outputs).any(-1).all()


def test_what_takes_patches_one_by_one_refuses_both_orders():
    assert require_plain(model_of(), "masking")
    with pytest.raises(InvalidInput, match="masking needs a plain vision transformer"):
        require_plain(model_of(bidirectional=True), "masking")
    with pytest.raises(InvalidInput, match=r"twice the 9 patches .* and there are 5"):
        model_of(bidirectional=True).blocks[0].attn(drawn(1, 7, 8))


def test_both_orders_keep_the_contract():
    check_architecture("retention", bidirectional=True)


def test_a_grid_of_another_size_is_refused_with_a_2d_decay():
    tokens = torch.zeros(1, 5, 8)
    attention = create_model("retention", decay="2d", **SIZES).blocks[0].attn
    with pytest.raises(InvalidInput, match=r"needs the 3 x 3 patches .* there are 4"):
        attention(tokens)
    create_model("retention", **SIZES).blocks[0].attn(tokens)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attn_drop_rate": 0.1}, "probabilities, which retention never computes"),
        ({"bidirectional": True, "decay": "2d"}, "bidirectional goes with decay '1d'"),
        ({"chunk": 8}, "chunk 8 is of form 'chunk', and form is 'parallel'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        create_model("retention", **settings)
