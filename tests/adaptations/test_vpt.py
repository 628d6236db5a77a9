"""Prompts, against a forward pass that is written out."""

import copy
import math
import pickle

import pytest
import torch

from vitarium.architectures.create import create_model
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.evaluation.features import patch_features
from vitarium.testing import check_adaptation
from vitarium.training import TrainOptions
from vitarium.training.optimize_forward import optimize_forward

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
MODELS = {
    "class token": ("vit", {}),
    "registers": ("vit", {"reg_tokens": 2}),
    "no class token": ("vit", {"class_token": False, "global_pool": "avg"}),
    "average": ("vit", {"global_pool": "avg", "no_embed_class": True}),
    "dinov2": ("dinov2", {"reg_tokens": 4, "init_values": 0.5}),
    "experts": ("ewa_vit", {}),
    "one block": ("vit", {"depth": 1}),
}


def built(name="class token", **settings):
    architecture, changes = MODELS[name]
    torch.manual_seed(0)
    plain = create_model(architecture, num_classes=3, **{**SMALL, **changes}).eval()
    adapted = copy.deepcopy(plain)
    section("adaptation", {"name": "vpt", "count": 2, **settings})(adapted)
    return plain, adapted.eval()


def reference(plain, prompts, images, deep):
    """The definition: prompts go in after the prefix, and those of deep ones replace the last."""
    prefix, count = plain.num_prefix_tokens, len(prompts[0])
    tokens = plain.norm_pre(plain._pos_embed(plain.patch_embed(images)))
    for number, block in enumerate(plain.blocks):
        if number == 0 or deep:
            rest = tokens[:, prefix:] if number == 0 else tokens[:, prefix + count :]
            inserted = prompts[number].expand(len(images), -1, -1)
            tokens = torch.cat([tokens[:, :prefix], inserted, rest], 1)
        tokens = block(tokens)
    tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix + count :]], 1)
    return plain.forward_head(plain.norm(tokens))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_prompts_are_inserted_carried_or_replaced_and_left_out_of_pooling(name, deep):
    plain, adapted = built(name, deep=deep)
    tensors = adapted.state_dict()
    prompts = [t for n, t in tensors.items() if n.endswith("prompts.tokens")]
    assert len(prompts) == (len(plain.blocks) if deep else 1)
    images = torch.randn(2, 3, 16, 16)
    expected = reference(plain, prompts, images, deep)
    assert torch.allclose(adapted(images), expected, atol=1e-5)
    assert not torch.allclose(adapted(images), plain(images), rtol=0, atol=1e-5)
    assert adapted.forward_features(images).shape == plain.forward_features(images).shape
    learns = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert learns == {n for n in tensors if n.endswith("prompts.tokens") or n.startswith("head.")}


def test_prompts_are_drawn_as_the_authors_draw_them():
    _, adapted = built(count=400)
    bound = math.sqrt(6 / (3 * 4 * 4 + 16))
    prompts = adapted.blocks[0].prompts.tokens
    assert prompts.abs().max() <= bound
    assert prompts.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_dropout_acts_on_prompts_in_training_alone():
    _, adapted = built(dropout=0.5)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(adapted(images), adapted(images))
    adapted.blocks[0].prompts.train()
    assert not torch.equal(adapted(images), adapted(images))


@pytest.mark.parametrize("deep", [False, True])
def test_patches_of_every_block_are_those_of_the_image(deep):
    _, adapted = built("registers", deep=deep)
    outputs = {}
    for number, block in enumerate(adapted.blocks):
        block.register_forward_hook(lambda _, __, out, number=number: outputs.update({number: out}))
    adapted(torch.randn(2, 3, 16, 16))
    for number, output in outputs.items():
        patches = patch_features(adapted, output, f"blocks.{number}")
        assert torch.equal(patches, output[:, -16:])
        assert patches.shape == (2, 16, 16)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("mini_deit", {**SMALL, "depth": 2}),
        ("timm", {"model": "swin_tiny_patch4_window7_224"}),
        ("timm", {"model": "beit_base_patch16_224"}),
        ("timm", {"model": "eva02_tiny_patch14_224"}),
    ],
)
@pytest.mark.parametrize("name", ["vpt", "tcpa"])
def test_what_takes_no_prompts_is_refused(architecture, settings, name):
    with torch.device("meta"):
        model = create_model(architecture, num_classes=3, **settings)
    with pytest.raises(InvalidInput, match=f"'{name}': a .* takes no prompts"):
        section("adaptation", name)(model)


@pytest.mark.parametrize("deep", [False, True])
def test_the_faster_forward_pass_leaves_adapted_models_alone(deep):
    _, adapted = built(deep=deep)
    images = torch.randn(2, 3, 16, 16)
    expected = adapted(images)
    optimize_forward(adapted, TrainOptions(device="cpu"))
    assert torch.equal(adapted(images), expected)


def test_copies_and_pickles_compute_the_same():
    _, adapted = built(deep=True)
    images = torch.randn(2, 3, 16, 16)
    for again in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        assert torch.equal(again(images), adapted(images))


def test_the_shallow_one_keeps_to_the_contract_too():
    check_adaptation("vpt", deep=False, count=3)
