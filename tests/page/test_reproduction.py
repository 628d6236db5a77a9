"""How a model is made again: what the page says of it does it."""

import json
import shutil

import pytest
import torch

from vitarium import Blueprint, Zoo, cli, grow, merge, plan
from vitarium.core.errors import NotApplicable
from vitarium.engine.parents import parents_in
from vitarium.page.model_page import model_page
from vitarium.page.reproduction import reproduction_page

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}
NEXT = {"data": "digits", "epochs": 1, "batch_size": 32}


@pytest.fixture
def run(monkeypatch):
    """Run a command line in this process."""

    def command(*arguments):
        monkeypatch.setattr("sys.argv", list(arguments))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code

    return command


def test_every_grown_model_has_a_blueprint_that_plans_it(grown_zoo, tmp_path):
    for model in grown_zoo:
        page = reproduction_page(grown_zoo, model.id[:8])
        path = tmp_path / page["file"]
        path.write_text(page["blueprint"])
        planned = plan(Blueprint.load(path))
        parents = [model.parent.id] if model.parent else []
        assert [spec.id for spec in planned.models] == [*parents, model.id]
        assert planned.numerics.precision == "fp32"
        assert planned.numerics.compiled is False


def test_its_command_grows_the_same_bits(grown_zoo, tmp_path, monkeypatch, run):
    child = next(model for model in grown_zoo if model.parent)
    page = reproduction_page(grown_zoo, child.id)
    monkeypatch.chdir(tmp_path)
    (tmp_path / page["file"]).write_text(page["blueprint"])
    (command,) = page["commands"]
    run(*command, "--workers", "0", "--stacked", "1")
    again = Zoo.open(command[-1])
    assert {*again.ids()} == {child.id, child.parent.id}
    weights = child.state_dict()
    assert all(torch.equal(again.state_dict(child.id)[name], weights[name]) for name in weights)
    lines = "\n".join(page["python"])
    names = {}
    exec(lines, names)
    assert all(torch.equal(t, weights[n]) for n, t in names["model"].state_dict().items())


MERGES = {
    "uniform_soup": {},
    "slerp": {"t": 0.25},
    "ties": {"density": 0.5},
    "greedy_soup": {},
    "task_arithmetic": {"heads": "average", "stage": 'it\'s "mixed"'},
    "fisher_merging": {"heads": "ensemble"},
}


@pytest.mark.parametrize("method", MERGES)
def test_what_was_merged_is_merged_again(grown_zoo, method, run, capsys):
    parent = next(model for model in grown_zoo if model.children)
    models = [f"{parent.children[0].id}@0", parent.children[1].id]
    merged = merge(grown_zoo, method, models=models, **MERGES[method])
    page = reproduction_page(grown_zoo, merged.id)
    weights, lines = merged.state_dict(), "\n".join(page["python"])
    for again in (lambda: run(*page["commands"][0], "--json"), lambda: exec(lines, {})):
        shutil.rmtree(grown_zoo.folder(merged.id).path)
        again()
        zoo = Zoo.open(grown_zoo.path)
        assert zoo[merged.id].stage == merged.stage
        assert all(torch.equal(zoo.state_dict(merged.id)[n], weights[n]) for n in weights)
    assert json.loads(capsys.readouterr().out)[0]["model"] == merged.id


@pytest.mark.parametrize(("method", "last"), [("epoch_average", 5), ("ema", 2)])
def test_averages_over_epochs_name_the_model_alone(tiny, tmp_path, method, last):
    tiny["stages"] = {
        "pretrain": {**tiny["stages"]["pretrain"], "epochs": 5, "grid": {"seed": [1]}}
    }
    zoo = grow(tiny, tmp_path / "zoo", **PLAIN).zoo
    (model,) = zoo
    merged = merge(zoo, method, models=[f"{model.id}@{last}"])
    (command,) = reproduction_page(zoo, merged.id)["commands"]
    named = command[3]
    assert named == (model.id if last == 5 else f"{model.id}@2")
    assert merge(zoo, method, models=named).id == merged.id


def test_what_starts_from_a_soup_says_so(grown_zoo, tmp_path):
    soup = merge(grown_zoo, "uniform_soup", models=grown_zoo.ids()[-2:])
    tuned = {"name": "t", "stages": {"tuned": {"start": {"models": [soup.id]}, **NEXT}}}
    grow(tuned, grown_zoo, **PLAIN)
    model = next(model for model in grown_zoo if model.stage == "tuned")
    page = reproduction_page(grown_zoo, model.id)
    (tmp_path / page["file"]).write_text(page["blueprint"])
    planned = plan(tmp_path / page["file"], parents_in(grown_zoo))
    assert [spec.id for spec in planned.models] == [model.id]
    assert f"starts from model {soup.id}, which was made by uniform_soup" in page["notes"][0]
    assert page["commands"][0][-1] == str(grown_zoo.path)


def test_a_teacher_is_named(grown_zoo):
    teacher = grown_zoo.ids()[0]
    objective = {"name": "soft_distillation", "teacher": teacher}
    start = {"models": [grown_zoo.ids()[1]]}
    taught = {"name": "t", "stages": {"s": {"start": start, **NEXT, "objective": objective}}}
    grow(taught, grown_zoo, **PLAIN)
    model = next(model for model in grown_zoo if model.stage == "s")
    page = reproduction_page(grown_zoo, model.id)
    assert any(f"the teacher {teacher}" in note for note in page["notes"])
    assert page["commands"][0][-1] == str(grown_zoo.path)


def test_an_imported_model_says_where_it_was_from(grown_zoo, imported_digits):
    (id,) = imported_digits(grown_zoo, {"name": "<b>theirs</b>"})
    page = reproduction_page(grown_zoo, id)
    assert page["blueprint"] is None
    assert "imported by checkpoint_table, where it is called <b>theirs</b>" in page["notes"][0]


def test_who_comes_from_what_is_gone_cannot_be_made_again(grown_zoo):
    child = next(model for model in grown_zoo if model.parent)
    parent = child.parent.id
    shutil.rmtree(grown_zoo.folder(parent).path)
    with pytest.raises(NotApplicable, match=f"comes from {parent}, which is no longer"):
        reproduction_page(Zoo.open(grown_zoo.path), child.id)


def test_commands_of_the_page_run_whatever_the_folder_is_called(
    grown_zoo, tmp_path, monkeypatch, run
):
    monkeypatch.chdir(tmp_path)
    zoo = Zoo.open(grown_zoo.path.rename('-it\'s a "zoo"; $(x)'))
    for command in model_page(zoo, zoo.ids()[0])["commands"]:
        run(*command)
    assert (tmp_path / f"{zoo.ids()[0]}-timm").is_dir()
