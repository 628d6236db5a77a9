"""Messages name parameters in the words of whoever called: Python's, or those of a command."""

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

import vitarium
from vitarium.cli import app
from vitarium.cli._spelling import Command, OptionSpelling
from vitarium.core.parameters import call, parameter, spelled_by
from vitarium.zoo import Zoo

SOURCES = Path(vitarium.__file__).parent
COMMANDS = get_command(app).commands
AN_OPTION = re.compile(r"(?:^|[\s(`'\"])--(?:[a-z]|$)")


def texts(tree: ast.AST):
    """Every string of a module that is no docstring."""
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in statements:
            yield node.lineno, node.value


def test_only_the_command_line_speaks_of_its_options():
    modules = {path for path in SOURCES.rglob("*.py") if "cli" not in path.parts}
    modules.remove(SOURCES / "page" / "command_lines.py")  # which writes lines for a shell
    assert len(modules) > 300
    options_named = [
        f"{path.relative_to(SOURCES)}:{line}: {text}"
        for path in modules
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8")))
        if AN_OPTION.search(text)
    ]
    assert options_named == []


@pytest.mark.parametrize(
    ("name", "value", "python", "option"),
    [
        ("base", "ID", "base=ID", "--base ID"),
        ("heads", "average", "heads='average'", "--heads average"),
        ("heads", "my head", "heads='my head'", "--heads 'my head'"),
        ("skip_diverged", True, "skip_diverged=True", "--skip-diverged"),
        ("check", False, "check=False", "--set check=false"),
        ("mean", [0.5, 1], "mean=[0.5, 1]", "--set 'mean=[0.5,1]'"),
        ("a.b", "x", "a={'b': 'x'}", "--set a.b=x"),
        ("a.b", "N", "a={'b': N}", "--set a.b=N"),
    ],
)
def test_a_parameter_in_both_spellings(name, value, python, option):
    assert parameter(name, value) == python
    with spelled_by(OptionSpelling(COMMANDS["merge"].params)):
        assert parameter(name, value) == option
    assert parameter(name, value) == python


def test_what_a_command_has_no_option_for_is_named_as_in_python():
    with spelled_by(OptionSpelling(COMMANDS["show"].params)):
        assert parameter("skip_diverged", True) == "skip_diverged=True"


def test_a_switch_that_is_on_is_turned_off_by_its_opposite():
    with spelled_by(OptionSpelling(COMMANDS["archive"].params)):
        assert parameter("ancestors", False) == "--no-ancestors"
        assert parameter("ancestors", True) == "--ancestors"


def test_a_call_is_the_command_that_does_the_same():
    def example():
        return call("import_zoo", "my vit.pth", zoo="DIR")

    assert example() == "vitarium.import_zoo('my vit.pth', zoo=DIR)"
    with spelled_by(OptionSpelling([])):
        assert example() == "vitarium import 'my vit.pth' --zoo DIR"


def test_the_same_error_in_python_and_on_the_command_line(tmp_path, capsys):
    with pytest.raises(vitarium.VitariumError, match=r"vitarium\.grow\(BLUEPRINT, zoo=DIR\)"):
        Zoo.open(tmp_path)
    with pytest.raises(vitarium.VitariumError, match="vitarium grow BLUEPRINT --zoo DIR"):
        app(["ls", str(tmp_path)], standalone_mode=False)


def test_every_command_names_its_own_options():
    def leaves(command):
        for inner in getattr(command, "commands", {}).values():
            yield from leaves(inner)
        if not hasattr(command, "commands"):
            yield command

    assert [c.name for c in leaves(get_command(app)) if not isinstance(c, Command)] == []
