"""Weight multiplexing of trained models: what they keep, share, and compute."""

import pytest
import torch

from vitarium import Blueprint, grow, merge
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.minivit import Minivit, compressed_architecture

TINY = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 12,
    "depth": 4,
    "num_heads": 3,
    "mlp_ratio": 2.0,
}
TIMM = {"name": "timm", "model": "vit_tiny_patch16_224"}
DINOV2 = {"name": "dinov2", "patch_size": 4, "patch_mean": False}


def plain(seed=0, equal=1, **factors):
    """A random `vit`, float64; in groups of so many blocks all but the norms are equal."""
    section = registry.section("architecture", {"name": "vit", **TINY} | factors)
    torch.manual_seed(seed)
    model = section(5).double().eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        tensor.copy_(0.4 * torch.randn(tensor.shape) + ("norm" in name and "weight" in name))
    for number, block in enumerate(model.blocks):
        first = model.blocks[number - number % equal]
        block.attn.load_state_dict(first.attn.state_dict())
        block.mlp.load_state_dict(first.mlp.state_dict())
    return section, model


def made(model, **settings):
    settings = {"relative_positions": None} | settings
    weights = Weights("m", model.state_dict(), skeleton=lambda: model)
    return dict(choose("operator", "minivit", **settings)(Ingredients([weights])))


def compressed(section, model, **settings):
    """The compressed model, running in float64."""
    settings = {"relative_positions": None} | settings
    built = compressed_architecture(Minivit(**settings), section)(model.num_classes).double()
    built.load_state_dict(made(model, **settings))
    return built.eval()


