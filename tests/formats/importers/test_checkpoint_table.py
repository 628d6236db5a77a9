"""A table and files of weights that timm and safetensors wrote."""

import argparse
import csv

import pytest
import timm
import torch
from safetensors.torch import save_file

from vitarium.architectures.create import create_model
from vitarium.cli.zoo import show
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import section
from vitarium.formats.export import export
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo
from vitarium.zoo import Zoo


def vit(seed=0, num_classes=5):
    torch.manual_seed(seed)
    return timm.create_model("test_vit", num_classes=num_classes)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "checkpoints"
    place.mkdir()
    save_file(vit(0).state_dict(), place / "a.safetensors")
    save_file(vit(1).state_dict(), place / "a1.safetensors")
    content = {"epoch": 3, "state_dict": vit(2).state_dict(), "args": argparse.Namespace(lr=1)}
    torch.save(content, place / "b.pth")
    torch.save({f"module.{k}": v for k, v in vit(3).state_dict().items()}, place / "c.pt")
    return place


def write(folder, *rows, name="models.csv", **options):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, **options)
        writer.writeheader()
        writer.writerows(rows)
    return folder


ROWS = (
    {"file": "b.pth", "name": "b", "parent": "a", "stage": "tuned", "optimizer.lr": "1e-3"},
    {"file": "a.safetensors", "name": "a", "epoch": 0, "test_accuracy": 0.25, "seed": 1},
    {"file": "a1.safetensors", "name": "a", "epoch": 4, "test_accuracy": 0.5, "seed": 1},
    {"file": "c.pt", "flag": "True", "betas": "[0.9, 0.95]", "who": "Ada", "bad": "NaN"},
)


def test_models_epochs_factors_metrics_and_parents_come_from_the_rows(folder, tmp_path):
    write(folder, *ROWS)
    import_zoo(folder, tmp_path / "zoo", architecture="test_vit")
    zoo = Zoo.open(tmp_path / "zoo")
    ids = {zoo.spec(id).origin.name: id for id in zoo.ids()}
    assert sorted(ids) == ["a", "b", "c.pt"]
    assert zoo.epochs(ids["a"])["test_accuracy"].tolist() == [0.25, 0.5]
    assert (zoo.spec(ids["b"]).parent, zoo.spec(ids["b"]).parent_epoch) == (ids["a"], 4)
    assert (zoo.spec(ids["b"]).stage, zoo.spec(ids["a"]).stage) == ("tuned", "imported")
    rows = zoo.models().set_index("name")
    assert rows.loc["b", "optimizer.lr"] == 0.001
    assert rows.loc["a", "seed"] == 1
    assert zoo.spec(ids["c.pt"]).origin.settings == {
        "flag": True,
        "betas": [0.9, 0.95],
        "who": "Ada",
        "bad": "NaN",
    }
    images = torch.randn(2, 3, 160, 160)
    for id, epoch, seed in (
        (ids["a"], 0, 0),
        (ids["a"], 4, 1),
        (ids["b"], 0, 2),
        (ids["c.pt"], 0, 3),
    ):
        with torch.no_grad():
            assert torch.equal(zoo.load(id, epoch)(images), vit(seed).eval()(images))


@pytest.mark.parametrize("is_exported", [True, False])
def test_metrics_of_evaluation_sets_are_no_factors(folder, is_exported):
    row = {
        **ROWS[1],
        "architecture": "none",
        "v2_accuracy": 0.125,
        "batch_loss": 2.5,
        "batch_size": 32,
        "v3_x": "a",
    }
    row |= {f"evaluate_on.{name}.data": "digits" for name in ("v2", "batch") if is_exported}
    write(folder, row)
    settings = {} if is_exported else {"evaluation_sets": "v2, batch"}
    (model,) = find_models(folder, **settings).models
    assert model.epochs[0].metrics == {
        "test_accuracy": 0.25,
        "v2_accuracy": 0.125,
        "batch_loss": 2.5,
    }
    assert {n: v for n, v in model.settings.items() if "." not in n} == {
        "seed": 1,
        "batch_size": 32,
        "v3_x": "a",
    }
    write(folder, row | {"v2_accuracy": "high"})
    with pytest.raises(InvalidInput, match="'v2_accuracy': 'high' is not a number"):
        find_models(folder, **settings)


