"""Which files of a folder hold models: one each, or an index and the shards that it names."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from vitarium.core import files
from vitarium.core.errors import CorruptFile
from vitarium.core.file_faults import reading
from vitarium.core.printable import distinct
from vitarium.core.weight_suffixes import INDEX, SUFFIXES, weight_suffix
from vitarium.formats.weights import is_lfs_pointer

_DOCUMENTS = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".pyc"}
"""Of files beside weights that are no text; all text is taken for a document."""
_TEXT_BYTES = 4096  # that are looked at


def find_weight_files(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Files with models in a folder and the folders in it, hidden ones left out, by name, sorted:
    the path in the folder, without its suffix where that is no other's. Then, by their paths, why
    files of unknown kinds were left out."""
    visible = {
        path: path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    paths = [path for path in visible if path.is_file() or path.is_symlink()]
    indices = [path for path in paths if path.name.endswith(INDEX) and _stem(path) != path]
    shards = {path.parent / shard for path in indices for shard in _shards(path)}
    models = [p for p in paths if p in indices or (weight_suffix(p.name) and p not in shards)]
    short = {path: _stem(visible[path]) for path in models}
    count = Counter(short.values())
    names = [(s if count[s] == 1 else visible[path]).as_posix() for path, s in short.items()]
    labels = distinct(names, newline="\\n")
    by_name = {labels[name]: path for path, name in zip(short, names, strict=True)}
    remaining = (path for path in paths if path not in models and path not in shards)
    return dict(sorted(by_name.items())), _unknown(remaining, folder)


def _stem(path: Path) -> Path:
    """Without the suffix of a weight file, or of an index."""
    name = path.name.removesuffix(INDEX)
    suffix = weight_suffix(name)
    return path.with_name(name.removesuffix(suffix)) if name != suffix and suffix else path


def _shards(index: Path) -> set[str]:
    """Names of the files that an index names; none for what is no index."""
    try:
        table = files.read_json(index)["weight_map"]
        return {name for name in table.values() if isinstance(name, str) and "/" not in name}
    except (CorruptFile, OSError, KeyError, TypeError, AttributeError):
        return set()


def _unknown(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    left_out = {}
    kinds = ", ".join(SUFFIXES)
    for path in paths:
        if not path.is_file() or path.suffix in _DOCUMENTS or _is_text(path):
            continue
        name = distinct([path.relative_to(folder).as_posix()], newline="\\n").popitem()[1]
        left_out[name] = f"a file of unknown kind; rename it if it holds weights ({kinds})"
    return left_out


def _is_text(path: Path) -> bool:
    with reading(path), path.open("rb") as file:
        start = file.read(_TEXT_BYTES)
    try:
        start.decode()
    except UnicodeDecodeError as error:  # the last character may be cut off
        if error.start < len(start) - 3 or len(start) < _TEXT_BYTES:
            return False
    return b"\0" not in start and not is_lfs_pointer(path)
