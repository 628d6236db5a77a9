"""What the data sets of torchvision have in common: found in a data folder, else downloaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vitarium.core.errors import DataNotFound
from vitarium.data.base import DataConfig, DataFolders, Dataset, Split
from vitarium.data.splits import with_splits

# torchvision's ways to say that files are missing (the first), damaged or cut short
UNREADABLE = (RuntimeError, ValueError, AssertionError, EOFError)


def load_torchvision(
    name: str,
    source: Callable[..., Any],
    config: DataConfig,
    folders: DataFolders,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    unpack: Callable[[Path], None] | None = None,
    also: str = "",
) -> Dataset:
    """Read both parts of torchvision's class `source`, downloading them if no folder has them.

    Args:
        unpack: called before anything is downloaded, to fill a data folder from this machine.
        also: another way to get it, for the message of DataNotFound.
    """
    parts = next((parts for f in folders.all if (parts := _read(source, f))), None)
    if parts is None:
        target = folders.writable
        try:
            if unpack:
                unpack(target)
                parts = _read(source, target)
            if parts is None:
                train = source(root=target, train=True, download=True)
                parts = train, source(root=target, train=False, download=True)
        except (OSError, *UNREADABLE) as error:
            looked, fault = ", ".join(map(str, folders.all)), " ".join(str(error).split())
            raise DataNotFound(
                f"data set '{name}' is not in {looked}, and getting it failed ({fault}). Copy "
                "torchvision's files into one of these folders, or name theirs with --data-dir "
                f"or VITARIUM_DATA.{' ' + also if also else ''}"
            ) from None
    return with_splits(name, parts[0].classes, config, *map(_split, parts), mean=mean, std=std)


def _read(source: Callable[..., Any], folder: Path) -> tuple[Any, Any] | None:
    try:
        return source(root=folder, train=True), source(root=folder, train=False)
    except UNREADABLE:
        return None


def _split(part: Any) -> Split:
    pixels = torch.as_tensor(part.data)
    # [n, h, w] or [n, h, w, c] -> [n, c, h, w]
    images = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.as_tensor(part.targets).long())
