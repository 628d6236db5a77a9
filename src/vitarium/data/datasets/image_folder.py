"""Any data set of image files in one folder per class: ImageNet, Imagenette, your own."""

from vitarium.core.errors import DataNotFound, InvalidData
from vitarium.data.base import DataFolders, Dataset, OwnDataConfig, dataset
from vitarium.data.datasets._class_folders import read_classes
from vitarium.data.splits import with_splits


class ImageFolder(OwnDataConfig):
    """A folder with train/, val/ and perhaps test/, each with one folder of images per class;
    without test/, val/ is the test split, and validation images are taken from train/."""

    folder: str
    """Folder with the splits train, val and test: below one of the data folders, or an absolute
    path."""


@dataset("image_folder")
def image_folder(config: ImageFolder, folders: DataFolders) -> Dataset:
    """A folder of image files: train/, val/ and test/, each with one folder per class."""
    content = "train/CLASS/*.jpg and val/CLASS/*.jpg"
    root = folders.require(config.folder, "image folder", content)
    there = [part for part in ("train", "val", "test") if (root / part).is_dir()]
    parts = {part: read_classes(root / part) for part in there}
    if lacking := [part for part in ("train", "val") if part not in parts]:
        missing = f"{root} has no folder '{lacking[0]}'"
        raise DataNotFound(f"{missing} with one folder of images per class")
    classes, train = parts["train"]
    for part in parts:
        for complete, lacking_some in (("train", part), (part, "train")):
            if names := sorted({*parts[complete][0]} - {*parts[lacking_some][0]}):
                listed = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
                where = f"{root / lacking_some} has no folder of {listed}"
                raise InvalidData(f"{where}; {root / complete} has")
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
