"""Data sets of the Hugging Face hub, or local parquet files of the same form."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn import functional as F

from vitarium.core.errors import DataNotFound, InvalidData, InvalidInput
from vitarium.core.hub_faults import hub_fault, quiet_hub
from vitarium.data._image_files import RULES, decoded
from vitarium.data.base import DataFolders, Dataset, OwnDataConfig, Split, dataset
from vitarium.data.datasets._arrow_copy import (
    Columns,
    check_columns,
    local_copy,
    multi_hot,
    split_of,
)
from vitarium.data.datasets._hub_files import hub_copy, hub_files
from vitarium.data.splits import with_splits

_PIECE = re.compile(r"(.+?)-\d+-of-\d+")
"""A parquet file that is one of several of a split, as the hub calls them."""
_VALIDATION = ("validation", "val")
LabeledSplit = tuple[Split, tuple[str, ...] | None]
"""A split, and the names of its classes where they are known."""
T = TypeVar("T")


class HuggingFace(OwnDataConfig):
    """A hub data set by name, or a folder of parquet files: train.parquet, test.parquet, perhaps
    val.parquet, or several of each, train-00000-of-00004.parquet."""

    dataset: str | None = None
    """Name of the data set on the hub, e.g. zh-plus/tiny-imagenet."""
    folder: str | None = None
    """Folder of parquet files to read in place of the hub: below one of the data folders, or an
    absolute path."""
    config_name: str | None = None
    """Name of the data set's configuration (subset) on the hub; none: its default."""
    image_column: str = "image"
    """Column that holds the images."""
    label_column: str = "label"
    """Column that holds the class of each image, or a list of its classes."""
    train_split: str = "train"
    """Split of the training images."""
    val_split: str | None = None
    """Split of the validation images; none: `validation` or `val`, if there is one."""
    test_split: str | None = None
    """Split of the test images; none: `test`, or where there is none, that of validation."""
    revision: str | None = None
    """Commit, tag or branch on the hub; none: the newest when it is first downloaded."""
    streaming: bool = False
    """Download parquet files one by one and keep each as an Arrow file alone, so that the disk
    holds the data once and memory a row group at most."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) == (self.folder is None):
            raise ValueError("give either dataset (a name on the hub) or folder (of parquet files)")
        if self.folder is not None and (self.streaming or self.revision is not None):
            raise ValueError("streaming and revision are of a dataset on the hub, not of a folder")
        return self


@dataset("hf")
def hf(config: HuggingFace, folders: DataFolders) -> Dataset:
    """A data set of the Hugging Face hub (needs the extra `hf`), or local parquet files."""
    splits = _splits(config, folders)
    training, names = splits["train"]
    parts = {part: split for part, (split, _) in splits.items()}
    if training.is_multilabel:
        count = len(names) if names else max(split.labels.shape[-1] for split in parts.values())
        parts = {part: _widened(split, count) for part, split in parts.items()}
    else:
        count = int(training.labels.max()) + 1
    return with_splits(
        "hf",
        names or tuple(map(str, range(count))),
        config,
        train=parts["train"],
        val=parts.get("val"),
        test=parts["test"],
        mean=config.mean,
        std=config.std,
    )


def _widened(split: Split, count: int) -> Split:
    """With a column of labels for each of `count` classes, where it has fewer: [n, count]"""
    if not split.is_multilabel:
        raise InvalidData("some splits have a list of classes for each image, and others a number")
    width = split.labels.shape[1]
    return Split(split.images, F.pad(split.labels, (0, count - width))) if width < count else split


def _splits(config: HuggingFace, folders: DataFolders) -> Mapping[str, LabeledSplit]:
    """By our names: train, test and perhaps val. What is none of them is not downloaded or read."""
    columns, copies = Columns(config.image_column, config.label_column), folders.writable / "arrow"
    if config.folder is not None:
        local = _chosen(config, _local_files(config.folder, folders))
        return {
            part: split_of([local_copy(file, columns, copies) for file in files])
            for part, files in local.items()
        }
    if not folders.may_download:
        raise DataNotFound(
            f"data set '{config.dataset}' is on the hub; it was not to be downloaded"
        )
    try:
        import datasets
    except ImportError:
        raise InvalidInput("data set 'hf' needs: pip install 'vitarium[hf]'") from None
    assert config.dataset is not None
    if config.streaming:
        listed = hub_files(config.dataset, config.config_name, config.revision, copies)
        return {
            part: split_of([hub_copy(address, columns, copies) for address in addresses])
            for part, addresses in _chosen(config, listed).items()
        }
    named = (config.dataset, config.config_name)
    options = {"revision": config.revision} if config.revision else {}
    try:  # said outright: no code of a repository is run
        with quiet_hub():
            loaded = datasets.load_dataset(*named, trust_remote_code=False, **options)
    except Exception as error:  # the library raises what its transports raise
        fault = hub_fault(error)
        raise DataNotFound(f"cannot get '{config.dataset}' from the hub: {fault}") from None
    return {part: _of_hub(rows, config) for part, rows in _chosen(config, loaded).items()}


def _chosen(config: HuggingFace, available: Mapping[str, T]) -> dict[str, T]:
    """What there is, by our names of splits. Raises InvalidData where one is missing."""
    names = {
        "train": config.train_split,
        "val": config.val_split or next((n for n in _VALIDATION if n in available), None),
        "test": config.test_split or ("test" if "test" in available else None),
    }
    if names["test"] is None or (config.val_split is None and names["test"] == names["val"]):
        # as in image folders: what there is beside training images is for tests
        names["test"], names["val"] = names["test"] or names["val"], None
    missing = [name for name in names.values() if name is not None and name not in available]
    if missing or names["test"] is None:
        raise InvalidData(
            f"{config.dataset or config.folder} has the splits {', '.join(sorted(available))}; "
            "train, and test or validation, are needed: name them with the settings train_split, "
            "val_split and test_split"
        )
    return {part: available[name] for part, name in names.items() if name is not None}


def _local_files(folder: str, folders: DataFolders) -> Mapping[str, list[Path]]:
    """Parquet files of a folder, or of `data` in it as on the hub, by split and in order."""
    root = folders.find(folder)
    for inner in [root, root / "data"] if root else []:
        if files := sorted(inner.glob("*.parquet")):
            splits: dict[str, list[Path]] = {}
            for file in files:
                piece = _PIECE.fullmatch(file.stem)
                splits.setdefault(piece[1] if piece else file.stem, []).append(file)
            return splits
    looked = ", ".join(str(data_folder / folder) for data_folder in folders.all)
    raise DataNotFound(f"no parquet files in {looked}")


@dataclass(frozen=True)
class Rows:
    rows: Any
    column: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fingerprint(self) -> str | None:
        rows_fingerprint = getattr(self.rows, "_fingerprint", None)
        return rows_fingerprint and f"{rows_fingerprint}/{self.column}/{RULES!r}"

    def __getitem__(self, index: int) -> Tensor:
        name = f"row {index} of column '{self.column}'"
        image = self.rows[index][self.column]
        if image is None:
            raise InvalidData(f"{name} is empty")
        return decoded(image["path"] if image["bytes"] is None else image["bytes"], name)


def _of_hub(part: Any, config: HuggingFace) -> LabeledSplit:
    import datasets

    columns = Columns(config.image_column, config.label_column)
    check_columns(part.column_names, columns, f"'{config.dataset}'")
    encoded = part.select_columns([config.image_column])
    encoded = encoded.cast_column(config.image_column, datasets.Image(decode=False))
    images = Rows(encoded, config.image_column)
    feature = part.features[config.label_column]
    if isinstance(feature, list | datasets.List | datasets.LargeList):
        inside = feature[0] if isinstance(feature, list) else feature.feature
        return Split(images, _several(part, config)), _names(inside)
    only = part.select_columns([config.label_column]).with_format("numpy")
    numbers = np.asarray(only[config.label_column][:])
    for row, label in enumerate(numbers.tolist() if numbers.dtype.kind in "fO" else ()):
        if label is None or label != label:  # NaN is not itself
            raise InvalidData(f"row {row} of column '{config.label_column}' is empty")
    if numbers.dtype.kind not in "iub":
        kind = getattr(feature, "dtype", numbers.dtype)
        raise InvalidData(f"column '{config.label_column}' holds {kind}, not numbers of classes")
    return Split(images, torch.from_numpy(numbers.astype(np.int64))), _names(feature)


def _several(part: Any, config: HuggingFace) -> Tensor:
    """Labels of images that have lists of them: bool [n, classes]"""
    rows = part.select_columns([config.label_column])[config.label_column][:]
    column = f"column '{config.label_column}'"
    for row, labels in enumerate(rows):
        if labels is None or any(type(label) is not int for label in labels):
            raise InvalidData(f"row {row} of {column} has no list of numbers of classes")
    return multi_hot(rows, column)


def _names(feature: Any) -> tuple[str, ...] | None:
    names = getattr(feature, "names", None)
    return names and tuple(names)
