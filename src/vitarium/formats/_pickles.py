"""Pickles of PyTorch as data: tensors, numbers, texts and their containers; nothing is ever run.

`torch.load(weights_only=True)` refuses a whole file for one object beside the weights: a NumPy
score, a path, Lightning's hyper-parameters. Such a file is read a second time, and every class or
function that it names and torch does not allow by itself is then an `_Inert` class: no module is
imported for it, and what the pickle would call gives an empty object. Only torch's own unpickler
reads.
"""

import pickle
import pickletools
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vitarium.core import files
from vitarium.core.errors import CorruptFile, UntrustedFile

_LEGACY_PICKLES = 5  # one after the other: magic number, protocol, system, content, storages
_MARK = "_inert_name"
_REMEDY = "save the model's state_dict() alone"


class _InertType(type):
    """Calling such a class, as pickles do with functions, gives an opaque object of it."""

    def __call__(cls, *arguments: Any) -> Any:
        if cls.__name__ == "collections.defaultdict":  # the one function that gives a dictionary
            return OrderedDict()
        opaque: Any = cls
        return object.__new__(opaque)


class _Inert(metaclass=_InertType):
    """Stands for the class or function whose name it has."""

    def __new__(cls, *arguments: Any) -> Any:
        """A new object of a class, which torch fills with items and attributes."""
        value: OrderedDict[str, Any] = OrderedDict()
        value.__dict__[_MARK] = cls.__name__
        return value

    def __setstate__(self, state: Any) -> None:
        """Drop what an opaque object would be filled with."""


def unpickled(path: Path, *, mapped: bool) -> Any:
    """What a file of torch.save, or a plain pickle, holds: nested containers of plain values and
    tensors, with inert objects for all else. Raises UntrustedFile and CorruptFile.

    Args:
        mapped: leave tensors (of PyTorch from 1.6) on disk until they are used.
    """
    _check_archive(path)
    with files.plain_path(path) as named, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {"map_location": "cpu", "mmap": mapped}
        try:
            return torch.load(named, weights_only=True, **options)
        except pickle.UnpicklingError as error:
            reason = _reason(error)
        except Exception as error:  # what a damaged file makes torch raise is of any kind
            first = str(error).partition("\n")[0].partition(". ")[0]  # sentence
            why = f"no weights of PyTorch ({first or type(error).__name__})"
            raise CorruptFile(path, why) from None
        try:
            inert: list[Any] = [
                (_InertType(name, (_Inert,), {}), name) for name in _names_in(Path(named))
            ]
            with torch.serialization.safe_globals(inert):
                return torch.load(named, weights_only=True, **options)
        except Exception as error:
            raise UntrustedFile(path, _reason(error) or reason or _NOT_PLAIN) from None


_NOT_PLAIN = "it is no plain state dict of tensors, and reading it otherwise could run code"


def inert_name(value: Any) -> str | None:
    """The class or function that an inert object stands for; None for plain data."""
    if isinstance(value, _InertType):
        return value.__name__
    if isinstance(value, _Inert):
        return type(value).__name__
    name = vars(value).get(_MARK) if type(value) is OrderedDict else None
    return name if isinstance(name, str) else None


def runs_code(name: str) -> str:
    return f"reading it would run code: it names {name}; {_REMEDY}"


def _names_in(path: Path) -> set[str]:
    """Dotted names of the classes and functions that a file names; allowed ones may be among them,
    for torch looks into its own list first."""
    if zipfile.is_zipfile(path):
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return set(_legacy_names(path))


def _legacy_names(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            try:
                for opcode, argument, _ in pickletools.genops(file):
                    if opcode.name == "GLOBAL":
                        module, name = str(argument).split(" ", 1)
                        yield f"{module}.{name}"
                        # protocol 2 has Python 2's names, some of which torch maps as pickle does
                        renamed = IMPORT_MAPPING.get(module, module), name
                        yield ".".join(NAME_MAPPING.get((module, name), renamed))
            except ValueError:  # what follows the last pickle is none
                return


def _check_archive(path: Path) -> None:
    """torch.save compresses nothing; what is compressed could unfold to any size."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            items = archive.infolist()
    except Exception as error:
        raise CorruptFile(path, f"no weights of PyTorch ({error})") from None
    if any(item.filename.endswith("/constants.pkl") for item in items):
        raise UntrustedFile(path, f"it is a TorchScript program, not weights alone; {_REMEDY}")
    if packed := [item for item in items if item.compress_type]:
        raise UntrustedFile(path, f"{packed[0].filename} is compressed, which PyTorch never does")


def _reason(error: Exception) -> str | None:
    """What torch calls no plain data, out of a page of advice to load it all the same."""
    for line in str(error).splitlines():
        for mark in ("unsupported GLOBAL ", "Unsupported global: GLOBAL "):
            _, marked, rest = line.partition(mark)
            if marked:
                return runs_code(rest.split()[0])
    return None
