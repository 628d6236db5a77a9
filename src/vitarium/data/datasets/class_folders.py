"""Images that nobody has divided into splits: one folder per class, and nothing else."""

from vitarium.data.base import DataFolders, Dataset, OwnDataConfig, dataset
from vitarium.data.datasets._class_folders import read_classes
from vitarium.data.splits import with_splits, with_test_split


class ClassFolders(OwnDataConfig):
    """A folder with one folder of images per class; a fixed fifth of each class is for tests."""

    folder: str
    """Folder with the folders of the classes: below one of the data folders, or an absolute
    path."""


@dataset("class_folders")
def class_folders(config: ClassFolders, folders: DataFolders) -> Dataset:
    """A folder of image files without splits: one folder per class."""
    root = folders.require(config.folder, "folder", "CLASS/*.jpg")
    classes, images = read_classes(root)
    train, test = with_test_split(images.images, images.labels)
    mean, std = config.mean, config.std
    return with_splits("class_folders", classes, config, train, test, mean=mean, std=std)
