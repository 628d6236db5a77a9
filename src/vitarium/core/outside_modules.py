"""Modules of plug-ins outside of vitarium: imported by name or file, named for processes."""

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

PROGRAM = "__main__"
"""The module of a program, or of a notebook, which no other process can import."""


def import_outside(module: str) -> None:
    """Import a module by its name, or by the path of its file, which ends in .py.

    Raises ImportError where another module has the file's name, and whatever the module raises.
    """
    if not module.endswith(".py"):
        importlib.import_module(module)
        return
    file = Path(module).expanduser().absolute()
    if present := sys.modules.get(file.stem):
        if Path(getattr(present, "__file__", None) or "").absolute() == file:
            return
        raise ImportError(f"another module is called {file.stem}; rename the file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    loaded = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[file.stem]
        raise


def outside_modules(modules: Iterable[str]) -> list[str]:
    """Those of loaded modules that lie outside of vitarium, as `import_outside` takes them in
    another process: by name where that can be imported, else by file."""
    names: dict[str, None] = {}
    for name in modules:
        if name.partition(".")[0] == "vitarium":
            continue
        file = getattr(sys.modules.get(name), "__file__", None)
        if name != PROGRAM and file and not _is_importable(name):
            name = str(Path(file).absolute())
        names[name] = None
    return list(names)


def _is_importable(name: str) -> bool:
    """Whether another process with the same path finds a module of this name."""
    return any(finder.find_spec(name.rpartition(".")[2], _path(name)) for finder in sys.meta_path)


def _path(name: str) -> list[str] | None:
    package = sys.modules.get(name.rpartition(".")[0])
    return getattr(package, "__path__", None)
