"""T2T-ViT: the published sizes, what soft splits see, and performers against softmax attention."""

import pytest
import torch
from torch.nn import functional as F

from reference.built_models import build, change_by_symmetries, images, stack_difference
from vitarium import create_model
from vitarium.architectures.tokens.t2t import (
    SoftSplit,
    T2t,
    TokenTransformer,
    orthogonal_features,
    performer_attention,
    sinusoids,
    soft_split_strides,
)
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device


def normal(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("preset", "parameters", "trained"),
    [
        ("t2t_vit_7", 4_310_222, 4_255_694),
        ("t2t_vit_10", 5_889_230, 5_834_702),
        ("t2t_vit_12", 6_941_902, 6_887_374),
        ("t2t_vit_14", 21_545_550, 21_465_806),
        ("t2t_vit_19", 39_177_422, 39_085_070),
        ("t2t_vit_24", 64_105_934, 64_000_974),
        ("t2t_vit_t_14", 21_541_070, 21_465_422),
        ("t2t_vit_t_19", 39_172_942, 39_084_686),
        ("t2t_vit_t_24", 64_101_454, 64_000_590),
        ("t2t_vit_14_wide", 25_156_302, 25_000_910),
        ("t2t_vit_14_resnext", 21_545_550, 21_465_806),
    ],
)
def test_presets_have_the_published_sizes(preset, parameters, trained):
    with meta_device():
        model = create_model(preset)
    assert sum(p.numel() for p in model.parameters()) == trained
    assert sum(t.numel() for t in model.state_dict().values()) == parameters


@pytest.mark.parametrize(
    ("preset", "tokenizer", "block"),
    [
        ("t2t_vit_7", 317_670, 526_336),
        ("t2t_vit_14", 391_526, 1_478_016),
        ("t2t_vit_19", 428_454, 2_011_072),
        ("t2t_vit_24", 465_382, 2_626_048),
        ("t2t_vit_t_14", 387_046, 1_478_016),
        ("t2t_vit_t_19", 423_974, 2_011_072),
        ("t2t_vit_t_24", 460_902, 2_626_048),
    ],
)
def test_tokenizers_and_blocks_have_the_published_sizes(preset, tokenizer, block):
    with meta_device():
        model = create_model(preset)
    assert sum(t.numel() for t in model.patch_embed.state_dict().values()) == tokenizer
    assert sum(t.numel() for t in model.blocks[0].state_dict().values()) == block


def test_an_image_of_224_pixels_becomes_3136_784_and_196_tokens():
    with meta_device():
        model = create_model("t2t_vit_7", num_classes=2)
        shapes = []
        for split in model.patch_embed.splits:
            split.register_forward_hook(
                lambda _, __, tokens: shapes.append(tuple(tokens.shape[1:]))
            )
        model.patch_embed(torch.empty(1, 3, 224, 224))
    assert shapes == [(3136, 147), (784, 576), (196, 576)]


