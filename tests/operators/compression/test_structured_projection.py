"""Projections of trained ViTs on structured matrices, and back: nearest, reported, in the zoo."""

import numpy as np
import pytest
import torch

from vitarium import Blueprint, grow, merge
from vitarium.architectures.structured.structured_vit import LAYERS, Structure
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose, section
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.structured_projection import projected_architecture

TINY = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 2, "num_heads": 2}


def plain(**factors):
    chosen = section("architecture", {"name": "vit", **TINY, **factors})
    torch.manual_seed(0)
    model = chosen(5).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_()
    return chosen, model


def projected(chosen, model, **settings):
    """The structured model, running in float64, and what was logged."""
    ingredients = Ingredients([Weights("m", model.state_dict(), skeleton=lambda: model)])
    tensors = dict(choose("operator", "structured_projection", **settings)(ingredients))
    built = projected_architecture(Structure(**settings), chosen)(model.num_classes).double()
    built.load_state_dict(tensors)
    return built.eval().requires_grad_(False), ingredients.log


def matrices(model):
    """By layer, float64 [out, in]."""
    matrices = {}
    for number, block in enumerate(model.blocks):
        qkv = block.attn.qkv
        parts = [qkv.q, qkv.k, qkv.v] if hasattr(qkv, "q") else qkv.weight.chunk(3)
        layers = [*parts, block.attn.proj, block.mlp.fc1, block.mlp.fc2]
        matrices |= {
            (number, name): dense(layer) for name, layer in zip(LAYERS, layers, strict=True)
        }
    return matrices


def dense(layer):
    if hasattr(layer, "factor_names"):
        return layer.matrix({name: getattr(layer, name) for name in layer.factor_names})
    return getattr(layer, "weight", layer)


