"""Writes docs/api.md, vitarium's public names, from docstrings: python tools/api_reference.py

With --check nothing is written, and the exit status is 1 where the page is not what the code says.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import vitarium
import vitarium.testing
import vitarium.zoo

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
MODULES = (vitarium, vitarium.zoo, vitarium.testing)
HEAD = """# API reference

Every public name, by module; `make docs` writes this page from the docstrings. Names that are not
here may change at any time. [CONTRIBUTING](../CONTRIBUTING.md) has the contracts of plug-ins, and
[Plug-ins](plugins.md) lists all that there are.
"""
_LINE = 100


def reference() -> str:
    """The whole page."""
    parts, documented = [HEAD], set()
    for module in MODULES:
        names = sorted((n for n in dir(module) if not n.startswith("_")), key=str.lower)
        public = {name: getattr(module, name) for name in names}
        listed = {n: v for n, v in public.items() if _is_documented(v) and v not in documented}
        documented |= set(listed.values())
        parts.append(f"\n## {module.__name__}\n")
        parts += [part for name, value in listed.items() for part in _entry(name, value)]
    return "".join(parts)


def _is_documented(value: Any) -> bool:
    return inspect.isfunction(value) or inspect.isclass(value)


def _entry(name: str, value: Any) -> Iterator[str]:
    if inspect.isfunction(value):
        yield f"\n### {name}\n\n{_code(_signature(name, value))}\n{_prose(value)}"
        return
    yield f"\n### class {name}\n\n{_prose(value)}{''.join(_fields(value))}"
    for member, defined in vars(value).items():
        if member.startswith("_") and member not in ("__getitem__", "__iter__", "__contains__"):
            continue
        if isinstance(defined, property | cached_property):
            function = defined.fget if isinstance(defined, property) else defined.func
            yield f"\n#### {name}.{member}\n\n{_prose(function)}"
        elif isinstance(defined, classmethod | staticmethod) or inspect.isfunction(defined):
            function = getattr(value, member)
            if member.startswith("model_"):  # pydantic's own
                continue
            text = _code(_signature(f"{name}.{member}", function))
            yield f"\n#### {name}.{member}\n\n{text}\n{_prose(function)}"


def _fields(of: type) -> Iterator[str]:
    """The annotated attributes, with the text below each."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(of))).body
    assert isinstance(definition, ast.ClassDef)
    start = "\nAttributes:\n\n"
    for statement, following in pairwise([*definition.body, ast.Pass()]):
        if not isinstance(statement, ast.AnnAssign) or ast.unparse(statement.target)[0] == "_":
            continue
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = f": {inspect.cleandoc(str(following.value.value))}".replace("\n", "\n  ")
        kind = ast.unparse(statement.annotation).strip("'")
        yield f"{start}- `{ast.unparse(statement.target)}` (`{kind}`){text}\n"
        start = ""


def _signature(name: str, function: Any) -> str:
    """On one line, or a parameter a line; defaults that are functions are an ellipsis."""
    signature = inspect.signature(function)
    parameters = [p for key, p in signature.parameters.items() if key not in ("self", "cls")]
    texts = [_plain(str(parameter)) for parameter in parameters]
    by_keyword = [p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters]
    if any(by_keyword):
        texts.insert(by_keyword.index(True), "*")
    returns = signature.return_annotation
    result = "" if returns is inspect.Signature.empty else f" -> {_annotation(returns)}"
    line = f"{name}({', '.join(texts)}){result}"
    if len(line) <= _LINE:
        return line
    return f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f"){result}"


def _annotation(annotation: Any) -> str:
    return _plain(inspect.formatannotation(annotation)).strip("'")


def _plain(text: str) -> str:
    """Without the modules of types, and without addresses of functions and objects."""
    text = re.sub(r"<.*? at 0x[0-9a-f]+>", "...", text)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _prose(value: Any) -> str:
    """Its docstring, with the arguments as a list. Raises ValueError where it has none."""
    text = inspect.getdoc(value)
    if not text:
        raise ValueError(f"{value!r} has no docstring")
    lines, in_arguments = [], False
    for line in text.splitlines():
        if line == "Args:":
            in_arguments = True
            lines.append("Arguments:\n")
        elif in_arguments and (argument := re.match(r"    (\w[\w, ]*): (.*)", line)):
            names = ", ".join(f"`{name}`" for name in argument[1].split(", "))
            lines.append(f"- {names}: {argument[2]}")
        elif in_arguments and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            in_arguments &= not line or line.startswith(" ")
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if "--check" in sys.argv[1:]:
        sys.exit(current != reference())
    PAGE.write_text(reference(), encoding="utf-8")
