"""Merging of imported models: which weights are before training is a fact, not the number 0."""

import shutil

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from reference import imported_tables as tables
from reference.imported_tables import near
from vitarium import measure, merge
from vitarium.core.errors import IncompatibleWeights, InvalidInput

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
TASK_VECTORS = ("task_arithmetic", "ties", "dare", "della", "breadcrumbs", "consensus", "drm")


def vit(seed, num_classes=10):
    torch.manual_seed(seed)
    return VisionTransformer(**SIZES, num_classes=num_classes).state_dict()


def imported(folder, *models):
    """As `tables.imported`, of models of those sizes."""
    sizes = {f"architecture.{name}": value for name, value in SIZES.items()}
    rows = ((weights, {"architecture": "vit", **sizes, **columns}) for weights, columns in models)
    return tables.imported(folder, *rows)


@pytest.fixture(scope="module")
def base():
    return vit(0)


@pytest.fixture
def family(base, tmp_path):
    """A base and two children, whose parent the table names."""
    return imported(
        tmp_path / "family",
        (base, {"name": "base"}),
        (near(base, 1), {"name": "a", "parent": "base"}),
        (near(base, 2), {"name": "b", "parent": "base"}),
    )


def test_task_vectors_are_the_differences_to_the_parent_head_and_all(family, base):
    zoo, ids = family
    pair = [ids["a"], ids["b"]]
    sums = {
        n: sum(zoo.state_dict(id)[n].double() - t.double() for id in pair) for n, t in base.items()
    }
    for named in ({}, {"base": ids["base"]}):
        merged = merge(zoo, "task_arithmetic", models=pair, scaling_factor=0.3, **named)
        for name, tensor in merged.state_dict().items():
            torch.testing.assert_close(tensor.double(), base[name].double() + 0.3 * sums[name])


@pytest.mark.parametrize("method", [*TASK_VECTORS, "model_stock"])
def test_the_parent_of_the_table_is_the_base_that_was_named_by_hand(family, method):
    zoo, ids = family
    by_parent = merge(zoo, method, models=[ids["a"], ids["b"]])
    assert merge(zoo, method, models=[ids["a"], ids["b"]], base=ids["base"]) == by_parent
    assert str(by_parent.parent_checkpoint) == f"{ids['base']}@0"


def test_wise_ft_interpolates_the_head_as_all_other_weights(family, base):
    zoo, ids = family
    child = zoo.state_dict(ids["a"])
    for name, tensor in merge(zoo, "wise_ft", models=[ids["a"]], alpha=0.25).state_dict().items():
        expected = 0.75 * base[name].double() + 0.25 * child[name].double()
        torch.testing.assert_close(tensor.double(), expected)


def test_the_epoch_of_the_parent_counts(base, tmp_path):
    later = near(base, 5)
    zoo, ids = imported(
        tmp_path / "epochs",
        (base, {"name": "base", "epoch": 0}),
        (later, {"name": "base", "epoch": 7}),
        (near(later, 1), {"name": "a", "parent": "base", "parent_epoch": 7}),
        (near(base, 2), {"name": "b", "parent": "base", "parent_epoch": 0}),
    )
    for child, parent in (("a", later), ("b", base)):
        start = merge(zoo, "wise_ft", models=[ids[child]], alpha=0).state_dict()
        assert all(torch.equal(tensor, parent[name]) for name, tensor in start.items())


@pytest.mark.parametrize("what", ["shapes", "classes"])
def test_a_base_with_another_head_is_refused_with_what_to_do(base, tmp_path, what):
    parent = vit(0, num_classes=4) if what == "shapes" else base
    zoo, ids = imported(
        tmp_path / "heads",
        (parent, {"name": "base"}),
        (near(base, 1), {"name": "a", "parent": "base"}),
        (near(base, 2), {"name": "b", "parent": "base"}),
    )
    for id, classes in ((ids["base"], "abcdefghij"), (ids["a"], "0123456789")):
        if what == "classes":
            folder = zoo.folder(id)
            about = folder.about()
            folder.begin(folder.spec(), type(about)(about.num_outputs, tuple(classes), {}))
    match = rf"{ids['a']}@0 and its base {ids['base']}@0 have .*{what}.*base=ID.*heads='average'"
    with pytest.raises(IncompatibleWeights, match=match):
        merge(zoo, "wise_ft", models=[ids["a"]])
    merged = merge(zoo, "wise_ft", models=[ids["a"]], heads=ids["a"]).state_dict()
    assert torch.equal(merged["head.weight"], zoo.state_dict(ids["a"])["head.weight"])
    middle = (base["norm.bias"].double() + zoo.state_dict(ids["a"])["norm.bias"].double()) / 2
    if what == "classes":
        torch.testing.assert_close(merged["norm.bias"].double(), middle)


def test_a_model_whose_epochs_count_from_zero_has_no_start(family):
    zoo, ids = family
    values = measure(zoo, ["distance_from_start", "distance_from_parent"], models=[ids["a"]])
    refused = values[values["measure"] == "distance_from_start"]["refused"].item()
    assert "no initial weights" in refused
    distance = values[values["measure"].eq("distance_from_parent") & values["part"].eq("")]
    assert distance["value"].item() > 0


def test_averages_over_epochs_leave_out_the_untrained_one_alone(base, tmp_path):
    epochs = [near(base, number) for number in range(3)]
    for initial in (None, 0):
        columns = {} if initial is None else {"initial_epoch": initial}
        zoo, ids = imported(
            tmp_path / f"initial-{initial}",
            *((w, {"name": "a", "epoch": n, **columns}) for n, w in enumerate(epochs)),
        )
        counted = epochs if initial is None else epochs[1:]
        merged = merge(zoo, "epoch_average", models=[ids["a"]], last=None)
        assert [ref.epoch for ref in merged.ingredients] == list(range(3))[-len(counted) :]
        for name, tensor in merged.state_dict().items():
            mean = torch.stack([weights[name].double() for weights in counted]).mean(0)
            torch.testing.assert_close(tensor.double(), mean)
        rows = measure(zoo, "distance_from_start", models=[f"{ids['a']}@2"])
        assert (rows["refused"] != "").all() == (initial is None)
        assert zoo[ids["a"]].initial_epoch == initial


def test_whether_an_epoch_is_untrained_changes_no_id(base, tmp_path):
    ids = [
        imported(tmp_path / str(n), (base, {"name": "a", **columns}))[1]["a"]
        for n, columns in enumerate(({}, {"initial_epoch": 0}))
    ]
    assert ids[0] == ids[1]


def test_a_parent_that_is_gone_is_named(family):
    zoo, ids = family
    shutil.rmtree(zoo.path / "models" / ids["base"])
    with pytest.raises(InvalidInput, match=f"{ids['base']}@0, the parent of .*base=ID"):
        merge(zoo, "wise_ft", models=[ids["a"]])
