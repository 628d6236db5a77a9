"""The published zoo of ViTs, read and written; the other side is torch's, timm's and json's."""

import json
import math
import os
import shutil

import pytest
import torch

from vitarium import merge
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import CorruptFile, InvalidInput, UntrustedFile, VitariumError
from vitarium.engine.grow import grow
from vitarium.formats._published_keys import to_ours, to_published
from vitarium.formats._ray_trials import BOOKKEEPING
from vitarium.formats.export import export
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo
from vitarium.zoo import Zoo

PRETRAINED = "pretraining/sl_seed_42"
CHILD = "finetuning/sl_seed_42/ft_lr_0.001"


@pytest.fixture(scope="module")
def zoo(published_once, tmp_path_factory):
    """The published zoo, imported; no test changes it."""
    from vitarium.formats.importers import vit_zoo

    path = tmp_path_factory.mktemp("imported") / "zoo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vit_zoo.MODELS, "vit_test_16", "test_vit")
        import_zoo(published_once, path)
    return Zoo.open(path)


def by_name(zoo):
    return {zoo.spec(id).origin.name: id for id in zoo.ids()}


def found(source, **settings):
    return {model.name: model for model in find_models(source, **settings).models}


def change_json(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# Reading


def test_outputs_are_those_of_the_authors_module_bit_for_bit(zoo, published, theirs):
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    for name, id in by_name(zoo).items():
        module = theirs.Published(hidden=8 if name == CHILD else None)
        file = published / name / "checkpoint_000002" / "checkpoints"
        module.load_state_dict(torch.load(file, weights_only=True))
        with torch.no_grad():
            assert torch.equal(zoo.load(id)(images), module.eval()(images))


def test_the_papers_architecture_is_told_from_its_type_and_weights(theirs, tmp_path):
    settings = {"img_size": 32, "patch_size": 8, "in_chans": 1}
    weights = theirs.Published("vit_small_patch16_224", num_classes=7, **settings).state_dict()
    config = theirs.configuration(**{"model::type": "vit_s_16", "model::dropout": 0.1})
    theirs.write_trial(tmp_path / "p/pretraining/m", config, None, {2: weights})
    (model,) = found(tmp_path / "p").values()
    assert model.architecture.factors(defaults=False) == {
        "name": "timm",
        "model": "vit_small_patch16_224",
        "proj_drop_rate": 0.1,
        **settings,
    }
    assert model.num_outputs == 7
    assert model.head.factors()["initialization"] == {"name": "kaiming_normal", "bias": 0.01}


def test_lineage_is_found(zoo):
    ids = by_name(zoo)
    child = zoo.spec(ids[CHILD])
    assert (child.parent, child.parent_epoch) == (ids[PRETRAINED], 1)
    assert zoo.spec(ids[PRETRAINED]).parent is None
    assert (child.stage, zoo.spec(ids[PRETRAINED]).stage) == ("finetuning", "pretraining")


def test_factors_are_columns_under_our_names_and_the_rest_under_theirs(zoo):
    table = zoo.models().set_index("name")
    child = table.loc[CHILD]
    assert child["optimizer"] == "sgd"
    assert child["optimizer.lr"] == 0.001
    assert child["optimizer.momentum"] == 0.9
    assert child["batch_size"] == 256
    assert child["objective"] == "supervised"
    assert child["augmentation.mixup"] == 0.8
    assert child["schedule"] == "constant"
    assert child["data"] == "cifar100"
    assert child["head"] == "mlp"
    assert child["head.hidden_dim"] == 8
    assert child["dataset::dump"] == "/ds2/zoos/cifar.pt"
    assert table.loc["pretraining/cl_seed_42", "objective"] == "simclr"
    assert table.loc["pretraining/cl_seed_42", "objective.temperature"] == 0.07
    assert table.loc[PRETRAINED, "training::temperature"] == 0, "says nothing without contrast"


def test_metrics_have_our_names_where_they_mean_the_same(zoo, theirs):
    epochs = zoo.epochs(by_name(zoo)[PRETRAINED])
    lines = theirs.lines([0, 1, 2])
    assert epochs["test_accuracy"].tolist() == [line["test_acc"] for line in lines]
    assert epochs["train_loss"].tolist() == [line["train_loss"] for line in lines]
    assert epochs["seconds"].tolist() == [1.5] * 3
    assert not BOOKKEEPING & set(epochs)
    contrastive = zoo.epochs(by_name(zoo)["pretraining/cl_seed_42"])
    assert "test_acc" in contrastive
    assert "test_accuracy" not in contrastive, "it is of positives found, not of classes"
    assert contrastive["kept"].tolist() == [False, False, True]


def test_configurations_translate_there_and_back(theirs):
    for changes in (
        {},
        {"training::mode": "cl"},
        {"training::mode": None, "optim::optimizer": "sgd"},
        {"optim::scheduler": "OneCycleLR", "dataset::name": "ImageNet1K"},
        {"model::freeze_encoder": 0},
        {"vitarium::augmentation.crop": "random", "mine": [1, {"a": None}]},
    ):
        config = theirs.configuration(**changes)
        assert to_published(to_ours(config)) == config
        assert {type(v) for v in to_published(to_ours(config)).values()} == {
            type(v) for v in config.values()
        }


# What is broken or missing


def test_a_malicious_checkpoint_stops_the_import_and_is_not_run(published, tmp_path):
    mark, zoo = tmp_path / "run", tmp_path / "zoo"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    file = published / CHILD / "checkpoint_000001" / "checkpoints"
    torch.save({"vit.head.weight": Evil()}, file)
    with pytest.raises(
        UntrustedFile, match=r"ft_lr_0.001/checkpoint_000001/checkpoints was not read"
    ):
        import_zoo(published, zoo)
    assert not mark.exists()
    torch.save({}, file)
    with pytest.raises(InvalidInput, match="holds a dict, not tensors by name"):
        import_zoo(published, zoo)
    shutil.copy(published / CHILD / "checkpoint_000002" / "checkpoints", file)
    assert len(import_zoo(published, zoo)) == 3, "mended, it goes on"


def test_a_run_that_was_killed_is_said_to_be_unfinished(published, theirs):
    folder = published / PRETRAINED
    lines = theirs.lines([0, 1], done=False)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "result.json").write_text(text + '{"train_loss": 0.3, "tra')
    shutil.rmtree(folder / "checkpoint_000002")
    model = found(published)[PRETRAINED]
    assert not model.finished
    assert "the last line of result.json, 3, is broken off and was left out" in model.notes
    assert "it ends after epoch 1 of 2: imported as unfinished" in model.notes
    assert [epoch.number for epoch in model.epochs] == [0, 1]


