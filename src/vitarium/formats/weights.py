"""Weights as others keep them: untrusted input, of which nothing is ever run.

`read_state_dict` is for files of any training program: it finds the model's tensors and undoes what
they were wrapped in. `read_weights` gives all tensors under the file's own names, for formats that
say what these are.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vitarium.core import files
from vitarium.core.errors import CorruptFile, InvalidInput, UntrustedFile
from vitarium.core.file_faults import not_readable, resolved
from vitarium.core.weight_suffixes import INDEX, SAFETENSORS
from vitarium.formats._pickles import unpickled
from vitarium.formats._state_dict import StateDictSettings, state_dict_in, tensors_of, unwrapped
from vitarium.zoo._format.container import SIZES
from vitarium.zoo._format.packing import flat_bytes

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_NO_SETTINGS = StateDictSettings()
Value = TypeVar("Value", Tensor, torch.Size)


class StateDict(NamedTuple, Generic[Value]):
    """A model's tensors, or their shapes, by their names."""

    values: dict[str, Value]
    notes: list[str]
    """What else could have been meant, and what was left out."""
    architecture: str | None
    """What the training program called it (`arch` of timm's checkpoints); it may say anything."""


def read_weights(path: Path, root: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` file, of the shards of an index (`.safetensors.index.json`),
    or of a pickle (any other name), by the file's names.

    Raises UntrustedFile, CorruptFile, NotReadable, and InvalidInput for what holds no tensors.

    Args:
        root: the folder that is imported; a file outside of it is not read, whatever links say.
        mapped: leave a pickle's tensors (of PyTorch from 1.6) on disk until they are used.
    """
    if path.name.endswith(INDEX):
        return {
            k: t for shard in shards_of(path, root) for k, t in read_weights(shard, root).items()
        }
    if path.suffix == SAFETENSORS:
        _check_dtypes(path, root)
        return _loaded(path)
    return tensors_of(_content(path, root, mapped=mapped), path)


def read_state_dict(
    path: Path, root: Path, settings: StateDictSettings = _NO_SETTINGS, *, mapped: bool = False
) -> StateDict[Tensor]:
    """The model's tensors, without what they were wrapped in; see `read_weights` for the rest.

    Raises InvalidInput, too, for a setting that cannot apply, and where only a setting tells which
    of several models is meant.
    """
    if _is_pickle(path):
        content = _content(path, root, mapped=mapped)
        tensors, notes, ema = state_dict_in(content, path, settings)
        name = content.get("arch")
    else:
        _check_applies(path, settings)
        tensors, notes, ema, name = read_weights(path, root), [], False, None
    ours, more = unwrapped(list(tensors), path, settings, ema=ema)
    values = {short: tensors[before] for short, before in ours.items()}
    return StateDict(values, [*notes, *more], name if isinstance(name, str) else None)


def read_shapes(path: Path, root: Path) -> dict[str, torch.Size]:
    """Names and shapes of what `read_weights` reads, without reading it, where that is possible."""
    if path.name.endswith(INDEX):
        return {
            k: s for shard in shards_of(path, root) for k, s in read_shapes(shard, root).items()
        }
    if path.suffix == SAFETENSORS:
        return _check_dtypes(path, root)
    return {name: tensor.shape for name, tensor in read_weights(path, root, mapped=True).items()}


def read_state_dict_shapes(
    path: Path, root: Path, settings: StateDictSettings = _NO_SETTINGS
) -> StateDict[torch.Size]:
    """Names and shapes of what `read_state_dict` reads, as `read_shapes`."""
    if _is_pickle(path):
        tensors, notes, name = read_state_dict(path, root, settings, mapped=True)
        return StateDict({key: tensor.shape for key, tensor in tensors.items()}, notes, name)
    _check_applies(path, settings)
    shapes = read_shapes(path, root)
    ours, notes = unwrapped(list(shapes), path, settings)
    return StateDict({short: shapes[before] for short, before in ours.items()}, notes, None)


def shards_of(index: Path, root: Path) -> list[Path]:
    """The files that a model is split into. Raises CorruptFile where one is missing, has not the
    tensors that the index says, or one that another has, too; UntrustedFile, and NotReadable."""
    check_place(index, root)
    listed = files.read_json(index)
    table = listed.get("weight_map") if isinstance(listed, dict) else None
    shards = set(table.values()) if isinstance(table, dict) and _are_texts(table) else set()
    if not table or not shards or not all(map(_is_shard, shards)):
        raise CorruptFile(index, "its weight_map does not name files of this folder")
    paths = [index.parent / shard for shard in sorted(shards)]
    shard_of: dict[str, Path] = {}
    for path in paths:
        names = {name for name, shard in table.items() if shard == path.name}
        stored = read_shapes(path, root).keys()
        if absent := sorted(names - stored):
            raise CorruptFile(path, f"it has no {absent[0]}, which {index.name} says is in it")
        if twice := sorted(stored & shard_of.keys()):
            raise CorruptFile(path, f"it has {twice[0]}, and so has {shard_of[twice[0]].name}")
        shard_of |= dict.fromkeys(stored, path)
    return paths


def check_place(path: Path, root: Path) -> None:
    """Raises UntrustedFile for what is outside of `root`, CorruptFile for no file, NotReadable, and
    InvalidInput for a pointer of Git LFS in a file's place."""
    if not resolved(path).is_relative_to(resolved(root)):
        raise UntrustedFile(path, f"it leads out of {root}; copy the file to where its link stands")
    if not path.is_file():
        raise CorruptFile(path, "it is not a file" if path.exists() else "the file is missing")
    if not os.access(path, os.R_OK):
        raise not_readable(path)
    if is_lfs_pointer(path):
        raise InvalidInput(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull`")


def is_lfs_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) over names, dtypes, shapes and bytes, in order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(flat_bytes(tensor).data)
    return digest.hexdigest()


