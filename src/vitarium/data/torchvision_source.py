"""What the data sets of torchvision have in common: found in a data folder, else downloaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitarium.data.dataset import DataConfig, DataFolders, Dataset, Split, with_splits
from vitarium.errors import DataNotFound


def load_torchvision(
    name: str,
    source: Callable[..., Any],
    config: DataConfig,
    folders: DataFolders,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    also: str = "",
) -> Dataset:
    """Read both parts of a torchvision data set, downloading them if no folder has them.

    Args:
        source: torchvision's class, called with root, train and download.
        also: another way to get it, for the error message.

    Raises DataNotFound.
    """
    root = _root(name, source, folders, also)
    train, test = (source(root=root, train=part) for part in (True, False))
    return with_splits(
        name,
        train.classes,
        config,
        train=_split(train),
        test=_split(test),
        mean=mean,
        std=std,
    )


def _root(name: str, source: Callable[..., Any], folders: DataFolders, also: str) -> Path:
    for folder in folders.all:
        try:
            source(root=folder, train=True)
            source(root=folder, train=False)
        except RuntimeError:  # torchvision's way to say that files are missing or damaged
            continue
        return folder
    try:
        source(root=folders.writable, train=True, download=True)
        source(root=folders.writable, train=False, download=True)
    except (OSError, RuntimeError) as error:
        looked, fault = ", ".join(map(str, folders.all)), " ".join(str(error).split())
        raise DataNotFound(
            f"data set '{name}' is not in {looked}, and the download failed ({fault}). "
            f"Copy torchvision's files into one of these folders, or name theirs with --data-dir "
            f"or VITARIUM_DATA.{' ' + also if also else ''}"
        ) from None
    return folders.writable


def _split(part: Any) -> Split:
    pixels = torch.as_tensor(part.data)
    return Split(_channels_first(pixels), torch.as_tensor(part.targets).long())


def _channels_first(pixels: Tensor) -> Tensor:
    """[n, h, w] or [n, h, w, c] -> [n, c, h, w]"""
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
