"""The zoo: opened, listed, loaded; its index is made anew when need be."""

import json
import shutil

import pytest
import torch

from vitarium import Blueprint, Zoo, plan
from vitarium.core.errors import CorruptFile, InvalidInput, NotAZoo, UnknownName
from vitarium.zoo import About


@pytest.fixture
def zoo(kept_zoo):
    return kept_zoo


def test_a_zoo_is_made_of_a_new_or_empty_folder_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(NotAZoo, match="neither a zoo nor an empty folder"):
        Zoo.create(tmp_path / "full")
    (tmp_path / "empty").mkdir()
    assert len(Zoo.create(tmp_path / "empty")) == 0


def test_a_folder_that_is_no_zoo_is_refused(tmp_path):
    with pytest.raises(NotAZoo, match=r"it has no zoo\.json"):
        Zoo.open(tmp_path)


def test_a_zoo_of_a_newer_format_is_refused(zoo):
    (zoo.path / "zoo.json").write_text(json.dumps({"format": "vitarium zoo", "version": 3}))
    with pytest.raises(NotAZoo, match="this version of vitarium reads"):
        Zoo.open(zoo.path)


def test_every_model_is_a_row_and_every_factor_a_column(zoo):
    table = zoo.models()
    assert len(table) == 6
    assert set(table["stage"]) == {"pretrain", "finetune"}
    assert set(table["optimizer.lr"]) == {0.003, 0.01, 0.001}
    assert set(table["architecture.embed_dim"]) == {16}
    assert set(table["status"]) == {"finished"}


def test_the_index_can_be_deleted_and_follows_the_models_files(zoo):
    before = zoo.models()
    shutil.rmtree(zoo.path / "index")
    assert zoo.models().equals(before)
    (zoo.path / "index" / "tables.parquet").write_text("{ damaged")
    assert zoo.models().equals(before)
    assert zoo.reindex() == 6
    id = zoo.ids()[0]
    zoo.folder(id).commit(9, {"val_accuracy": 0.9}, None, None)
    assert not zoo.models().equals(before)


@pytest.mark.parametrize("name", ["vit.pth", "a b/vit.pth.tar", "model.safetensors.index.json"])
def test_a_file_in_a_models_place_is_told_how_it_is_imported(tmp_path, name):
    zoo = Zoo.create(tmp_path / "zoo")
    for ask in (zoo.find, zoo.at, zoo.load):
        with pytest.raises(
            InvalidInput, match=r"is a file.*vitarium\.import_zoo\(.*, zoo="
        ) as error:
            ask(name)
        assert repr(name) in str(error.value)
        assert repr(str(zoo.path)) in str(error.value)


def test_a_model_is_found_by_the_beginning_of_its_id(zoo):
    id = zoo.ids()[0]
    assert zoo.find(id[:10]) == id
    with pytest.raises(UnknownName, match="unknown model 'zzz'"):
        zoo.find("zzz")
    with pytest.raises(UnknownName):
        zoo.find("")


def test_an_ambiguous_beginning_lists_the_candidates(zoo, monkeypatch):
    monkeypatch.setattr(type(zoo), "ids", lambda self: ["ab12", "ab34"])
    with pytest.raises(InvalidInput, match="'ab' is the beginning of ab12, ab34"):
        zoo.find("ab")


def test_a_loaded_model_gives_the_outputs_of_the_stored_weights(zoo):
    id = zoo.ids()[0]
    model, again = zoo.spec(id).recipe.build(10).eval(), zoo.load(id)
    model.load_state_dict(zoo.state_dict(id))
    images = torch.randn(3, 1, 8, 8)
    assert not again.training
    assert torch.equal(model(images), again(images))


def test_an_epoch_that_is_not_kept_is_refused_with_those_that_are(zoo):
    parent = zoo.models().query("stage == 'pretrain'")["id"].iloc[0]
    with pytest.raises(InvalidInput, match="has no weights of epoch 1; it has 0, 2"):
        zoo.state_dict(parent, epoch=1)


def test_a_damaged_checkpoint_is_named_and_not_loaded(zoo):
    id = zoo.ids()[0]
    path = zoo.folder(id).checkpoints.path(0)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=r"epoch-0000\.packed"):
        zoo.load(id, epoch=0)


