"""A model that is split by classes, and what becomes of its parts."""

from itertools import pairwise

import pytest
import torch

from vitarium import Blueprint, compress, grow, merge, merge_grid
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import section
from vitarium.data.load import load
from vitarium.operators.compression.ed_vit import class_groups

QUICK = {"workers": 0, "progress": False}
FAST = {"num_images": 4, "importance": "hsic"}
SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "num_heads": 4, "depth": 2}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    stage = {
        "architecture": {"name": "vit", **SIZES},
        "data": {"name": "digits", "train_limit": 96},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "epochs": 1,
        "batch_size": 32,
        "grid": {"head": ["linear", {"name": "mlp", "hidden_dim": 8}]},
    }
    blueprint = Blueprint.read({"name": "split", "stages": {"pretrain": stage}})
    return grow(blueprint, tmp_path_factory.mktemp("split"), **QUICK).zoo


def trained(zoo, head="linear"):
    ids = [id for id in zoo.ids() if zoo.spec(id).stage == "pretrain"]
    (id,) = (id for id in ids if zoo.spec(id).origin.head.name == head)
    return id


def outputs(zoo, id):
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return zoo.load(id).double()(images.double())


@pytest.mark.parametrize("seed", [None, 0, 42])
@pytest.mark.parametrize(("classes", "parts"), [(10, 1), (10, 3), (7, 7), (100, 8)])
def test_groups_of_classes_are_a_partition_cut_at_equal_shares(classes, parts, seed):
    groups = class_groups(classes, parts, seed)
    assert sorted(c for group in groups for c in group) == list(range(classes))
    ends = [number * classes // parts for number in range(parts + 1)]
    assert [len(group) for group in groups] == [b - a for a, b in pairwise(ends)]
    if seed is None:
        assert [c for group in groups for c in group] == list(range(classes))


def test_more_parts_than_classes_are_refused():
    with pytest.raises(IncompatibleWeights, match="11 parts of 10 classes: give fewer"):
        class_groups(10, 11, None)


def test_one_part_that_keeps_everything_is_the_model(zoo):
    id = merge(zoo, "ed_vit", models=[trained(zoo)], parts=1, part=0, keep=1).id
    part, model = zoo.state_dict(id), zoo.state_dict(trained(zoo))
    assert part.keys() == model.keys()
    assert all(torch.equal(part[name], tensor) for name, tensor in model.items())


@pytest.mark.parametrize("importance", ["kl", "hsic"])
def test_a_part_has_units_of_the_model_and_an_output_for_every_class(zoo, importance):
    settings = {"keep": 0.5, "keep_heads": 0.75, "importance": importance, "at_once": 8}
    (id,) = merge_grid(
        zoo, "ed_vit", {"part": [1]}, models=[trained(zoo)], num_images=4, **settings
    ).settings
    config = zoo.spec(id).origin.architecture.config
    assert (config.embed_dim, config.num_heads, config.head_dim) == (8, 3, 4)
    part, model = zoo.state_dict(id), zoo.state_dict(trained(zoo))
    assert part["blocks.1.mlp.fc1.weight"].shape == (32, 8)
    assert part["head.weight"].shape == (10, 8)
    assert torch.equal(part["head.bias"], model["head.bias"])
    columns = {tuple(column.tolist()) for column in model["head.weight"].T}
    assert {tuple(column.tolist()) for column in part["head.weight"].T} < columns
    classes = ", ".join(map(str, class_groups(10, 2, 42)[1]))
    assert f"part 1 of 2: classes {classes}" in zoo.folder(id).result()["message"]


def test_all_parts_are_made_by_one_command(zoo):
    merged = merge_grid(zoo, "ed_vit", models=[trained(zoo)], parts=3, **FAST)
    assert list(merged.settings.values()) == [{"part": 0}, {"part": 1}, {"part": 2}]
    assert len({*merged.settings}) == 3


def test_fused_parts_give_the_mean_of_their_logits_with_their_own_weights(zoo):
    parts = list(merge_grid(zoo, "ed_vit", models=[trained(zoo)], parts=3, **FAST).settings)
    fused = merge(zoo, "ed_vit_fusion", models=parts).id
    expected = torch.stack([outputs(zoo, id) for id in parts]).mean(0)
    torch.testing.assert_close(outputs(zoo, fused), expected, rtol=0, atol=1e-6)
    weights = zoo.state_dict(fused)
    for number, id in enumerate(parts):
        part = zoo.state_dict(id)
        assert torch.equal(
            weights[f"blocks.1.{number}.attn.qkv.weight"], part["blocks.1.attn.qkv.weight"]
        )
        assert torch.equal(weights[f"stems.{number}.pos_embed"], part["pos_embed"])


def test_the_order_of_parts_counts(zoo):
    first, second = merge_grid(zoo, "ed_vit", models=[trained(zoo)], **FAST).settings
    fused = [merge(zoo, "ed_vit_fusion", models=m).id for m in ([first, second], [second, first])]
    assert fused[0] != fused[1]
    torch.testing.assert_close(outputs(zoo, fused[0]), outputs(zoo, fused[1]))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "ed_vit makes one part at a time: name it, e.g. part=0"),
        ({"part": 2}, "there is no part 2 of 2: they are numbered from 0"),
        ({"parts": 11, "part": 0, "keep": 1}, "11 parts of 10 classes"),
    ],
)
def test_what_is_no_part_is_refused(zoo, settings, fault):
    with pytest.raises(IncompatibleWeights, match=fault):
        merge(zoo, "ed_vit", models=[trained(zoo)], **settings)


