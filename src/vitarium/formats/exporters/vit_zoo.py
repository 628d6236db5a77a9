"""The published zoo of vision transformers, written: what `vit_zoo` reads."""

import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vitarium.blueprint import Imported, Recipe, Spec, flatten
from vitarium.core import files
from vitarium.core.config import NoConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.filenames import collision_key, file_name
from vitarium.formats import _published_keys as published
from vitarium.formats._published_keys import OURS
from vitarium.formats._ray_trials import WEIGHTS
from vitarium.formats.base import Checkpoints, exporter, refuses_additions
from vitarium.formats.importers.vit_zoo import MODELS, PREFIX, structure
from vitarium.zoo import Zoo

SOURCE = "vit_zoo"
_PUBLISHED = re.compile(r"(pretraining|finetuning/[^/]+)/[^/]+")


@exporter(
    "vit_zoo",
    refuses=refuses_additions,
    paper="Falk et al. 2025, arXiv 2504.10231",
)
def vit_zoo(config: NoConfig, zoo: Zoo, models: Checkpoints, out: Path) -> Iterator[Path]:
    """The published ViT zoo's layout, all epochs: pretraining/MODEL and finetuning/PARENT/MODEL.

    Of a model that is asked for after one epoch, all kept epochs are written. What the published
    configurations have no key for stands under `vitarium::`, so that importing gives it back.
    """
    paths = _PublishedPaths(zoo)
    for id in dict.fromkeys(checkpoint.model for checkpoint in models):
        folder = out / paths.of(id)
        folder.mkdir(parents=True)
        _write(zoo, id, folder, paths)
        yield folder


class _PublishedPaths:
    """The folder of each model: the published name of one that has it, else by its id."""

    def __init__(self, zoo: Zoo) -> None:
        self.zoo = zoo
        self._paths: dict[str, str] = {}
        self._taken: set[str] = set()
        """Keys of names that are used, as case-insensitive file systems compare them."""

    def of(self, id: str) -> str:
        """`pretraining/NAME`, or `finetuning/NAME OF ITS PARENT/NAME`."""
        if id not in self._paths:
            spec = self.zoo.spec(id)
            if _is_published(spec):
                path: str = spec.described()["name"]
            elif spec.parent is None:
                path = f"pretraining/{id}"
            else:
                path = f"finetuning/{self.of_parent(spec).rpartition('/')[2]}/{id}"
            self._paths[id] = f"{path}-{id[:8]}" if collision_key(path) in self._taken else path
            self._taken.add(collision_key(self._paths[id]))
        return self._paths[id]

    def of_parent(self, spec: Spec) -> str:
        """The parent's path; its id where it is not in the zoo."""
        parent = spec.parent or ""
        return self.of(parent) if self.zoo.folder(parent).exists else parent


def _is_published(spec: Spec) -> bool:
    """Whether it came from this layout, by a name that can be a folder's again."""
    origin = spec.origin
    return (
        isinstance(origin, Imported)
        and origin.source == SOURCE
        and spec.operator is None
        and bool(_PUBLISHED.fullmatch(origin.name))
        and all(part == file_name(part) for part in origin.name.split("/"))
    )


