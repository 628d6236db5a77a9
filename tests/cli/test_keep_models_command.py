"""`vitarium rm`, `archive`, `merge-zoos`, `tag`, `note`, `rename-stage`: what they print and do."""

import io
import json
import shutil

import pytest

from vitarium import Zoo
from vitarium.zoo.verify import verify


@pytest.fixture
def parent(kept_zoo):
    return next(model.id for model in kept_zoo if model.parent is None)


def test_a_model_is_removed_and_what_depends_on_it_listed(kept_zoo, parent, vitarium):
    children = kept_zoo.children(parent)
    status, out, err = vitarium("rm", kept_zoo.path, parent[:6])
    assert status == 2
    assert "--with-dependents" in err
    assert all(id in err for id in children)
    status, out, _ = vitarium("rm", kept_zoo.path, parent, "--dry-run")
    assert status == 0
    assert "Would be removed" in out
    assert f"a child of {parent}@2" in out
    assert "--keep-dependents" in out
    assert parent in kept_zoo
    assert vitarium("rm", kept_zoo.path, parent, "--yes")[0] == 2  # says nothing of children
    status, out, _ = vitarium("rm", kept_zoo.path, parent, "--keep-dependents", "--yes")
    assert status == 0
    assert "1 model, " in out
    assert parent not in kept_zoo
    assert verify(kept_zoo.path, deep=True) == []
    before_training = f"{children[0]}@0"
    assert vitarium("rm", kept_zoo.path, before_training, "--with-dependents", "--yes")[0] == 0
    assert [ref.epoch for ref in kept_zoo[children[0]].checkpoints] == [1]


@pytest.fixture
def leaf(kept_zoo, parent):
    return kept_zoo.children(parent)[0]


def test_rm_without_a_terminal_needs_a_yes(kept_zoo, leaf, vitarium):
    status, out, err = vitarium("rm", kept_zoo.path, leaf[:6])
    assert (status, err) == (
        2,
        "error: nothing was removed: without a terminal to ask on, give --yes\n",
    )
    assert leaf in out
    assert leaf in kept_zoo
    status, out, _ = vitarium("rm", kept_zoo.path, leaf[:6], "--yes")
    assert status == 0
    assert out.splitlines()[-1].startswith("removed: 1 model, ")
    assert leaf not in kept_zoo