def outputs(model):
    torch.manual_seed(1)
    return model(torch.randn(3, 1, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize(
    "settings",
    [
        {"structure": "low_rank", "rank": 12},
        {"structure": "btt", "rank": 3, "structured_layers": ["q", "v", "proj", "fc1"]},
        {"structure": "monarch", "num_blocks": 1},
        {"structure": "kronecker", "rank": 9, "structured_layers": ["k", "proj"]},
        {"structure": "btt", "embed_pair": [12, 1], "structured_layers": ["q", "k"]},
    ],
)
def test_with_enough_parameters_the_structured_model_computes_what_the_model_does(settings):
    """The last one has as many as the matrix: m1 = 1 and n0 = 12 give rank-one slices of rows."""
    for factors in ({}, {"qkv_bias": False, "attention": "cosine", "init_values": 0.5}):
        chosen, model = plain(**factors)
        structured, log = projected(chosen, model, **settings)
        torch.testing.assert_close(outputs(structured), outputs(model), rtol=0, atol=1e-9)
        assert log.metrics["relative_error"] < 1e-12


@pytest.mark.parametrize("structure", ["low_rank", "btt", "monarch", "kronecker"])
def test_the_logged_error_is_that_of_the_matrices(structure):
    chosen, model = plain()
    structured, log = projected(chosen, model, structure=structure)
    ours, original = matrices(structured), matrices(model)
    missed = sum((ours[name] - original[name]).square().sum() for name in original)
    norm = sum(matrix.square().sum() for matrix in original.values())
    assert log.metrics["relative_error"] == pytest.approx((missed / norm).sqrt().item())
    in_fc2 = [(ours[i, "fc2"] - original[i, "fc2"]).norm() for i in (0, 1)]
    share = (sum(e**2 for e in in_fc2) / sum(original[i, "fc2"].norm() ** 2 for i in (0, 1))).sqrt()
    assert f"fc2 {share:.3g}" in log.lines[0]


def test_slices_of_a_block_tensor_train_are_numpys_truncated_svds():
    chosen, model = plain()
    structured, _ = projected(chosen, model, rank=2)
    ours, original = matrices(structured), matrices(model)
    (n0, n1), (m0, m1) = (6, 8), (3, 4)  # of fc1
    for p in range(n0):
        for a in range(m1):
            rows, columns = slice(p * n1, (p + 1) * n1), slice(a * m0, (a + 1) * m0)
            part = original[1, "fc1"][rows, columns].numpy()
            u, values, v = np.linalg.svd(part, full_matrices=False)
            expected = u[:, :2] * values[:2] @ v[:2]
            np.testing.assert_allclose(ours[1, "fc1"][rows, columns].numpy(), expected, atol=1e-12)


def test_all_but_the_chosen_matrices_stay():
    chosen, model = plain()
    structured, _ = projected(chosen, model, structured_layers=["v", "fc2"])
    ours, original = structured.state_dict(), model.state_dict()
    for name in ("cls_token", "blocks.1.norm2.bias", "blocks.0.mlp.fc1.weight", "head.weight"):
        assert torch.equal(ours[name], original[name])
    assert torch.equal(
        ours["blocks.1.attn.qkv.k.weight"], original["blocks.1.attn.qkv.weight"][12:24]
    )
    assert torch.equal(ours["blocks.1.attn.qkv.v.bias"], original["blocks.1.attn.qkv.bias"][24:])
    assert torch.equal(ours["blocks.1.mlp.fc2.bias"], original["blocks.1.mlp.fc2.bias"])


def test_what_cannot_be_projected_is_refused_by_name():
    chosen, _ = plain()
    with pytest.raises(IncompatibleWeights, match="cannot be btt: rank 4 is more than 3"):
        projected_architecture(Structure(rank=4), chosen)
    for other in ("dinov2", "distilled_vit"):
        with pytest.raises(
            IncompatibleWeights, match=f"needs a vit or a structured_vit, not {other}"
        ):
            projected_architecture(Structure(), section("architecture", {"name": other}))
    with pytest.raises(IncompatibleWeights, match="an unknown architecture"):
        projected_architecture(Structure(), None)
    with pytest.raises(IncompatibleWeights, match="dense_form needs a structured_vit, not vit"):
        choose("operator", "dense_form").plugin.facts["architecture"](None, chosen)


def test_a_trained_model_its_projection_and_its_dense_form_are_models_of_the_zoo(tiny, tmp_path):
    stage = {**tiny["stages"]["pretrain"], "epochs": 1}
    blueprint = Blueprint.read({"name": "plain", "stages": {"pretrain": stage}})
    zoo = grow(blueprint, tmp_path / "zoo", workers=0, progress=False).zoo
    id = zoo.ids()[0]
    structured = merge(zoo, "structured_projection", models=[id], rank=2)
    assert structured.spec.origin.architecture.name == "structured_vit"
    assert [ref.model for ref in structured.spec.ingredients] == [id]
    assert 0.1 < structured.metrics["relative_error"].item() < 1
    plain_again = merge(zoo, "dense_form", models=[structured.id])
    assert plain_again.spec.origin.architecture == zoo.spec(id).origin.architecture
    assert zoo.state_dict(plain_again.id).keys() == zoo.state_dict(id).keys()
    size = zoo.spec(id).origin.architecture.config.input_size
    images = torch.randn(4, *size)
    with torch.no_grad():
        expected = structured.load().eval()(images)
        torch.testing.assert_close(plain_again.load().eval()(images), expected, rtol=0, atol=1e-5)
    lower = merge(zoo, "structured_projection", models=[structured.id], rank=1)
    assert lower.load().blocks[0].mlp.fc1.rank == 1
    assert zoo.state_dict(lower.id)["blocks.0.mlp.fc1.core_in"].dtype == torch.float32
    same = merge(zoo, "structured_projection", models=[id], rank=1)
    for name, tensor in zoo.state_dict(same.id).items():
        assert zoo.state_dict(lower.id)[name].shape == tensor.shape