def test_a_broken_line_before_the_last_is_an_error_that_names_it(published):
    file = published / PRETRAINED / "result.json"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1][:20], lines[2]]))
    with pytest.raises(CorruptFile, match=r"sl_seed_42/result.json: line 2 is not a JSON object"):
        find_models(published)


def test_without_result_json_epochs_come_without_metrics(published):
    (published / PRETRAINED / "result.json").unlink()
    model = found(published)[PRETRAINED]
    assert [(epoch.number, dict(epoch.metrics)) for epoch in model.epochs] == [
        (0, {}),
        (1, {}),
        (2, {}),
    ]
    assert model.finished
    assert "it has no result.json: its epochs come without metrics" in model.notes


def test_nan_is_null_in_result_json(published, tmp_path, theirs):
    lines = theirs.lines([0, 1, 2])
    lines[1]["train_loss"] = None
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (published / PRETRAINED / "result.json").write_text(text)
    import_zoo(published, tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    assert math.isnan(zoo.epochs(by_name(zoo)[PRETRAINED])["train_loss"][1])
    export(zoo, "vit_zoo", out=tmp_path / "out")
    written = (tmp_path / "out" / PRETRAINED / "result.json").read_text().splitlines()
    assert json.loads(written[1])["train_loss"] is None


def test_a_line_that_stands_twice_counts_once(published, theirs):
    lines = [*theirs.lines([0, 1], done=False), *theirs.lines([1, 2])]
    lines[2]["test_acc"] = 0.75
    file = published / PRETRAINED / "result.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = found(published)[PRETRAINED]
    assert model.epochs[1].metrics["test_accuracy"] == 0.75
    assert "iteration 1 stands twice in result.json; the last counts" in model.notes


@pytest.mark.parametrize(
    ("lines", "dirs", "offset", "epochs"),
    [
        ([0, 1, 2], False, None, [0, 1, 2]),
        ([1, 2, 3], True, None, [1, 2, 3]),
        ([1, 2, 3], False, 1, [1, 2, 3]),
        ([1, 2, 3], False, 0, [0, 1, 2]),
        ([1, 2], False, None, [0, 1, 2]),
    ],
)
def test_a_checkpoint_is_of_the_iteration_that_ray_says(
    published, theirs, lines, dirs, offset, epochs
):
    file = published / PRETRAINED / "result.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in theirs.lines(lines, dirs)))
    (published / PRETRAINED / "checkpoint_000002" / "checkpoints").exists()
    settings = {} if offset is None else {"offset": offset}
    shutil.rmtree(published / "pretraining/cl_seed_42")
    if offset == 1:
        shutil.rmtree(published / "finetuning")
    model = found(published, **settings)[PRETRAINED]
    assert [epoch.number for epoch in model.epochs if epoch.load] == epochs
    if dirs:
        assert found(published)[CHILD].parent_epoch == 2, "checkpoint 1 is the second epoch's"


def test_numbers_that_fit_either_way_have_to_be_told(published, theirs):
    file = published / PRETRAINED / "result.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in theirs.lines([1, 2, 3])))
    with pytest.raises(InvalidInput, match=r"sl_seed_42: .*0 to 2.*1 to 3.*offset=1 if"):
        find_models(published)


def test_unpadded_folders_are_read_and_two_of_one_number_are_not(published):
    (published / PRETRAINED / "checkpoint_000001").rename(published / PRETRAINED / "checkpoint_1")
    assert len([e for e in found(published)[PRETRAINED].epochs if e.load]) == 3
    shutil.copytree(
        published / PRETRAINED / "checkpoint_1", published / PRETRAINED / "checkpoint_000001"
    )
    with pytest.raises(InvalidInput, match="have the same number"):
        find_models(published)


def test_names_that_are_not_of_this_format_are_an_error(published, theirs):
    weights = {f"module.{k}": v for k, v in theirs.Published().state_dict().items()}
    torch.save(weights, published / PRETRAINED / "checkpoint_000002" / "checkpoints")
    with pytest.raises(CorruptFile, match=r"'module.vit.cls_token' does not begin with 'vit.'"):
        find_models(published)


def test_an_unknown_type_is_an_error_that_names_the_folder(published):
    change_json(published / PRETRAINED / "config.json", **{"model::type": "bert"})
    with pytest.raises(InvalidInput, match=r"sl_seed_42: unknown model::type 'bert'"):
        find_models(published)


def test_params_json_will_do_and_no_configuration_will_not(published, theirs):
    folder = published / PRETRAINED
    (folder / "config.json").rename(folder / "params.json")
    assert found(published)[PRETRAINED].settings["optimizer.lr"] == 0.001
    (folder / "params.json").unlink()
    shutil.rmtree(published / "finetuning")
    (folder / "result.json").unlink()
    with pytest.raises(InvalidInput, match=r"sl_seed_42 has neither config.json nor params.json"):
        find_models(published)
    (folder / "config.json").write_text("[1, 2]")
    with pytest.raises(CorruptFile, match=r"config.json: a configuration is an object"):
        find_models(published)


def test_a_configuration_that_contradicts_its_folder_is_an_error(published):
    path = "/elsewhere/cl_seed_42/checkpoint_000002/checkpoints"
    change_json(published / CHILD / "config.json", **{"pretraining::model::path": path})
    with pytest.raises(InvalidInput, match=r"lies in the folder of pretraining/sl_seed_42, but"):
        find_models(published)


def test_a_path_in_a_configuration_is_a_name_and_never_opened(published, tmp_path):
    secret = tmp_path / "renamed" / "checkpoint_000002" / "checkpoints"
    secret.parent.mkdir(parents=True)
    os.mkfifo(secret)  # opening it would hang
    change_json(published / CHILD / "config.json", **{"pretraining::model::path": str(secret)})
    model = found(published)[CHILD]
    assert model.parent == PRETRAINED
    assert any("told from its folder" in note for note in model.notes)


def test_a_missing_pretrained_model_is_an_error(published, tmp_path):
    shutil.rmtree(published / PRETRAINED)
    with pytest.raises(InvalidInput, match=rf"{CHILD} descends from {PRETRAINED}"):
        import_zoo(published, tmp_path / "zoo")
    assert len(import_zoo(published, tmp_path / "zoo", orphans=True)) == 2


def test_an_unknown_setting_is_an_error(published):
    with pytest.raises(
        InvalidConfig, match="importer 'vit_zoo' has no setting 'ofset'; did you mean 'offset'"
    ):
        find_models(published, ofset=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim::lr": math.nan}, r"sl_seed_42 cannot be imported:\n.*optimizer.lr.* finite"),
        ({"model::type": ["vit_s_16"]}, "unknown model::type"),
        ({"model::head::seed": "four"}, "sl_seed_42: seed: 'four'"),
        ({"vitarium::architecture": {"name": "vit", "depth": 10**9}}, "blocks are more than"),
        ({"vitarium::architecture": {"name": "none"}}, "unknown architecture 'none'"),
        ({"vitarium::head": 5}, "sl_seed_42: 5 is neither a name nor"),
    ],
)
def test_strange_configurations_are_errors_that_name_the_folder(published, changes, message):
    change_json(published / PRETRAINED / "config.json", **changes)
    with pytest.raises(InvalidInput, match=message):
        find_models(published)


