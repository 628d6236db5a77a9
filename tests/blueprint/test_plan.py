"""A blueprint becomes a plan: which models there are, and how they are named."""

import random
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitarium import Blueprint, plan
from vitarium.blueprint import ModelSpec
from vitarium.blueprint.overrides import apply, combinations
from vitarium.core.config import InvalidConfig


def planned(values: dict[str, Any]) -> Any:
    return plan(Blueprint.read(values))


def ids(values: dict[str, Any]) -> list[str]:
    return [model.id for model in planned(values).models]


def test_every_model_of_a_stage_starts_from_every_model_of_its_parent_stage(tiny):
    found = planned(tiny)
    assert found.stages == {"pretrain": 2, "finetune": 4}
    parents = [model.parent for model in found.of_stage("finetune")]
    assert sorted(parents) == sorted(2 * [model.id for model in found.of_stage("pretrain")])


def test_a_child_has_its_parents_architecture(tiny):
    tiny["stages"]["finetune"]["architecture"] = {"drop_rate": 0.1}
    child = planned(tiny).of_stage("finetune")[0].recipe.architecture
    assert child.config.embed_dim == 16
    assert child.config.drop_rate == 0.1


def test_parents_stand_before_their_children_whatever_the_order_of_the_stages(tiny):
    tiny["stages"] = dict(reversed(tiny["stages"].items()))
    seen: set[str] = set()
    for model in planned(tiny).models:
        assert model.parent is None or model.parent in seen
        seen.add(model.id)


def test_ids_do_not_depend_on_the_order_of_keys_or_of_a_grids_lists(tiny):
    other = deepcopy(tiny)
    other["stages"]["pretrain"]["grid"]["seed"] = [2, 1]
    other["stages"]["pretrain"] = dict(reversed(other["stages"]["pretrain"].items()))
    other["stages"]["finetune"]["grid"]["optimizer.lr"].reverse()
    assert sorted(ids(tiny)) == sorted(ids(other))


def test_ids_do_not_depend_on_how_a_number_is_written_or_a_default_is_given(tiny):
    other = deepcopy(tiny)
    other["stages"]["pretrain"]["optimizer"] |= {"lr": "3e-3", "betas": [0.9, 0.999]}
    other["stages"]["pretrain"]["head"] = {"name": "linear"}
    assert ids(tiny) == ids(other)


def test_ids_do_not_depend_on_the_stages_name(tiny):
    other = deepcopy(tiny)
    other["stages"]["first"] = other["stages"].pop("pretrain")
    other["stages"]["finetune"]["start"] = "first"
    assert sorted(ids(tiny)) == sorted(ids(other))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 7),
        ("epochs", 3),
        ("batch_size", 16),
        ("optimizer.weight_decay", 0.5),
        ("architecture.mlp_ratio", 2.0),
        ("head.seed", 3),
        ("augmentation.padding", 2),
        ("data.split_seed", 5),
    ],
)
def test_every_factor_of_a_parent_changes_its_id_and_its_childrens(tiny, path, value):
    tiny["stages"]["pretrain"]["grid"] = {"seed": [1]}
    other = deepcopy(tiny)
    other["stages"]["pretrain"] = apply(other["stages"]["pretrain"], {path: value, "grid": {}})
    del other["stages"]["pretrain"]["grid"]
    other["stages"]["pretrain"].setdefault("seed", 1)
    assert not set(ids(tiny)) & set(ids(other))


def test_extending_a_grid_keeps_the_models_that_were_there(tiny):
    before = set(ids(tiny))
    tiny["stages"]["finetune"]["grid"]["optimizer.lr"].append(0.1)
    after = set(ids(tiny))
    assert before < after
    assert len(after - before) == 2


def test_models_that_are_asked_for_twice_are_one(tiny):
    tiny["stages"]["pretrain"]["grid"]["seed"] = [1, 2, 1]
    assert planned(tiny).stages["pretrain"] == 2


def test_a_variant_has_overrides_and_a_grid_of_its_own(tiny):
    tiny["stages"]["pretrain"]["variants"] = [
        {"optimizer": "sgd", "grid": {"optimizer.lr": [0.1, 0.2]}},
        {"epochs": 3},
    ]
    recipes = [model.recipe for model in planned(tiny).of_stage("pretrain")]
    assert len(recipes) == 2 * 2 + 2
    assert {(r.optimizer.name, r.epochs) for r in recipes} == {("sgd", 2), ("adamw", 3)}


def test_a_stage_may_start_from_any_kept_epoch(tiny):
    tiny["stages"]["finetune"]["grid"]["start.epoch"] = [0, 1, -1]
    tiny["stages"]["finetune"]["start"] = {"stage": "pretrain"}
    children = planned(tiny).of_stage("finetune")
    assert sorted({child.parent_epoch for child in children}) == [0, 1, 2]
    assert len(children) == 2 * 2 * 3