def root_of(folder: Path) -> Path:
    """Where a folder's files may lie: in it; in the hub's cache they are links to its blobs."""
    cached = folder.absolute().parent
    if cached.name == "snapshots" and (cached.parent / "blobs").is_dir():
        return cached.parent
    return folder


def _is_pickle(path: Path) -> bool:
    return path.suffix != SAFETENSORS and not path.name.endswith(INDEX)


def _content(path: Path, root: Path, *, mapped: bool) -> Any:
    check_place(path, root)
    return unpickled(path, mapped=mapped and zipfile.is_zipfile(path))


def _loaded(path: Path) -> dict[str, Tensor]:
    try:
        with files.plain_path(path) as named:
            return safetensors.torch.load_file(named)
    except (SafetensorError, OSError) as error:
        raise CorruptFile(path, str(error)) from None


def _check_dtypes(path: Path, root: Path) -> dict[str, torch.Size]:
    """Shapes in the header of a safetensors file, if a checkpoint can hold its tensors."""
    check_place(path, root)
    shapes = {}
    try:
        with files.plain_path(path) as named, safe_open(named, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_slice(name)
                if (dtype := tensor.get_dtype()) not in SIZES:
                    what = f"{name} is of {dtype}, which no checkpoint file can hold"
                    raise InvalidInput(f"{path}: {what}; convert it, or leave it out")
                shapes[name] = torch.Size(tensor.get_shape())
    except (SafetensorError, OSError) as error:
        raise CorruptFile(path, str(error)) from None
    return shapes


def _check_applies(path: Path, settings: StateDictSettings) -> None:
    if settings.wrapped_in is not None:
        what = f"wrapped_in={settings.wrapped_in} is for pickles, whose state dict has a key"
        raise InvalidInput(f"{path}: {what}; prefix=NAME selects by the names of tensors")


def _is_shard(name: str) -> bool:
    """Whether it can be a file beside its index, and no index itself, which could name the first"""
    return Path(name).name == name and "\0" not in name and not name.endswith(INDEX)


def _are_texts(table: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and isinstance(value, str) for key, value in table.items())
