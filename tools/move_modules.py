"""Moves modules to the places that moves.toml names, and rewrites all that names them.

    python tools/move_modules.py

To be run in a clean checkout, of any branch whose modules still lie where moves.toml has them; run
once more it does nothing. An open branch is brought over by running it there, committing, and
merging then. Nothing is committed. Imports are sorted by ruff, if it is there; if not, run

    ruff check --fix --select I . && ruff format .

Moved are modules, files of the package, tests (they mirror the modules) and the data beside tests.
Rewritten are imports, dotted names (`vitarium.x.y.z`), names in backticks (`x.y.z`) and paths
(src/vitarium/x/y.py, x/y.py, tests/x/test_y.py) in code, tests, benchmarks and documents.
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "vitarium"
SOURCE = PurePosixPath("src", PACKAGE)
TESTS = PurePosixPath("tests")
TEXTS = {".py", ".md", ".toml", ".cff"}
UNTOUCHED = {"tools/move_modules.py", "tools/moves.toml"}

DOTTED = re.compile(rf"\b{PACKAGE}(?:\.[A-Za-z_]\w*)+")
IN_BACKTICKS = re.compile(r"(?<=`)[a-z_]\w*(?:\.[A-Za-z_]\w*)+")
PATH = re.compile(rf"(?<![\w./])((?:\.\./)*)(src/{PACKAGE}/|{PACKAGE}/|tests/|)((?:\w+/)+\w+\.\w+)")
FENCED = re.compile(r"(?<=```python\n)(.*?)(?=```)", re.DOTALL)
FROM_FILE = re.compile(r"Path\(__file__\)(?:((?:\.parent\b)+)|\.parents\[(\d+)\])")


@dataclass(frozen=True)
class Table:
    """moves.toml, completed by what lies in the checkout."""

    modules: dict[str, str]
    """Modules and packages, `vitarium.x.y` -> where they go; those that stay are not in it."""
    files: dict[str, str]
    """Tracked files that move."""
    passed_on: dict[str, dict[str, str]]
    """Of packages that pass on names no longer: each name, and the module that holds it."""
    bound: dict[str, set[str]]
    """Names that packages' `__init__` define or import."""
    unlisted: list[str]
    """`old -> new` of modules that have no entry and go where their folder goes."""


def main() -> None:
    moves = tomllib.loads((ROOT / "tools" / "moves.toml").read_text())
    tracked = _git("ls-files").splitlines()
    table = _table(moves, tracked)
    if not table.files:
        sys.exit("nothing to move: no module lies where moves.toml has it")
    if _git("status", "--porcelain", "--untracked-files=no"):
        sys.exit("the checkout is not clean: commit or stash first, so that this can be undone")
    contents = {name: _rewritten(name, table, moves) for name in tracked if _is_text(name)}
    complaints = _edit(contents, moves)
    _write(contents, table)
    _make_packages(moves["docstrings"], set(table.modules.values()))
    _drop_empty_folders()
    _tidy([name for name in contents if name.endswith(".md")])
    _git("add", "--all", "src", "tests")
    _git("add", "--update")
    print(f"moved {len(table.files)} files, rewrote {len(contents)}")
    for module in table.unlisted:
        print(f"has no entry in moves.toml and goes with its folder: {module}")
    sys.exit("\n".join(complaints) or None)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _table(moves: dict, tracked: list[str]) -> Table:
    ours = [PurePosixPath(name) for name in tracked if PurePosixPath(name).is_relative_to(SOURCE)]
    names = {path: _module(path) for path in ours if path.suffix == ".py"}
    modules, unlisted = _modules(moves, names)
    files = {
        str(path): str(_path(modules[f"{PACKAGE}.{name}"], path))
        for path, name in names.items()
        if f"{PACKAGE}.{name}" in modules
    }
    for old, new in moves["files"].items():
        if str(SOURCE / old) in tracked:
            files[str(SOURCE / old)] = str(SOURCE / new)
    files |= _tests(moves, tracked, modules)
    targets = Counter(files.get(name, name) for name in tracked)
    if clashes := [target for target, count in targets.items() if count > 1]:
        raise SystemExit(f"two files would go to one place: {', '.join(clashes)}")
    packages = {
        f"{PACKAGE}.{name}": ast.parse((ROOT / path).read_text())
        for path, name in names.items()
        if path.name == "__init__.py"
    }
    dissolved = packages.keys() & {f"{PACKAGE}.{name}" for name in moves["dissolved"]["packages"]}
    return Table(
        modules,
        files,
        {name: dict(_imported(packages[name])) for name in dissolved},
        {name: _bound(tree) for name, tree in packages.items()},
        unlisted,
    )


def _modules(moves: dict, names: dict[PurePosixPath, str]) -> tuple[dict[str, str], list[str]]:
    """Where modules and packages go, and which of them have no entry."""
    modules, unlisted = {}, []
    for path, name in names.items():
        folder, _, last = name.rpartition(".")
        if path.name == "__init__.py":
            new = moves["folders"].get(name, name) if name else name
        elif name in moves["modules"]:
            new = moves["modules"][name]
        else:
            new = f"{moves['folders'].get(folder, folder)}.{last}"
            unlisted.append(f"{name} -> {new}")
        if new != name:
            modules[f"{PACKAGE}.{name}"] = f"{PACKAGE}.{new}"
    return modules, unlisted