@pytest.mark.parametrize(("answer", "status"), [("n", 1), ("", 1), ("y", 0)])
def test_rm_on_a_terminal_lists_what_goes_and_asks(
    kept_zoo, leaf, vitarium, monkeypatch, answer, status
):
    terminal = io.StringIO(f"{answer}\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    ended, out, err = vitarium("rm", kept_zoo.path, leaf)
    assert ended == status
    assert "This cannot be undone. [y/N]" in err
    _, stage, epochs, *nbytes = next(line for line in out.splitlines() if leaf in line).split()
    assert (stage, epochs) == ("finetune", "1")
    assert f"in all: 1 model, 1 measured number, {' '.join(nbytes)}" in out
    assert (leaf in kept_zoo) == bool(status)


def test_rm_needs_to_be_told_what(kept_zoo, vitarium):
    status, _, err = vitarium("rm", kept_zoo.path)
    assert status == 2
    assert "say which models to remove" in err
    assert len(kept_zoo) == 6


def test_models_are_tagged_annotated_and_listed(kept_zoo, vitarium):
    first, second, *_ = kept_zoo.ids()
    assert vitarium("tag", kept_zoo.path, first[:8], second, "best")[1].startswith(
        "2 models tagged"
    )
    assert vitarium("note", kept_zoo.path, first, "its loss rose")[0] == 0
    _, out, _ = vitarium("ls", kept_zoo.path, "--where", "tags LIKE '%best%'", "--json")
    assert {row["id"]: row["note"] for row in json.loads(out)} == {
        first: "its loss rose",
        second: None,
    }
    assert "its loss rose" in vitarium("show", kept_zoo.path, first)[1]
    assert "best" in vitarium("ls", kept_zoo.path)[1]
    assert vitarium("tag", kept_zoo.path, "best", "--remove")[1].startswith("2 models untagged")
    assert vitarium("note", kept_zoo.path, first, "")[0] == 0
    assert kept_zoo.models()[["tags", "note"]].isna().all(axis=None)


def test_a_tag_in_a_models_place_is_answered_with_the_order(kept_zoo, vitarium):
    model = kept_zoo.ids()[0][:8]
    status, _, err = vitarium("tag", kept_zoo.path, "best", model)
    assert status == 2
    assert f"the tag comes last: vitarium tag {kept_zoo.path} {model} best" in err
    assert "unknown model 'best'" in vitarium("tag", kept_zoo.path, "best", "worst")[2]
    assert f"vitarium tag {kept_zoo.path} 3f2a best" in vitarium("tag", kept_zoo.path, "best")[2]


@pytest.mark.parametrize("command", ["archive {zoo}", "merge-zoos {zoo}"])
def test_a_missing_option_is_named_with_an_example(kept_zoo, vitarium, command):
    status, _, err = vitarium(*command.format(zoo=kept_zoo.path).split())
    assert status == 2
    assert f"Example: vitarium {command.split()[0]}" in err


def test_an_option_that_a_command_does_not_have_is_answered_with_an_example(kept_zoo, vitarium):
    status, _, err = vitarium("merge-zoos", kept_zoo.path, "--nowhere", "both")
    assert status == 2
    assert "Example: vitarium merge-zoos" in err


def test_a_condition_tags(kept_zoo, vitarium):
    status, out, _ = vitarium("tag", kept_zoo.path, "--where", "stage = 'finetune'", "tuned")
    assert (status, out[:8]) == (0, "4 models")
    assert vitarium("tag", kept_zoo.path, "x")[0] == 2


def test_a_stage_is_renamed(kept_zoo, vitarium):
    assert vitarium("rename-stage", kept_zoo.path, "finetune", "tuned")[0] == 0
    assert "tuned" in vitarium("ls", kept_zoo.path)[1]
    assert vitarium("rename-stage", kept_zoo.path, "finetune", "x")[0] == 2


def test_zoos_are_taken_apart_and_made_one(kept_zoo, parent, vitarium, tmp_path):
    tree = [parent, *kept_zoo.children(parent)]
    status, out, _ = vitarium("archive", kept_zoo.path, *tree[1:], "--out", tmp_path / "part")
    assert status == 0
    assert f"{len(tree)} models, 1 of them an ancestor of the others; --no-ancestors" in out
    assert sorted(Zoo.open(tmp_path / "part").ids()) == sorted(tree)
    alone = ("archive", kept_zoo.path, tree[1], "--no-ancestors", "--out", tmp_path / "x.tar")
    assert vitarium(*alone)[:2] == (0, f"{tmp_path / 'x.tar'}: 1 model\n")
    rest = Zoo.open(shutil.copytree(kept_zoo.path, tmp_path / "rest"))
    assert vitarium("rm", rest.path, parent, "--with-dependents", "--yes")[0] == 0
    sources = (tmp_path / "part", rest.path, "--into", tmp_path / "one")
    status, out, _ = vitarium("merge-zoos", *sources, "--dry-run")
    assert (status, (tmp_path / "one").exists()) == (0, False)
    assert "6 models would be copied" in out
    status, out, _ = vitarium("merge-zoos", *sources)
    assert status == 0
    assert "6 models copied" in out
    assert Zoo.open(tmp_path / "one").ids() == kept_zoo.ids()
    assert verify(tmp_path / "one", deep=True) == []


def test_what_was_taken_for_the_tag_is_named_where_models_are_missing(kept_zoo, vitarium):
    id = kept_zoo.ids()[0]
    status, _, err = vitarium("tag", kept_zoo.path, id)
    example = f"vitarium tag {kept_zoo.path} 3f2a {id}"
    assert (status, err) == (2, f"error: say which models to tag, e.g. {example}\n")


def test_an_archive_of_another_kind_is_refused(kept_zoo, vitarium, tmp_path):
    status, _, err = vitarium("archive", kept_zoo.path, "--out", tmp_path / "best.zip")
    assert status == 2
    assert "an archive is a folder, or a file that ends in .tar, .tar.gz, .tgz" in err
    assert not (tmp_path / "best.zip").exists()


def test_a_misspelled_zoo_and_an_archive_are_said_to_be_that(kept_zoo, vitarium, monkeypatch):
    monkeypatch.chdir(kept_zoo.path.parent)
    Zoo.create("demo-zoo")
    for command in ("ls", "verify"):
        err = vitarium(command, "demo-zo")[2]
        assert "demo-zo is not a zoo: there is no such folder; did you mean 'demo-zoo'?" in err
    assert vitarium("archive", "demo-zoo", "--out", "small.tar")[0] == 0
    assert "unpack it with tar -xf small.tar" in vitarium("ls", "small.tar")[2]
