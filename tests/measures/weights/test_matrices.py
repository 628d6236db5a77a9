"""Which tensors are weight matrices, with and without the architecture."""

import pytest
import timm
import torch

from vitarium import create_model
from vitarium.core.devices import meta_device
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.scope import in_scope
from vitarium.measures.weights._matrices import head_matrices, layers, matrices

SIZES = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3}
LAYERS = [
    "patch_embed.proj.weight",
    "blocks.0.attn.qkv.weight",
    "blocks.0.attn.proj.weight",
    "blocks.0.mlp.fc1.weight",
    "blocks.0.mlp.fc2.weight",
    "head.weight",
]


@pytest.fixture(scope="module")
def model():
    return create_model("vit", num_classes=5, **SIZES)


@pytest.fixture(params=["architecture", "names alone"])
def weights(request, model) -> Weights:
    known = {"skeleton": lambda: model} if request.param == "architecture" else {}
    return Weights("a@1", model.state_dict(), **known)


def test_matrices_are_the_layers_weights_and_no_embeddings(weights):
    assert layers(weights) == LAYERS


def test_a_fused_matrix_gives_queries_keys_and_values(weights, model):
    found = dict(matrices(weights))
    fused = "blocks.0.attn.qkv.weight"
    assert found.keys() == {*LAYERS, f"{fused}/q", f"{fused}/k", f"{fused}/v"}
    assert found["patch_embed.proj.weight"].shape == (12, 3 * 4 * 4)
    assert torch.cat([found[f"{fused}/{part}"] for part in "qkv"]).equal(found[fused])


def test_heads_are_timms(model):
    weights = Weights("a@1", model.state_dict(), skeleton=lambda: model)
    found = dict(head_matrices(weights))
    # as timm's attention splits them: (3, heads, head_dim, in)
    theirs = weights["blocks.0.attn.qkv.weight"].reshape(3, 3, 4, 12)
    for letter, of_letter in zip("qkv", theirs, strict=True):
        for number, head in enumerate(of_letter):
            assert found[f"blocks.0.attn.qkv.weight/{letter}/head{number}"].equal(head)
    assert len(found) == 9


def test_heads_cannot_be_told_without_the_architecture(model):
    with pytest.raises(NotApplicable, match="a@1: what it is built of is not known"):
        list(head_matrices(Weights("a@1", model.state_dict())))


def test_names_do_for_models_of_others():
    tensors = {
        "embeddings.word_embeddings.weight": torch.ones(30, 8),
        "embeddings.patch_embeddings.projection.weight": torch.ones(8, 3, 2, 2),
        "embeddings.position_embeddings": torch.ones(1, 5, 8),
        "attention.in_proj_weight": torch.ones(24, 8),
        "norm.weight": torch.ones(8),
        "steps": torch.ones(2, 2, dtype=torch.int64),
    }
    assert layers(Weights("a@1", tensors)) == [
        "embeddings.patch_embeddings.projection.weight",
        "attention.in_proj_weight",
    ]


def test_torchs_own_attention_is_split_too():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16)
    weights = Weights("a@1", layer.state_dict(), skeleton=lambda: layer)
    assert layers(weights) == [
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    ]
    assert len(dict(head_matrices(weights))) == 3 * 2


def test_a_bad_matrix_is_named(model):
    tensors = model.state_dict() | {"blocks.0.mlp.fc1.weight": torch.full((48, 12), torch.nan)}
    with pytest.raises(NotApplicable, match=r"a@1: blocks\.0\.mlp\.fc1\.weight has entries"):
        list(matrices(Weights("a@1", tensors)))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_the_trunk_is_all_but_the_heads(name):
    with meta_device():
        model = timm.create_model(name, num_classes=3)
    weights = Weights("a@1", model.state_dict(), skeleton=lambda: model)
    heads = {n for n in weights if n.startswith(("head.", "head_dist."))}
    assert set(in_scope(weights, "trunk")) == weights.keys() - heads
    assert set(in_scope(weights, "all")) == weights.keys()
    assert in_scope(Weights("a@1", model.state_dict()), "trunk") == in_scope(weights, "trunk")
