"""The code speaks the field's language: whole names for things, and shapes of tensors."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import vitarium

SOURCE = Path(vitarium.__file__).parent
ROOT = Path(__file__).parents[1]
_VAGUE = """
found told tell said say one other others own theirs place places known kept given made apart together
alone begun whole each both alike few most some sure seen shown wanted asked
"""
VAGUE = frozenset(re.findall(r"\w+", _VAGUE))
"""Words that would fit anywhere, and so name nothing."""
MOST_VAGUE = 5 / 1000
MOST_LINES = 300
BRITISH = re.compile(
    "colour|neighbour|behaviour|favour|centre|grey|catalogue|artefact|labelled|modelled|analysed"
    r"|licence|defence|learnt|fulfil\b"
    "|(normal|general|optim|initial|quant|visual|regular|parallel|token|summar|organ|recogn"
    "|serial|standard|minim|maxim|util|random|special|vector|factor|penal|discret|linear)is(e|ing|ation)",
    re.IGNORECASE,
)
LEAST_SHAPED = 0.9
TENSOR = re.compile(r"\b(Tensor|ndarray|Numbers|Float64)\b")
BY_NAME = re.compile(r"\b(dict|Mapping|tuple)\[str, (torch\.)?Tensor\]")
"""Weights by name have their model's shapes."""
SHAPE = re.compile(r"\[[a-z_*.0-9 +/\-()]+(, *[a-z_*.0-9 +/\-()]+)*(, *\.\.\.)?\]|\bscalar\b", re.I)


def identifiers(node):
    match node:
        case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.keyword(arg=str(name)):
            return [name]
    return []


def test_hardly_any_identifier_would_fit_anywhere():
    counts = {}
    for file in SOURCE.rglob("*.py"):
        names = [n for node in ast.walk(ast.parse(file.read_text())) for n in identifiers(node)]
        counts[file] = len(names), Counter(n for n in names if n.strip("_").lower() in VAGUE)
    total = sum(number for number, _ in counts.values())
    vague = sum(words.total() for _, words in counts.values())
    worst = sorted(counts, key=lambda file: -counts[file][1].total())[:10]
    listed = "\n".join(f"{file.relative_to(SOURCE)}: {dict(counts[file][1])}" for file in worst)
    assert vague / total <= MOST_VAGUE, f"{vague} of {total} identifiers, most of them in\n{listed}"


def with_tensors(tree, doc=""):
    """Public functions that take or return tensors, and what is said of them.

    Of a method also what is said of its class.
    """
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from with_tensors(node, ast.get_docstring(node) or "")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            annotations = [a.annotation for a in arguments if a.annotation]
            annotations += [node.returns] if node.returns else []
            if any(TENSOR.search(BY_NAME.sub("", ast.unparse(each))) for each in annotations):
                yield node.name, doc + (ast.get_docstring(node) or "")


def test_docstrings_of_tensor_functions_give_shapes():
    with_shapes, without = 0, []
    for file in sorted(SOURCE.rglob("*.py")):
        if any(part.startswith("_") for part in file.relative_to(SOURCE).parts):
            continue
        for function, doc in with_tensors(ast.parse(file.read_text())):
            if SHAPE.search(doc):
                with_shapes += 1
            else:
                without.append(f"{file.relative_to(SOURCE)}: {function}")
    share = with_shapes / (with_shapes + len(without))
    assert share >= LEAST_SHAPED, f"{share:.0%} of them; not those of\n" + "\n".join(without)


def test_identifiers_and_settings_are_spelled_as_in_pytorch():
    misspelled = []
    for file in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(file.read_text())
        names = [name for node in ast.walk(tree) for name in identifiers(node)]
        for node in ast.walk(tree):  # the values of settings are words of the interface, too
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                names += re.findall(r"\w+", ast.unparse(node.slice))
        misspelled += [
            f"{file.relative_to(SOURCE)}: {name}" for name in names if BRITISH.search(name)
        ]
    assert not misspelled, misspelled


def test_pages_and_texts_are_spelled_as_the_interface():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    texts = [file for end in ("md", "toml", "yaml", "html") for file in SOURCE.rglob(f"*.{end}")]
    misspelled = [
        f"{file.relative_to(ROOT)}:{number}: {word[0]}"
        for file in [*pages, *texts]
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if (word := BRITISH.search(line))
    ]
    assert not misspelled, misspelled


@pytest.mark.parametrize("name", ["neighbours", "QuantisedHead", "centre_crop", "num_colours"])
def test_british_spelling_is_noticed(name):
    assert BRITISH.search(name)


def test_a_file_fits_on_a_few_screens():
    lengths = {file: file.read_text().count("\n") for file in SOURCE.rglob("*.py")}
    too_long = {str(file.relative_to(SOURCE)): n for file, n in lengths.items() if n > MOST_LINES}
    assert not too_long, "split them along what they do"