def test_a_start_from_an_epoch_that_is_not_kept_is_refused(tiny):
    tiny["stages"]["pretrain"]["checkpoints"] = "last"
    tiny["stages"]["finetune"]["start"] = {"stage": "pretrain", "epoch": 1}
    with pytest.raises(InvalidConfig, match=r"does not keep epoch 1; it keeps \[2\]"):
        planned(tiny)


def test_a_spec_comes_back_from_json_with_its_id(tiny):
    import json

    for model in planned(tiny).models:
        again = ModelSpec.restore(json.loads(json.dumps(model.factors())))
        assert again == model
        assert again.id == model.id


def test_varying_factors_are_those_that_differ_inside_a_stage(tiny):
    found = planned(tiny)
    assert found.swept("pretrain") == {"seed": [1, 2]}
    assert found.swept("finetune") == {"optimizer.lr": [0.001, 0.01]} or set(
        found.swept("finetune")
    ) == {"optimizer.lr"}


FACTORS = ["seed", "optimizer", "optimizer.lr", "optimizer.betas", "data.name"]


@given(st.dictionaries(st.sampled_from(FACTORS), st.integers(0, 9)), st.randoms())
def test_overrides_apply_in_any_order_alike(overrides, shuffle: random.Random):
    overrides = {path: "sgd" if path == "optimizer" else value for path, value in overrides.items()}
    items = list(overrides.items())
    shuffle.shuffle(items)
    base = {"optimizer": {"name": "adamw", "eps": 1}, "data": "digits"}
    assert apply(base, dict(items)) == apply(base, overrides)
    assert base == {"optimizer": {"name": "adamw", "eps": 1}, "data": "digits"}


def test_a_shorter_path_is_applied_before_a_longer_one():
    overrides = {"optimizer.lr": 1, "optimizer": "sgd"}
    assert apply({"optimizer": {"name": "adamw", "eps": 2}}, overrides) == {
        "optimizer": {"name": "sgd", "lr": 1}
    }


def test_combinations_are_the_product():
    assert len(list(combinations({"a": [1, 2], "b": [1, 2, 3]}))) == 6
    assert list(combinations({})) == [{}]


def test_a_contrastive_model_needs_no_head(tiny):
    tiny["stages"]["pretrain"] |= {"objective": "simclr", "head": "none"}
    assert len(planned(tiny)) == 6


def test_views_that_are_compared_are_not_mixed(tiny):
    tiny["stages"]["pretrain"] |= {"objective": "simclr"}
    tiny["stages"]["pretrain"]["augmentation"]["mixup"] = 0.5
    with pytest.raises(InvalidConfig, match="augmentation: objective 'simclr' compares views"):
        planned(tiny)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_images_are_mixed_in_pairs_so_a_batch_has_an_even_number(tiny, mixing):
    tiny["stages"]["pretrain"] |= {"batch_size": 33}
    tiny["stages"]["pretrain"]["augmentation"][mixing] = 0.5
    with pytest.raises(InvalidConfig, match="batch_size: 33 is odd"):
        planned(tiny)


def test_factors_that_tell_models_apart_leave_out_what_a_plugins_name_tells(tiny):
    tiny["stages"]["pretrain"]["variants"] = [
        {},
        {"optimizer": {"name": "sgd", "lr": 0.1}, "grid": {"seed": [1]}},
    ]
    found = planned(tiny)
    assert set(found.swept("pretrain")) == {
        "optimizer",
        "optimizer.lr",
        "optimizer.weight_decay",
        "seed",
    }
    assert set(found.distinguishing("pretrain")) == {"optimizer", "seed"}
    assert found.distinguishing("finetune") == ["optimizer.lr"]


@pytest.mark.parametrize(
    ("outputs", "changes", "shared"),
    [
        (10, {"head": {"name": "mlp", "hidden_dim": 8}}, "all"),
        (10, {"head": {"name": "linear", "seed": 7}}, "all"),
        (64, {}, "patch embedding"),
    ],
)
def test_what_two_models_of_one_seed_share_at_their_start(tiny, outputs, changes, shared):
    """As docs/grow.md says: timm draws a head as wide as the outputs before positions and blocks."""
    first = plan(Blueprint.read(tiny)).models[0].recipe
    tiny["stages"]["pretrain"] |= changes
    second = plan(Blueprint.read(tiny)).models[0].recipe
    weights, others = first.build(10).state_dict(), second.build(outputs).state_dict()
    drawn = {n for n, t in weights.items() if t.unique().numel() > 1 and not n.startswith("head.")}
    equal = {name for name in drawn if torch.equal(weights[name], others[name])}
    patches = {name for name in drawn if name.startswith("patch_embed.")}
    assert equal == (drawn if shared == "all" else patches)
