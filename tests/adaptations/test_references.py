"""Adaptations against closed forms, timm's own implementation, and published figures."""

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch.nn import functional as F

from vitarium import Blueprint, grow
from vitarium.adaptations.orthogonal import rotation
from vitarium.architectures.create import create_model
from vitarium.core import seeds
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
QKV = "blocks.0.attn.qkv"


def adapted(name, **settings):
    """A model whose factors are all drawn, none zero."""
    section = choose("adaptation", name, **settings)
    with seeds.seeded(0):
        model = create_model("vit", num_classes=3, **SMALL)
        section(model)
        for parameter_name, parameter in model.named_parameters():
            if ".adaptation." in parameter_name:
                parameter.data.normal_(std=0.2)
    return section, model


def merged(section, model, name):
    tensors = model.state_dict()
    factors = {n: t for n, t in tensors.items() if "adaptation." in n}
    return section.facts["merge"](section.config, name, tensors[name], factors)


def test_lora_changes_its_matrices_by_a_product_and_no_others():
    section, model = adapted("lora", rank=3, alpha=6, matrices=["q", "v"])
    before, after = model.state_dict()[f"{QKV}.weight"], merged(section, model, f"{QKV}.weight")
    change = after - before
    for part, matrix in enumerate("qkv"):
        rows = change[16 * part : 16 * (part + 1)]
        if matrix == "k":
            assert not rows.any()
            continue
        a, b = (model.get_parameter(f"{QKV}.adaptation.{matrix}_{f}") for f in "AB")
        assert torch.allclose(rows, 6 / 3 * b @ a, atol=1e-6)
        assert torch.linalg.matrix_rank(rows, atol=1e-4) == 3
    inputs = torch.randn(5, 16)
    layer = model.get_submodule(QKV)
    assert torch.allclose(layer(inputs), F.linear(inputs, after, layer.bias), atol=1e-5)


def test_kronecker_changes_are_sums_of_kronecker_products():
    section, model = adapted("kronecker", terms=4, rank=2, matrices=["fc1"])
    name = "blocks.1.mlp.fc1"
    u, v = (model.get_parameter(f"{name}.adaptation.fc1_{f}") for f in "uv")
    rules = model.get_parameter("adaptation.rules")
    expected = sum(torch.kron(rules[i], u[i] @ v[i]) for i in range(4))
    change = merged(section, model, f"{name}.weight") - model.state_dict()[f"{name}.weight"]
    assert torch.allclose(change, expected, atol=1e-5)


def test_a_rotation_has_orthonormal_columns_and_takes_the_first_axis_to_its_vector():
    vector = torch.randn(12, dtype=torch.float64)
    vector = vector / vector.norm()
    columns = rotation(vector, 5)
    assert torch.allclose(columns[:, 0], vector)
    assert torch.allclose(columns.T @ columns, torch.eye(5, dtype=torch.float64), atol=1e-12)
    square = rotation(vector, 12)
    assert torch.linalg.det(square).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("embed_dim", "depth", "num_heads", "trained"),
    [(768, 12, 12, 9_286_656), (1024, 24, 16, 18_722_816)],
)
def test_explora_trains_as_many_parameters_as_its_authors_count(
    embed_dim, depth, num_heads, trained
):
    """Of a ViT-B and a ViT-L, the last block unfrozen, rank 64."""
    sizes = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
    with meta_device():
        model = create_model("vit", num_classes=1, **sizes)
        head = sum(p.numel() for p in model.head.parameters())
        choose("adaptation", "explora")(model)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count - head == trained


def test_layer_decay_has_the_rates_of_mae_and_but_for_the_norm_timms():
    """MAE: embedding 0, block i is i + 1, all else is the last; timm has the norm with the blocks."""
    section = choose("adaptation", "layer_decay", decay=0.7)
    model = create_model("vit", num_classes=3, **SMALL | {"depth": 3})
    rates = section.facts["rates"](section.config, model)
    expected = {"cls_token": 4, "pos_embed": 4, "patch_embed.proj.weight": 4}
    expected |= {f"blocks.{i}.attn.qkv.weight": 3 - i for i in range(3)}
    expected |= {"norm.weight": 0, "head.weight": 0}
    for name, layers in expected.items():
        assert rates[name] == pytest.approx(0.7**layers), name
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in param_groups_layer_decay(model, layer_decay=0.7):
        for parameter in group["params"]:
            name = names[id(parameter)]
            share = 0.7 if name.startswith("norm") else 1
            assert group["lr_scale"] == pytest.approx(share * rates[name]), name


def test_towards_start_draws_back_by_the_distance():
    section = choose("adaptation", "towards_start", strength=0.5, head_strength=0.1)
    model = create_model("vit", num_classes=3, **SMALL)
    section(model)
    start = {n: p.detach() + 1 for n, p in model.named_parameters() if not n.startswith("head")}
    section.facts["penalty"](section.config, model, start).backward()
    for name, parameter in model.named_parameters():
        expected = 0.5 * (parameter - start[name]) if name in start else 0.1 * parameter
        assert torch.allclose(parameter.grad, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lora", {"rank": 17}, "rank is 17, more than the 16 rows or columns of a matrix in"),
        ("orthogonal", {"rank": 17}, "rank is 17, more than the 16"),
        ("kronecker", {"terms": 5}, "terms is 5, which does not divide"),
        ("kronecker", {"terms": 4, "rank": 5}, "rank is 5, more than the 4 rows or columns"),
        ("tcpa", {"pool": 2**12, "length": 2}, "is longer than 4096 tokens"),
        ("lora", {"blocks": [2]}, "there is no block 2; the model has 2, from 0 to 1"),
        ("last_blocks", {"count": 3}, "count is 3, and the model has 2 blocks"),
    ],
)
def test_what_does_not_fit_a_model_is_said(name, settings, message):
    with pytest.raises(InvalidInput) as error:
        adapted(name, **settings)
    assert message in str(error.value)


def test_a_checkpoint_holds_what_learned(tmp_path):
    architecture = {"name": "vit", **SMALL, "in_chans": 1, "embed_dim": 64}
    shared = {"data": {"name": "digits", "train_limit": 64}, "epochs": 1, "batch_size": 32}
    adaptations = ["full", {"name": "lora", "rank": 2}]
    stages = {
        "pretrain": {**shared, "architecture": architecture},
        "finetune": {**shared, "start": "pretrain", "grid": {"adaptation": adaptations}},
    }
    blueprint = Blueprint.read({"name": "sizes", "stages": stages})
    options = {"workers": 0, "precision": "fp32", "stacked": 1, "progress": False}
    zoo = grow(blueprint, tmp_path, **options).zoo
    size = {
        model.spec.recipe.adaptation.name: zoo.folder(model.id).checkpoints.path(1).stat().st_size
        for model in zoo
        if model.parent
    }
    assert size["lora"] < 0.1 * size["full"]
