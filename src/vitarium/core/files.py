"""Files that are either whole or not there, and that prove it when they are read."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import xxhash

from vitarium.core.errors import CorruptFile, LeadsOutside
from vitarium.core.file_faults import check_regular, reading, resolved, writing
from vitarium.core.printable import encodable, escaped_json

_DESCRIPTORS = Path("/proc/self/fd")  # where Linux has another name of every file that is open
_PATTERN = frozenset("*?[{")
_SEAL_BYTES = len(', "xxh3": "0123456789abcdef"}\n')
_LONG_NAME = 200  # bytes, which leave room for more; disks take 255


def write(
    path: Path,
    content: bytes | Iterable[bytes | memoryview],
    *,
    root: Path | None = None,
    durable: bool = True,
) -> None:
    """Write beside and rename: after a crash the file is the old one or the new one.

    Args:
        root: a folder that is not left, whatever links its folders are.
        durable: wait for the disk; else a power cut may take the content, as nothing else does.

    Raises DiskFull, NotWritable, UnusablePath and LeadsOutside; the old file is still there then.
    """
    if root:
        check_inside(path.parent, root)
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder", str(path))
        beside = path.with_name(temporary_name(path))
        fresh = [*takewhile(lambda folder: not folder.exists(), path.parents)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)  # a leftover; or a link, which is not followed
            with beside.open("xb", buffering=1 << 20) as file:  # hundreds of small pieces
                for piece in [content] if isinstance(content, bytes) else content:
                    file.write(piece)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with suppress(OSError):  # what is wrong with the folder is said by the first error
                beside.unlink(missing_ok=True)
                for folder in fresh:
                    folder.rmdir()
            raise
        if durable:
            sync_folder(path.parent)


def temporary_name(path: Path) -> str:
    """What a file or folder is called until it is whole; never too long for a disk."""
    encoded = os.fsencode(path.name)
    name = path.name if len(encoded) <= _LONG_NAME else checksum(encoded)
    return f".{name}.{os.getpid()}.tmp"


def is_leftover(path: Path) -> bool:
    """Whether this is what a process leaves behind that is killed in `write`."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def check_inside(folder: Path, root: Path) -> None:
    """Raises LeadsOutside for a folder that lies, by links, outside of another; UnusablePath.

    A file that is a link is no danger: it is itself replaced or removed, not what it leads to.
    """
    if not resolved(folder).is_relative_to(resolved(root)):
        raise LeadsOutside(folder, root)


def remove(path: Path, *, root: Path | None = None) -> None:
    """Remove a file, also for after a power cut. Raises NotWritable and LeadsOutside."""
    if root:
        check_inside(path.parent, root)
    unlink(path)
    sync_folder(path.parent)


def unlink(path: Path) -> None:
    """Remove a file, if it is there; it may come back after a power cut. Raises NotWritable."""
    with writing(path):
        path.unlink(missing_ok=True)


def discard(path: Path, *, root: Path | None = None) -> None:
    """Remove a file, or a folder with its content, if that can be. Raises LeadsOutside."""
    if root:
        check_inside(path.parent, root)
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def read(path: Path) -> bytes:
    """The whole content. Raises FileNotFoundError, NotReadable and UnusablePath."""
    with reading(path):
        check_regular(path)
        return path.read_bytes()


def exists(path: Path) -> bool:
    """Raises NotReadable where that cannot be seen."""
    with reading(path):
        return path.exists()


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, in order; nothing where there is none. Raises NotReadable."""
    try:
        with reading(folder):
            return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def checksum(content: Any) -> str:
    """XXH3 of 64 bits, as 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(content)


def utf8(text: str) -> bytes:
    """Any text, also with the name of a file that is no UTF-8: its bytes are written `\\udcff`."""
    return text.encode(errors="backslashreplace")


def parsed_json(text: bytes) -> Any:
    """Parse JSON; for lone surrogates see `encodable`. Raises ValueError and RecursionError."""
    value = json.loads(text)
    has_surrogates = b"\xed" in text or b"\\ud" in text or b"\\uD" in text
    return encodable(value) if has_surrogates else value


def write_json(path: Path, value: Any, *, root: Path | None = None) -> None:
    write(path, json_text(value), root=root)