@pytest.mark.parametrize(
    "changes",
    [
        {"training::mode": ["sl"], "training::loss": {}, "model::init_type": [1]},
        {"training::epochs_train": "many", "pretraining::model": 5, "seed": None},
        {"vitarium::classes": 7, "vitarium::stage": 3, "pretraining::model::path": ["x"]},
    ],
)
def test_values_of_any_kind_are_kept(published, changes, tmp_path):
    change_json(published / PRETRAINED / "config.json", **changes)
    assert len(import_zoo(published, tmp_path / "zoo")) == 3


@pytest.mark.parametrize("shape", [[], [3], [1, 2, 3, 4]])
@pytest.mark.parametrize("name", ["pos_embed", "patch_embed.proj.weight", "head.weight"])
def test_tensors_of_strange_shapes_are_errors(published, tmp_path, name, shape, theirs):
    weights = theirs.Published().state_dict()
    weights[f"vit.{name}"] = torch.zeros(shape)
    torch.save(weights, published / PRETRAINED / "checkpoint_000002" / "checkpoints")
    with pytest.raises(VitariumError, match="sl_seed_42"):
        import_zoo(published, tmp_path / "zoo")


# Writing


def contents(folder):
    """Everything of a published zoo but the optimizers: configurations, lines, tensors."""
    read = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(file.relative_to(folder))
        if file.name == "config.json":
            read[name] = json.loads(file.read_text())
        elif file.name == "result.json":
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            kept = BOOKKEEPING - {"training_iteration", "done"}
            read[name] = [{k: v for k, v in line.items() if k not in kept} for line in lines]
        elif file.name == "checkpoints":
            weights = torch.load(file, weights_only=True)
            read[name] = {k: (str(v.dtype), v.tolist()) for k, v in weights.items()}
    return read


