"""A step of training is tried without memory when a blueprint is read: what it stops at is refused."""

from itertools import product

import pytest
import torch

from vitarium import Blueprint, grow, plan
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import plugins
from vitarium.engine.check import ModelCheck

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}
SHARED = {
    "data": {"name": "digits", "train_limit": 24},
    "optimizer": {"name": "adamw", "lr": 0.001},
    "batch_size": 6,
    "epochs": 1,
    "steps_per_epoch": 1,
}
CROPS = {"name": "multi_crop", "local_crops": 2, "local_size": 8}


def tiny(kind, name):
    return {"name": name, **(plugins(kind)[name].facts["tiny"] or {})}


def blueprint(architecture="vit", objective="supervised", adaptation="full", **changes):
    """A model, and a child of it that is trained in another way."""
    facts = plugins("objective")[objective].facts
    learned = tiny("objective", objective)
    if "frozen_last_layer_epochs" in plugins("objective")[objective].config.model_fields:
        learned["frozen_last_layer_epochs"] = 0
    pretrain = {**SHARED, "architecture": tiny("architecture", architecture)}
    if facts["teacher_companions"]:
        pretrain |= {"objective": tiny("objective", "mae"), "keep_companions": True}
    child = {
        **SHARED,
        "start": "pretrain",
        "objective": learned,
        "adaptation": tiny("adaptation", adaptation),
        "augmentation": "simclr" if facts["views"] > 1 else "standard",
        **changes,
    }
    return {"name": "pairs", "stages": {"pretrain": pretrain, "finetune": child}}


def read(values):
    plan(Blueprint.read(values), check=ModelCheck())


def refusals(values):
    with pytest.raises(InvalidConfig) as refused:
        read(values)
    return [(".".join(map(str, p.path[2:])), p.message) for p in refused.value.problems]


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ({"architecture": "hyena_nd", "objective": "mae"}, "objective", "needs all 4 x 4 patches of the model's own images, and there are 8 tokens"),
        ({"architecture": "hyena_nd", "objective": "dino", "augmentation": CROPS}, "objective", "needs all 4 x 4 patches"),
        ({"architecture": "hyena_nd", "adaptation": "vpt"}, "objective", "needs all 4 x 4 patches"),
        ({"architecture": "hyena_nd", "epochs": 2, "progressive": {"stages": 2, "smallest": 8}}, "objective", "needs all 4 x 4 patches"),
        ({"architecture": "mini_deit", "objective": "mae"}, "objective", "relative positions are those of all 4 tokens of an image of the model's own size, and there are 2"),
        ({"architecture": "supernet", "objective": "weight_distillation"}, "objective", "SupernetTransformer computes its outputs without its block 1"),
        ({"architecture": "supernet", "objective": "bootstrapping"}, "objective", "its sub-networks have features of several widths"),
        ({"architecture": "supernet", "adaptation": "lora"}, "objective", "is in no sub-network, or missing here"),
        ({"architecture": "dual_token", "objective": "weight_distillation"}, "objective.teacher", "block 1 gives no tensor of tokens, but a tuple"),
        ({"architecture": "jumbo", "objective": "ibot"}, "objective", "features as wide as patches, and those of JumboTransformer are 72 and 24 wide"),
        ({"architecture": "unirgb_ir", "objective": "simclr"}, "augmentation", "color_jitter and hue and grayscale need gray images or RGB, not 4 channels"),
    ],
)  # fmt: skip
def test_what_a_step_would_stop_at_is_refused_with_its_reason(values, path, message):
    problems = refusals(blueprint(**values))
    assert any(where == path and message in text for where, text in problems), problems


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "matvit", "objective": "weight_distillation"},
        {"architecture": "matvit", "objective": "mae"},
        {"architecture": "supernet", "objective": "soft_distillation"},
        {"architecture": "supernet", "objective": "bootstrapping", "adaptation": "head"},
        {"architecture": "reversible"},
        {"architecture": "image_moe", "objective": "soft_distillation"},
        {"architecture": "distilled_vit", "objective": "dinov2"},
        {"architecture": "hyena_nd", "objective": "dino"},
        {"architecture": "vit", "epochs": 2, "progressive": {"stages": 2, "smallest": 8}},
    ],
    ids=lambda values: "-".join(map(str, values.values()))[:60],
)
def test_what_can_be_trained_is_not_refused(values):
    read(blueprint(**values))


def test_an_objective_that_asks_for_values_is_not_refused(monkeypatch):
    """It cannot be tried without any."""
    from vitarium.objectives.classification import supervised

    monkeypatch.setattr(supervised, "accuracy", lambda outputs, batch: outputs.argmax().item())
    read(blueprint())


def test_what_fails_without_memory_alone_is_not_refused(monkeypatch):
    from vitarium.objectives.classification import supervised

    def accuracy(outputs, batch):
        with torch.autocast(outputs.device.type, enabled=False):  # there is none of that device
            return (outputs.argmax(1) == batch.targets.argmax(1)).float().mean()

    monkeypatch.setattr(supervised, "accuracy", accuracy)
    read(blueprint())


def test_a_fault_of_any_kind_is_located(monkeypatch):
    from vitarium.objectives.classification import supervised

    def fail(outputs, batch):
        return outputs @ torch.zeros(7, 3, device=outputs.device)

    monkeypatch.setattr(supervised, "accuracy", fail)
    ((path, message), *_) = refusals(blueprint())
    assert path == "objective"
    assert message.startswith("a step of training fails: RuntimeError: ")


def test_reading_a_blueprint_draws_nothing_from_torchs_generator():
    before = torch.random.get_rng_state()
    read(blueprint(architecture="supernet"))
    assert torch.equal(torch.random.get_rng_state(), before)


def pairs():
    """Of architectures, objectives and adaptations each with each, the third one as usual. What
    learns from stored outputs needs files that were written for it."""
    architectures, adaptations = (sorted(plugins(kind)) for kind in ("architecture", "adaptation"))
    facts = {name: plugin.facts for name, plugin in plugins("objective").items()}
    objectives = sorted(name for name in facts if not facts[name]["stored_outputs"])
    yield from product(architectures, objectives, ["full"])
    yield from product(architectures, ["supervised"], adaptations)
    yield from product(["vit"], objectives, adaptations)


def reasons_against(values):
    try:
        read(values)
    except InvalidConfig as error:
        return [problem.message for problem in error.problems]
    return []


@pytest.mark.parametrize("stride", [149, pytest.param(1, marks=pytest.mark.evidence)])
def test_each_pair_is_refused_when_it_is_read_or_trains(tmp_path, stride):
    trained = 0
    for number, pair in enumerate(list(pairs())[::stride]):
        folder, values = tmp_path / str(number), blueprint(*pair)
        if reasons := reasons_against(values):
            assert not any("a step of training fails" in reason for reason in reasons), pair
            continue
        growth = grow(values, folder, **PLAIN)
        assert growth.complete, (pair, growth.failed, growth.diverged)
        trained += 1
    assert trained > 3
