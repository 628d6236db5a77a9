"""What the shell completes."""

import os
import subprocess
import sys

import pytest

from vitarium.blueprint import library
from vitarium.core.registry import KINDS, plugins


@pytest.fixture
def complete(monkeypatch, tmp_path):
    """The completions of a command line whose last word is unfinished."""
    from typer.testing import CliRunner

    from vitarium.cli import app

    monkeypatch.chdir(tmp_path)

    def run(*words):
        line = " ".join(["vitarium", *map(str, words)])
        variables = {"_VITARIUM_COMPLETE": "complete_bash", "COMP_WORDS": line}
        variables["COMP_CWORD"] = str(len(words))
        result = CliRunner().invoke(app, [], env=variables, prog_name="vitarium")
        return result.output.split()

    return run


def test_ids_are_completed_wherever_a_model_is_named(complete, written_zoo):
    id = written_zoo.ids()[0]
    for words in (
        ["show", written_zoo.path],
        ["merge", written_zoo.path],
        ["merge", written_zoo.path, "--base"],
        ["compress", written_zoo.path],
        ["measure", written_zoo.path, "accuracy"],
        ["export", written_zoo.path],
        ["study", "soups", written_zoo.path],
    ):
        assert complete(*words, id[:6]) == [id], words


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["merge", "q", "--method", "gre"], "operator"),
        (["merge", "q", "-m", "weight"], "operator"),
        (["merge", "q", "--data", "fa"], "dataset"),
        (["measure", "q", "acc"], "measure"),
        (["measure", "q", "--data", "cif"], "dataset"),
        (["export", "q", "--exporter", "hug"], "exporter"),
        (["import", "q", "--importer", "c"], "importer"),
        (["plugins", "operator", "sl"], "operator"),
        (["plugins", "measure", "weight_"], "measure"),
    ],
)
def test_names_of_plugins_are_completed(complete, words, kind):
    names = [name for name in plugins(kind) if name.startswith(words[-1])]
    assert names
    assert sorted(complete(*words)) == sorted(names)


def test_names_may_have_hyphens(complete):
    assert complete("merge", "q", "-m", "greedy-s") == ["greedy-soup"]


def test_blueprints_kinds_and_columns_are_completed(complete, written_zoo, tmp_path):
    (tmp_path / "fancy.yaml").touch()
    shipped = [name for name in library() if name.startswith("fa")]
    assert sorted(complete("grow", "fa")) == sorted([*shipped, "fancy.yaml"])
    assert complete("blueprint", "show", "fan") == ["fancy.yaml"]
    assert complete("plugins", "ob") == [kind for kind in KINDS if kind.startswith("ob")]
    assert complete("ls", written_zoo.path, "--columns", "stage,optimizer.l") == [
        "stage,optimizer.lr"
    ]


@pytest.mark.parametrize(
    "words",
    [["show", "no-zoo", "2a"], ["show", "a"], ["plugins", "nope", "x"], ["ls", "x", "--sort", "y"]],
)
def test_what_cannot_be_completed_is_left_alone(complete, words):
    assert complete(*words) == []


def test_ids_are_completed_without_torch(written_zoo):
    code = (
        "import sys; from types import SimpleNamespace as Context\n"
        "from vitarium.cli import _completion as completion\n"
        f"print(completion.models(Context(params={{'directory': {str(written_zoo.path)!r}}}), ''))\n"
        "print('HEAVY', *sorted({'torch', 'timm', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.splitlines() == [str(written_zoo.ids()), "HEAVY"]


def test_stages_and_columns_are_completed(complete, written_zoo):
    assert complete("rename-stage", written_zoo.path, "pre") == ["pretrain"]
    assert complete("grow", "demo", "--stages", "pretrain,fin") == ["pretrain,finetune"]
    assert complete("ls", written_zoo.path, "--columns", "mode") == ["model"]
    assert "model,lr" in complete("ls", written_zoo.path, "--columns", "model,l")
