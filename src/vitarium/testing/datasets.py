"""The contract of data sets."""

from pathlib import Path
from typing import Any

import torch

from vitarium.data.base import DataFolders, Dataset, Split
from vitarium.data.expected import expected, train_size
from vitarium.testing._rules import Contract

_LOOKED_AT = 200  # images of a split that are decoded, of data sets whose images are not tensors
_DUPLICATES = 0.01  # published data sets have a few images twice; splits that overlap have many


def check_dataset(name: str, data_dir: Path | None = None, **settings: Any) -> None:
    """Test that a data set keeps to its contract (`data/base.py`).

    Images of one number of channels, labels of its classes, splits that share no image, as many
    training images as a plan expects, test images that do not depend on the configuration, and the
    same splits when it is read again.

    Args:
        data_dir: a folder to look into first.

    Raises DataNotFound where the data set is not here and cannot be got.
    """
    rule = Contract("dataset", name, settings)
    section = rule.section
    folders = DataFolders(data_dir)
    data: Dataset = section(folders)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    for part, split in splits.items():
        _check_split(rule, data, part, split)
    if rule.facts["fixed"]:
        holds = all(isinstance(split.images, torch.Tensor) for split in splits.values())
        rule(holds, "the images of a fixed data set have to be tensors")

    train = _pictures(data.train)
    for part in ("val", "test"):
        pictures = _pictures(splits[part])
        share = sum(picture in train for picture in pictures) / len(pictures)
        rule(share <= _DUPLICATES, f"{share:.0%} of the {part} images are training images, too")

    planned = expected(section)
    if planned.num_classes is not None:
        rule(planned.num_classes == data.num_classes, f"it has {data.num_classes} classes")
    count = train_size(planned, section.config)
    if count is not None:
        rule(count == len(data.train), f"{len(data.train)} training images, {count} are expected")

    repeated: Dataset = section(folders)
    for part, split in splits.items():
        holds = torch.equal(split.labels, getattr(repeated, part).labels)
        rule(holds, f"read again, its {part} split is another")
    resplit: Dataset = section.plugin.function(
        section.config.changed({"split_seed": 9, "val_fraction": 0.3}), folders
    )
    holds = _pictures(resplit.test) == _pictures(data.test)
    rule(holds, "its test images depend on split_seed or val_fraction")


def _check_split(rule: Contract, data: Dataset, part: str, split: Split) -> None:
    rule(len(split) > 0, f"its {part} split is empty")
    rule(len(split.images) == len(split), f"{part}: as many images as labels are needed")
    if split.is_multilabel:
        holds = split.labels.dtype == torch.bool and split.labels.shape[1] == data.num_classes
        rule(holds, f"{part}: several labels have to be bool [n, {data.num_classes}]")
    else:
        kind = split.labels.dtype
        rule(kind == torch.int64, f"{part}: labels are {kind}, not int64")
        holds = bool(((split.labels >= 0) & (split.labels < data.num_classes)).all())
        rule(holds, f"{part}: a label is none of 0 to {data.num_classes - 1}")
    image = split.images[0]
    holds = image.dtype == torch.uint8 and image.ndim == 3
    rule(holds, f"{part}: images are {image.dtype} {tuple(image.shape)}, not uint8 [c, h, w]")
    rule(
        len(image) == len(data.mean) == len(data.std),
        f"{part}: {len(image)} channels, but mean has {len(data.mean)} and std {len(data.std)}",
    )


def _pictures(split: Split) -> set[bytes]:
    """What the images look like: all of a tensor, the first ones of others."""
    count = len(split) if isinstance(split.images, torch.Tensor) else min(len(split), _LOOKED_AT)
    return {split.images[index].numpy().tobytes() for index in range(count)}
