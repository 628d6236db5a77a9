"""Folders with one folder of images per class, as data sets read them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from vitarium.core.errors import InvalidData
from vitarium.core.printable import encodable
from vitarium.data._image_files import RULES, decoded, image_files, visible_folders
from vitarium.data.base import Split


@dataclass(frozen=True)
class Files:
    """Images of files, decoded when they are asked for."""

    thread_safe: ClassVar = True
    paths: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def fingerprint(self) -> str:
        """Changes with the files, told by their names, sizes and times."""
        digest = hashlib.sha256(RULES)
        for path in self.paths:
            about = Path(path).stat()
            digest.update(os.fsencode(f"{path}/{about.st_size}/{about.st_mtime_ns}\n"))
        return digest.hexdigest()

    def __getitem__(self, index: int) -> Tensor:
        return decoded(self.paths[index], self.paths[index])


def read_classes(folder: Path) -> tuple[tuple[str, ...], Split]:
    """Names of the classes, each a folder in this one, and their images.

    Raises InvalidData for a class without images.
    """
    names = visible_folders(folder)
    if not names:
        raise InvalidData(f"{folder} has no folders of classes: images lie in {folder}/CLASS/")
    by_class = [image_files(folder / name) for name in names]
    if empty := [name for name, paths in zip(names, by_class, strict=True) if not paths]:
        raise InvalidData(f"{folder / empty[0]} has no image files; remove it, or fill it")
    labels = [label for label, paths in enumerate(by_class) for _ in paths]
    paths = [path for paths in by_class for path in paths]
    return tuple(map(encodable, names)), Split(Files(paths), torch.tensor(labels))
