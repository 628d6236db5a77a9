"""Models that are cut out of a trained supernet: a population of one training."""

import pytest
import torch

from vitarium import Blueprint, grow, merge
from vitarium.architectures.elastic.supernet import Member
from vitarium.core.errors import IncompatibleWeights


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "num_heads": 3}
    inside = {"depths": [1, 2], "embed_dims": [4, 8, 12], "heads": [1, 2, 3]}
    stage = {
        "architecture": {"name": "supernet", "depth": 2, **sizes, **inside},
        "data": {"name": "digits", "train_limit": 96},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "accumulation": 4,
        "epochs": 1,
        "batch_size": 32,
    }
    plain = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1}
    blueprint = Blueprint.read({"name": "super", "stages": {"pretrain": stage}})
    return grow(blueprint, tmp_path_factory.mktemp("supernet"), progress=False, **plain).zoo


def trained(zoo):
    (id,) = (id for id in zoo.ids() if zoo.spec(id).stage == "pretrain")
    return id


@pytest.mark.parametrize(
    ("settings", "member", "architecture"),
    [
        ({"embed_dim": 8, "num_heads": 2, "mlp_ratio": 2.0}, Member(2, 8, 2, 16), "vit"),
        ({"depth": 1, "embed_dim": 4}, Member(1, 4, 3, 16), "uneven_vit"),
        ({"member": 0}, Member(1, 4, 1, 8), "vit"),
        ({}, Member(2, 12, 3, 48), "vit"),
    ],
)
def test_a_member_computes_what_the_supernet_does_at_its_sizes(zoo, settings, member, architecture):
    supernet = trained(zoo)
    id = merge(zoo, "supernet_member", models=[supernet], **settings).id
    assert zoo.spec(id).origin.architecture.name == architecture
    assert [ref.model for ref in zoo.spec(id).ingredients] == [supernet]
    model = zoo.load(supernet).double().train()
    model.selected = member
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    expected = zoo.load(id).double()(images)
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"member": 54}, "there is no member 54: they are 0 to 53"),
        ({"embed_dim": 6}, "embed_dim 6 was not trained; choose of 4, 8, 12"),
        ({"mlp_ratio": 2.5}, "mlp_ratio 2.5 was not trained; choose of 2, 3, 4"),
        ({"num_heads": 4}, "num_heads 4 was not trained; choose of 1, 2, 3"),
        ({"depth": 3}, "depth 3 was not trained; choose of 1, 2"),
    ],
)
def test_what_is_no_member_is_refused(zoo, settings, fault):
    with pytest.raises(IncompatibleWeights, match=fault):
        merge(zoo, "supernet_member", models=[trained(zoo)], **settings)
