"""What every export keeps to, whatever the format."""

import csv
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vitarium import Zoo, merge
from vitarium.core import files, registry
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import section
from vitarium.data.expected import normalization
from vitarium.data.load import load
from vitarium.formats.base import Skipped, exporter, importer
from vitarium.formats.export import export, exported
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo
from vitarium.testing import check_exporter


@pytest.fixture
def forgotten(monkeypatch):
    """What is registered is forgotten afterwards."""
    registry.plugins("exporter")
    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})


class Steps(list):
    """The steps of a progress."""

    def step(self, *step):
        self.append(step)


@pytest.fixture
def breaking():
    """An exporter that breaks after its first model, one of no place for a model, and one that
    needs what nobody has."""

    @exporter("breaking")
    def breaking(config, zoo, models, out):
        (out / models[0].model).mkdir()
        yield out / models[0].model
        raise KeyboardInterrupt

    @exporter("picky", refuses=lambda config, zoo, one: "too late" if one.epoch else None)
    def picky(config, zoo, models, out):
        for one in models:
            (out / one.model).write_text("")
            yield out / one.model

    @exporter("needy", needs=("json", "library_of_nobody"), extra="nobody[all]")
    def needy(config, zoo, models, out):
        yield out

    yield
    for name in ("breaking", "picky", "needy"):
        del registry._plugins["exporter"][name]


@pytest.mark.parametrize("name", sorted(registry.plugins("exporter")))
def test_every_exporter_keeps_its_contract(name):
    check_exporter(name)


def test_a_library_without_what_installs_it_is_refused():
    with pytest.raises(ValueError, match="exporter 'lazy' needs json: say with extra="):
        exporter("lazy", needs=("json",))


def test_a_misspelled_fact_is_refused():
    with pytest.raises(TypeError, match="refuse"):
        exporter("misspelled", refuse=lambda config, zoo, model: None)
    with pytest.raises(TypeError, match="detects"):
        importer("undetected")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda out: [], "writes nothing"),
        (lambda out: [out / "a"], "yields a, which it has not written"),
        (lambda out: [out], "yields"),
        (lambda out: (out / "a").touch() or (out / "b").touch() or [out / "a"], "writes b without"),
    ],
)
def test_the_contract_names_exporter_and_rule(forgotten, write, message):
    exporter("faulty")(lambda config, zoo, models, out: iter(write(out)))
    registry.get("exporter", "faulty").function.__doc__ = "An exporter that breaks the contract."
    with pytest.raises(AssertionError, match=f"'faulty': it {message}"):
        check_exporter("faulty")


def test_models_are_chosen_by_the_beginnings_of_their_ids_and_epochs(zoo):
    id = zoo.ids()[0]
    last = zoo.folder(id).checkpoint()[0]
    assert exported(zoo, [f"{id[:8]}@0", id, id[:6]]) == [
        CheckpointRef(id, 0),
        CheckpointRef(id, last),
    ]
    everything = {CheckpointRef(id, zoo.folder(id).checkpoint()[0]) for id in zoo.ids()}
    assert set(exported(zoo)) == everything
    assert len(exported(zoo)) == len(everything)


def test_models_are_chosen_by_a_condition(zoo):
    selected_ids = {one.model for one in exported(zoo, where="stage = 'finetune' and lr < 0.005")}
    table = zoo.models()
    wanted = (table["stage"] == "finetune") & (table["optimizer.lr"] == 0.001)
    assert selected_ids == set(table[wanted]["id"])
    with pytest.raises(InvalidInput, match="no model fulfills the condition lr > 9"):
        exported(zoo, where="lr > 9")
    two = sorted(selected_ids)[:1] + table["id"][~wanted].tolist()[:1]
    assert [ref.model for ref in exported(zoo, two, where="lr < 0.005")] == two[:1]
    assert exported(zoo, table["id"][wanted]) == [zoo.at(id) for id in table["id"][wanted]]


def test_unfinished_models_are_exported_only_when_they_are_named(zoo):
    id = zoo.ids()[0]
    (zoo.folder(id).path / "result.json").unlink()
    assert id not in [one.model for one in exported(zoo)]
    assert exported(zoo, [id])[0].model == id


@pytest.mark.parametrize("filled", [True, False])
def test_a_place_that_is_taken_is_left_alone(zoo, tmp_path, filled):
    out = tmp_path / "out"
    out.mkdir()
    if filled:
        (out / "thesis.txt").write_text("precious")
        with pytest.raises(InvalidInput, match="is there already"):
            export(zoo, "safetensors", out=out)
        assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    else:
        assert len(export(zoo, "safetensors", out=out)) == 7


def test_an_interrupted_export_leaves_nothing(zoo, tmp_path, breaking):
    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        export(zoo, "breaking", out=tmp_path / "out")
    assert set(tmp_path.iterdir()) == before


