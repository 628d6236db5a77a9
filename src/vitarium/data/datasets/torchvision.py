"""The data sets of torchvision, by the names that they have there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor

from vitarium.core.config import InvalidConfig, Problem
from vitarium.core.errors import DataNotFound, InvalidData, did_you_mean
from vitarium.core.parameters import parameter
from vitarium.core.printable import brief, encodable
from vitarium.data._image_files import decoded
from vitarium.data._torchvision import UNREADABLE
from vitarium.data._torchvision_content import Content
from vitarium.data._torchvision_sets import REFUSED, SETS, TorchvisionSet
from vitarium.data.base import DataFolders, Dataset, Expected, OwnDataConfig, Split, dataset
from vitarium.data.datasets._class_folders import Files
from vitarium.data.splits import joined, with_splits, with_test_split

_SPLITS = ("train_split", "val_split", "test_split")


class Torchvision(OwnDataConfig, extra="allow"):
    """A class of `torchvision.datasets`; arguments of its own stand beside, e.g. `split: letters`
    of EMNIST. What is known of its published files need not be declared."""

    dataset: str
    """Name of the class, e.g. Flowers102."""
    train_split: str | None = None
    """What torchvision calls the split to train on, or several: train+val. None: its training
    split; of another one, validation images are taken from it unless val_split names some."""
    val_split: str | None = None
    """What torchvision calls the split to validate on; None: its validation split, and where it has
    none, validation images are taken from those for training."""
    test_split: str | None = None
    """What torchvision calls the split to test on; None: its test split, else its validation split,
    else a fixed fifth of each class."""

    @model_validator(mode="before")
    @classmethod
    def _check(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(values.get("dataset"), str):
            return values
        name, chosen = _by_name(values["dataset"])
        fields = {key: value for key, value in values.items() if key in cls.model_fields}
        options = {
            str(key).replace("-", "_"): value for key, value in values.items() if key not in fields
        }
        problems = [*_wrong_options(name, chosen, options), *_wrong_splits(name, chosen, fields)]
        if problems:
            raise InvalidConfig(problems)
        defaults = {key: allowed[:1] for key, allowed in chosen.options.items()}
        options = {key: value for key, value in options.items() if (value,) != defaults[key]}
        return {**fields, "dataset": name, **options}

    @property
    def source(self) -> TorchvisionSet:
        return SETS[self.dataset]

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of its own."""
        required = {key: allowed[0] for key, allowed in self.source.options.items() if allowed}
        return {**required, **(self.model_extra or {})}

    @property
    def parts(self) -> tuple[list[str], list[str], list[str]]:
        """What torchvision calls the splits to train, validate (there may be none) and test on."""
        train, val, test = self.source.splits
        if self.train_split and self.train_split != train:
            val = None
        names = (self.train_split or train, self.val_split or val, self.test_split or test)
        train_names, val_names, test_names = (name.split("+") if name else [] for name in names)
        return train_names, val_names, test_names

    def expected(self) -> Expected:
        """What is known of the published files."""
        num_classes, images = self.source.counts(self.options)
        if self.dataset == "FakeData":
            images = {"": self.options.get("size", images[""])}
        if not self.source.argument:
            return Expected(num_classes, images[""] - images[""] // 5, None)
        train, val, _ = (sum(images[name] for name in names) for names in self.parts)
        return Expected(num_classes, train, val or None)


def _by_name(text: str) -> tuple[str, TorchvisionSet]:
    """Raises InvalidConfig for a class that there is not, or that has no class for each image."""
    by_letters = {_letters(name): name for name in (*SETS, *REFUSED)}
    name = by_letters.get(_letters(text), text)
    if name in REFUSED:
        raise InvalidConfig([Problem(("dataset",), f"{name} cannot be used: {REFUSED[name]}")])
    if name not in SETS:
        hint = did_you_mean(text, SETS, len(SETS))
        fault = f"torchvision has no data set of images with classes called {brief(text)}{hint}"
        raise InvalidConfig([Problem(("dataset",), fault)])
    return name, SETS[name]


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _wrong_options(
    name: str, chosen: TorchvisionSet, options: Mapping[str, Any]
) -> Sequence[Problem]:
    problems = []
    for key, value in options.items():
        if key not in chosen.options:
            settings = (*chosen.options, *Torchvision.model_fields)
            fault = f"{name} has no argument '{key}'{did_you_mean(key, settings)}"
            problems.append(Problem((key,), fault))
        elif (allowed := chosen.options[key]) and value not in allowed:
            listed = ", ".join(map(str, allowed))
            problems.append(Problem((key,), f"{brief(value)} is none of {listed}"))
        elif not allowed and (fault := _wrong_number(key, value)):
            problems.append(Problem((key,), f"{brief(value)} is {fault}"))
    return problems


def _wrong_number(key: str, value: Any) -> str:
    """What an argument of FakeData is not; "": it is right."""
    if key == "image_size":
        sides = value if isinstance(value, list | tuple) and len(value) == 3 else [0]
        is_size = all(type(side) is int and side > 0 for side in sides) and sides[0] in (1, 3)
        return "" if is_size else "no size of images, such as [3, 32, 32]"
    least = 5 if key == "size" else 0
    return "" if type(value) is int and value >= least else f"no number from {least}"


def _wrong_splits(
    name: str, chosen: TorchvisionSet, fields: Mapping[str, Any]
) -> Sequence[Problem]:
    problems = []
    used: dict[str, str] = {}
    for key, default in zip(_SPLITS, chosen.splits, strict=True):
        if (text := fields.get(key)) is None:
            if key == "val_split" and fields.get("train_split") not in (None, chosen.splits[0]):
                continue
            text = default or ""
        elif not chosen.argument:
            problems.append(Problem((key,), f"{name} has no splits; leave it out"))
            continue
        for part in str(text).split("+") if text and chosen.argument else ():
            if part not in chosen.images:
                fault = f"{brief(part)} is no split of {name}{did_you_mean(part, chosen.images)}"
                problems.append(Problem((key,), fault))
            elif other := next((o for p, o in used.items() if _overlap(p, part)), None):
                problems.append(Problem((key,), f"{part} shares images with {other}"))
            used.setdefault(part, key)
    return problems


def _overlap(first: str, second: str) -> bool:
    """Whether two splits share images: the same, or one within the other, as in trainval."""
    return first in second or second in first


@dataset(
    "torchvision",
    expected=Torchvision.expected,
    tiny={"dataset": "FakeData", "size": 60, "image_size": [3, 16, 16]},
)
def torchvision(config: Torchvision, folders: DataFolders) -> Dataset:
    """A data set of torchvision with a class for each image: Flowers102, OxfordIIITPet, DTD, ..."""
    part_names = [names for names in config.parts if names] if config.source.argument else [[""]]
    objects = _objects(config, folders, part_names)
    splits = [joined([_split(config, each) for each in part]) for part in objects]
    if not config.source.argument:
        splits = [*with_test_split(splits[0].images, splits[0].labels)]
    train, *between, test = splits
    classes = _classes(config, objects[0][0], train.labels)
    _check_complete(config, len(classes), len(train))
    return with_splits(
        "torchvision",
        classes,
        config,
        train=train,
        val=between[0] if between else None,
        test=test,
        mean=config.mean,
        std=config.std,
    )


def _objects(config: Torchvision, folders: DataFolders, parts: list[list[str]]) -> list[list[Any]]:
    """torchvision's objects of the splits with these names; it gets them where no folder has them.

    Raises DataNotFound.
    """
    from torchvision import datasets

    make = getattr(datasets, config.dataset)

    def read(folder: Path, **download: bool) -> list[list[Any]]:
        return [[make(**_arguments(config, folder, n), **download) for n in part] for part in parts]

    fault = ""
    for folder in folders.all:
        try:
            return read(folder)
        except (OSError, *UNREADABLE) as error:
            fault = fault or str(error)
    try:
        if config.source.downloads and folders.may_download:
            return read(folders.writable, download=True)
    except (OSError, *UNREADABLE) as error:
        fault = f"getting it failed: {error}"
    looked, call = ", ".join(map(str, folders.all)), f"torchvision.datasets.{config.dataset}"
    raise DataNotFound(
        f"data set '{config.dataset}' is not in {looked} ({' '.join(fault.split())}). Put its "
        f"files there as {call} reads them, or name their folder: {parameter('data_dir', 'DIR')} "
        "or VITARIUM_DATA"
    )


def _arguments(config: Torchvision, folder: Path, split: str) -> dict[str, Any]:
    source = config.source
    if config.dataset == "FakeData":
        classes = {} if config.num_classes is None else {"num_classes": config.num_classes}
        return {**config.options, **classes}
    chosen = {source.argument: source.value(split)} if source.argument else {}
    return {"root": folder, **chosen, **config.options}


def _split(config: Torchvision, data: Any) -> Split:
    content = config.source.read(data)
    if any(label is None for label in content.labels):  # FER2013's test.csv
        fault = "there are images without labels; use the files that have them"
        raise InvalidData(f"data set '{config.dataset}': {fault}")
    labels = torch.as_tensor(content.labels).long() - config.source.first_label
    if content.pixels is not None:
        return Split(_colors(content.pixels), labels)
    if content.paths is not None:
        return Split(Files([*content.paths]), labels)
    return Split(_Items(content, config.dataset), labels)


def _colors(pixels: Tensor) -> Tensor:
    """uint8 [n, h, w], [n, h, w, 3] or [n, 3, h, w] -> [n, 3, h, w]; gray without a copy."""
    if pixels.ndim == 3:
        return pixels[:, None].expand(-1, 3, -1, -1)
    return pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class _Items:
    """Images that torchvision itself decodes."""

    content: Content
    name: str

    def __len__(self) -> int:
        return len(self.content.labels)

    def __getitem__(self, index: int) -> Tensor:
        image, _ = self.content.items[index]
        return decoded(image, f"image {index} of {self.name}")


def _classes(config: Torchvision, data: Any, labels: Tensor) -> tuple[str, ...]:
    """Names of the classes; their numbers where torchvision has no names."""
    names = config.source.classes
    for attribute in ("classes", "categories", "all_categories"):
        names = names or getattr(data, attribute, ())
    if names:  # of ImageNet, all synonyms, as on the Hugging Face hub
        joint = (name if isinstance(name, str) else ", ".join(name) for name in names)
        return tuple(map(encodable, joint))
    count = config.num_classes or config.expected().num_classes or int(labels.max()) + 1
    return tuple(map(str, range(count)))


def _check_complete(config: Torchvision, num_classes: int, num_train: int) -> None:
    """Raises InvalidData where there is less, or more, than a plan was made with."""
    published = config.expected()
    for name, count in (("num_classes", num_classes), ("num_train", num_train)):
        expected = getattr(published, name)
        if expected is not None and getattr(config, name) is None and count != expected:
            fault = f"{count:,}, where the published files have {expected:,}"
            raise InvalidData(
                f"data set '{config.dataset}': {name} is {fault}; get the missing files, or "
                f"declare what there is: {name}: {count}"
            )