def test_a_part_without_training_images_is_refused(zoo):
    data = {"name": "digits", "train_classes": [4]}
    with pytest.raises(InvalidInput, match=r"part 0 ranks units by .* classes 0, 1, 2, .* are 0"):
        merge(zoo, "ed_vit", models=[trained(zoo)], part=0, class_seed=None, parts=3, data=data)


def test_heads_that_are_not_linear_are_refused(zoo):
    with pytest.raises(IncompatibleWeights, match="ed_vit needs a linear head"):
        merge(zoo, "ed_vit", models=[trained(zoo, "mlp")], part=0)


def test_anything_but_a_plain_vit_is_refused(zoo):
    fused = merge(
        zoo,
        "ed_vit_fusion",
        models=list(merge_grid(zoo, "ed_vit", models=[trained(zoo)], **FAST).settings),
    ).id
    with pytest.raises(IncompatibleWeights, match="ed_vit needs a plain vit, not ed_vit_fusion"):
        merge(zoo, "ed_vit", models=[fused], part=0)


def test_compressing_trains_the_parts_on_their_classes_and_then_a_head_on_all(zoo):
    model = trained(zoo)
    done = compress(zoo, "ed_vit", models=[model], epochs=1, **FAST, **QUICK)
    (parts,), (fused,) = done.parts.values(), done.students.values()
    assert done.growth.complete
    assert set(done.growth.grown) == {*parts, fused}
    groups = class_groups(10, 2, 42)
    for id, classes in zip(parts, groups, strict=True):
        recipe = zoo.spec(id).recipe
        assert list(recipe.data.config.train_classes) == classes
        assert set(load(recipe.data).train.labels.tolist()) == set(classes)
        assert recipe.objective.name == "hard_distillation"
        assert recipe.objective.config.teacher == f"{model}@1"
    recipe = zoo.spec(fused).recipe
    assert recipe.data == section("dataset", {"name": "digits", "train_limit": 96})
    assert recipe.objective.config.teacher == f"{model}@1"
    weights = zoo.state_dict(fused)
    for number, id in enumerate(parts):
        tensor = zoo.state_dict(id)["blocks.0.mlp.fc1.weight"]
        assert torch.equal(weights[f"blocks.0.{number}.mlp.fc1.weight"], tensor)
    backbones = sum(
        t.numel() for id in parts for n, t in zoo.state_dict(id).items() if "head" not in n
    )
    total = sum(tensor.numel() for tensor in weights.values())
    assert total == backbones + 2 * 8 * 16 + 16 + 16 * 10 + 10  # n C_sub C_t + C_t + C_t K + K
    table = done.comparison
    assert table["student"].tolist() == [*parts, fused]
    assert table["part"].tolist() == ["0", "1", "fused"]
    assert table["accuracy_after"].between(0, 1).all()


def test_compressing_to_one_part_or_without_training(zoo):
    model = trained(zoo)
    single = compress(zoo, "ed_vit", models=[model], part=1, epochs=0, **FAST, **QUICK)
    assert not single.parts
    split = compress(zoo, "ed_vit", models=[model], epochs=0, **FAST, **QUICK)
    (parts,), (fused,) = split.parts.values(), split.students.values()
    assert list(single.students.values()) == [parts[1]]
    assert [ref.model for ref in zoo.spec(fused).ingredients] == list(parts)
    assert split.growth is None


def test_a_missing_part_leaves_nothing_to_fuse(zoo, monkeypatch):
    from vitarium.compression import compress as module

    monkeypatch.setattr(module, "_finished", lambda zoo, ids: list(ids)[:1])
    done = compress(zoo, "ed_vit", models=[trained(zoo)], epochs=0, **FAST, **QUICK)
    assert done.students == {}
    assert done.comparison["part"].tolist() == ["0"]
