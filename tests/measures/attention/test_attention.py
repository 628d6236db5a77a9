"""Attention's probabilities, and the numbers made of them, against loops in float64."""

import math
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.attention import Grid, watch
from vitarium.measures.attention.distance import distances
from vitarium.measures.attention.rollout import rollout

MEASURES = ("attention_distance", "attention_entropy", "attention_rollout", "position_artifacts")


def vit(**overrides):
    torch.manual_seed(0)
    sizes = {"img_size": (8, 12), "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}
    model = VisionTransformer(**sizes | overrides, num_classes=3).eval()
    for parameter in model.parameters():  # away from the near-uniform attention of a new model
        parameter.data.mul_(3).add_(torch.randn_like(parameter), alpha=0.1)
    return model


def images(n=5, height=8, width=12):
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(1))


def seen(model, some):
    maps = {}
    watch(model, some, lambda name, attention: maps.update({name: attention.clone()}))
    return maps


def by_hand(model, some):
    """softmax(q k^T / sqrt(d)) of every block, in float64, from what goes into its attention."""
    inputs = []
    hooks = [
        block.attn.register_forward_hook(lambda attn, given, _: inputs.append((attn, given[0])))
        for block in model.blocks
    ]
    model.double()(some.double())
    for hook in hooks:
        hook.remove()
    maps = {}
    for number, (attn, x) in enumerate(inputs):
        qkv = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1))
        q, k = attn.q_norm(qkv[:, :, 0]), attn.k_norm(qkv[:, :, 1])
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        maps[f"blocks.{number}"] = scores.softmax(-1).detach()
    model.float()
    return maps


class Given:
    """Examples that are these images."""

    device = torch.device("cpu")

    def __init__(self, some):
        self.some, self.input_size = some, some.shape[1:]

    def first(self, count):
        return Given(self.some[:count])

    def batches(self, size):
        return (SimpleNamespace(images=part) for part in self.some.split(size))


def as_subject(model, some):
    return SimpleNamespace(name="model@1", model=model, examples=Given(some))