def test_a_model_in_the_wrong_folder_is_refused(zoo):
    first, second = zoo.ids()[:2]
    file = zoo.folder(first).path / "model.json"
    file.write_text((zoo.folder(second).path / "model.json").read_text())
    with pytest.raises(CorruptFile, match=f"its content has the id {second}"):
        zoo.spec(first)


def test_what_only_resuming_needs_is_gone_from_a_finished_model(zoo):
    assert not list(zoo.path.rglob("progress-*"))


def test_an_unfinished_model_keeps_the_newest_progress_alone(zoo, tiny):
    spec = plan(Blueprint.read(tiny)).models[0]
    folder = zoo.folder("0" * 12)
    folder.begin(spec, About(10, (), {}))
    for epoch in range(3):
        folder.commit(epoch, {}, None, {"model/x": torch.full((1,), float(epoch))})
    assert [p.name for p in folder.path.glob("progress-*")] == ["progress-0002.safetensors"]
    number, tensors = folder.progress()
    assert (number, tensors["model/x"].item()) == (2, 2.0)


def test_epochs_are_a_table(zoo):
    epochs = zoo.epochs(zoo.models().query("stage == 'pretrain'")["id"].iloc[0])
    assert list(epochs["epoch"]) == [0, 1, 2]
    assert list(epochs["kept"]) == [True, False, True]


def test_a_checkpoint_is_named_by_its_model_and_epoch(zoo):
    id = zoo.ids()[0]
    last = zoo.at(id).epoch
    for epoch in (0, last):
        name = f"{id[:9]}@{epoch}"
        assert zoo.at(name) == (id, epoch)
        assert zoo.at(str(zoo.at(name))) == (id, epoch)
        assert zoo.checkpoint(name).content == zoo.checkpoint(id, epoch).content
        expected = zoo.state_dict(id, epoch)
        for weights in (zoo.state_dict(name), zoo.load(name).state_dict()):
            assert all(torch.equal(weights[key], tensor) for key, tensor in expected.items())
    assert zoo.tensor(f"{id}@{last}", last, "head.weight").shape[0] == 10


def test_a_checkpoint_where_a_model_is_meant_is_explained(zoo):
    id = zoo.ids()[0]
    with pytest.raises(InvalidInput, match="is a checkpoint; a model is written without its epoch"):
        zoo[f"{id}@0"]
    with pytest.raises(InvalidInput, match="names an epoch; leave out epoch 1"):
        zoo.load(f"{id}@0", epoch=1)
    for epoch in ("last", "-1", "1.5"):
        with pytest.raises(InvalidInput, match="write an epoch as a number"):
            zoo.load(f"{id}@{epoch}")


def test_an_open_zoo_is_opened_as_it_is(zoo):
    assert Zoo.open(zoo) is zoo


def test_the_constructor_says_how_a_zoo_is_opened():
    with pytest.raises(TypeError, match=r"write Zoo\.open\('demo-zoo'\)"):
        Zoo("demo-zoo")


@pytest.mark.parametrize("condition", [{"seed": 1}, None, ["seed = 1"]])
def test_a_condition_is_a_text_everywhere(written_zoo, condition):
    words = "where is an SQL condition, a text such as"
    for use in (written_zoo.models, written_zoo.remove):
        with pytest.raises(InvalidInput, match=words):
            use(where=condition)
    with pytest.raises(InvalidInput, match=words):
        written_zoo.tag(None, "best", where=condition)


def test_a_notebook_shows_stages_with_status_and_accuracies(written_zoo):
    written_zoo.rename_stage("finetune", "<b>tuned</b>")
    page = written_zoo._repr_html_()
    assert f"Zoo {written_zoo.path}: 6 models" in page
    stages = written_zoo.models().groupby("stage")["test_accuracy"].agg(["min", "max"])
    rows = {stage: f"{low:.3f} to {high:.3f}" for stage, low, high in stages.itertuples()}
    pretrain = f"<td>pretrain</td><td>2</td><td>finished</td><td>{rows['pretrain']}</td>"
    tuned = "<td>&lt;b&gt;tuned&lt;/b&gt;</td><td>4</td><td>finished</td>"
    tuned += f"<td>{rows['<b>tuned</b>']}</td>"
    assert page.endswith(f"<tr>{pretrain}</tr><tr>{tuned}</tr></table>")


def test_a_notebook_shows_an_empty_zoo(tmp_path):
    assert Zoo.create(tmp_path / "new")._repr_html_() == f"<b>Zoo {tmp_path / 'new'}: 0 models</b>"