def json_text(value: Any) -> bytes:
    return utf8(escaped_json(json.dumps(value, indent=1, ensure_ascii=False)) + "\n")


def read_json(path: Path) -> Any:
    """Raises CorruptFile where the content is not JSON."""
    try:
        return parsed_json(read(path))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(path, f"not valid JSON ({error})") from None


def write_sealed(path: Path, value: dict[str, Any], *, root: Path | None = None) -> None:
    """One JSON object with a checksum of itself as its last member, `xxh3`."""
    write(path, utf8(with_checksum(value, indent=1)), root=root)


def with_checksum(value: dict[str, Any], *, indent: int | None = None, after: bytes = b"") -> str:
    """JSON text of an object that ends in `, "xxh3": "<XXH3-64 of all before this comma>"}`.

    The checksum covers `after` too, as if it stood before the text.
    """
    text = escaped_json(json.dumps(value, indent=indent, ensure_ascii=False))
    body = text.removesuffix("}").rstrip("\n")
    return body + _seal(after + utf8(body))


def _seal(body: bytes) -> str:
    return f', "xxh3": "{checksum(body)}"}}\n'


def read_sealed(
    path: Path, *, format_1: Callable[[dict[str, Any]], bool] = lambda value: False
) -> dict[str, Any]:
    """Read what `write_sealed` wrote. Raises CorruptFile if any byte of it has changed.

    `format_1` is asked about an object without a seal whether it is of format 1, which had none.
    """
    text = read(path)
    try:
        value = parsed_json(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(path, str(error)) from None
    if not isinstance(value, dict):
        raise CorruptFile(path, "no JSON object")
    if value.pop("xxh3", None) is None:
        if not format_1(value):
            raise CorruptFile(path, "it does not end in its checksum")
        return value
    body = text[:-_SEAL_BYTES]
    if text[-_SEAL_BYTES:] != _seal(body).encode():
        raise CorruptFile(path, "its checksum is not that of its content")
    return value


def write_lines(path: Path, values: list[Any], *, root: Path | None = None) -> None:
    """One JSON value a line, and a last line with their number and a checksum of all before it."""
    write(path, lines_with_checksum(values), root=root)


def lines_with_checksum(values: list[Any]) -> bytes:
    """The content of the file that `write_lines` writes."""
    body = "".join(json.dumps(value) + "\n" for value in values).encode()
    return body + _last_line(body, len(values))


def read_lines(path: Path, *, sealed: bool) -> list[Any]:
    """Read what `write_lines` wrote; `sealed` refuses a file without a last line, as of format 1.

    A missing file has no lines. Raises CorruptFile if any byte of one has changed or is missing.
    """
    try:
        text = read(path)
    except FileNotFoundError:
        return []
    lines = text.splitlines(keepends=True)
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values.append(parsed_json(line))
        except (ValueError, RecursionError) as error:
            raise CorruptFile(path, f"line {number} is not valid JSON ({error})") from None
    if values and isinstance(values[-1], dict) and "xxh3" in values[-1]:
        body = text[: len(text) - len(lines[-1])]
        if lines[-1] != _last_line(body, len(lines) - 1):
            raise CorruptFile(path, "its checksum is not that of its content")
        return values[:-1]
    if sealed or (text and not text.endswith(b"\n")):
        raise CorruptFile(path, "its end is cut off")
    return values


def _last_line(body: bytes, lines: int) -> bytes:
    return with_checksum({"lines": lines}, after=body).encode()


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; read in pieces."""
    with reading(path):
        check_regular(path)
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def plain_path(path: Path, *, hold: bool = False) -> Iterator[Path]:
    """Inside, a path of the same file or folder that libraries in other languages take.

    On Linux a file's name is any bytes; what is no UTF-8 stands in Python's texts as halves of
    surrogate pairs, which no other library takes. DuckDB takes `*` for any name. `hold` stays with
    this file (on Linux) though another process puts another one in its place.
    """
    is_odd = not str(path).isascii() or not _PATTERN.isdisjoint(str(path))
    if not (hold or is_odd) or not _DESCRIPTORS.is_dir():
        yield path
        return
    with reading(path):
        check_regular(path)
        handle = os.open(path, os.O_RDONLY)
    try:
        yield _DESCRIPTORS / str(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make a rename durable; on POSIX that is a matter of the folder."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
