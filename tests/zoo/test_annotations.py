"""Tags, notes and names of stages: beside the models, in every table, and in no id."""

import pytest

from vitarium import Blueprint, Zoo, plan
from vitarium.core import files
from vitarium.core.errors import CorruptFile, InvalidInput, UnknownName, ZooInUse
from vitarium.zoo.listing import listing, select
from vitarium.zoo.lock import held
from vitarium.zoo.verify import verify


@pytest.fixture
def zoo(kept_zoo):
    return kept_zoo


def test_tags_and_notes_are_columns_that_can_be_asked_for(zoo):
    first, second, *_ = zoo.ids()
    zoo.models()  # an index that knows of none
    assert zoo.tag([first[:8], second], "best") == [first, second]
    assert zoo.tag(first, "for the thesis") == [first]
    assert zoo.tag(first, "best") == []
    zoo.note(second, "odd:\nits loss rose")
    table = zoo.models().set_index("id")
    assert table.loc[first, "tags"] == "best, for the thesis"
    assert table.loc[second, ["tags", "note"]].tolist() == ["best", "odd:\nits loss rose"]
    assert table["tags"].notna().sum() == 2
    assert zoo.query("SELECT id FROM models WHERE tags LIKE '%thesis%'")["id"].tolist() == [first]
    assert set(select(zoo, where="tags LIKE '%best%'")) == {first, second}
    assert {row["tags"] for row in listing(zoo.path).rows} == {"best", "best, for the thesis", None}
    assert zoo[first].tags == ("best", "for the thesis")
    assert zoo[second].note == "odd:\nits loss rose"
    assert verify(zoo.path) == []


def test_tags_and_notes_are_removed(zoo):
    ids = zoo.ids()
    zoo.tag(ids, "a")
    zoo.tag(ids[0], "b")
    zoo.note(ids[0], "x")
    assert zoo.untag(ids[0], "a") == [ids[0]]
    assert zoo.untag(None, "a") == ids[1:]
    assert zoo[ids[0]].tags == ("b",)
    zoo.untag(ids[0], "b")
    zoo.note(ids[0], "")
    assert zoo.models()[["tags", "note"]].isna().all(axis=None)
    assert not list(zoo.path.glob("models/*/annotations.json"))


def test_a_condition_chooses(zoo):
    zoo.tag(None, "tuned", where="stage = 'finetune'")
    assert set(zoo.models().query("tags == 'tuned'")["stage"]) == {"finetune"}
    with pytest.raises(InvalidInput, match="say which models"):
        zoo.tag(None, "x")


@pytest.mark.parametrize("tag", ["", "  ", "a, b", "a\x1b[31m", "a\nb", "x" * 51])
def test_a_tag_that_no_table_could_show_is_refused(zoo, tag):
    with pytest.raises(InvalidInput):
        zoo.tag(zoo.ids()[0], tag)
    assert not list(zoo.path.glob("models/*/annotations.json"))


def test_words_are_written_by_one_process_at_a_time(zoo):
    with held(zoo.path):
        for write in (
            lambda: zoo.tag(zoo.ids()[0], "a"),
            lambda: zoo.note(zoo.ids()[0], "a"),
            lambda: zoo.rename_stage("pretrain", "a"),
        ):
            with pytest.raises(ZooInUse):
                write()


@pytest.mark.parametrize("content", ["{}", '{"tags": 3, "note": ""}', "x"])
def test_damaged_words_are_found_and_only_they_are_lost(zoo, content):
    id = zoo.ids()[0]
    file = zoo.path / "models" / id / "annotations.json"
    file.write_text(content)
    (fault,) = verify(zoo.path)
    assert fault.path == f"models/{id}/annotations.json"
    with pytest.raises(CorruptFile):
        _ = zoo[id].tags
    if content.startswith("{"):
        files.write_sealed(file, files.parsed_json(content.encode()))
        assert [each.path for each in verify(zoo.path)] == [fault.path]


def test_a_stage_is_shown_under_another_name_and_grown_no_second_time(zoo, tiny):
    ids = zoo.ids()
    zoo.models()
    zoo.rename_stage("finetune", "other laboratory")
    assert zoo.ids() == ids
    table = zoo.models().set_index("id")
    assert set(table["stage"]) == {"pretrain", "other laboratory"}
    tuned = table.index[table["stage"] == "other laboratory"][0]
    assert zoo[tuned].stage == "other laboratory"
    assert "other laboratory" in repr(zoo[tuned])
    assert len(listing(zoo.path, where="stage = 'other laboratory'").rows) == 4
    planned = plan(Blueprint.read(tiny))
    assert all(spec.id in zoo for spec in planned.models)
    assert zoo.spec(tuned) == planned[tuned]
    assert verify(zoo.path) == []
    again = Zoo.open(zoo.path)
    again.rename_stage("other laboratory", "elsewhere")
    again.rename_stage("elsewhere", "finetune")
    assert set(zoo.models()["stage"]) == {"pretrain", "finetune"}
    assert files.read_sealed(zoo.path / "stages.json") == {"stages": {}}


def test_a_name_that_is_none_or_that_another_stage_has_is_refused(zoo):
    with pytest.raises(UnknownName, match="did you mean 'finetune'"):
        zoo.rename_stage("fine-tune", "x")
    with pytest.raises(InvalidInput, match="already"):
        zoo.rename_stage("finetune", "pretrain")
    with pytest.raises(InvalidInput, match="invisible"):
        zoo.rename_stage("finetune", "a\x07")
    assert not (zoo.path / "stages.json").exists()


def test_damaged_names_of_stages_are_found(zoo):
    zoo.rename_stage("finetune", "x")
    file = zoo.path / "stages.json"
    file.write_bytes(file.read_bytes().replace(b'"x"', b'"y"'))
    assert "stages.json" in [fault.path for fault in verify(zoo.path)]