def test_a_published_zoo_is_written_as_it_was_read(published, zoo, tmp_path):
    written = export(zoo, "vit_zoo", out=tmp_path / "out")
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in written) == sorted(by_name(zoo))
    assert contents(tmp_path / "out") == contents(published)
    assert sorted(import_zoo(tmp_path / "out", tmp_path / "again")) == zoo.ids()


def test_what_is_written_is_the_authors_own_state_dict(zoo, theirs, tmp_path):
    export(zoo, "vit_zoo", out=tmp_path / "out", models=[by_name(zoo)[CHILD]])
    file = tmp_path / "out" / CHILD / "checkpoint_000001" / "checkpoints"
    weights = torch.load(file, weights_only=True)
    theirs.Published(hidden=8).load_state_dict(weights, strict=True)


def test_a_grown_zoo_comes_back_with_its_weights_metrics_factors_and_lineage(
    tiny, write_blueprint, tmp_path
):
    tiny["stages"]["pretrain"]["head"] = {"name": "mlp", "hidden_dim": 8, "seed": 3}
    tiny["stages"]["pretrain"]["checkpoints"] = [1]
    tiny["stages"]["finetune"]["head"] = {"name": "linear"}
    grown = grow(write_blueprint(tiny), tmp_path / "grown", workers=0, progress=False).zoo
    children = [id for id in grown.ids() if grown.spec(id).parent]
    merge(grown, "uniform_soup", models=children[:2])
    export(grown, "vit_zoo", out=tmp_path / "out")
    import_zoo(tmp_path / "out", tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    twin = {name.rpartition("/")[2]: id for name, id in by_name(zoo).items()}
    assert sorted(twin) == grown.ids()
    for id in grown.ids():
        was, is_ = grown.folder(id), zoo.folder(twin[id])
        assert [(e.number, e.metrics) for e in was.epochs()] == [
            (e.number, e.metrics) for e in is_.epochs()
        ]
        for epoch in was.epochs():
            assert bool(epoch.checkpoint) == (is_.epochs()[epoch.number].checkpoint is not None)
            if epoch.checkpoint:
                before, after = was.weights(epoch.number), is_.weights(epoch.number)
                assert before.keys() == after.keys()
                assert all(torch.equal(before[name], after[name]) for name in before)
        assert was.spec().stage == is_.spec().stage
        assert was.about().classes == is_.about().classes
        assert was.status == is_.status
        assert is_.spec().parent == twin.get(was.spec().parent)
        assert is_.spec().parent_epoch == was.spec().parent_epoch
        factors = is_.spec().described()
        expected = was.spec().described()
        if expected.pop("operator", None):
            assert factors["made_by"] == was.spec().operator.factors()
        assert is_.spec().initial_epoch == was.spec().initial_epoch
        assert {key: factors[key] for key in expected} == json.loads(json.dumps(expected))
    export(zoo, "vit_zoo", out=tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_tensors_without_an_architecture_have_no_place_there(theirs, tmp_path):
    config = {"optim::lr": 0.1}
    trial = tmp_path / "cnns" / "trial"
    weights = {"module_list.0.weight": torch.randn(3, 2)}
    theirs.write_trial(trial, config, theirs.lines([0]), {0: weights}, "params.json")
    import_zoo(tmp_path / "cnns", tmp_path / "zoo")
    with pytest.raises(InvalidInput, match="exporter='safetensors' takes any model"):
        export(Zoo.open(tmp_path / "zoo"), "vit_zoo", out=tmp_path / "out")


def test_iteration_0_of_ray_is_before_training_and_folders_alone_say_nothing(
    theirs, published, tmp_path
):
    import_zoo(published, tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    for id in zoo.ids():
        expected = 0 if 0 in {epoch.number for epoch in zoo.folder(id).epochs()} else None
        assert zoo[id].initial_epoch == expected
    assert {zoo[id].initial_epoch for id in zoo.ids()} >= {0}
    (published / "pretraining/sl_seed_42/result.json").unlink()
    import_zoo(published, tmp_path / "other")
    other = Zoo.open(tmp_path / "other")
    assert other[by_name(other)["pretraining/sl_seed_42"]].initial_epoch is None


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"name": "vit", "embed_dim": 3 * 10**9}, "embed_dim: 3000000000 is not at most 65536"),
        ({"name": "vit", "img_size": 10**12}, "img_size: 1000000000000 is not at most 65536"),
        (
            {"name": "timm", "model": "swin_tiny_patch4_window7_224", "depths": [1, 10**6]},
            "depths: 1000000 is not at most 1024",
        ),
    ],
)
def test_what_no_machine_could_build_is_refused_before_it_is_built(
    published, architecture, message
):
    change_json(published / PRETRAINED / "config.json", **{"vitarium::architecture": architecture})
    with pytest.raises(InvalidInput, match=message):
        find_models(published, importer="vit_zoo")
