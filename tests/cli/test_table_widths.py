"""Every command that prints a table keeps to a terminal of 80 columns."""

import re
import shlex
import shutil

import pytest

from vitarium import Zoo, merge
from vitarium.cli._layout import cut, wrapped

WIDTH = 80


@pytest.fixture(scope="module")
def folder(_grown, tmp_path_factory):
    """Where a zoo lies, with measured numbers, an aligned and a merged model, notes and tags."""
    folder = tmp_path_factory.mktemp("widths")
    zoo = Zoo.open(shutil.copytree(_grown, folder / "zoo"))
    siblings = [model.id for model in zoo if model.stage == "finetune"][:2]
    merge(zoo, "uniform_soup", models=siblings, align="weight_matching")
    zoo.note(siblings, "a note that is longer than what a column of a listing has room for")
    zoo.tag(siblings, "best")
    damaged = Zoo.open(shutil.copytree(zoo.path, folder / "damaged"))
    for weights in damaged.path.glob("models/*/checkpoints/*"):
        weights.write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "ls zoo",
        "show zoo {merged}",
        "show zoo {child}",
        "query zoo",
        "query zoo 'SELECT * FROM models'",
        "query zoo 'SELECT * FROM epochs'",
        "measure zoo",
        "measure zoo weight_norm sparsity",
        "measure zoo weight_l2 --pairs all",
        "rm zoo {child} --dry-run",
        "rm zoo {parent} --dry-run",
        "verify damaged",
        "compress zoo --method list",
        "merge-zoos zoo damaged --into zoo --dry-run",
        "blueprint list",
        "blueprint check demo",
        "grow vit-s-cifar --dry-run --no-calibrate",
        "plugins",
        "plugins measures",
        "plugins architectures",
        "plugins measure hessian_eigenvalues",
    ],
)
def test_no_line_is_wider_than_the_terminal(vitarium, folder, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.chdir(folder)
    zoo = Zoo.open("zoo")
    parent = next(model for model in zoo if model.children)
    ids = {
        "parent": parent.id,
        "child": parent.children[0].id,
        "merged": next(model.id for model in zoo if model.stage == "merge"),
    }
    status, out, err = vitarium(*shlex.split(command.format(**ids)))
    assert status in (0, 1), err
    assert out
    to_copy = "For example:"
    lines = [line for line in out.splitlines() if not line.startswith(to_copy)]
    assert [line for line in lines if len(line) > WIDTH] == []
    hexadecimal = set(re.findall(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{5,12}\b", out))
    for part in hexadecimal:  # ids, of at least eight digits, are not broken
        assert len(part) >= 8 or part.isdigit()


def test_a_text_is_broken_between_words_and_after_slashes():
    assert wrapped("models/0a1b2c3d4e5f/epoch-1.packed is damaged", 22) == [
        "models/0a1b2c3d4e5f/",
        "epoch-1.packed is",
        "damaged",
    ]
    assert wrapped("模型模型模型", 4) == ["模型", "模型", "模型"]
    assert wrapped("as wide as it needs to be", None) == ["as wide as it needs to be"]


def test_a_line_is_cut_between_words():
    line = "├─ 0a1b2c3d  cannot tell  (or of 5e6f7a8b 20 %)"
    assert cut(line, 36) == "├─ 0a1b2c3d  cannot tell  (or of …"
    assert cut(line, 37) == "├─ 0a1b2c3d  cannot tell  (or of …"
    assert cut(line, len(line)) == cut(line, None) == line
