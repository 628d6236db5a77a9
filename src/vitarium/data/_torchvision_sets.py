"""The data sets of torchvision that have a class for each image: their splits, sizes and labels."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vitarium.data import _torchvision_content as content
from vitarium.data._torchvision_content import Content


@dataclass(frozen=True)
class TorchvisionSet:
    """A class of `torchvision.datasets`."""

    read: Callable[[Any], Content]
    num_classes: int | None
    argument: str
    """By which the class chooses a split; "": it has none, and one is made here."""
    splits: tuple[str, str | None, str] = ("train", None, "test")
    """What it calls the splits for training, validation (None: there is none) and testing."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Number of images by split, for all that can be chosen; "" where there are no splits."""
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Further arguments, each with the values that it takes, its default first; no values: any."""
    downloads: bool = True
    """Whether torchvision can get it, and it is no hundred gigabytes."""
    classes: tuple[str, ...] = ()
    """Names of the classes, where the object does not tell."""
    first_label: int = 0
    numbers: Mapping[tuple[str, Any], tuple[int | None, Mapping[str, int]]] = field(
        default_factory=dict
    )
    """num_classes and images where an option has another value than its default."""

    def value(self, split: str) -> Any:
        """Of the argument, for a split."""
        return split == "train" if self.argument == "train" else split

    def counts(self, options: Mapping[str, Any]) -> tuple[int | None, Mapping[str, int]]:
        """Number of classes, and of images by split, with these options."""
        for key, counts in self.numbers.items():
            if options.get(key[0]) == key[1]:
                return counts
        return self.num_classes, self.images


def _by_train(num_classes: int, train: int, test: int, **facts: Any) -> TorchvisionSet:
    images = {"train": train, "test": test}
    return TorchvisionSet(content.pixels, num_classes, "train", images=images, **facts)


def _by_split(
    read: Callable[[Any], Content], num_classes: int, images: Mapping[str, int], **facts: Any
) -> TorchvisionSet:
    val = next((name for name in ("val", "valid") if name in images), None)
    test = "test" if "test" in images else val
    names = ("train" if "train" in images else "trainval", None if val == test else val, test)
    facts = {"splits": names, **facts}
    return TorchvisionSet(read, num_classes, "split", images=images, **facts)


def _whole(
    read: Callable[[Any], Content], num_classes: int, images: int, **facts: Any
) -> TorchvisionSet:
    return TorchvisionSet(read, num_classes, "", images={"": images}, **facts)


def _numbers(names: Iterable[str], *counts: int) -> dict[str, int]:
    return dict(zip(names, counts, strict=True))


_DIGITS = tuple("0123456789")
_PARTS = ("train", "val", "test")
_AIRCRAFT = _numbers(("train", "val", "trainval", "test"), 3334, 3333, 6667, 3333)
_EMNIST = {
    name: (classes, _numbers(("train", "test"), *counts))
    for name, classes, counts in (
        ("byclass", 62, (697932, 116323)),
        ("bymerge", 47, (697932, 116323)),
        ("balanced", 47, (112800, 18800)),
        ("letters", 27, (124800, 20800)),
        ("digits", 10, (240000, 40000)),
        ("mnist", 10, (60000, 10000)),
    )
}
_FACES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

SETS: Mapping[str, TorchvisionSet] = {
    "CIFAR10": _by_train(10, 50000, 10000),
    "CIFAR100": _by_train(100, 50000, 10000),
    "CLEVRClassification": _by_split(
        content.lists,
        8,
        _numbers(("train", "val"), 70000, 15000),
        downloads=False,
        classes=tuple(map(str, range(3, 11))),
        first_label=3,
    ),
    "Caltech101": _whole(content.caltech("101_ObjectCategories", "image_{1:04d}.jpg"), 101, 8677),
    "Caltech256": _whole(
        content.caltech("256_ObjectCategories", "{0:03d}_{1:04d}.jpg"), 257, 30607
    ),
    "Country211": _by_split(
        content.samples, 211, _numbers(("train", "valid", "test"), 31650, 10550, 21100)
    ),
    "DTD": _by_split(
        content.lists,
        47,
        _numbers(_PARTS, 1880, 1880, 1880),
        options={"partition": tuple(range(1, 11))},
    ),
    "EMNIST": TorchvisionSet(
        content.pixels,
        47,
        "train",
        images=_EMNIST["balanced"][1],
        options={"split": ("balanced", *(name for name in _EMNIST if name != "balanced"))},
        numbers={("split", name): counts for name, counts in _EMNIST.items()},
    ),
    "EuroSAT": _whole(content.samples, 10, 27000),
    "FER2013": _by_split(
        content.fer2013,
        7,
        _numbers(("train", "test"), 28709, 7178),
        downloads=False,
        classes=_FACES,
    ),
    "FGVCAircraft": _by_split(
        content.lists,
        100,
        _AIRCRAFT,
        options={"annotation_level": ("variant", "family", "manufacturer")},
        numbers={
            ("annotation_level", "family"): (70, _AIRCRAFT),
            ("annotation_level", "manufacturer"): (30, _AIRCRAFT),
        },
    ),
    "FakeData": _whole(
        content.items, 10, 1000, options={"size": (), "image_size": (), "random_offset": ()}
    ),
    "FashionMNIST": _by_train(10, 60000, 10000),
    "Flowers102": _by_split(content.lists, 102, _numbers(_PARTS, 1020, 1020, 6149)),
    "Food101": _by_split(content.lists, 101, _numbers(("train", "test"), 75750, 25250)),
    "GTSRB": _by_split(content.samples, 43, _numbers(("train", "test"), 26640, 12630)),
    "INaturalist": TorchvisionSet(
        content.inaturalist,
        10000,
        "version",
        ("2021_train", None, "2021_valid"),
        _numbers(("2021_train", "2021_train_mini", "2021_valid"), 2686843, 500000, 100000),
        downloads=False,
    ),
    "ImageNet": _by_split(
        content.samples, 1000, _numbers(("train", "val"), 1281167, 50000), downloads=False
    ),
    "Imagenette": _by_split(
        content.samples,
        10,
        _numbers(("train", "val"), 9469, 3925),
        options={"size": ("full", "320px", "160px")},
    ),
    "KMNIST": _by_train(10, 60000, 10000),
    "MNIST": _by_train(10, 60000, 10000),
    "OxfordIIITPet": _by_split(content.lists, 37, _numbers(("trainval", "test"), 3680, 3669)),
    "PCAM": _by_split(content.pcam, 2, _numbers(_PARTS, 262144, 32768, 32768)),
    "Places365": _by_split(
        content.samples,
        365,
        _numbers(("train-standard", "train-challenge", "val"), 1803460, 8026628, 36500),
        splits=("train-standard", None, "val"),
        options={"small": (False, True)},
        downloads=False,
    ),
    "QMNIST": TorchvisionSet(
        content.qmnist,
        10,
        "what",
        images=_numbers(("train", "test", "test10k", "test50k"), 60000, 60000, 10000, 50000),
    ),
    "RenderedSST2": _by_split(content.samples, 2, _numbers(_PARTS, 6920, 872, 1821)),
    "SEMEION": _whole(content.pixels, 10, 1593, classes=_DIGITS),
    "STL10": _by_split(
        content.pixels,
        10,
        _numbers(("train", "test"), 5000, 8000),
        options={"folds": (None, *range(10))},
        numbers={("folds", n): (10, _numbers(("train", "test"), 1000, 8000)) for n in range(10)},
    ),
    "SUN397": _whole(content.sun397, 397, 108754, downloads=False),
    "SVHN": _by_split(
        content.pixels,
        10,
        _numbers(("train", "extra", "test"), 73257, 531131, 26032),
        classes=_DIGITS,
    ),
    "StanfordCars": _by_split(
        content.samples, 196, _numbers(("train", "test"), 8144, 8041), downloads=False
    ),
    "USPS": _by_train(10, 7291, 2007, classes=_DIGITS),
}
"""By name of the class; numbers of images are those of the published files."""

_KINDS_OF_LABELS = {
    "boxes or masks around objects": "CocoDetection VOCDetection VOCSegmentation Cityscapes "
    "SBDataset WIDERFace Kitti",
    "sentences": "CocoCaptions SBU Flickr8k Flickr30k",
    "several attributes of an image": "CelebA",
    "optical flow": "KittiFlow Sintel FlyingChairs FlyingThings3D HD1K",
    "depth, of two cameras": "Kitti2012Stereo Kitti2015Stereo CarlaStereo Middlebury2014Stereo "
    "CREStereo FallingThingsStereo SceneFlowStereo SintelStereo InStereo2k ETH3DStereo",
    "whether two images are of the same thing": "LFWPairs PhotoTour",
}
REFUSED: Mapping[str, str] = {
    **{
        name: f"its labels are {kind}, not a class of each image"
        for kind, names in _KINDS_OF_LABELS.items()
        for name in names.split()
    },
    **dict.fromkeys(
        ("Kinetics", "UCF101", "HMDB51", "MovingMNIST"), "it has videos, and models take images"
    ),
    **dict.fromkeys(
        ("LFWPeople", "Omniglot"), "the classes of its test images are not those it trains on"
    ),
    **dict.fromkeys(
        ("LSUN", "LSUNClass"),
        "it is an LMDB database; unpack its images and use the data set 'image_folder'",
    ),
    **dict.fromkeys(
        ("ImageFolder", "DatasetFolder"), "use vitarium's own data set 'image_folder' for folders"
    ),
    "VisionDataset": "it is a base class, and no data set",
}
"""Classes of torchvision.datasets that are no data sets here, and why."""