def outputs(model):
    torch.manual_seed(1)
    return model(torch.randn(3, 1, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize(
    ("init", "factors"),
    [
        ("first", {}),
        ("mean", {}),
        ("first", {"global_pool": "avg", "class_token": False}),
        ("mean", {"global_pool": "avg", "reg_tokens": 2, "act_layer": "gelu_tanh"}),
        ("first", {"qkv_bias": False, "act_layer": "quick_gelu", "norm_eps": 1e-12}),
        ("first", DINOV2 | {"init_values": 0.5}),
        ("mean", DINOV2 | {"init_values": 0.5}),
        ("first", TIMM | {"drop_path_rate": 0.1}),
    ],
)
def test_where_the_blocks_of_each_group_are_equal_the_compressed_model_computes_what_the_model_does(
    init, factors
):
    section, model = plain(equal=2, **factors)
    found = compressed(section, model, init=init)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("init", ["first", "mean"])
def test_a_model_with_a_set_of_weights_for_each_block_is_the_model_itself(init):
    section, model = plain()
    found = compressed(section, model, share=1, init=init)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=1e-10)


def test_shared_weights_are_those_of_the_first_block_or_the_mean_of_the_group():
    _, model = plain()
    own = model.state_dict()
    first, mean = (made(model, share=(3, 1), init=init) for init in ("first", "mean"))
    for part in ("attn.qkv.weight", "attn.proj.bias", "mlp.fc1.weight", "mlp.fc2.bias"):
        blocks = [own[f"blocks.{number}.{part}"] for number in range(4)]
        assert torch.equal(first[f"shared.0.{part}"], blocks[0])
        torch.testing.assert_close(
            mean[f"shared.0.{part}"], sum(blocks[:3]) / 3, rtol=0, atol=1e-12
        )
        assert torch.equal(mean[f"shared.1.{part}"], first[f"shared.1.{part}"])
        assert torch.equal(mean[f"shared.1.{part}"], blocks[3])
    for name in ("blocks.2.norm1.weight", "cls_token", "pos_embed", "norm.bias", "head.weight"):
        assert torch.equal(mean[name], own[name])
    assert torch.equal(mean["blocks.2.attn.after.weight"], torch.eye(3).double())


def test_norms_can_be_shared_too():
    _, model = plain()
    found = made(model, share="all", separate_norms=False, init="mean")
    own = [block.norm2.bias for block in model.blocks]
    torch.testing.assert_close(found["shared.0.norm2.bias"], sum(own) / 4)
    assert not any(name.startswith("blocks.") and "norm" in name for name in found)


def test_a_pattern_that_does_not_divide_the_blocks_is_refused():
    section, _ = plain()
    with pytest.raises(
        IncompatibleWeights,
        match=r"4 blocks has no such multiplexed version.*one of 1, 2, 4, 'all'",
    ):
        compressed_architecture(Minivit(share=3), section)


def test_it_starts_from_the_first_block_and_names_the_starts_that_there_are():
    assert Minivit().init == "first"
    with pytest.raises(InvalidConfig, match=r"init.*'first' or 'mean'"):
        choose("operator", "minivit", init="fit")


@pytest.mark.parametrize(
    ("factors", "has"),
    [
        (TIMM | {"qk_norm": True}, "qk_norm"),
        (TIMM | {"global_pool": "map"}, "'map'"),
        (TIMM | {"no_embed_class": True}, "no_embed"),
        (DINOV2 | {"swiglu": True}, "GluMlp"),
        (DINOV2 | {"patch_mean": True}, "ClassAndPatches"),
        ({"name": "ewa_vit", "num_experts": 2}, "MLPs of Exp|Ewa"),
        ({"name": "uneven_vit", "head_dim": 2}, "head_dim"),
    ],
)
def test_what_a_compressed_model_cannot_have_is_refused_by_name(factors, has):
    section = registry.section("architecture", {**TINY} | factors)
    with pytest.raises(IncompatibleWeights, match=has):
        compressed_architecture(Minivit(), section)


def test_models_of_other_kinds_are_refused():
    section = choose("architecture", "timm", model="vit_small_patch16_18x2_224", depth=1)
    with pytest.raises(IncompatibleWeights, match="ParallelThingsBlock"):
        compressed_architecture(Minivit(), section)
    section = choose("architecture", "timm", model="cait_xxs24_224", depth=1)
    with pytest.raises(IncompatibleWeights, match="version of a Cait; name a plain"):
        compressed_architecture(Minivit(), section)
    with pytest.raises(IncompatibleWeights, match="an unknown architecture"):
        compressed_architecture(Minivit(), None)


@pytest.fixture
def zoo(tiny, tmp_path):
    stage = tiny["stages"]["pretrain"]
    stage |= {"epochs": 1, "architecture": stage["architecture"] | {"depth": 4, "embed_dim": 32}}
    del stage["grid"]
    blueprint = Blueprint.read({"name": "deep", "stages": {"pretrain": stage}})
    return grow(blueprint, tmp_path / "zoo", workers=0, progress=False).zoo


def size(zoo, id):
    return max(path.stat().st_size for path in zoo.folder(id).path.rglob("*") if path.is_file())


def test_a_compressed_model_is_kept_with_its_lineage_in_about_half_the_bytes(zoo):
    (id,) = zoo.ids()
    student_id = merge(zoo, "minivit", models=[id], share=2).id
    spec = zoo.spec(student_id)
    assert spec.origin.architecture.name == "mini_deit"
    assert spec.origin.architecture.config.depth == 4
    assert [one.model for one in spec.ingredients] == [id]
    assert zoo.load(student_id)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert 0.45 < size(zoo, student_id) / size(zoo, id) < 0.65


def test_a_pattern_that_does_not_divide_the_blocks_is_refused_with_the_model_named(zoo):
    (id,) = zoo.ids()
    with pytest.raises(IncompatibleWeights, match=rf"{id}@\d: a model of 4 blocks .*share 3"):
        merge(zoo, "minivit", models=[id], share=3)


@pytest.mark.parametrize(
    "switches", [{"convolution": 3}, {"relative_positions": {"on": ["q", "v"]}}]
)
def test_what_a_compressed_model_has_more_changes_nothing_at_the_start(switches):
    section, model = plain(equal=2)
    found = compressed(section, model, **switches)
    assert len(found.state_dict()) > len(compressed(section, model).state_dict())
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=1e-10)
