"""What cannot be trained is known before anything is, with its place in the blueprint."""

from copy import deepcopy

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from vitarium import Blueprint, export, grow, plan
from vitarium.blueprint.overrides import apply
from vitarium.core.config import InvalidConfig
from vitarium.engine.check import ModelCheck
from vitarium.engine.parents import parents_in

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}
CHILD = {"start": "pretrain", "data": {"name": "digits", "train_limit": 64}, "epochs": 1, "batch_size": 32}  # fmt: skip


def checked(values, folder=None):
    check = ModelCheck(folder)
    plan(Blueprint.read(values), parents_in(folder) if folder else None, check)
    return check


def problems(values, folder=None):
    with pytest.raises(InvalidConfig) as refused:
        checked(values, folder)
    return refused.value.problems


@pytest.fixture
def other_size(tiny):
    """Models of 8 pixels, of which some start that see 16."""
    tiny["stages"]["pretrain"]["epochs"] = 1
    tiny["stages"]["finetune"] = {**CHILD, "architecture": {"img_size": 16}}
    return tiny


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"finetune.architecture": {"embed_dim": 32}}, "finetune.architecture.embed_dim", "embed_dim is 32, and its parent's 16"),
        ({"finetune.architecture": {"depth": 3, "img_size": 16}}, "finetune.architecture.depth", "blocks.1.attn.proj.bias is missing"),
        ({"finetune.grid": {"architecture.depth": [1, 2]}}, "finetune.grid.architecture.depth", "blocks.1.attn.proj.bias is missing"),
        ({"finetune.architecture": "mini_deit"}, "finetune.architecture", "do not fit the architecture"),
        ({"pretrain.objective": "simclr", "pretrain.augmentation": "standard"}, "pretrain.augmentation", "all views by this augmentation are the same: choose one that draws"),
        ({"finetune.batch_size": 4096}, "finetune.batch_size", "a batch of 4096 images is more than the 64 training images"),
        ({"pretrain.grid": {"batch_size": [32, 97]}}, "pretrain.grid.batch_size", "more than the 96 training images"),
        ({"finetune.start": {"stage": "pretrain", "keep_head": True}, "finetune.data": "cifar100"}, "finetune.start.keep_head", "head.bias is (10,), not (100,)"),
        ({"finetune.start": {"stage": "pretrain", "keep_head": True}, "finetune.head": {"name": "mlp", "hidden_dim": 4}}, "finetune.start.keep_head", "its head does not fit"),
        ({"finetune.objective": {"name": "weight_distillation", "layers": [[3, 0]]}}, "finetune.objective.teacher", "the student has no block 3"),
        ({"finetune.objective": "soft_distillation", "finetune.data": "cifar100"}, "finetune.objective.teacher", "outputs for 10 classes and the student for 100"),
        ({"finetune.objective": "soft_distillation", "finetune.architecture": {"img_size": 16}}, "finetune.objective.teacher", "cannot take the student's images (1x16x16)"),
        ({"finetune.objective": {"name": "soft_distillation", "teacher": "./nowhere"}}, "finetune.objective.teacher", "there is no teacher './nowhere'"),
        ({"finetune.objective": {"name": "soft_distillation", "teacher": "3f2a"}}, "finetune.objective.teacher", "name the zoo"),
        ({"finetune.adaptation": {"name": "lora", "blocks": [0, -1]}}, "finetune.adaptation", "0, -1 name a block of 1 twice"),
        ({"finetune.adaptation": {"name": "lora", "rank": 10**30}}, "finetune.adaptation", "more than the 16 rows or columns"),
        ({"finetune.adaptation": {"name": "kronecker", "terms": 10**9}}, "finetune.adaptation", "the model cannot be adapted: RuntimeError"),
        ({"pretrain.architecture.embed_dim": 10**30}, "pretrain.architecture", "it cannot be built"),
        ({"pretrain.architecture": {"name": "timm", "model": "deit_tiny_distilled_patch16_224"}}, "pretrain.architecture", "several heads"),
        ({"pretrain.architecture": {"name": "timm", "model": "swin_tiny_patch4_window7_224"}, "pretrain.objective": "mae"}, "pretrain.objective", "needs a plain vision transformer, and SwinTransformer is none"),
        ({"pretrain.objective": {"name": "mae", "mask_ratio": 0.9}}, "pretrain.objective", "leaves 0 of 4 patches visible"),
        ({"pretrain.objective": {"name": "mae", "mask_ratio": 0.0}}, "pretrain.objective.mask_ratio", "greater than 0"),
        ({"pretrain.objective": {"name": "mae", "mask_ratio": 1.0}}, "pretrain.objective.mask_ratio", "less than 1"),
        ({"pretrain.objective": {"name": "mae", "mask_ratio": 0.5, "decoder_heads": 3}}, "pretrain.objective", "decoder_dim 512 is not divisible by decoder_heads 3"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_located_before_training(
    tiny, tmp_path, change, path, message
):
    tiny["stages"]["finetune"] = dict(CHILD)
    tiny = apply(tiny, {f"stages.{factor}": value for factor, value in change.items()})
    named = [(".".join(map(str, p.path)), p.message) for p in problems(tiny)]
    assert any(where == f"stages.{path}" and message in text for where, text in named), named
    assert all("\n" not in text for _, text in named)
    with pytest.raises(InvalidConfig):
        grow(tiny, tmp_path / "zoo", **PLAIN)
    assert not (tmp_path / "zoo").exists()


def test_data_that_is_not_here_stops_growing_but_no_check(tiny, tmp_path):
    tiny["stages"]["finetune"]["data"] = {"name": "image_folder", "folder": str(tmp_path / "none"), "num_classes": 3, "num_train": 64}  # fmt: skip
    checked(tiny)
    with pytest.raises(InvalidConfig, match=r"stages\.finetune\.data: .*none"):
        grow(tiny, tmp_path / "zoo", **PLAIN)
    assert not (tmp_path / "zoo").exists()


def test_what_will_be_adapted_is_known_by_stage(other_size):
    other_size["stages"]["gray"] = {**CHILD, "architecture": {"in_chans": 3, "patch_size": 2}}
    assert checked(other_size).adaptations == {
        "pretrain": [],
        "finetune": ["positions resampled 2×2 → 4×4"],
        "gray": [
            "patch embedding resampled 4×4 → 2×2",
            "patch embedding's channels repeated 1 → 3",
            "positions resampled 2×2 → 4×4",
        ],
    }


def test_a_child_of_another_size_starts_from_resampled_positions(other_size, tmp_path):
    growth = grow(other_size, tmp_path / "zoo", **PLAIN)
    assert growth.complete
    for child in growth.plan.of_stage("finetune"):
        before = growth.zoo.state_dict(child.parent)
        start = growth.zoo.state_dict(child.id, 0)
        expected = resample_abs_pos_embed(before["pos_embed"], [4, 4], num_prefix_tokens=1)
        assert torch.equal(start["pos_embed"], expected)
        assert torch.equal(start["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"])
        message = growth.zoo.folder(child.id).result()["message"]
        assert message == "positions resampled 2×2 → 4×4"


def without_biases_of_keys(weights):
    """They change no output, as softmax ignores what all keys have in common: their gradient is
    rounding alone, and AdamW makes whole steps of it."""
    return {
        name: torch.stack([tensor.chunk(3)[0], tensor.chunk(3)[2]])
        if name.endswith("qkv.bias")
        else tensor
        for name, tensor in weights.items()
    }


def test_children_of_another_size_are_trained_in_stacks_to_the_same_start(other_size, tmp_path):
    single = grow(other_size, tmp_path / "single", **PLAIN).zoo
    stacked = grow(other_size, tmp_path / "stacked", **{**PLAIN, "stacked": 4}).zoo
    children = [id for id in single.ids() if single.spec(id).parent]
    assert children
    for id in children:
        start, other = (without_biases_of_keys(z.state_dict(id, 0)) for z in (single, stacked))
        # what they start from; parents that were trained in a stack differ in their last bits
        torch.testing.assert_close(other, start, rtol=1e-3, atol=1e-4)
        last, other = (without_biases_of_keys(z.state_dict(id)) for z in (single, stacked))
        torch.testing.assert_close(other, last, rtol=1e-2, atol=1e-3)


def test_a_zoo_with_models_of_several_sizes_is_grown_again_bit_for_bit(other_size, tmp_path):
    first, second = (grow(other_size, tmp_path / name, **PLAIN).zoo for name in "ab")
    for id in first.ids():
        weights, again = first.state_dict(id), second.state_dict(id)
        assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_models_of_a_zoo_are_adapted_too(grown_zoo):
    parent = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    stage = {**CHILD, "start": {"models": [parent]}, "architecture": {"img_size": 16}}
    values = {"name": "more", "stages": {"larger": stage}}
    assert checked(values, grown_zoo).adaptations == {"larger": ["positions resampled 2×2 → 4×4"]}
    assert grow(values, grown_zoo, **PLAIN).complete
    stage["architecture"] = {"embed_dim": 32}
    assert problems(values, grown_zoo)[0].path == ("stages", "larger", "architecture", "embed_dim")


def test_what_an_operator_makes_is_adapted_too(tiny):
    tiny["stages"]["pretrain"]["architecture"]["depth"] = 2
    start = {"stage": "pretrain", "operator": {"name": "minivit", "share": 2}, "keep_head": True}
    tiny["stages"]["finetune"] = {**CHILD, "start": start, "architecture": {"img_size": 16}}
    assert checked(tiny).adaptations["finetune"] == ["positions resampled 2×2 → 4×4"]


def test_each_kind_of_model_is_looked_at_once(tiny, monkeypatch):
    from vitarium.engine import check

    fitted = []
    original = check.start_weights
    monkeypatch.setattr(
        check, "start_weights", lambda *a, **k: fitted.append(a) or original(*a, **k)
    )
    tiny["stages"]["finetune"]["grid"] |= {"seed": [1, 2, 3], "optimizer.weight_decay": [0, 0.1]}
    checked(tiny)
    assert len(fitted) == 1


def test_what_is_grown_already_is_not_checked_again(tiny, grown_zoo):
    """A data set that has gone does not stop what needs it no more."""
    again = ModelCheck(grown_zoo, needs_data=True)
    again._check_images = lambda recipe: pytest.fail("the models are there")
    plan(Blueprint.read(tiny), parents_in(grown_zoo), again)


def test_a_plan_is_checked_as_a_blueprint_is(tiny, tmp_path):
    tiny["stages"]["finetune"]["architecture"] = {"embed_dim": 32}
    unchecked = plan(Blueprint.read(tiny))
    with pytest.raises(InvalidConfig, match="embed_dim is 32"):
        grow(unchecked, tmp_path / "zoo", **PLAIN)
    assert not (tmp_path / "zoo").exists()


def test_a_mistake_in_one_stage_hides_no_shape_in_another(tiny, tmp_path):
    tiny["stages"]["more"] = {**deepcopy(CHILD), "architecture": {"depth": 2}}
    tiny["stages"]["finetune"]["lr"] = 3
    with pytest.raises(InvalidConfig) as refused:
        grow(tiny, tmp_path / "zoo", **PLAIN)
    assert "did you mean 'optimizer.lr'?" in str(refused.value)
    assert "blocks.1.attn.proj.bias is missing" in str(refused.value)


def test_a_teacher_in_a_folder_is_tried_on_the_students_images(tiny, grown_zoo, tmp_path):
    teacher = next(iter(grown_zoo.ids()))
    (folder,) = export(grown_zoo, "timm", out=tmp_path / "timm", models=[teacher])
    tiny["stages"]["finetune"] = {**CHILD, "objective": {"name": "soft_distillation", "teacher": str(folder)}}  # fmt: skip
    checked(tiny)
    tiny["stages"]["finetune"]["architecture"] = {"img_size": 16}
    assert problems(tiny)[0].path == ("stages", "finetune", "objective", "teacher")


def test_children_of_weights_that_were_removed_are_refused_before_any_is_trained(kept_zoo, tiny):
    parent = next(model for model in kept_zoo if model.children)
    last = f"{parent.id}@2"
    kept_zoo.remove(last, keep_dependents=True)
    checked(tiny, kept_zoo)  # whose models are all there
    tiny["stages"]["finetune"]["grid"]["optimizer.lr"].append(0.1)
    (problem,) = problems(tiny, kept_zoo)
    assert problem.path == ("stages", "finetune", "start")
    assert f"{parent.id} after epoch 2 were removed" in problem.message
    kept_zoo.remove(parent.id, keep_dependents=True)
    checked(tiny, kept_zoo)