def test_tensors_alone_keep_their_names_and_come_back_from_an_export(folder, tmp_path):
    write(folder, {**ROWS[1], "architecture": "none"})
    (id,) = import_zoo(folder / "models.csv", tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    assert zoo.spec(id).origin.architecture is None
    assert zoo.state_dict(id).keys() == vit().state_dict().keys()
    assert zoo.folder(id).about().num_outputs == 5
    export(zoo, "safetensors", out=tmp_path / "out")
    (model,) = find_models(tmp_path / "out").models
    assert model.architecture is None


def test_an_architecture_that_a_table_does_not_name_is_inferred_with_its_settings(folder, tmp_path):
    write(folder, {**ROWS[1], "architecture.num_heads": 2, "architecture.norm_eps": 1e-5})
    (model,) = find_models(folder).models
    sizes = model.architecture.factors()
    assert (model.architecture.name, sizes["num_heads"], sizes["norm_eps"]) == ("vit", 2, 1e-5)
    assert (sizes["img_size"], sizes["embed_dim"], model.num_outputs) == (160, 64, 5)
    (note,) = model.notes
    assert note.startswith("architecture inferred from names and shapes: vit embed_dim=64")
    assert "num_heads=2" in note
    assert "epsilon" not in note.partition("assumed")[2]
    (id,) = import_zoo(folder, tmp_path / "zoo")
    images = torch.randn(2, 3, 160, 160)
    assert Zoo.open(tmp_path / "zoo").load(id)(images).shape == (2, 5)
    write(folder, ROWS[1])
    settings = {"architecture.num_heads": 2, "architecture.norm_eps": 1e-5}
    assert find_models(folder, **settings).models[0].architecture == model.architecture


def test_an_architecture_that_a_file_names_is_taken(tmp_path):
    torch.save({"arch": "test_vit", "state_dict": vit(1).state_dict()}, tmp_path / "m.pth")
    write(tmp_path, {"file": "m.pth"})
    (model,) = find_models(tmp_path).models
    assert model.architecture.factors()["model"] == "test_vit"
    assert model.notes == ("architecture test_vit, as the file says",)


def test_a_head_that_a_table_names_is_not_inferred(tmp_path):
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = create_model("vit", num_classes=3, **sizes)
    section("head", {"name": "mlp", "hidden_dim": 6})(model, 3)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    row = {"file": "m.safetensors", "architecture.num_heads": 2}
    write(tmp_path, row)
    (inferred,) = find_models(tmp_path).models
    write(tmp_path, {**row, "head": "mlp", "head.hidden_dim": 6})
    (named,) = find_models(tmp_path).models
    assert named.head == inferred.head
    assert named.num_outputs == inferred.num_outputs == 3
    write(tmp_path, {**row, "head": "mlp", "head.hidden_dim": 5})
    with pytest.raises(InvalidInput, match=r"row 2, column 'architecture': .*cannot be inferred"):
        find_models(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"file": "b.pth"},
            r"row 3, column 'architecture': .* has no usual number of heads, .*: "
            r"architecture={'num_heads': N}",
        ),
        (
            {"file": "b.pth", "architecture.num_heads": 2, "num_classes": 7},
            r"row 3, column 'architecture': .*head.bias is \[5\], not \[7\]; name it, .*"
            r"architecture='none', or fill the column 'architecture' of models\.csv",
        ),
        (
            {"file": "b.pth", "architecture": "none", "architecture.num_heads": 2},
            r"row 3, column 'architecture': 'none' has no settings: leave architecture.num_heads",
        ),
    ],
)
def test_an_architecture_that_cannot_be_inferred_is_an_error_that_names_the_row(
    folder, row, message
):
    write(folder, {"file": "a.safetensors", "architecture": "test_vit"}, row)
    with pytest.raises(InvalidInput, match=message):
        find_models(folder)


