"""Bootstrapping of SparseFormer: what it takes over of a ViT."""

import pytest
import torch

from vitarium.core import registry
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.sparseformer import Bootstrapped, sparse_architecture

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 6, "num_heads": 3}
FOCUS = {"focus_dim": 8, "focus_heads": 2, "latent_tokens": 4, "points": 4, "stem_width": 4}
FOCUS |= {"stem_stride": 1}


def trained(name="vit", **factors):
    section = registry.section("architecture", {"name": name, **SIZES, **factors})
    torch.manual_seed(0)
    model = section(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return section, model


def tensors(model, **settings):
    weights = Weights("m", model.state_dict(), skeleton=lambda: model)
    return dict(choose("operator", "sparseformer", **FOCUS, **settings)(Ingredients([weights])))


@pytest.mark.parametrize(("depth", "share", "first"), [(6, 1 / 3, 2), (6, 0.5, 3), (3, 1 / 3, 1)])
def test_the_last_blocks_norm_and_head_are_the_vits(depth, share, first):
    section, model = trained(depth=depth)
    built = sparse_architecture(Bootstrapped(**FOCUS, inherit_from=share), section)(5)
    built.load_state_dict(tensors(model, inherit_from=share))
    assert len(built.blocks) == 2 + depth - first
    for own, block in zip(built.blocks[2:], model.blocks[first:], strict=True):
        assert all(torch.equal(own.state_dict()[n], t) for n, t in block.state_dict().items())
    assert torch.equal(built.norm.weight, model.norm.weight)
    assert torch.equal(built.head.weight, model.head.weight)
    assert torch.equal(built.cls_token, model.cls_token + model.pos_embed[:, :1])
    assert built(torch.randn(2, 1, 8, 8)).shape == (2, 5)


def test_a_vit_that_averages_patches_gives_one_that_averages_tokens():
    section, model = trained(class_token=False, global_pool="avg")
    built = sparse_architecture(Bootstrapped(**FOCUS), section)(5)
    built.load_state_dict(tensors(model))
    assert built.cls_token is None
    assert torch.equal(built.norm.weight, model.fc_norm.weight)


def test_tokens_may_focus_as_in_the_bootstrapped_version():
    section, model = trained()
    built = sparse_architecture(Bootstrapped(**FOCUS, focusing="bootstrapped"), section)(5)
    built.load_state_dict(tensors(model, focusing="bootstrapped"))
    assert torch.equal(built.blocks[2].norm1.weight, model.blocks[2].norm1.weight)
    assert built(torch.randn(2, 1, 8, 8)).shape == (2, 5)


def test_other_parts_are_drawn_by_the_seed():
    _, model = trained()
    first, second = tensors(model), tensors(model, seed=1)
    assert torch.equal(first["latents"], tensors(model)["latents"])
    assert not torch.equal(first["latents"], second["latents"])
    assert torch.equal(first["blocks.2.norm1.weight"], second["blocks.2.norm1.weight"])


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"reg_tokens": 2}, "reg_tokens 2"),
        ({"act_layer": "relu"}, "act_layer relu"),
        ({"global_pool": "avg"}, "global_pool 'avg' beside its class token"),
        ({"norm_eps": 1e-3}, "norm_eps 0.001"),
        ({"name": "distilled_vit"}, "there is no SparseFormer of a ClassAndDistillation"),
        ({"name": "uneven_vit", "head_dim": 2}, "head_dim"),
        ({"name": "uneven_vit", "hidden": (8, 8, 8, 8, 8, 9)}, "MLPs of several widths"),
    ],
)
def test_what_no_sparseformer_has_is_refused(factors, message):
    section, _ = trained(**factors)
    with pytest.raises(IncompatibleWeights, match=message):
        sparse_architecture(Bootstrapped(**FOCUS), section)
