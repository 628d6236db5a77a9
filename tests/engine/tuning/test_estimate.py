"""What a plan costs, before it is grown."""

import pytest

from vitarium import Blueprint, plan
from vitarium.engine.tuning.auto_tuner import AutoTuner, TrainRequest
from vitarium.engine.tuning.calibration import Calibration
from vitarium.engine.tuning.estimate import estimate
from vitarium.engine.tuning.machine import Machine
from vitarium.engine.tuning.model_size import parameters

MACHINE = Machine(("cpu",), 2, 1)


def stages(source):
    return estimate(plan(source), MACHINE)


def test_the_papers_zoo_is_counted():
    pretrain, finetune = stages(Blueprint.load("vit-s-imagenet-cifar100"))
    assert (pretrain.models, finetune.models) == (10, 240)
    assert pretrain.parameters == (22_050_664, 22_050_664)
    mlp = 21_704_164 - (384 * 100 + 100) + (384 * 256 + 256) + (256 * 100 + 100)
    assert finetune.parameters == (21_704_164, mlp)
    assert finetune.epochs == 240 * 50
    assert finetune.steps == 240 * 50 * (45_000 // 256)
    assert pretrain.steps == 90 * (7 * (1_153_050 // 256) + 3 * (1_153_050 // 96))
    assert finetune.bytes == 120 * 51 * 4 * (21_704_164 + mlp)
    assert finetune.seconds is None


def test_parameters_are_those_of_the_model(tiny):
    recipe = plan(Blueprint.read(tiny)).models[0].recipe
    total = sum(p.numel() for p in recipe.build(10).parameters())
    assert parameters(recipe, 10) == (total, total)


def test_what_adaptations_add_and_let_learn_is_counted(tiny):
    """Also after an adaptation of the same architecture that adds nothing."""
    vit = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1, "num_heads": 2}
    architecture = {**vit, "embed_dim": 16, "depth": 2, "mlp_ratio": 2}
    tiny["stages"]["pretrain"]["architecture"] = architecture
    prompts = {"name": "vpt", "count": 3}
    low_rank = {"name": "lora", "rank": 2, "matrices": ["q"]}
    finetune = tiny["stages"]["finetune"]
    finetune["grid"] = {"adaptation": ["full", "head", low_rank, prompts]}
    _, stage = stages(Blueprint.read(tiny))
    full, _ = stage.parameters
    assert stage.parameters == (full, full + 3 * 16)
    assert stage.trained == (16 * 10 + 10, full)
    counted = {m.recipe.adaptation.name: m for m in plan(Blueprint.read(tiny)).of_stage("finetune")}
    assert parameters(counted["lora"].recipe, 10) == (full, 170 + 2 * 2 * (16 + 16))
    assert parameters(counted["vpt"].recipe, 10) == (full + 48, 170 + 48)


def test_what_objectives_bring_beside_models_is_counted(tiny):
    """MAE's published decoder, 512 wide with 8 blocks of 16 patches, beside 16-wide models."""
    tiny["stages"]["pretrain"] |= {"objective": {"name": "mae", "mask_ratio": 0.5}, "epochs": 2}
    without, finetune = stages(Blueprint.read(tiny))
    block = 12 * 512**2 + 13 * 512
    decoder = (16 * 512 + 512) + 512 + 8 * block + 2 * 512 + (512 * 16 + 16)
    assert without.companions == (decoder, decoder)
    assert finetune.companions == (0, 0)
    tiny["stages"]["pretrain"]["keep_companions"] = True
    assert stages(Blueprint.read(tiny))[0].bytes == without.bytes + 2 * 4 * decoder


def test_bytes_are_those_of_the_grown_zoo(tiny, grown_zoo):
    expected = sum(stage.bytes for stage in stages(Blueprint.read(tiny)))
    grown_zoo.unpack()
    found = sum(file.stat().st_size for file in grown_zoo.path.rglob("epoch-*.safetensors"))
    assert found == pytest.approx(expected, rel=0.25)  # headers weigh much in tiny models


def test_calibration_gives_a_time(tiny):
    planned = plan(Blueprint.read(tiny))
    tuner = AutoTuner(planned, MACHINE, TrainRequest(), Calibration("cpu", 1))
    for stage in estimate(planned, MACHINE, tuner):
        assert 0 < stage.seconds < 60


def test_data_that_is_not_there_leaves_a_gap(tiny):
    tiny["stages"]["pretrain"]["data"] = {"name": "image_folder", "folder": "nowhere"}
    pretrain, finetune = stages(Blueprint.read(tiny))
    assert (pretrain.models, pretrain.steps, pretrain.bytes) == (2, None, None)
    assert finetune.steps is not None
