"""Models that are cut out of a trained MatViT, and stay in the zoo as its members."""

import pytest
import torch

from vitarium import Blueprint, grow, merge
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.compression import matvit_member


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "num_heads": 2}
    stage = {
        "data": {"name": "digits", "train_limit": 96},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "epochs": 1,
        "batch_size": 32,
        "grid": {"architecture": [{"name": n, "depth": 2, **sizes} for n in ("matvit", "vit")]},
    }
    blueprint = Blueprint.read({"name": "nested", "stages": {"pretrain": stage}})
    plain = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1}
    return grow(blueprint, tmp_path_factory.mktemp("matvits"), progress=False, **plain).zoo


def trained(zoo, architecture):
    originals = [id for id in zoo.ids() if zoo.spec(id).stage == "pretrain"]
    (id,) = (n for n in originals if zoo.spec(n).origin.architecture.name == architecture)
    return id


@pytest.mark.parametrize(
    ("granularity", "units", "architecture"),
    [(0.125, (8, 8), "vit"), (1.0, (64, 64), "vit"), ((0.25, 1.0), (16, 64), "uneven_vit")],
)
def test_a_member_computes_what_the_model_does_at_its_widths(zoo, granularity, units, architecture):
    full = trained(zoo, "matvit")
    id = merge(zoo, "matvit_member", models=[full], granularity=granularity).id
    assert zoo.spec(id).origin.architecture.name == architecture
    assert [ref.model for ref in zoo.spec(id).ingredients] == [full]
    member, model = zoo.load(id).double().train(), zoo.load(full).double().train()
    assert tuple(block.mlp.fc1.out_features for block in member.blocks) == units
    for block, count in zip(model.blocks, units, strict=True):
        block.mlp.units = count
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(member(images), model(images), rtol=0, atol=1e-12)


def test_members_have_the_models_bits(zoo):
    full = trained(zoo, "matvit")
    member = zoo.state_dict(merge(zoo, "matvit_member", models=[full], granularity=0.5).id)
    for name, tensor in zoo.state_dict(full).items():
        own = member[name]
        assert torch.equal(own, tensor[tuple(slice(size) for size in own.shape)])
    assert member["blocks.0.mlp.fc2.bias"].shape == (16,)


@pytest.mark.parametrize(
    ("granularity", "fault"),
    [
        (0.3, "granularity 0.3 was not trained; choose of 0.125, 0.25, 0.5, 1"),
        ((0.5, 0.5, 1.0), "granularity has 3 numbers, and the model 2 blocks"),
    ],
)
def test_what_is_no_member_is_refused(zoo, granularity, fault):
    with pytest.raises(IncompatibleWeights, match=fault):
        merge(zoo, "matvit_member", models=[trained(zoo, "matvit")], granularity=granularity)


def test_another_architecture_is_refused(zoo):
    with pytest.raises(IncompatibleWeights, match="needs a matvit, not vit"):
        merge(zoo, "matvit_member", models=[trained(zoo, "vit")], granularity=0.5)


def test_a_result_that_does_not_fit_its_architecture_is_not_kept(zoo, monkeypatch):
    monkeypatch.setattr(matvit_member, "_narrowed", lambda name, weight, match, share: weight)
    before = list(zoo.ids())
    fault = r"blocks.0.mlp.fc1.weight is \[64, 16\], and its new architecture has \[32, 16\]"
    with pytest.raises(IncompatibleWeights, match=fault):
        merge(zoo, "matvit_member", models=[trained(zoo, "matvit")], granularity=(0.5, 1.0))
    assert list(zoo.ids()) == before
