"""Folders of Hugging Face's transformers with a ViT or a DINOv2 in them -> a zoo."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from vitarium.core import files
from vitarium.core.config import Config
from vitarium.core.errors import CorruptFile, InvalidInput, UntrustedFile
from vitarium.core.registry import choose
from vitarium.formats._names import KINDS, architecture, to_timm
from vitarium.formats.base import ForeignEpoch, ForeignModel, importer
from vitarium.formats.weights import check_place, read_weights, root_of

_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL's numbers
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class HuggingFaceFolder(Config):
    """What the zoo calls what is imported."""

    stage: str = "imported"
    """What the models' stage is called."""


def detects(source: Path) -> bool:
    return any(_kind(folder) in KINDS for folder in _folders(source))


@importer("hugging_face", detects=detects)
def hugging_face(config: HuggingFaceFolder, source: Path) -> Iterator[ForeignModel]:
    """Hugging Face's ViT and DINOv2: a model's folder (config.json, weights), or one of such.

    Logits are those of ViTForImageClassification and Dinov2ForImageClassification; a bare ViTModel
    or Dinov2Model becomes a model without a head, whose output is the class token after the last
    norm (a pooler is left out). Raises InvalidInput for a model of another kind.
    """
    for folder in _folders(source):
        if folder == source or _kind(folder) in KINDS:
            yield _model(folder, config.stage)


def _folders(source: Path) -> list[Path]:
    """The folder if it is a model's, else those in it that are."""
    if (source / "config.json").is_file():
        return [source]
    return sorted(file.parent for file in source.glob("*/config.json"))


def _kind(folder: Path) -> str | None:
    try:
        listed = _read(folder / "config.json").get("architectures")
    except (CorruptFile, UntrustedFile, AttributeError):
        return None
    return str(listed[0]) if isinstance(listed, list) and listed else None


def _model(folder: Path, stage: str) -> ForeignModel:
    config, kind = _read(folder / "config.json"), _kind(folder)
    if kind not in KINDS:
        raise InvalidInput(f"{folder} holds a {kind}; what can be imported: {', '.join(KINDS)}")
    classes: tuple[str, ...] = ()
    if not kind.endswith("Model"):
        # in the order of the labels; the library leaves out the two it takes for granted
        names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
        classes = tuple(str(names[number]) for number in sorted(names, key=int))
    try:
        built_by = architecture(config, KINDS[kind], headless=not classes)
    except InvalidInput as error:
        raise InvalidInput(f"{folder / 'config.json'}: {error}") from None
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{folder / 'config.json'} is not that of a {kind}: {error}") from None
    return ForeignModel(
        name=folder.resolve().name,
        stage=stage,
        epochs=[ForeignEpoch(0, {}, partial(_weights, folder))],
        num_outputs=len(classes) or config["hidden_size"],
        architecture=built_by,
        head=None if classes else choose("head", "none"),
        settings=_preparation(folder),
        classes=classes,
        where=str(folder / "config.json"),
    )


def _preparation(folder: Path) -> dict[str, Any]:
    """How images are prepared, under our names; nothing where the folder does not say."""
    file = folder / "preprocessor_config.json"
    processor = _read(file) if file.is_file() else {}
    settings: dict[str, Any] = {}
    if processor.get("do_normalize", True) and {"image_mean", "image_std"} <= processor.keys():
        settings |= {"data.mean": processor["image_mean"], "data.std": processor["image_std"]}
    if processor.get("resample") in _RESAMPLE:
        settings["augmentation.interpolation"] = _RESAMPLE[processor["resample"]]
    size = processor.get("size")
    if isinstance(size, dict) and isinstance(size.get("shortest_edge"), int):
        settings["augmentation.resize"] = size["shortest_edge"]
    return settings


def _weights(folder: Path) -> dict[str, Tensor]:
    root = root_of(folder)
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            listed = _read(index)
            shards = set(listed["weight_map"].values()) if "weight_map" in listed else set()
            if not shards or any(Path(shard).name != shard for shard in shards):
                raise CorruptFile(index, "its weight_map does not name files of this folder")
            weights: dict[str, Tensor] = {}
            for shard in sorted(shards):
                weights |= read_weights(folder / shard, root)
            return to_timm(weights)
        if (folder / name).is_file():
            return to_timm(read_weights(folder / name, root))
    raise CorruptFile(folder, f"it has none of {', '.join(_WEIGHTS)}")


def _read(file: Path) -> Any:
    """Raises UntrustedFile where a link leads out of the folder, and CorruptFile."""
    check_place(file, root_of(file.parent))
    return files.read_json(file)
