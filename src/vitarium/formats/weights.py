"""Weights as others keep them: untrusted input, of which nothing is ever run. Pickles are read with
`torch.load(weights_only=True)`: tensors, numbers, texts and their containers, and nothing else."""

import argparse
import hashlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vitarium.core import files
from vitarium.core.errors import CorruptFile, UntrustedFile
from vitarium.core.file_faults import not_readable, resolved
from vitarium.core.printable import encodable

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""Of files that may hold weights; all but safetensors are pickles."""
WRAPPED_IN = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
"""Keys under which training programs keep the state dict in a pickle, the usual ones first."""


def read_weights(
    path: Path, root: Path, *, wrapped_in: Sequence[str] = (), mapped: bool = False
) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a pickle (any other name), by their names. Raises
    UntrustedFile, CorruptFile and NotReadable.

    Args:
        root: the folder that is imported; a file outside of it is not read, whatever links say.
        wrapped_in: keys under which a pickle may hold its state dict, e.g. "state_dict".
        mapped: leave a pickle's tensors (of PyTorch from 1.6) on disk until they are used.
    """
    check_place(path, root)
    if path.suffix != ".safetensors":
        content = _unpickled(path, mapped=mapped and zipfile.is_zipfile(path))
        if isinstance(content, Mapping):
            wrapped = (content[key] for key in wrapped_in if key in content)
            content = next((inner for inner in wrapped if isinstance(inner, Mapping)), content)
        return _tensors(content, path)
    try:
        with files.plain_path(path) as named:
            return safetensors.torch.load_file(named)
    except (SafetensorError, OSError) as error:
        raise CorruptFile(path, str(error)) from None


def read_shapes(path: Path, root: Path, *, wrapped_in: Sequence[str] = ()) -> dict[str, torch.Size]:
    """Names and shapes of what `read_weights` reads, without reading it, where that is possible."""
    if path.suffix != ".safetensors":
        weights = read_weights(path, root, wrapped_in=wrapped_in, mapped=True)
        return {name: tensor.shape for name, tensor in weights.items()}
    check_place(path, root)
    try:
        with files.plain_path(path) as named, safe_open(named, framework="pt") as file:
            return {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptFile(path, str(error)) from None


def check_place(path: Path, root: Path) -> None:
    """Raises UntrustedFile for what is outside of `root`, CorruptFile for no file, NotReadable."""
    if not resolved(path).is_relative_to(resolved(root)):
        raise UntrustedFile(path, f"it leads out of {root}; copy the file to where its link stands")
    if not path.is_file():
        raise CorruptFile(path, "it is not a file" if path.exists() else "the file is missing")
    if not os.access(path, os.R_OK):
        raise not_readable(path)


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) over names, dtypes, shapes and bytes, in order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def root_of(folder: Path) -> Path:
    """Where a folder's files may lie: in it; in the hub's cache they are links to its blobs."""
    cached = folder.absolute().parent
    if cached.name == "snapshots" and (cached.parent / "blobs").is_dir():
        return cached.parent
    return folder


def _unpickled(path: Path, *, mapped: bool) -> Any:
    _check_not_packed(path)
    try:
        # timm's training script keeps its options, a plain Namespace, beside the weights
        with (
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(),
            files.plain_path(path) as named,
        ):
            warnings.simplefilter("ignore")
            return torch.load(named, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UntrustedFile(path, _reason(error)) from None
    except Exception as error:  # what a damaged file makes torch raise is of any kind
        first = str(error).partition("\n")[0].partition(". ")[0]  # sentence
        why = f"no weights of PyTorch ({first or type(error).__name__})"
        raise CorruptFile(path, why) from None


def _check_not_packed(path: Path) -> None:
    """torch.save packs nothing; what is packed could unfold to any size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [item for item in archive.infolist() if item.compress_type]
    except Exception as error:
        raise CorruptFile(path, f"no weights of PyTorch ({error})") from None
    if packed:
        raise UntrustedFile(path, f"{packed[0].filename} is compressed, which PyTorch never does")


def _reason(error: pickle.UnpicklingError) -> str:
    """What torch calls no plain data, out of a page of advice to load it all the same."""
    for line in str(error).splitlines():
        for mark in ("unsupported GLOBAL ", "Unsupported global: GLOBAL "):
            _, marked, rest = line.partition(mark)
            if marked:
                return f"reading it would run code: it names {rest.split()[0]}"
    return "it is no plain state dict of tensors, and reading it otherwise could run code"


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Dense tensors by name. Raises CorruptFile for anything else."""
    if not isinstance(content, Mapping) or not content:
        raise CorruptFile(path, f"it holds a {type(content).__name__}, not tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CorruptFile(path, f"{name!r} is a {type(value).__name__}, not a tensor")
        if encodable(name) != name:
            raise CorruptFile(path, f"a tensor is called {name!r}, which is no text in UTF-8")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise CorruptFile(path, f"{name} is not a dense tensor")
        # a view can claim any size of a few bytes
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CorruptFile(path, f"{name} claims more numbers than the file has")
    return dict(content)
