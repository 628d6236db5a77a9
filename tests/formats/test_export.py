"""What every export keeps to, whatever the format."""

import csv
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vitarium import Zoo, merge
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import exporter, section
from vitarium.data.expected import normalization
from vitarium.data.load import load
from vitarium.formats.export import Chosen, Exported, Skipped, chosen, export
from vitarium.formats.import_zoo import import_zoo

SETTINGS = {"onnx": {"check": False}}


@pytest.fixture
def breaking():
    """An exporter that breaks after its first model, one of no place for a model, and one that
    needs what nobody has."""

    @exporter("breaking")
    def breaking(config, zoo, models, out):
        (out / models[0].id).mkdir()
        yield out / models[0].id
        raise KeyboardInterrupt

    @exporter("picky", refuses=lambda config, zoo, one: "too late" if one.epoch else None)
    def picky(config, zoo, models, out):
        for one in models:
            (out / one.id).write_text("")
            yield out / one.id

    @exporter("needy", needs=("json", "library_of_nobody"), extra="nobody[all]")
    def needy(config, zoo, models, out):
        yield out

    yield
    for name in ("breaking", "picky", "needy"):
        del registry._plugins["exporter"][name]


@pytest.mark.parametrize("name", sorted(registry.plugins("exporter")))
def test_every_exporter_writes_what_it_tells_of(lone, tmp_path, name):
    zoo, told = lone(architecture={"name": "vit", "img_size": 16, "embed_dim": 24, "depth": 1}), []
    paths = export(
        zoo, tmp_path / "out", exporter=name, report=told.append, **SETTINGS.get(name, {})
    )
    assert paths == [event.path for event in told]
    assert all(path.exists() for path in paths)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    covered = {(tmp_path / "out" / path.relative_to(tmp_path / "out").parts[0]) for path in paths}
    left = set((tmp_path / "out").iterdir()) - covered
    assert all(path.name in ("zoo.json", "models", "tables", "figures") for path in left)


def test_models_are_chosen_by_the_beginnings_of_their_ids_and_epochs(zoo):
    id = zoo.ids()[0]
    last = zoo.folder(id).checkpoint()[0]
    assert chosen(zoo, [f"{id[:8]}@0", id, id[:6]]) == [Chosen(id, 0), Chosen(id, last)]
    everything = {Chosen(id, zoo.folder(id).checkpoint()[0]) for id in zoo.ids()}
    assert set(chosen(zoo)) == everything
    assert len(chosen(zoo)) == len(everything)


def test_models_are_chosen_by_a_condition(zoo):
    found = {one.id for one in chosen(zoo, where="stage = 'finetune' and lr < 0.005")}
    table = zoo.models()
    wanted = (table["stage"] == "finetune") & (table["optimizer.lr"] == 0.001)
    assert found == set(table[wanted]["id"])
    with pytest.raises(InvalidInput, match="has no finished model for which lr > 9"):
        chosen(zoo, where="lr > 9")
    with pytest.raises(InvalidInput, match="not both"):
        chosen(zoo, zoo.ids(), where="lr > 0")


def test_unfinished_models_are_exported_only_when_they_are_named(zoo):
    id = zoo.ids()[0]
    (zoo.folder(id).path / "result.json").unlink()
    assert id not in [one.id for one in chosen(zoo)]
    assert chosen(zoo, [id])[0].id == id


@pytest.mark.parametrize("filled", [True, False])
def test_a_place_that_is_taken_is_left_alone(zoo, tmp_path, filled):
    out = tmp_path / "out"
    out.mkdir()
    if filled:
        (out / "thesis.txt").write_text("precious")
        with pytest.raises(InvalidInput, match="is there already"):
            export(zoo, out, exporter="safetensors")
        assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    else:
        assert len(export(zoo, out, exporter="safetensors")) == 7


def test_an_interrupted_export_leaves_nothing(zoo, tmp_path, breaking):
    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        export(zoo, tmp_path / "out", exporter="breaking")
    assert set(tmp_path.iterdir()) == before


def test_models_for_which_there_is_no_place_are_listed_or_left_out(zoo, tmp_path, breaking):
    ids, told = zoo.ids()[:2], []
    models = [f"{ids[0]}@0", ids[1]]
    with pytest.raises(InvalidInput, match=rf"1 of 2 models .* --skip.*\n  {ids[1]}: too late"):
        export(zoo, tmp_path / "out", exporter="picky", models=models)
    export(zoo, tmp_path / "out", exporter="picky", models=models, skip=True, report=told.append)
    assert [type(event) for event in told] == [Skipped, Exported]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [ids[0]]
    with pytest.raises(InvalidInput, match="2 of 2"):
        export(zoo, tmp_path / "none", exporter="picky", models=ids, skip=True)


def test_a_missing_library_is_named_with_what_to_install(zoo, tmp_path, breaking):
    with pytest.raises(InvalidInput, match=r"needs library_of_nobody: pip install 'nobody\[all\]'"):
        export(zoo, tmp_path / "out", exporter="needy")


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
            export(zoo, tmp_path / "out", **wrong)
    assert set(tmp_path.iterdir()) == before


def test_safetensors_files_hold_the_zoos_bits_and_their_factors(zoo, tmp_path):
    soup = merge(zoo, zoo.models().query("stage == 'pretrain'")["id"], "uniform_soup")
    *files, table = export(zoo, tmp_path / "out", exporter="safetensors")
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
        assert float(row["optimizer.lr"]) == spec.origin.described()["optimizer.lr"]
        with safe_open(file, framework="pt") as opened:
            notes = json.loads(opened.metadata()["vitarium"])
        assert notes["name"] == id
        assert notes["optimizer.lr"] == spec.origin.described()["optimizer.lr"]


def test_what_safetensors_files_hold_is_imported_with_lineage_and_factors(zoo, tmp_path):
    export(zoo, tmp_path / "out", exporter="safetensors")
    ids = import_zoo(tmp_path / "out", tmp_path / "again")
    again = Zoo.open(tmp_path / "again")
    named = {again.spec(id).imported.name: id for id in ids}
    assert named.keys() == set(zoo.ids())
    images = torch.randn(2, 1, 8, 8)
    for name, id in named.items():
        assert torch.equal(again.load(id)(images), zoo.load(name)(images))
        parent = zoo.spec(name).parent
        assert again.spec(id).parent == (named[parent] if parent else None)
        ours, theirs = zoo.spec(name).origin.described(), again.spec(id).origin.described()
        assert float(theirs["optimizer.lr"]) == ours["optimizer.lr"]
        assert again.epochs(id)["test_accuracy"].iloc[-1] == pytest.approx(
            zoo.epochs(name)["test_accuracy"].iloc[-1]
        )


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_the_normalisation_that_is_known_without_the_data_is_theirs(name):
    chosen_data = section("dataset", name)
    found = load(chosen_data)
    assert normalization(chosen_data, 1) == (found.mean, found.std)
    assert normalization(chosen_data, 3) == (found.mean * 3, found.std * 3)


def test_gray_input_of_colour_data_has_the_mean_normalisation():
    colour = section("dataset", {"name": "image_folder", "folder": "x", "mean": [0.1, 0.2, 0.6]})
    mean, std = normalization(colour, 1)
    assert mean == pytest.approx((0.3,))
    assert len(std) == 1