def test_models_for_which_there_is_no_place_are_listed_or_left_out(zoo, tmp_path, breaking):
    ids, events, steps = zoo.ids()[:2], [], Steps()
    models = [f"{ids[0]}@0", ids[1]]
    with pytest.raises(InvalidInput, match=rf"1 of 2 models .*skip=True.*\n  {ids[1]}: too late"):
        export(zoo, "picky", out=tmp_path / "out", models=models)
    report = {"progress": steps, "listener": events.append}
    export(zoo, "picky", out=tmp_path / "out", models=models, skip=True, **report)
    assert events == [Skipped(CheckpointRef(ids[1], events[0].checkpoint.epoch), "too late")]
    assert steps == [(ids[0], 1, 1)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [ids[0]]
    with pytest.raises(InvalidInput, match="2 of 2"):
        export(zoo, "picky", out=tmp_path / "none", models=ids, skip=True)


def test_a_missing_library_is_named_with_what_to_install(zoo, tmp_path, breaking):
    with pytest.raises(InvalidInput, match=r"needs library_of_nobody: pip install 'nobody\[all\]'"):
        export(zoo, "needy", out=tmp_path / "out")


def test_bad_choices_are_refused_before_anything_is_written(zoo, tmp_path):
    before = set(tmp_path.iterdir())
    for wrong, error in (
        ({"exporter": "tim"}, UnknownName),
        ({"exporter": "timm", "chek": 1}, InvalidConfig),
        ({"exporter": "timm", "models": ["zzz"]}, UnknownName),
        ({"exporter": "timm", "models": [f"{zoo.ids()[0]}@9"]}, InvalidInput),
        ({"exporter": "timm", "models": []}, InvalidInput),
    ):
        with pytest.raises(error):
            export(zoo, out=tmp_path / "out", **wrong)
    assert set(tmp_path.iterdir()) == before


def test_safetensors_files_hold_the_zoos_bits_and_their_factors(zoo, tmp_path):
    pretrained = zoo.models().query("stage == 'pretrain'")["id"]
    soup = merge(zoo, "uniform_soup", models=pretrained).id
    *files, table = export(zoo, "safetensors", out=tmp_path / "out")
    with table.open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert len(files) == len(rows) == 7
    assert rows[soup]["operator"] == "uniform_soup"
    ingredients = [f"{one.model}@{one.epoch}" for one in zoo.spec(soup).ingredients]
    assert json.loads(rows[soup]["ingredients"]) == ingredients
    for id, row in rows.items():
        file = table.parent / row["file"]
        weights, spec = zoo.state_dict(id, int(row["epoch"])), zoo.spec(id)
        found = load_file(file)
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)
        assert (row["stage"], row["parent"]) == (spec.stage, spec.parent or "")
        assert float(row["optimizer.lr"]) == spec.described()["optimizer.lr"]
        with safe_open(file, framework="pt") as opened:
            notes = json.loads(opened.metadata()["vitarium"])
        assert notes["name"] == id
        assert notes["optimizer.lr"] == spec.described()["optimizer.lr"]


def test_what_safetensors_files_hold_is_imported_with_lineage_and_factors(zoo, tmp_path):
    export(zoo, "safetensors", out=tmp_path / "out")
    ids = import_zoo(tmp_path / "out", tmp_path / "again")
    again = Zoo.open(tmp_path / "again")
    named = {again.spec(id).imported.name: id for id in ids}
    assert named.keys() == set(zoo.ids())
    images = torch.randn(2, 1, 8, 8)
    for name, id in named.items():
        assert torch.equal(again.load(id)(images), zoo.load(name)(images))
        parent = zoo.spec(name).parent
        assert again.spec(id).parent == (named[parent] if parent else None)
        exported_factors, factors = zoo.spec(name).described(), again.spec(id).described()
        assert float(factors["optimizer.lr"]) == exported_factors["optimizer.lr"]
        assert again.epochs(id)["test_accuracy"].iloc[-1] == pytest.approx(
            zoo.epochs(name)["test_accuracy"].iloc[-1]
        )


def test_scores_on_evaluation_sets_are_exported_and_come_back_as_scores(lone, tmp_path):
    zoo = lone(evaluate_on={"v2": "digits"})
    (id,) = zoo.ids()
    file = zoo.path / "models" / id / "epochs.jsonl"
    epochs = [json.loads(line) for line in file.read_text().splitlines()[:-1]]
    epochs[-1]["metrics"] |= {"v2_accuracy": 0.25, "v2_loss": 2.0, "epoch_lr": 0.1}
    files.write_lines(file, epochs)
    export(zoo, "safetensors", out=tmp_path / "out")
    (model,) = find_models(tmp_path / "out").models
    metrics = model.epochs[-1].metrics
    assert (metrics["v2_accuracy"], metrics["v2_loss"]) == (0.25, 2.0)
    assert not {"v2_accuracy", "epoch_lr"} & model.settings.keys()


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_the_normalisation_that_is_known_without_the_data_is_theirs(name):
    chosen_data = section("dataset", name)
    found = load(chosen_data)
    assert normalization(chosen_data, 1) == (found.mean, found.std)
    assert normalization(chosen_data, 3) == (found.mean * 3, found.std * 3)


def test_gray_input_of_colour_data_has_the_mean_normalisation():
    color = section("dataset", {"name": "image_folder", "folder": "x", "mean": [0.1, 0.2, 0.6]})
    mean, std = normalization(color, 1)
    assert mean == pytest.approx((0.3,))
    assert len(std) == 1
