"""Data sets of the Hugging Face hub, or local parquet files of the same form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from vitarium.core.errors import DataNotFound, InvalidData, InvalidInput
from vitarium.core.hub_faults import hub_fault
from vitarium.data._image_files import RULES, decoded
from vitarium.data.base import DataFolders, Dataset, OwnDataConfig, Split, dataset
from vitarium.data.splits import with_splits


class HuggingFace(OwnDataConfig):
    """A hub data set by name, or a folder with train.parquet, test.parquet, perhaps val.parquet."""

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
    """Column that holds the class of each image."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) == (self.folder is None):
            raise ValueError("give either dataset (a name on the hub) or folder (of parquet files)")
        return self


@dataset("hf")
def hf(config: HuggingFace, folders: DataFolders) -> Dataset:
    """A data set of the Hugging Face hub, or local parquet files (needs the extra `hf`)."""
    parts = _parts(config, folders)
    val = parts.get("validation", parts.get("val"))
    train, test = parts.get("train"), parts.get("test")
    if train is None or (test is None and val is None):
        raise InvalidData(
            f"{config.dataset or config.folder} has the splits {', '.join(sorted(parts))}; "
            "train, and test or validation, are needed"
        )
    if test is None:  # as in image folders: what there is beside train/ is for tests
        test, val = val, None
    training = _split(train, config)
    names = getattr(train.features[config.label_column], "names", None)
    numbered = tuple(map(str, range(int(training.labels.max()) + 1)))
    return with_splits(
        "hf",
        names or numbered,
        config,
        train=training,
        val=_split(val, config) if val is not None else None,
        test=_split(test, config),
        mean=config.mean,
        std=config.std,
    )


def _parts(config: HuggingFace, folders: DataFolders) -> Any:
    try:
        import datasets
    except ImportError:
        raise InvalidInput("data set 'hf' needs: pip install 'vitarium[hf]'") from None
    if config.dataset:
        try:
            # Said outright: datasets 3 asks on the terminal whether to run a repository's code.
            named = (config.dataset, config.config_name)
            return datasets.load_dataset(*named, trust_remote_code=False)
        except Exception as error:  # the library raises what its transports raise
            fault = hub_fault(error)
            raise DataNotFound(f"cannot get '{config.dataset}' from the hub: {fault}") from None
    root = folders.find(str(config.folder))
    files = {path.stem: str(path) for path in sorted(root.glob("*.parquet"))} if root else {}
    if not files:
        looked = ", ".join(str(folder / str(config.folder)) for folder in folders.all)
        raise DataNotFound(f"no parquet files in {looked}")
    for path in files.values():
        _check_parquet(path, config)
    cache = str(folders.writable / "hf-cache")
    try:
        return datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
    except Exception as error:  # the library raises what Arrow raises
        reason = _first_line(error.__cause__ or error)
        raise InvalidData(f"cannot read the parquet files of {root}: {reason}") from None


def _check_parquet(path: str, config: HuggingFace) -> None:
    """Raises InvalidData that names a broken file, or a missing column."""
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidData(f"{path} cannot be read as parquet: {_first_line(error)}") from None
    _check_columns(names, config, path)


def _check_columns(names: Sequence[str], config: HuggingFace, where: str) -> None:
    for setting in ("image_column", "label_column"):
        if (column := getattr(config, setting)) not in names:
            there = f"there are {', '.join(names)}; name it with the setting {setting}"
            raise InvalidData(f"no column '{column}' in {where}; {there}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


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


def _split(part: Any, config: HuggingFace) -> Split:
    import datasets

    _check_columns(part.column_names, config, f"'{config.dataset or config.folder}'")
    only = part.select_columns([config.label_column]).with_format("numpy")
    numbers = np.asarray(only[config.label_column][:])
    for row, label in enumerate(numbers.tolist() if numbers.dtype.kind in "fO" else ()):
        if label is None or label != label:  # NaN is not itself
            raise InvalidData(f"row {row} of column '{config.label_column}' is empty")
    if numbers.dtype.kind not in "iub":
        kind = getattr(part.features[config.label_column], "dtype", numbers.dtype)
        raise InvalidData(f"column '{config.label_column}' holds {kind}, not numbers of classes")
    labels = torch.from_numpy(numbers.astype(np.int64))
    encoded = part.select_columns([config.image_column])
    encoded = encoded.cast_column(config.image_column, datasets.Image(decode=False))
    return Split(Rows(encoded, config.image_column), labels)
