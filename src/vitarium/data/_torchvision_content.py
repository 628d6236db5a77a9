"""What torchvision's objects hold: where their images are, and their labels."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Labels = Sequence[int] | Tensor


class Content(NamedTuple):
    """Of an object of a torchvision class: images, as one of the first three, and labels [n]."""

    labels: Labels
    paths: Sequence[str] | None = None
    """Of the files of the images."""
    pixels: Tensor | None = None
    """uint8 [n, h, w], [n, h, w, c] or [n, 3, h, w]."""
    items: Any = None
    """Anything whose items are pairs of an image of Pillow's and its label."""


def pixels(data: Any) -> Content:
    """Of those that are read as arrays."""
    labels = data.labels if hasattr(data, "labels") else data.targets
    return Content(labels, pixels=torch.as_tensor(data.data))


def qmnist(data: Any) -> Content:
    """Whose labels have more columns than the class."""
    return Content(data.targets[:, 0], pixels=data.data)


def lists(data: Any) -> Content:
    """Of those with a list of files, and one of labels."""
    files = data._images if hasattr(data, "_images") else data._image_files
    return Content(data._labels, paths=[*map(str, files)])


def samples(data: Any) -> Content:
    """Of those with pairs of a file and its label."""
    for name in ("samples", "_samples", "imgs"):
        if samples := getattr(data, name, None):
            return Content(
                [label for _, label in samples], paths=[str(path) for path, _ in samples]
            )
    return Content([], paths=[])


def _sorted(content: Content) -> Content:
    """In the order of the paths: some classes have that in which a folder lists its files."""
    assert content.paths is not None
    order = sorted(range(len(content.paths)), key=content.paths.__getitem__)
    return Content([int(content.labels[n]) for n in order], [content.paths[n] for n in order])


def sun397(data: Any) -> Content:
    """In the order of the paths."""
    return _sorted(lists(data))


def inaturalist(data: Any) -> Content:
    """In the order of the paths."""
    paths = [f"{data.root}/{data.all_categories[label]}/{name}" for label, name in data.index]
    return _sorted(Content([label for label, _ in data.index], paths))


def caltech(folder: str, name: str) -> Callable[[Any], Content]:
    """Of those with the numbers of each class's images; `name` of a file is made of the numbers of
    its class (from 1) and of itself."""

    def read(data: Any) -> Content:
        pairs = zip(data.y, data.index, strict=True)
        names = (f"{data.categories[y]}/{name.format(y + 1, number)}" for y, number in pairs)
        return Content(data.y, paths=[f"{data.root}/{folder}/{name}" for name in names])

    return read


def pcam(data: Any) -> Content:
    """Whose arrays lie in HDF5 files."""
    with data.h5py.File(data._base_folder / data._FILES[data._split]["targets"][0]) as file:
        labels = [int(label) for label in file["y"][:, 0, 0, 0]]
    return Content(labels, items=data)


def fer2013(data: Any) -> Content:
    """Whose images are lines of a table."""
    pixels, labels = zip(*data._samples, strict=True)
    return Content(labels, pixels=torch.stack(pixels))


def items(data: Any) -> Content:
    """Of those that make their images up."""
    return Content([int(data[number][1]) for number in range(len(data))], items=data)