def test_weights_that_do_not_fit_are_an_error_that_names_the_row(folder, tmp_path):
    first = {**ROWS[1], "architecture": "none"}
    write(folder, first, {"file": "b.pth", "architecture": "vit_tiny_patch16_224"})
    with pytest.raises(IncompatibleWeights, match=r"b.pth \(models.csv, row 3\), epoch 0: "):
        import_zoo(folder, tmp_path / "zoo")
    write(folder, {**ROWS[1], "num_classes": 7})
    with pytest.raises(IncompatibleWeights, match=r"row 2\).*head.bias is \[5\], not \[7\]"):
        import_zoo(folder, tmp_path / "zoo2", architecture="test_vit")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file": "none.pt"}, r"row 3, column 'file': there is no file"),
        ({"file": "../secret.pt"}, r"row 3, column 'file': '../secret.pt' leads out of"),
        ({"file": "/etc/passwd.pt"}, r"row 3, column 'file': .* leads out of"),
        ({"file": "models.csv"}, r"row 3, column 'file': 'models.csv' is none of .safetensors"),
        ({"file": "", "name": "x"}, r"row 3, column 'file': empty"),
        ({"file": "b.pth", "epoch": "one"}, r"row 3, column 'epoch': 'one' is not a whole number"),
        ({"file": "b.pth", "epoch": "-1"}, r"row 3, column 'epoch'"),
        ({"file": "b.pth", "num_classes": "5.0"}, r"row 3, column 'num_classes'"),
        ({"file": "b.pth", "test_loss": "low"}, r"row 3, column 'test_loss': 'low' is not a num"),
        ({"file": "b.pth", "name": "a"}, r"row 3, column 'name': row 2 has the same name and"),
        (
            {"file": "b.pth", "name": "a", "epoch": 1, "seed": 2},
            r"column 'seed': differs from row 2",
        ),
        (
            {"file": "b.pth", "architecture": "vit_tini_patch16_224"},
            r"row 3, column 'arch.*did you",
        ),
        ({"file": "b.pth", "head": "mlb", "architecture": "test_vit"}, r"row 3, column 'head'"),
    ],
)
def test_errors_name_row_and_column(folder, row, message):
    write(folder, {"file": "a.safetensors", "name": "a", "seed": 1}, row)
    with pytest.raises(InvalidInput, match=message):
        find_models(folder, architecture="none")


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        (lambda w: {"model": {f"module._orig_mod.{k}": t for k, t in w.items()}}, {}),
        (lambda w: {"state_dict_ema": w, "epoch": 1}, {}),
        (lambda w: {"model": {k: t + 1 for k, t in w.items()}, "ema": w}, {"ema": True}),
        (lambda w: {"student": {}, "teacher": {f"backbone.{k}": t for k, t in w.items()}}, {}),
        (
            lambda w: {
                f"{p}.{k}": t + (p == "student")
                for p in ("student", "teacher")
                for k, t in w.items()
            },
            {"prefix": "teacher"},
        ),
        (lambda w: {"runs": {"best": w}}, {"wrapped_in": "runs.best"}),
    ],
)
def test_files_of_training_programs_are_read(tmp_path, content, settings):
    weights = vit(4).state_dict()
    torch.save(content(weights), tmp_path / "m.pth.tar")
    write(tmp_path, {"file": "m.pth.tar", "architecture": "test_vit"})
    (id,) = import_zoo(tmp_path, tmp_path / "zoo", **settings)
    read = Zoo.open(tmp_path / "zoo").state_dict(id)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wrapped_in": "state_dict"}, r"a\.safetensors: wrapped_in=state_dict is for pickles"),
        ({"ema": True}, r"a\.safetensors: it has no average"),
        ({"prefix": "student"}, r"a\.safetensors: no tensor begins with 'student\.'"),
    ],
)
def test_a_setting_that_cannot_apply_is_an_error(folder, tmp_path, settings, message):
    write(folder, ROWS[1])
    with pytest.raises(InvalidInput, match=message):
        import_zoo(folder, tmp_path / "zoo", **settings)
    assert not (tmp_path / "zoo").exists()


def test_presets_of_ours_are_architectures_too(tmp_path):
    model = create_model("mini_deit_tiny_patch16_224", num_classes=5, depth=2, img_size=32)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    row = {"file": "m.safetensors", "architecture": "mini_deit_tiny_patch16_224"}
    write(tmp_path, row | {"architecture.depth": 2, "architecture.img_size": 32})
    (id,) = import_zoo(tmp_path, tmp_path / "zoo")
    architecture = Zoo.open(tmp_path / "zoo").spec(id).origin.architecture
    assert (architecture.name, architecture.config.depth) == ("mini_deit", 2)
    write(tmp_path, {"file": "m.safetensors"})
    settings = {"architecture": row["architecture"], "architecture.depth": 2}
    assert import_zoo(tmp_path, tmp_path / "zoo", **settings, **{"architecture.img_size": 32}) == [
        id
    ]


def test_a_dtype_that_cannot_be_stored_names_the_file(tmp_path):
    torch.save({"a": torch.ones(2, dtype=torch.complex64)}, tmp_path / "m.pth")
    write(tmp_path, {"file": "m.pth", "name": "x", "num_classes": 1})
    with pytest.raises(InvalidInput, match=r"m\.pth: a is of torch\.complex64"):
        find_models(tmp_path)


def test_a_table_has_to_be_one(folder):
    with pytest.raises(InvalidInput, match="has to have one CSV file"):
        find_models(folder, importer="checkpoint_table")
    write(folder, {"path": "a.safetensors"})
    with pytest.raises(InvalidInput, match=r"no column 'file', only .* file_column=NAME"):
        find_models(folder, importer="checkpoint_table")
    (folder / "models.csv").write_text("file,file\na,b\n")
    with pytest.raises(InvalidInput, match="several columns 'file'"):
        find_models(folder)
    (folder / "models.csv").write_text("file,x\na.safetensors\n")
    with pytest.raises(InvalidInput, match="row 2 has 1 cells, the header 2"):
        find_models(folder)
    (folder / "models.csv").write_bytes(b"file,x\n\xff\xfe,1\n")
    with pytest.raises(InvalidInput, match="no CSV table in UTF-8"):
        find_models(folder, importer="checkpoint_table")


