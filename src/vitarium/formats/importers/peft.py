"""Adapters of peft -> a zoo: LoRA merged into the model of the zoo that it was trained from."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Size as Shape

from vitarium.architectures.heads import head_prefix
from vitarium.blueprint import Imported, Recipe
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import Config
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section
from vitarium.formats._peft_adapter import CONFIG, Adapter, AdapterConfig
from vitarium.formats.base import ForeignEpoch, ForeignModel, importer
from vitarium.formats.importers._structure import last_height
from vitarium.zoo import Zoo


class PeftFolder(Config):
    """What the adapters change, and what the zoo calls them."""

    base: str = ""
    """The model of the zoo that they were trained from: its id or the beginning of it, or
    `ID@EPOCH`; its last kept epoch by default."""
    stage: str = "imported"
    """Stage of the imported models in the zoo's tables."""


class _Base(NamedTuple):
    """A model of the zoo that adapters change."""

    checkpoint: CheckpointRef
    origin: Recipe | Imported
    num_outputs: int
    classes: tuple[str, ...]
    shapes: dict[str, Shape]
    head: frozenset[str]
    """Names of its head's tensors, and of the head with which its architecture comes."""


def detects(source: Path) -> bool:
    return bool(_folders(source))


@importer("peft", detects=detects, needs_zoo=True, paper="Hu et al. 2022, arXiv 2106.09685")
def peft_folders(config: PeftFolder, source: Path, zoo: Zoo) -> Iterator[ForeignModel]:
    """LoRA of peft, merged into its base: an adapter's folder, or a folder of such folders.

    Raises InvalidInput that names the file and the tensor for what does not fit the base, and for
    what is no plain LoRA.
    """
    folders = _folders(source) or [source]
    if not config.base:
        what = f"{folders[0]} changes a model, which has to be in the zoo"
        raise InvalidInput(f"{what}: name it: {parameter('base', 'ID')}")
    base = _base(zoo, zoo.at(config.base))
    for folder in folders:
        yield _model(folder, config.stage, zoo, base)


def _folders(source: Path) -> list[Path]:
    direct = source / CONFIG
    files = [direct] if direct.is_file() else sorted(source.glob(f"*/{CONFIG}"))
    return [file.parent for file in files]


def _base(zoo: Zoo, checkpoint: CheckpointRef) -> _Base:
    folder = zoo.folder(checkpoint.model)
    origin, about = folder.spec().origin, folder.about()
    adaptation = getattr(origin, "adaptation", None)
    if adaptation and adaptation.facts.get("adds_modules"):
        what = f"the base {checkpoint} has layers that '{adaptation.name}' added"
        raise InvalidInput(f"{what}, and no plain model has them; name another one")
    tensors = zoo.checkpoint(*checkpoint).tensors
    shapes = {name: Shape(tensor.shape) for name, tensor in tensors.items()}
    names = [*shapes, *_names_in(origin.architecture, about.num_outputs)]
    prefix = _head_prefix(origin.architecture)
    head = frozenset(name for name in names if prefix and name.startswith(prefix))
    return _Base(checkpoint, origin, about.num_outputs, about.classes, shapes, head)


def _names_in(architecture: Section | None, num_outputs: int) -> list[str]:
    """Of the tensors with which the architecture comes."""
    if architecture is None:
        return []
    with meta_device():
        return list(architecture(num_outputs).state_dict())


def _head_prefix(architecture: Section | None) -> str:
    if architecture is None:
        return ""
    with meta_device():
        return f"{head_prefix(architecture(1))}."


def _model(folder: Path, stage: str, zoo: Zoo, base: _Base) -> ForeignModel:
    adapter = Adapter.read(folder, base.shapes, base.head)
    new = {name: adapter.shapes[stored] for name, stored in adapter.replaced.items()}
    new_head = {name: shape for name, shape in new.items() if name in base.head}
    fits = all(base.shapes.get(name) == shape for name, shape in new_head.items())
    dropped = frozenset[str]() if fits else base.head
    shapes = {n: shape for n, shape in base.shapes.items() if n not in dropped} | new
    # a head of other layers than the base's is that with which the architecture comes
    same_layers = fits or new_head.keys() == base.head & base.shapes.keys()
    return ForeignModel(
        name=folder.resolve().name,
        stage=stage,
        epochs=[
            ForeignEpoch(0, {}, partial(_weights, adapter, zoo, base, dropped), lambda: shapes)
        ],
        num_outputs=base.num_outputs if fits else last_height(new_head),
        base=base.checkpoint,
        architecture=base.origin.architecture,
        head=base.origin.head if same_layers else None,
        settings=_settings(adapter.config),
        classes=() if new_head else base.classes,
        where=str(adapter.config_file),
    )


def _weights(adapter: Adapter, zoo: Zoo, base: _Base, dropped: frozenset[str]) -> dict[str, Any]:
    return adapter.merged(zoo.state_dict(*base.checkpoint), dropped)


def _settings(config: AdapterConfig) -> dict[str, Any]:
    """Under our names, but for the layers, which peft counts otherwise than as matrices."""
    return {
        "adaptation": "lora",
        "adaptation.rank": config.r,
        "adaptation.alpha": config.lora_alpha,
        "adaptation.target_modules": config.target_modules,
    }