def _module(path: PurePosixPath) -> str:
    """`store.zoo` of src/vitarium/store/zoo.py; a package's is its folder's."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _path(module: str, old: PurePosixPath) -> PurePosixPath:
    path = PurePosixPath("src", *module.split("."))
    return path / "__init__.py" if old.name == "__init__.py" else path.with_suffix(".py")


def _tests(moves: dict, tracked: list[str], modules: dict[str, str]) -> dict[str, str]:
    """Where tests go, and what lies beside them: where the modules go that they are named after."""
    files = {}
    for name in tracked:
        path = PurePosixPath(name)
        if not path.is_relative_to(TESTS):
            continue
        inside = path.relative_to(TESTS)
        listed = moves["tests"].get(str(inside))
        of = ".".join((PACKAGE, *inside.parts[:-1], path.stem.removeprefix("test_")))
        if listed:
            new = TESTS / listed
        elif path.stem.startswith("test_") and of in modules:
            *folders, last = (part.lstrip("_") for part in modules[of].split(".")[1:])
            new = TESTS.joinpath(*folders, f"test_{last}.py")
        else:
            new = _test_folder(moves, path.parent) / path.name
        if new != path:
            files[name] = str(new)
    return files


def _test_folder(moves: dict, folder: PurePosixPath) -> PurePosixPath:
    if folder == TESTS or not folder.is_relative_to(TESTS):
        return folder
    first, *rest = folder.relative_to(TESTS).parts
    new = moves["folders"].get(first, first)
    return TESTS.joinpath(*(part.lstrip("_") for part in new.split(".")), *rest)


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, node.module


def _bound(tree: ast.Module) -> set[str]:
    defined = (ast.FunctionDef, ast.ClassDef)
    return {name for name, _ in _imported(tree)} | {
        node.name for node in tree.body if isinstance(node, defined)
    }


def _is_text(name: str) -> bool:
    path = PurePosixPath(name)
    is_text = path.suffix in TEXTS or path.name == "Makefile" or name.startswith(".ci/")
    return is_text and name not in UNTOUCHED


def _rewritten(name: str, table: Table, moves: dict) -> str:
    text = (ROOT / name).read_text()
    path = PurePosixPath(name)
    if path.suffix == ".md":
        *pairs, last = FENCED.split(text)  # prose, code, prose, code, ..., prose
        return "".join(
            _names(prose, table) + _code(code, table)
            for prose, code in zip(pairs[::2], pairs[1::2], strict=True)
        ) + _names(last, table)
    if path.suffix != ".py":
        return _names(text, table)
    package = name.endswith("__init__.py") and f"{PACKAGE}.{_module(path)}"
    if package in table.passed_on:
        return f'"""{ast.get_docstring(ast.parse(text), clean=False)}"""\n'
    if name in table.files and path.is_relative_to(TESTS):
        text = FROM_FILE.sub(partial(_from_file, path, table, moves), text)
    return _code(text, table)


def _code(text: str, table: Table) -> str:
    """Imports by their syntax; what else names modules as text."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a document's `...` between lines
        return _names(text, table)
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    parts, done = [], 0
    for node in sorted(imports, key=lambda node: (node.lineno, node.col_offset)):
        start = offset(node.lineno, node.col_offset)
        end = offset(node.end_lineno, node.end_col_offset)
        parts += [_names(text[done:start], table), _import(node, text[start:end], table)]
        done = end
    return "".join(parts) + _names(text[done:], table)


def _import(node: ast.Import | ast.ImportFrom, text: str, table: Table) -> str:
    """An import statement, one for each module that it imports from now."""
    if isinstance(node, ast.Import):
        return DOTTED.sub(partial(_dotted, table), text)
    if node.level or not node.module or node.module.partition(".")[0] != PACKAGE:
        return text
    by_module: dict[str, list[str]] = {}
    for alias in node.names:
        module, name = _new_home(node.module, alias.name, table)
        local = alias.asname or alias.name
        by_module.setdefault(module, []).append(name if name == local else f"{name} as {local}")
    if list(by_module) == [node.module] and by_module[node.module] == [
        ast.unparse(a) for a in node.names
    ]:
        return text
    statements = [f"from {module} import {', '.join(names)}" for module, names in by_module.items()]
    return ("\n" + " " * node.col_offset).join(statements)


def _new_home(module: str, name: str, table: Table) -> tuple[str, str]:
    """From where `from module import name` has to import now, and what."""
    if name in table.passed_on.get(module, {}):
        module = table.passed_on[module][name]
        return table.modules.get(module, module), name
    submodule = f"{module}.{name}"
    if submodule in table.modules and name not in table.bound.get(module, set()):
        home, _, name = table.modules[submodule].rpartition(".")
        return home, name
    return table.modules.get(module, module), name