def test_columns_table_and_delimiter_can_be_named(folder):
    write(folder, {"path": "a.safetensors", "seed": 2}, name="other.csv", delimiter=";")
    write(folder, {"file": "a.safetensors"})
    settings = {"table": "other.csv", "file_column": "path", "delimiter": ";"}
    settings |= {"architecture": "none"}
    (model,) = find_models(folder, importer="checkpoint_table", **settings).models
    assert model.settings == {"seed": 2}
    with pytest.raises(InvalidInput, match=r"has no table '../other.csv'"):
        find_models(folder, importer="checkpoint_table", table="../other.csv")


def test_a_table_may_lie_anywhere_and_its_files_are_those_of_the_source(
    folder, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "notes"
    elsewhere.mkdir()
    (folder / "names.txt").write_text("a\nb\nc\nd\ne\n")
    write(elsewhere, {**ROWS[1], "architecture": "test_vit", "classes": "names.txt"}, name="t.csv")
    (model,) = find_models(folder, table=elsewhere / "t.csv").models
    assert (model.name, model.settings, model.classes) == ("a", {"seed": 1}, tuple("abcde"))
    write(folder, {"file": "c.pt", "architecture": "none"})  # the one that is named counts
    ids = import_zoo(folder, tmp_path / "zoo", table=str(elsewhere / "t.csv"))
    monkeypatch.chdir(tmp_path)
    assert import_zoo("checkpoints", "again", table="notes/t.csv") == ids


def test_of_a_single_file_a_table_gives_its_rows(folder, tmp_path):
    rows = ({**row, "architecture": "none"} for row in ROWS)
    table = write(tmp_path, *rows, name="t.csv") / "t.csv"
    (model,) = find_models(folder / "a1.safetensors", table=table).models
    assert (model.name, [epoch.number for epoch in model.epochs]) == ("a", [4])
    save_file(vit(0).state_dict(), folder / "new.safetensors")
    with pytest.raises(InvalidInput, match=r"t\.csv has no row of .*new\.safetensors"):
        find_models(folder / "new.safetensors", table=table)


def test_a_table_elsewhere_names_no_file_outside_of_the_source(folder, tmp_path):
    save_file(vit(0).state_dict(), tmp_path / "secret.safetensors")
    for file in ("../secret.safetensors", tmp_path / "secret.safetensors"):
        table = write(tmp_path, {"file": file, "architecture": "none"}, name="t.csv") / "t.csv"
        with pytest.raises(InvalidInput, match=rf"row 2, column 'file': .* leads out of {folder}"):
            find_models(folder, table=table)
    write(folder, {"file": "a.safetensors"})
    with pytest.raises(InvalidInput, match=r"models\.csv and .*t\.csv are two tables"):
        find_models(folder / "models.csv", table=table)
    for absent in (tmp_path / "none.csv", tmp_path, "x" * 5000):
        with pytest.raises(InvalidInput, match=r"has no table '.*', and there is no such file"):
            find_models(folder, table=str(absent))
    with pytest.raises(InvalidInput, match="does not exist"):
        find_models(tmp_path / "none", table=table)


def test_what_the_safetensors_exporter_writes_comes_back(folder, tmp_path):
    write(folder, *ROWS[:3])
    import_zoo(folder, tmp_path / "zoo", architecture="test_vit")
    zoo = Zoo.open(tmp_path / "zoo")
    export(zoo, "safetensors", out=tmp_path / "out")
    ids = import_zoo(tmp_path / "out", tmp_path / "again")
    again = Zoo.open(tmp_path / "again")
    for id in ids:
        old = again.spec(id).origin.name
        assert all(torch.equal(again.state_dict(id)[k], v) for k, v in zoo.state_dict(old).items())
        assert again.spec(id).origin.architecture == zoo.spec(old).origin.architecture
    child = next(again.spec(id) for id in ids if again.spec(id).parent)
    assert again.spec(child.parent).origin.name == zoo.spec(child.origin.name).parent


def test_a_factor_that_is_called_like_a_column_of_the_zoo_is_named_and_shown(
    folder, tmp_path, capsys
):
    write(folder, {"file": "a.safetensors", "status": "released", "who": "Ada"})
    (model,) = find_models(folder, architecture="test_vit").models
    assert "columns of its own called status:" in model.notes[0]
    import_zoo(folder, tmp_path / "zoo", architecture="test_vit")
    zoo = Zoo.open(tmp_path / "zoo")
    show(zoo.path, zoo.ids()[0])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["status", "finished"] in rows
    assert ["factor", "status", "released"] in rows
    assert ["who", "Ada"] in rows
