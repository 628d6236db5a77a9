"""What the data sets of torchvision have in common: found in a data folder, else downloaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vitarium.core.errors import DataNotFound
from vitarium.core.parameters import parameter
from vitarium.core.registry import get
from vitarium.data.base import DataConfig, DataFolders, Dataset, Split
from vitarium.data.splits import with_splits

# torchvision's ways to say that files are missing (the first), damaged or cut short
UNREADABLE = (RuntimeError, ValueError, AssertionError, EOFError)


def load_torchvision(
    name: str,
    class_name: str,
    config: DataConfig,
    folders: DataFolders,
    *,
    unpack: Callable[[Path], None] | None = None,
    also: str = "",
) -> Dataset:
    """Read both parts of a class of torchvision's, downloading them if no folder has them; mean and
    deviation are those that the data set is registered with.

    Args:
        unpack: called before anything is downloaded, to fill a data folder from this machine.
        also: another way to get it, for the message of DataNotFound.
    """
    from torchvision import datasets

    source, facts = getattr(datasets, class_name), get("dataset", name).facts
    parts = next((parts for f in folders.all if (parts := _read(source, f))), None)
    if parts is None:
        target = folders.writable
        try:
            if unpack:
                unpack(target)
                parts = _read(source, target)
            if parts is None and not folders.may_download:
                raise FileNotFoundError("it was not to be downloaded")
            if parts is None:
                train = source(root=target, train=True, download=True)
                parts = train, source(root=target, train=False, download=True)
        except (OSError, *UNREADABLE) as error:
            looked, fault = ", ".join(map(str, folders.all)), " ".join(str(error).split())
            raise DataNotFound(
                f"data set '{name}' is not in {looked}, and getting it failed ({fault}). Copy "
                "torchvision's files into one of these folders, or name their folder: "
                f"{parameter('data_dir', 'DIR')} or VITARIUM_DATA.{' ' + also if also else ''}"
            ) from None
    looks = {"mean": facts["mean"], "std": facts["std"]}
    return with_splits(name, parts[0].classes, config, *map(_split, parts), **looks)


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