def _names(text: str, table: Table) -> str:
    """Dotted names and paths in a text that is no import."""
    text = DOTTED.sub(partial(_dotted, table), text)
    text = IN_BACKTICKS.sub(partial(_short, table), text)
    return PATH.sub(partial(_slashed, table), text)


def _dotted(table: Table, match: re.Match) -> str:
    return _named(match[0], table)


def _short(table: Table, match: re.Match) -> str:
    """`store.files.checksum` without the package's name; a folder's alone could be anything."""
    first, second, *_ = match[0].split(".")
    name = f"{PACKAGE}.{first}.{second}"
    is_ours = name in table.modules or second in table.passed_on.get(f"{PACKAGE}.{first}", {})
    return _named(f"{PACKAGE}.{match[0]}", table).partition(".")[2] if is_ours else match[0]


def _named(name: str, table: Table) -> str:
    """The new name of a module, or of what is in it."""
    parts = name.split(".")
    for end in range(len(parts), 1, -1):
        module, rest = ".".join(parts[:end]), parts[end:]
        if rest:
            module = table.passed_on.get(module, {}).get(rest[0], module)
        if module in table.modules:
            return ".".join([table.modules[module], *rest])
    return name


def _slashed(table: Table, match: re.Match) -> str:
    up, folder, rest = match.groups()
    root = TESTS if folder == "tests/" else SOURCE
    new = table.files.get(str(root / rest))
    return f"{up}{folder}{PurePosixPath(new).relative_to(root)}" if new else match[0]


def _from_file(path: PurePosixPath, table: Table, moves: dict, match: re.Match) -> str:
    """`Path(__file__).parents[1]` and the like, where a test lies deeper or less deep now."""
    up = match[1].count(".parent") - 1 if match[1] else int(match[2])
    new = PurePosixPath(table.files[str(path)])
    folder = _test_folder(moves, path.parents[up])
    if new.parents[up] == folder:
        return match[0]
    up = list(new.parents).index(folder)
    return f"Path(__file__).parents[{up}]" if up else "Path(__file__).parent"


def _edit(contents: dict[str, str], moves: dict) -> list[str]:
    """The edits and parts of moves.toml. Returns what could not be done."""
    complaints = []
    for edit in moves["edits"]:
        for old, new in edit["texts"]:
            if contents.get(edit["file"], "").count(old) != 1:
                complaints.append(f"{edit['file']}: edit by hand, {old!r} is not there once")
                continue
            contents[edit["file"]] = contents[edit["file"]].replace(old, new)
    for part in moves["parts"]:
        text = contents[part["file"]]
        start = text.find(part["from"])
        if start < 0:
            complaints.append(f"{part['file']}: edit by hand, {part['from']!r} is not there")
            continue
        end = text.index(part["to"], start) if "to" in part else len(text)
        contents[part["file"]] = text[:start] + part["text"] + text[end:]
    return complaints


def _write(contents: dict[str, str], table: Table) -> None:
    written = {name: text.encode() for name, text in contents.items()}
    for name in table.files.keys() - written.keys():
        written[name] = (ROOT / name).read_bytes()
    modes = {name: (ROOT / name).stat().st_mode for name in written}
    for name in table.files:
        (ROOT / name).unlink()
    for name, data in written.items():
        file = ROOT / table.files.get(name, name)
        if not file.exists() or file.read_bytes() != data:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(modes[name])


def _make_packages(docstrings: dict[str, str], modules: set[str]) -> None:
    """An `__init__.py` with a docstring for each new folder."""
    for module in sorted(modules):
        names = module.split(".")[1:-1]
        for end in range(1, len(names) + 1):
            file = ROOT / SOURCE.joinpath(*names[:end], "__init__.py")
            if not file.exists():
                file.write_text(f'"""{docstrings[".".join(names[:end])]}"""\n')


def _drop_empty_folders() -> None:
    for root in (ROOT / SOURCE, ROOT / TESTS):
        for folder in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True):
            if folder.name == "__pycache__":
                shutil.rmtree(folder)
            elif not any(folder.iterdir()):
                folder.rmdir()


def _ruff() -> str | None:
    beside = Path(sys.executable).with_name("ruff")
    return str(beside) if beside.exists() else shutil.which("ruff")


def _tidy(documents: list[str]) -> None:
    """Sort imports and break lines, in examples of documents, too."""
    ruff = _ruff()
    if ruff is None:
        print("no ruff here: run  ruff check --fix --select I . && ruff format .")
        return
    subprocess.run([ruff, "check", "--quiet", "--fix", "--select", "I", "."], cwd=ROOT, check=True)
    subprocess.run([ruff, "format", "--quiet", "."], cwd=ROOT, check=True)
    for name in documents:
        file = ROOT / name
        file.write_text(FENCED.sub(lambda block: _sorted(ruff, block[0]), file.read_text()))


def _sorted(ruff: str, code: str) -> str:
    if f"from {PACKAGE}." not in code:
        return code
    command = [ruff, "check", "--quiet", "--fix", "--select", "I", "--stdin-filename", "x.py", "-"]
    done = subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True)
    return code if done.returncode else done.stdout


if __name__ == "__main__":
    main()
