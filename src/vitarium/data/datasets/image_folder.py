"""Any data set of image files in one folder per class: ImageNet, Imagenette, your own."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitarium.core.errors import DataNotFound, InvalidData
from vitarium.core.printable import encodable
from vitarium.data.base import DataFolders, Dataset, OwnDataConfig, Split, dataset
from vitarium.data.splits import with_splits


class ImageFolder(OwnDataConfig):
    """A folder with train/, val/ and perhaps test/, each with one folder of images per class;
    without test/, val/ is the test split, and validation images are taken from train/."""

    folder: str
    """Below one of the data folders, or an absolute path."""


@dataset("image_folder")
def image_folder(config: ImageFolder, folders: DataFolders) -> Dataset:
    """Image files in train/, val/ and test/, one folder per class; decoded when they are needed."""
    root = folders.find(config.folder)
    if root is None:
        looked = ", ".join(str(folder / config.folder) for folder in folders.all)
        raise DataNotFound(
            f"image folder '{config.folder}' is not there; looked for {looked}. It has to hold "
            "train/CLASS/*.jpg and val/CLASS/*.jpg; name its parent with --data-dir or "
            "VITARIUM_DATA"
        )
    names = [part for part in ("train", "val", "test") if (root / part).is_dir()]
    parts = {part: _read(root / part) for part in names}
    if lacking := [part for part in ("train", "val") if part not in parts]:
        missing = f"{root} has no folder '{lacking[0]}'"
        raise DataNotFound(f"{missing} with one folder of images per class")
    classes, train = parts["train"]
    for part, (its_classes, _) in parts.items():
        if its_classes != classes:
            differing = sorted(set(its_classes) ^ set(classes))[:5]
            raise InvalidData(f"{root / part} and {root / 'train'} differ in classes: {differing}")
    has_test = "test" in parts
    return with_splits(
        "image_folder",
        classes,
        config,
        train=train,
        val=parts["val"][1] if has_test else None,
        test=parts["test" if has_test else "val"][1],
        mean=config.mean,
        std=config.std,
    )


@dataclass(frozen=True)
class Files:
    paths: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def fingerprint(self) -> str:
        """Changes with the files, told by their names, sizes and times."""
        digest = hashlib.sha256()
        for path in self.paths:
            about = Path(path).stat()
            digest.update(os.fsencode(f"{path}/{about.st_size}/{about.st_mtime_ns}\n"))
        return digest.hexdigest()

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image
        from torchvision.transforms.v2.functional import pil_to_tensor

        path = self.paths[index]
        try:
            with Image.open(path) as image:
                return pil_to_tensor(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:  # PIL's, for what is no image
            raise InvalidData(f"{path} cannot be decoded: {error}") from None


def _read(part: Path) -> tuple[tuple[str, ...], Split]:
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    try:
        names, numbers = find_classes(part)
        samples = make_dataset(part, numbers, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise InvalidData(f"{part}: {error}") from None
    labels = torch.tensor([label for _, label in samples], dtype=torch.long)
    return tuple(map(encodable, names)), Split(Files([path for path, _ in samples]), labels)