def _write(zoo: Zoo, id: str, folder: Path, paths: _PublishedPaths) -> None:
    model = zoo.folder(id)
    epochs, config = model.epochs(), _configuration(zoo, id, paths)
    text = json.dumps(config, indent=4, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    contrastive = published.is_contrastive(config)
    with (folder / "result.json").open("w", encoding="utf-8") as file:
        for epoch in epochs:  # as Ray writes it: NaN is null
            line: dict[str, Any] = {
                published.published_metric(k, contrastive=contrastive): None if math.isnan(v) else v
                for k, v in epoch.metrics.items()
            }
            line["training_iteration"] = epoch.number
            line["done"] = epoch is epochs[-1] and model.status == "finished"
            file.write(json.dumps(line) + "\n")
    for epoch in epochs:
        if epoch.checkpoint:
            checkpoint_folder = folder / _checkpoint(epoch.number)
            checkpoint_folder.mkdir()
            weights = model.weights(epoch.number)
            content = io.BytesIO()  # of a disk that is full, torch says nothing of use
            torch.save({f"{PREFIX}{name}": tensor for name, tensor in weights.items()}, content)
            files.write(checkpoint_folder / WEIGHTS, [content.getbuffer()])


def _checkpoint(number: int) -> str:
    return f"checkpoint_{number:06d}"


def _configuration(zoo: Zoo, id: str, paths: _PublishedPaths) -> dict[str, Any]:
    spec, about = zoo.spec(id), zoo.folder(id).about()
    if isinstance(spec.origin, Imported):
        factors: Mapping[str, Any] = spec.origin.settings
    else:
        described, structural = flatten(spec.origin.factors()), ("architecture", "head")
        factors = {k: v for k, v in described.items() if k.partition(".")[0] not in structural}
    config = published.to_published({k: v for k, v in factors.items() if k not in spec.differing})
    if not _is_published(spec):
        config = {**_described(spec, about.num_outputs, paths), **config}
    if spec.stage != paths.of(id).partition("/")[0]:
        config[f"{OURS}stage"] = spec.stage
    numbers = {epoch.number for epoch in zoo.folder(id).epochs()}
    if spec.initial_epoch != (0 if 0 in numbers else None):  # what an importer would take it for
        config[f"{OURS}initial_epoch"] = spec.initial_epoch
    if about.classes:
        config[f"{OURS}classes"] = list(about.classes)
    if spec.operator:
        operator_key, ingredients_key = published.MERGE_KEYS
        config[f"{OURS}{operator_key}"] = spec.operator.factors()
        config[f"{OURS}{ingredients_key}"] = [ref._asdict() for ref in spec.ingredients]
    return {**config, **_not_recovered(zoo, id, config)}


def _described(spec: Spec, num_outputs: int, paths: _PublishedPaths) -> dict[str, Any]:
    """The published keys that tell a model's name, structure and parent, as far as they can."""
    origin = spec.origin
    timm_name = getattr(origin.architecture.config, "model", "") if origin.architecture else ""
    kinds = {timm: kind for kind, timm in MODELS.items()}
    head = origin.head.config if origin.head else None
    config = {
        "model::name": origin.name if isinstance(origin, Imported) else spec.id,
        **({"model::type": kinds[timm_name]} if timm_name in kinds else {}),
        "model::o_dim": num_outputs,
        "model::head::mlp": hasattr(head, "hidden_dim"),
        "model::head::hidden_dim": getattr(head, "hidden_dim", None),
        "model::head::seed": getattr(head, "seed", None),
    }
    drawn = origin.initialization if isinstance(origin, Recipe) else None
    if drawn and getattr(drawn.config, "bias", None) == 0.01:  # the one that they have
        config["model::init_type"] = drawn.name
    if spec.parent:
        parent = paths.of_parent(spec)
        checkpoint = f"{_checkpoint(spec.parent_epoch or 0)}/{WEIGHTS}"
        config["pretraining::model"] = parent.rpartition("/")[2]
        config["pretraining::model::path"] = f"{parent}/{checkpoint}"
    return config


def _not_recovered(zoo: Zoo, id: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture and head, where an importer would not find just them."""
    origin = zoo.spec(id).origin
    actual = {f"{OURS}architecture": origin.architecture, f"{OURS}head": origin.head}
    missing = {key: section and section.factors() for key, section in actual.items()}
    shapes = {name: tensor.shape for name, tensor in zoo.state_dict(id).items()}
    try:
        architecture, head, _ = structure(config, shapes)
    except InvalidInput:
        return missing
    recovered = {f"{OURS}architecture": architecture, f"{OURS}head": head}
    return {key: value for key, value in missing.items() if recovered[key] != actual[key]}
