"""The examples of CONTRIBUTING.md are whole files that work as they stand there."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from vitarium import Blueprint, Zoo, create_model, grow, import_zoo, measure, merge
from vitarium.core import registry
from vitarium.testing import check_architecture, check_measure, check_objective, check_operator

GUIDE = Path(__file__).parent.parent / "CONTRIBUTING.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The examples, imported as modules; forgotten afterwards."""
    for kind in registry.KINDS:
        registry.plugins(kind)
    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})
    for number, text in enumerate(EXAMPLES):
        file = tmp_path / f"example_{number}.py"
        file.write_text(text)
        spec = spec_from_file_location(file.stem, file)
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, file.stem, module)
        spec.loader.exec_module(module)


def test_there_is_an_example_of_each_kind():
    decorators = [re.search(r"^@(\w+)\(", text, re.MULTILINE).group(1) for text in EXAMPLES]
    assert decorators == [
        "architecture",
        "objective",
        "objective",
        "measure",
        "lineage",
        "study",
        "operator",
        "importer",
        "exporter",
    ]
    assert all(len(text.splitlines()) <= 40 for text in EXAMPLES)


def test_the_examples_grow_measure_and_merge(examples, tiny, tmp_path):
    tiny["stages"]["pretrain"]["architecture"] |= {"name": "parallel_vit", "num_parallel": 3}
    tiny["stages"]["pretrain"]["objective"] = {"name": "focal", "gamma": 1}
    growth = grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False)
    assert growth.complete
    zoo = growth.zoo
    id = growth.plan.of_stage("pretrain")[0].id
    assert zoo.load(id).blocks[0].attns[2] is not None
    table = measure(zoo, "hoyer", names="qkv.weight")
    assert table["part"].str.endswith("qkv.weight").all()
    assert table["value"].between(0.1, 0.9).all()
    middle = zoo.state_dict(merge(zoo, "line", models=[f"{id}@0", f"{id}@2"], alpha=0.25).id)
    first, last = zoo.state_dict(id, 0), zoo.state_dict(id, 2)
    assert all(torch.allclose(middle[n], 0.75 * first[n] + 0.25 * last[n]) for n in first)


def test_the_importer_brings_timms_own_weights(examples, tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    save_file(model.state_dict(), tmp_path / "vit_tiny_patch16_224.safetensors")
    (id,) = import_zoo(tmp_path, tmp_path / "zoo", num_classes=3)
    read = Zoo.open(tmp_path / "zoo").load(id).state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())


def test_the_examples_that_are_trained_keep_to_their_contracts(examples):
    check_architecture("parallel_vit")
    check_objective("focal")
    check_objective("hidden_views")
    check_measure("hoyer")
    check_operator("line")


def test_the_example_with_companions_learns_from_crops_and_keeps_them(examples, tiny, tmp_path):
    from vitarium import plan
    from vitarium.engine.worker import Job, run_job
    from vitarium.training import TrainOptions

    stage = tiny["stages"]["pretrain"] | {
        "objective": {"name": "hidden_views", "mask_ratio": 0.5},
        "augmentation": {"name": "multi_crop", "local_crops": 2, "local_size": 4},
        "epochs": 1,
        "keep_companions": True,
    }
    spec = plan(Blueprint.read({"name": "x", "stages": {"pretrain": stage}})).models[0]
    zoo = Zoo.create(tmp_path / "zoo")
    run_job(Job(str(zoo.path), (spec.factors(),), TrainOptions()), lambda event: None)
    companions = zoo.companions(spec.id)
    assert companions.center.abs().sum() > 0
    assert companions.mask_token.abs().sum() > 0
    student = zoo.state_dict(spec.id)["blocks.0.attn.qkv.weight"]
    teacher = companions.teacher.module.blocks[0].attn.qkv.weight
    assert 0 < (student - teacher).abs().max() < student.abs().max()


def test_the_example_of_lineage_recovery_keeps_the_contract(examples):
    from vitarium.testing import check_lineage

    check_lineage("chain")


def test_the_example_study_is_a_command_and_keeps_to_the_contract(examples, grown_zoo, tmp_path):
    from typer.testing import CliRunner

    from vitarium import study
    from vitarium.cli import app
    from vitarium.testing import check_study

    page = tmp_path / "spread.html"
    typed = ["study", "spread", str(grown_zoo.path), "--out", str(page), "--min-models", "3"]
    assert CliRunner().invoke(app, typed).exit_code == 0
    assert "<td>finetune</td>" in page.read_text()
    assert "<td>pretrain</td>" not in page.read_text()
    assert "--min-models" in CliRunner().invoke(app, ["study", "spread", "--help"]).output
    frame = study(grown_zoo, "spread", out=page)["Accuracy by stage"]
    scores = grown_zoo.models().groupby("stage")["test_accuracy"]
    assert frame.set_index("stage")["mean"].to_dict() == scores.mean().to_dict()
    check_study("spread", grown_zoo)


def test_focal_loss_without_gamma_is_cross_entropy(examples):
    from vitarium.core.registry import section
    from vitarium.data.batch import Batch

    outputs, targets = torch.randn(5, 4), torch.eye(4)[torch.tensor([0, 1, 2, 3, 0])]
    batch = Batch(outputs, targets.argmax(1), targets)
    same = torch.nn.Identity()
    focal = section("objective", {"name": "focal", "gamma": 0})(same, batch)
    plain = section("objective", "supervised")(same, batch)
    assert torch.allclose(focal.value, plain.value)


def test_the_example_architecture_has_the_parameters_of_a_vit_of_its_depth(examples):
    sizes = {"img_size": 32, "embed_dim": 48}
    wide = create_model("parallel_vit", depth=2, num_parallel=2, **sizes)
    deep = create_model("vit", depth=4, **sizes)
    count = [sum(p.numel() for p in model.parameters()) for model in (wide, deep)]
    assert count[0] == count[1]


def test_the_example_formats_keep_their_contracts(examples):
    from vitarium.testing import check_exporter, check_importer

    check_importer("timm_files")
    check_exporter("numpy")


def test_the_example_exporter_writes_the_zoos_numbers(examples, tiny, tmp_path):
    from vitarium.formats.export import export

    del tiny["stages"]["finetune"]
    zoo = grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False).zoo
    first, *_ = export(zoo, "numpy", out=tmp_path / "out", compressed=True)
    weights = zoo.state_dict(zoo.ids()[0])
    found = np.load(first)
    assert set(found) == set(weights)
    assert all((found[name] == weights[name].numpy()).all() for name in weights)