@pytest.mark.parametrize(
    ("patch", "strides"),
    [
        (16, (4, 2, 2)),
        (8, (2, 2, 2)),
        (4, (1, 2, 2)),
        (2, (1, 1, 2)),
        (3, (3, 1, 1)),
        (6, (3, 1, 2)),
    ],
)
def test_soft_splits_share_the_patch_size_as_strides(patch, strides):
    assert soft_split_strides(patch) == strides
    model = build("t2t", img_size=4 * patch, patch_size=patch)
    assert model.patch_embed(images(4 * patch)).shape == (3, 16, 24)


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (3, 5), (4, 7)])
def test_windows_put_back_with_their_counts_are_the_image(stride, kernel):
    image, split = images(12, count=2), SoftSplit(3, stride)
    windows = split(image)
    assert windows.shape == (2, (12 // stride) ** 2, 3 * kernel**2)

    def folded(tokens):
        settings = {"kernel_size": kernel, "stride": stride, "padding": split.padding}
        return F.fold(tokens.transpose(1, 2), (12, 12), **settings)

    counts = folded(split(torch.ones_like(image)))
    assert counts.min() >= 1
    assert torch.allclose(folded(windows) / counts, image)


def test_performers_come_closer_to_softmax_attention_with_more_features():
    query, key = normal(20, 8, scale=0.2), normal(20, 8, seed=1, scale=0.2)
    value = normal(20, 8, seed=2)
    expected = (query @ key.T).softmax(-1) @ value
    errors = []
    for count in (16, 256, 4096):
        draws = [torch.Generator().manual_seed(seed) for seed in range(4)]
        features = [orthogonal_features(count, 8, generator) for generator in draws]
        attended = [performer_attention(query, key, value, each) for each in features]
        errors.append(sum((each - expected).norm().item() for each in attended) / 4)
    assert errors[0] > 2 * errors[1] > 4 * errors[2]  # 4 times the error for 16 times fewer
    assert errors[2] < 0.02 * expected.norm()


def test_performers_are_their_formula():
    query, key, value = normal(7, 6), normal(7, 6, seed=1), normal(7, 6, seed=2)
    features = normal(5, 6, seed=3)

    def phi(tokens):
        return torch.exp(tokens @ features.T - tokens.square().sum(-1, keepdim=True) / 2)

    weights = phi(query) @ phi(key).T
    expected = weights / weights.sum(-1, keepdim=True) @ value
    assert torch.allclose(performer_attention(query, key, value, features), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_performers_give_convex_combinations_of_values_and_never_overflow(dtype):
    query, key = (normal(3, 9, 64, seed=n, scale=4).to(dtype) for n in range(2))
    value = normal(3, 9, 64, seed=2).to(dtype)
    features = orthogonal_features(32, 64, torch.Generator().manual_seed(0))
    attended = performer_attention(query, key, value, features)
    assert attended.dtype == dtype
    slack = 1e-12 if dtype == torch.float64 else 1e-2
    assert (attended <= value.amax(-2, keepdim=True) + slack).all()
    assert (attended >= value.amin(-2, keepdim=True) - slack).all()


def test_a_token_transformer_is_its_formula_with_the_values_as_first_residual():
    config = T2t(token_dim=6, token_module="transformer")
    part, tokens = TokenTransformer(10, config).double().eval(), normal(2, 5, 10)
    query, key, value = part.qkv(part.norm1(tokens)).split(6, -1)
    attended = (query @ key.transpose(1, 2) / 10**0.5).softmax(-1) @ value
    expected = value + part.proj(attended)
    expected = expected + part.mlp(part.norm2(expected))
    assert torch.allclose(part(tokens), expected)


def test_the_scale_of_released_weights_replaces_that_of_heads():
    tokens = normal(2, 5, 24)
    plain, scaled = build("t2t"), build("t2t", qk_scale=24**-0.5)
    for fused in (True, False):
        attention = scaled.blocks[0].attn
        attention.fused_attn = fused
        query, key, value = attention.qkv(tokens).reshape(2, 5, 3, 2, 12).permute(2, 0, 3, 1, 4)
        attended = (query @ key.transpose(-2, -1) * 24**-0.5).softmax(-1) @ value
        expected = attention.proj(attended.transpose(1, 2).reshape(2, 5, 24))
        assert torch.allclose(attention(tokens), expected)
        assert not torch.allclose(plain.blocks[0].attn(tokens), expected)


def test_positions_are_sinusoids_that_do_not_learn():
    model = build("t2t")
    assert "pos_embed" not in dict(model.named_parameters())
    table = sinusoids(5, 24)
    assert torch.equal(model.state_dict()["pos_embed"][0].float(), table)
    assert torch.equal(table[0], torch.tensor([0.0, 1.0]).repeat(12))
    assert table[3, 4].item() == pytest.approx(torch.tensor(3 * 10000 ** (-4 / 24)).sin().item())
    assert table[3, 5].item() == pytest.approx(torch.tensor(3 * 10000 ** (-4 / 24)).cos().item())


def test_random_features_are_of_their_own_seed_and_saved():
    def features(**settings):
        tensors = build("t2t", **settings).state_dict()
        return [tensors[f"patch_embed.token_modules.{n}.features"] for n in range(2)]

    first, second = features(seed=0), features(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], features(feature_seed=1)[0])
    rows = first[0] @ first[0].T  # orthogonal, of length sqrt(features)
    assert torch.allclose(rows, 4 * torch.eye(4, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("token_module", ["performer", "transformer"])
def test_symmetries_leave_outputs_as_they_are(token_module):
    model = build("t2t", token_module=token_module, qk_scale=0.2)
    change, count = change_by_symmetries("t2t", model, images(model))
    assert change < 1e-9
    assert count > 30


@pytest.mark.parametrize("token_module", ["performer", "transformer"])
def test_a_stack_computes_what_its_models_compute(token_module):
    settings = {"token_module": token_module, "token_drop_rate": 0.0}
    models = [build("t2t", seed, **settings) for seed in range(2)]
    assert stack_difference(models, images(models[0])) < 1e-11


def test_an_image_that_patches_do_not_divide_is_refused():
    with pytest.raises(InvalidConfig, match="img_size 30 is not divisible by patch_size 16"):
        create_model("t2t", img_size=30)