@pytest.mark.parametrize(
    "settings",
    [{}, {"qk_norm": True, "reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}],
)
def test_probabilities_are_the_softmax_of_queries_and_keys(settings):
    model = vit(**settings)
    found, expected = seen(model, images()), by_hand(model, images())
    assert list(found) == ["blocks.0", "blocks.1"]
    for name, attention in found.items():
        assert torch.allclose(attention.double(), expected[name], atol=1e-5)
        assert attention.amax() > 0.5


@torch.no_grad()
def test_probabilities_with_rotary_positions_are_those_that_weigh_the_values():
    """EVA's attention, whose queries and keys are turned: probabilities times values it is."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    model = timm.create_model("eva02_tiny_patch14_224", **sizes).eval()
    attn = model.blocks[0].attn
    given = {}
    attn.register_forward_hook(lambda _, x, out: given.update(x=x[0], out=out))
    some = images(3, 32, 32)
    model(some)
    fused = given["out"]
    v = given["x"] @ attn.qkv.weight[-32:].T + attn.v_bias
    v = v.unflatten(-1, (2, 16)).transpose(1, 2)
    mixed = (seen(model, some)["blocks.0"] @ v).transpose(1, 2).flatten(2)
    assert torch.allclose(attn.proj(attn.norm(mixed)), fused, atol=1e-5)


def test_watching_changes_neither_the_model_nor_what_it_gives(subject):
    model = subject.model.train()
    some = next(subject.examples.batches(20)).images
    model.blocks[0].attn.fused_attn = False
    before = [(module.training, getattr(module, "fused_attn", None)) for module in model.modules()]
    seen(model, some)

    def stop(name, attention):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(model, some, stop)
    after = [(module.training, getattr(module, "fused_attn", None)) for module in model.modules()]
    assert after == before
    assert not any(module._forward_hooks for module in model.modules())


def test_distance_is_the_mean_over_patches_in_pixels():
    model, some = vit(reg_tokens=1), images()
    values = choose("measure", "attention_distance")(as_subject(model, some))
    heads = {}
    for name, attention in by_hand(model, some).items():
        for head in range(2):
            each = []
            for one in attention[:, head, 2:, 2:]:
                for query, row in enumerate(one):
                    far = [
                        math.dist((query // 3 * 4, query % 3 * 4), (key // 3 * 4, key % 3 * 4))
                        for key in range(6)
                    ]
                    each.append(float(row @ torch.tensor(far).double() / row.sum()))
            heads[f"{name}/head{head}"] = sum(each) / len(each)
    layers = {n: (heads[f"{n}/head0"] + heads[f"{n}/head1"]) / 2 for n in ("blocks.0", "blocks.1")}
    expected = heads | layers | {"": sum(layers.values()) / 2}
    assert values == pytest.approx(expected, abs=1e-4)


def uniform(**settings):
    """A model that attends to all tokens alike."""
    model = vit(**settings)
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
        torch.nn.init.zeros_(block.attn.qkv.bias)
    return model


def test_attention_to_all_alike_has_closed_forms():
    model = uniform(img_size=16)
    subject = as_subject(model, images(3, 16, 16))
    mean = float(distances(Grid(4, 4, 1), (16, 16)).mean())
    assert choose("measure", "attention_distance")(subject)[""] == pytest.approx(mean, rel=1e-6)
    assert choose("measure", "attention_entropy")(subject)[""] == pytest.approx(math.log(17))
    assert choose("measure", "attention_entropy", normalized=True)(subject)[""] == pytest.approx(1)
    for heads in ("mean", "max", "min"):
        values = choose("measure", "attention_rollout", heads=heads)(subject)
        assert values == pytest.approx({"": 1, "center": 0.25})


def test_entropy_is_of_all_tokens_by_head():
    model, some = vit(), images()
    values = choose("measure", "attention_entropy")(as_subject(model, some))
    for name, attention in by_hand(model, some).items():
        expected = torch.distributions.Categorical(probs=attention).entropy().mean((0, 2))
        for head in range(2):
            assert values[f"{name}/head{head}"] == pytest.approx(float(expected[head]), abs=1e-4)
        assert values[name] == pytest.approx(float(expected.mean()), abs=1e-4)
    assert values[""] == pytest.approx((values["blocks.0"] + values["blocks.1"]) / 2)


@pytest.mark.parametrize("heads", ["mean", "max", "min"])
@pytest.mark.parametrize(
    "settings", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}]
)
def test_rollout_is_the_product_of_the_blocks_attention(settings, heads):
    model, some = vit(**settings), images()
    product = None
    for attention in by_hand(model, some).values():
        one = {"mean": attention.mean(1), "max": attention.max(1)[0], "min": attention.min(1)[0]}
        one = one[heads] / one[heads].sum(-1, keepdim=True)
        mixed = 0.5 * one + 0.5 * torch.eye(one.shape[-1])
        product = mixed if product is None else torch.bmm(mixed, product)
    prefix = model.num_prefix_tokens
    rows = product[:, 0] if "class_token" not in settings else product.mean(1)
    expected = rows[:, prefix:] / rows[:, prefix:].sum(1, keepdim=True)
    found = rollout(model, some, heads=heads)
    assert found.shape == (5, 2, 3)
    assert torch.allclose(found.flatten(1), expected, atol=1e-5)


def test_the_center_of_a_map_is_the_middle_half_of_both_sides():
    """Of three columns, a quarter of each outer one and the whole inner one... of their width."""
    model, some = vit(), images()
    maps = rollout(model, some)
    weights = torch.tensor([[0.25, 1, 0.25]]).double() * torch.tensor([[0.5], [0.5]]).double()
    values = choose("measure", "attention_rollout")(as_subject(model, some))
    assert values["center"] == pytest.approx(float((maps * weights).sum((1, 2)).mean()))
    entropy = torch.distributions.Categorical(probs=maps.flatten(1)).entropy().mean()
    assert values[""] == pytest.approx(float(entropy) / math.log(6))


@pytest.mark.parametrize("name", MEASURES)
def test_batches_have_no_part_in_a_value(name, subject, monkeypatch):
    whole = choose("measure", name, num_images=40)(subject)
    for module in (
        "vitarium.evaluation.attention",
        "vitarium.measures.attention.rollout",
        "vitarium.measures.attention.position_artifacts",
    ):
        monkeypatch.setattr(f"{module}.BATCH_SIZE", 7)
    assert choose("measure", name, num_images=40)(subject) == pytest.approx(whole, abs=1e-5)
    assert all(math.isfinite(value) for value in whole.values())


def swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12,
        depths=(1, 1), num_heads=(1, 2),
    ).eval()  # fmt: skip


def cait():
    sizes = {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return timm.create_model("cait_xxs24_224", **sizes).eval()


class Unseen(Attention):
    """Attends without passing the probabilities through `attn_drop`."""

    def forward(self, x, attn_mask=None, is_causal=False):
        return self.proj(x)


def unseen():
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return VisionTransformer(**sizes, attn_layer=Unseen).eval()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (unseen, "pass through `attn_drop` 0 times in blocks.0"),
        (lambda: timm.create_model("test_convnext"), "ConvNeXt"),
        (swin, "of a SwinTransformer has|attends inside windows"),
        (cait, "of a Cait has 0 attentions"),
    ],
)
@pytest.mark.parametrize("name", ["attention_entropy", "attention_rollout"])
def test_models_without_attention_over_all_tokens_have_no_value(name, model, message):
    some = images(2, 32, 32)
    with pytest.raises(NotApplicable, match=message):
        choose("measure", name)(as_subject(model(), some))
