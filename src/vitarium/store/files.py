"""Files that are either whole or not there, and that prove it when they are read."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.errors import CorruptFile

if TYPE_CHECKING:
    from torch import Tensor


def write(path: Path, content: bytes) -> None:
    """Write beside and rename: after a crash the file is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises CorruptFile where the content is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptFile(path, f"not valid JSON ({error})") from None


def write_lines(path: Path, values: list[Any]) -> None:
    """One JSON value a line."""
    write(path, "".join(json.dumps(value) + "\n" for value in values).encode())


def read_lines(path: Path) -> list[Any]:
    """Raises CorruptFile that names the line. A missing file has no lines."""
    if not path.exists():
        return []
    values = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise CorruptFile(path, f"line {number} is not valid JSON ({error})") from None
    return values


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", notes: Mapping[str, str]) -> str:
    """Write a safetensors file with `notes` in its header; returns its SHA-256 (hexadecimal).

    Equal tensors and notes give equal bytes.
    """
    import safetensors.torch

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # one entry: safetensors writes several in an order that differs from run to run
    header = {"vitarium": json.dumps(dict(notes), sort_keys=True)}
    content = safetensors.torch.save(whole, metadata=header)
    write(path, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str) -> "dict[str, Tensor]":
    """Read what `write_tensors` wrote. Raises CorruptFile if any bit of it has changed."""
    import safetensors.torch
    from safetensors import SafetensorError

    check(path, sha256)
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise CorruptFile(path, str(error)) from None


def check(path: Path, sha256: str) -> None:
    """Read a file through, in pieces. Raises CorruptFile if any bit of it has changed."""
    try:
        found = digest(path)
    except FileNotFoundError:
        raise CorruptFile(path, "the file is missing") from None
    if found != sha256:
        raise CorruptFile(
            path, f"its checksum is not {sha256[:12]}…, as written; restore or regrow it"
        )


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; on POSIX that is a matter of the folder."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
