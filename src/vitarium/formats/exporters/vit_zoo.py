"""The published zoo of vision transformers, written: what `vit_zoo` reads."""

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vitarium.blueprint import Imported, Recipe, Spec
from vitarium.core import files
from vitarium.core.config import NoConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.filenames import collision_key, file_name
from vitarium.formats._published_keys import (
    MERGE_KEYS,
    OURS,
    is_contrastive,
    published_metric,
    to_published,
)
from vitarium.formats._ray_trials import WEIGHTS
from vitarium.formats.base import Chosen, exporter
from vitarium.formats.importers.vit_zoo import MODELS, PREFIX, structure
from vitarium.zoo import Epoch, Zoo

SOURCE = "vit_zoo"
_PUBLISHED = re.compile(r"(pretraining|finetuning/[^/]+)/[^/]+")


def refuses(config: NoConfig, zoo: Zoo, checkpoint: Chosen) -> str | None:
    """Why a model has no place in this layout; None where it has."""
    if zoo.spec(checkpoint.id).origin.architecture is None:
        return "it came as tensors that nothing here builds; --exporter safetensors takes any model"
    return None


@exporter("vit_zoo", config=NoConfig, refuses=refuses, paper="Falk et al. 2025, arXiv 2504.10231")
def vit_zoo(config: NoConfig, zoo: Zoo, models: Sequence[Chosen], out: Path) -> Iterator[Path]:
    """The published zoo of ViTs: pretraining/MODEL and finetuning/PRETRAINED/MODEL, every epoch.

    Of a model that is asked for after one epoch, all kept epochs are written. What the published
    configurations have no key for stands under `vitarium::`, so that importing gives it back.
    """
    paths = _PublishedPaths(zoo)
    for id in dict.fromkeys(checkpoint.id for checkpoint in models):
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
            name = self._name(id)
            self._paths[id] = f"{name}-{id[:8]}" if collision_key(name) in self._taken else name
            self._taken.add(collision_key(self._paths[id]))
        return self._paths[id]

    def _name(self, id: str) -> str:
        spec = self.zoo.spec(id)
        if _is_published(spec):
            return spec.origin.described()["name"]
        if spec.parent is None:
            return f"pretraining/{id}"
        there = self.zoo.folder(spec.parent).exists
        parent = self.of(spec.parent).rpartition("/")[2] if there else spec.parent
        return f"finetuning/{parent}/{id}"


def _is_published(spec: Spec) -> bool:
    """Whether it came from this layout, so that its settings are a configuration of it; and by a
    name that can be a folder's again."""
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
    contrastive = is_contrastive(config)
    with (folder / "result.json").open("w", encoding="utf-8") as file:
        for epoch in epochs:
            line = _line(epoch, contrastive)
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


def _line(epoch: Epoch, contrastive: bool) -> dict[str, Any]:
    """What Ray would write of an epoch; NaN as null, as it does."""
    return {
        **{
            published_metric(name, contrastive=contrastive): None if math.isnan(value) else value
            for name, value in epoch.metrics.items()
        },
        "training_iteration": epoch.number,
    }


def _configuration(zoo: Zoo, id: str, paths: _PublishedPaths) -> dict[str, Any]:
    spec, about = zoo.spec(id), zoo.folder(id).about()
    config = to_published(_factors(spec))
    if not _is_published(spec):
        config = {**_described(zoo, id, paths), **config}
    if spec.stage != paths.of(id).partition("/")[0]:
        config[f"{OURS}stage"] = spec.stage
    if about.classes:
        config[f"{OURS}classes"] = list(about.classes)
    if spec.operator:
        operator_and_ingredients = (
            spec.operator.factors(),
            [ref._asdict() for ref in spec.ingredients],
        )
        config |= {
            f"{OURS}{name}": value
            for name, value in zip(MERGE_KEYS, operator_and_ingredients, strict=True)
        }
    return {**config, **_not_recovered(zoo, id, config)}


def _factors(spec: Spec) -> Mapping[str, Any]:
    """Generating factors by dotted name, without architecture and head."""
    origin = spec.origin
    if isinstance(origin, Imported):
        return origin.settings
    structure_factors = ("architecture", "head")
    described = origin.described()
    return {
        key: described[key] for key in described if key.partition(".")[0] not in structure_factors
    }


def _described(zoo: Zoo, id: str, paths: _PublishedPaths) -> dict[str, Any]:
    """The published keys that tell a model's name, structure and parent, as far as they can."""
    spec, about = zoo.spec(id), zoo.folder(id).about()
    origin = spec.origin
    name = origin.name if isinstance(origin, Imported) else id
    kinds = {timm: kind for kind, timm in MODELS.items()}
    kind = (
        kinds.get(getattr(origin.architecture.config, "model", "")) if origin.architecture else None
    )
    head = origin.head.config if origin.head else None
    config = {
        "model::name": name,
        **({"model::type": kind} if kind else {}),
        "model::o_dim": about.num_outputs,
        "model::head::mlp": hasattr(head, "hidden_dim"),
        "model::head::hidden_dim": getattr(head, "hidden_dim", None),
        "model::head::seed": getattr(head, "seed", None),
    }
    drawn = origin.initialization if isinstance(origin, Recipe) else None
    if drawn and getattr(drawn.config, "bias", None) == 0.01:  # the one that they have
        config["model::init_type"] = drawn.name
    if spec.parent:
        parent = paths.of(spec.parent) if zoo.folder(spec.parent).exists else spec.parent
        config["pretraining::model"] = parent.rpartition("/")[2]
        config["pretraining::model::path"] = (
            f"{parent}/{_checkpoint(spec.parent_epoch or 0)}/{WEIGHTS}"
        )
    return config


def _not_recovered(zoo: Zoo, id: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture and head, where an importer would not find just them."""
    origin = zoo.spec(id).origin
    shapes = {name: tensor.shape for name, tensor in zoo.state_dict(id).items()}
    missing = {
        f"{OURS}architecture": origin.architecture.factors() if origin.architecture else None,
        f"{OURS}head": origin.head.factors() if origin.head else None,
    }
    try:
        architecture, head, _ = structure(config, shapes)
    except InvalidInput:
        return missing
    recovered = {f"{OURS}architecture": architecture, f"{OURS}head": head}
    actual = {f"{OURS}architecture": origin.architecture, f"{OURS}head": origin.head}
    return {key: value for key, value in missing.items() if recovered[key] != actual[key]}
