"""Attention that is made smoother, or recorded, by hooks on timm's own."""

from dataclasses import replace

import pytest
import torch
from timm.models import create_model as create_timm_model
from torch import nn

from reference.recorded import attention_maps
from vitarium import create_model
from vitarium.architectures.multiplexed._blocks import MultiplexedAttention
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.attention import watch
from vitarium.measures.robustness._patches import (
    attention_temperature,
    class_attention,
)


@pytest.fixture
def images(examples):
    return next(examples.batches(12)).images


def fused(model, value):
    for block in model.blocks:
        block.attn.fused_attn = value


def logits(model, images):
    with torch.no_grad():
        return model(images)


def test_a_temperature_of_one_is_the_model_itself_bit_by_bit(subject, images):
    before = logits(subject.model, images)
    with attention_temperature(subject, 1.0):
        assert torch.equal(logits(subject.model, images), before)


@pytest.mark.parametrize("is_fused", [True, False])
def test_scores_are_divided_by_the_temperature(subject, images, is_fused):
    """The same as a query projection that is divided by it."""
    fused(subject.model, is_fused)
    with attention_temperature(subject, 3.0):
        smoothed = logits(subject.model, images)
    assert not torch.allclose(smoothed, logits(subject.model, images), atol=1e-2)
    for block in subject.model.blocks:
        block.attn.qkv.weight.data[:16] /= 3
        block.attn.qkv.bias.data[:16] /= 3
    assert torch.allclose(smoothed, logits(subject.model, images), atol=1e-5)


@pytest.mark.parametrize("is_fused", [True, False])
def test_at_a_great_temperature_attention_is_uniform(subject, images, is_fused):
    """The same as a model whose attention is replaced by the mean of all values."""
    fused(subject.model, is_fused)
    with attention_temperature(subject, 1e9):
        found = logits(subject.model, images)
    for block in subject.model.blocks:
        block.attn = Uniform(block.attn)
    assert torch.allclose(found, logits(subject.model, images), atol=1e-4)


class Uniform(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, tokens, **_):
        width = tokens.shape[-1]
        values = self.attention.qkv(tokens)[..., 2 * width :]
        return self.attention.proj(values.mean(1, keepdim=True).expand_as(values))


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("mini_deit", {"relative_positions": {"mode": "bias", "on": ["q", "k"]}}),
        ("mini_deit", {"relative_positions": {"on": ["q", "k", "v"]}}),
        ("mini_swin", {}),
    ],
)
def test_multiplexed_scores_are_divided_with_all_that_is_added_to_them(
    subject, architecture, settings
):
    """The same as a mixing before the softmax that is divided by it."""
    sizes = {
        "mini_deit": {"embed_dim": 16, "depth": 2, "num_heads": 2, "share": 2},
        "mini_swin": {
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 2],
            "window_size": 2,
            "share": 2,
        },
    }[architecture]
    torch.manual_seed(0)
    model = create_model(
        architecture, num_classes=5, img_size=16, patch_size=2, in_chans=1, **sizes, **settings
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with attention_temperature(replace(subject, model=model), 3.0):
        smoothed = logits(model, images)
    assert not torch.allclose(smoothed, logits(model, images), atol=1e-2)
    for attention in model.modules():
        if isinstance(attention, MultiplexedAttention):
            for parameter in attention.before.parameters():
                parameter.data /= 3
    assert torch.allclose(smoothed, logits(model, images), atol=1e-4)


def test_afterwards_the_model_is_as_before_even_after_an_error(subject, images):
    before = logits(subject.model, images)
    with pytest.raises(ZeroDivisionError), attention_temperature(subject, 5.0):
        watch(subject.model, images, lambda name, attention: 1 / 0)
    assert torch.equal(logits(subject.model, images), before)
    assert all(block.attn.fused_attn for block in subject.model.blocks)
    for module in subject.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_recorded_attention_is_the_softmax_of_the_scores(subject, images):
    maps = attention_maps(subject.model, images)
    assert len(maps) == 2
    model = subject.model
    with torch.no_grad():
        tokens = model._pos_embed(model.patch_embed(images))
        for block, found in zip(model.blocks, maps, strict=True):
            weights, bias = block.attn.qkv.weight, block.attn.qkv.bias
            queries, keys, _ = (block.norm1(tokens) @ weights.T + bias).split(16, dim=-1)
            for head in range(2):
                part = slice(8 * head, 8 * head + 8)
                scores = queries[..., part] @ keys[..., part].transpose(1, 2) / 8**0.5
                assert torch.allclose(found[:, head], scores.softmax(-1), atol=1e-5)
            tokens = block(tokens)


def test_recording_sees_the_temperature(subject, images):
    with attention_temperature(subject, 1e9):
        maps = attention_maps(subject.model, images)
    assert torch.allclose(maps[0], torch.full_like(maps[0], 1 / 17), atol=1e-6)


def test_class_attention_is_the_class_tokens_row_among_the_patches(subject, images):
    maps = attention_maps(subject.model, images)
    row = maps[-1].mean(1)[:, 0, 1:]
    expected = row / row.sum(1, keepdim=True)
    assert torch.allclose(class_attention(subject, maps, "last"), expected)


def test_where_patches_are_pooled_it_is_the_mean_of_their_rows(subject, images):
    maps = attention_maps(subject.model, images)
    subject.model.global_pool = "avg"
    rows = maps[-1].mean(1)[:, 1:, 1:].mean(1)
    expected = rows / rows.sum(1, keepdim=True)
    assert torch.allclose(class_attention(subject, maps, "last"), expected, atol=1e-6)


def test_rollout_multiplies_the_means_of_attention_and_identity(subject):
    """By hand, for two blocks of three tokens: one of them the class token."""
    first = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.0, 0.5, 0.5]])
    second = torch.tensor([[0.4, 0.0, 0.6], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    maps = [one.expand(1, 2, 3, 3) for one in (first, second)]
    # Row of the class token: half (0.4, 0, 0.6) plus half the identity is (0.7, 0, 0.3).
    # Times half the first plus half the identity:
    row = 0.7 * torch.tensor([0.6, 0.25, 0.15]) + 0.3 * torch.tensor([0.0, 0.25, 0.75])
    expected = row[1:] / row[1:].sum()
    assert torch.allclose(class_attention(subject, maps, "rollout")[0], expected)


def test_attention_that_is_not_timms_is_refused(subject):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(nn.Linear(2, 2))

    plain = replace(subject, model=Plain())
    with pytest.raises(NotApplicable, match=r"aaaaaaaaaaaa@1: blocks\.0 has no .* q_norm"):
        attention_temperature(plain, 2.0).__enter__()
    with pytest.raises(NotApplicable, match=r"blocks\.0 of a Plain has 0 attentions"):
        watch(plain.model, torch.ones(1, 2), lambda *_: None)
    with pytest.raises(NotApplicable, match="Linear has no blocks"):
        attention_temperature(replace(subject, model=nn.Linear(2, 2)), 2.0).__enter__()


def test_rotated_queries_are_divided_too(subject):
    """EVA's attention turns queries after q_norm; a rotation is linear."""
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = create_timm_model("vit_small_patch16_rope_224", **sizes, num_classes=5).eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rotating = replace(subject, model=model)
    with attention_temperature(rotating, 1e9):
        maps = attention_maps(model, images)
    assert torch.allclose(maps[0], torch.full_like(maps[0], 1 / 5), atol=1e-6)
