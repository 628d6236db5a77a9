"""A model's folder as hubs have it: config.json, and weights in one file or in shards."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vitarium.core.errors import CorruptFile, VitariumError
from vitarium.core.weight_suffixes import INDEX
from vitarium.formats._foreign_json import read_object
from vitarium.formats.weights import read_shapes, read_weights, root_of

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def model_folders(source: Path) -> list[Path]:
    """The folder if it is a model's, else those in it that are."""
    direct = source / CONFIG
    files = [direct] if direct.is_file() else sorted(source.glob(f"*/{CONFIG}"))
    return [file.parent for file in files]


def config_keys(folder: Path) -> set[str] | None:
    """Of its config.json; None for what cannot be read as a JSON object."""
    try:
        return set(read_object(folder / CONFIG))
    except (VitariumError, OSError):
        return None


def folder_weights(
    folder: Path, names: Sequence[str] = WEIGHTS, *, meta: bool = False
) -> dict[str, Tensor]:
    """All tensors of a model's folder, of the first of these files that is there, whole or in
    shards; on the meta device, if `meta`, where shapes alone are needed.

    Raises UntrustedFile, CorruptFile and InvalidInput.
    """
    for name in names:
        for file in (folder / f"{name}{INDEX}", folder / name):
            if file.is_file() and meta:
                shapes = read_shapes(file, root_of(folder))
                return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
            if file.is_file():
                return read_weights(file, root_of(folder))
    raise CorruptFile(folder, f"it has none of {', '.join(names)}")
