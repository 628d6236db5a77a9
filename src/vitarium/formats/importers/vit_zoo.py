"""The published zoo of vision transformers (Falk et al. 2025, arXiv 2504.10231), read.

    pretraining/<model>/{config.json, result.json, checkpoint_000NNN/checkpoints}
    finetuning/<pretrained model>/<model>/...

Each model is a trial of Ray Tune (see `ray_trials`). Its weights are those of a module whose timm
model is the attribute `vit`, so every name begins with `vit.`.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vitarium.core.devices import meta_device
from vitarium.core.errors import CorruptFile, InvalidInput, did_you_mean
from vitarium.core.registry import Section, choose, plugins, section
from vitarium.formats._foreign_json import check_arguments
from vitarium.formats._published_keys import OURS, to_ours
from vitarium.formats._ray_trials import Trial, Trials, is_trial, read_trial
from vitarium.formats.base import ForeignModel, importer
from vitarium.formats.importers._structure import Shapes
from vitarium.formats.weights import read_shapes

PREFIX = "vit."
MODELS: Mapping[str, str] = {
    f"vit_{short}_{patch}": f"vit_{size}_patch{patch}_224"
    for short, size in (("ti", "tiny"), ("s", "small"), ("b", "base"), ("l", "large"))
    for patch in (16, 32)
    if (short, patch) != ("ti", 32)
} | {"vit_s_8": "vit_small_patch8_224", "vit_b_8": "vit_base_patch8_224"}
"""`model::type` -> timm's name."""
PARENT_PATHS = ("pretraining::model::path", "pretrained::model::path")
"""Where a configuration says what it starts from; the second is the published README's."""
STRUCTURE = ("architecture", "head", "classes", "stage", "initial_epoch")
"""What an export writes with `vitarium::` where the published keys do not tell it."""
_T = TypeVar("_T", Tensor, torch.Size)


def is_vit_zoo(source: Path) -> bool:
    return any(True for _ in _folders(source))


@importer("vit_zoo", detects=is_vit_zoo, paper="Falk et al. 2025, arXiv 2504.10231")
def vit_zoo(config: Trials, source: Path) -> Iterator[ForeignModel]:
    """The published ViT zoo's layout: pretraining/MODEL and finetuning/PARENT/MODEL."""
    read = (read_trial(folder, source, config) for folder in _folders(source))
    trials = {trial.name: trial for trial in read}
    for trial in trials.values():
        yield _model(trial, trials)


def structure(config: Mapping[str, Any], shapes: Shapes) -> tuple[Section, Section | None, int]:
    """Architecture, head and number of outputs: from `model::type`, and from the weights' shapes by
    timm's names. Raises InvalidInput and InvalidConfig."""
    head_of_weights, num_outputs = _head(config, shapes)
    value = config.get(f"{OURS}head", head_of_weights)
    check_arguments({"head": value}, "its configuration")
    head = section("head", value) if value else None
    if f"{OURS}architecture" in config:
        value = config[f"{OURS}architecture"]
        depth = value.get("depth", 0) if isinstance(value, dict) else 0
        if isinstance(depth, int) and depth > len(shapes):  # building it could take for ever
            raise InvalidInput(f"{depth} blocks are more than the weights have")
        check_arguments({"architecture": value}, "its configuration")
        return section("architecture", value), head, num_outputs
    return _architecture(config, shapes), head, num_outputs


def _folders(source: Path) -> Iterator[Path]:
    for pattern in ("pretraining/*", "finetuning/*/*"):
        for folder in sorted(source.glob(pattern)):
            if folder.is_dir() and is_trial(folder):
                yield folder


def _model(trial: Trial, trials: Mapping[str, Trial]) -> ForeignModel:
    config = trial.config
    parent, parent_epoch, lineage = _parent(trial, trials)
    notes = [*trial.notes, *lineage]
    if not trial.is_finished:
        planned = config["training::epochs_train"]
        notes.append(f"it ends after epoch {trial.last} of {planned}: imported as unfinished")
    structure_keys = {f"{OURS}{name}" for name in STRUCTURE}
    classes = config.get(f"{OURS}classes")
    architecture, head, num_outputs = _structure_of(trial)
    return ForeignModel(
        name=trial.name,
        stage=str(config.get(f"{OURS}stage", trial.name.partition("/")[0])),
        epochs=trial.epochs(_timm_names),
        num_outputs=num_outputs,
        parent=parent,
        parent_epoch=parent_epoch,
        architecture=architecture,
        head=head,
        settings=to_ours({k: value for k, value in config.items() if k not in structure_keys}),
        classes=tuple(map(str, classes)) if isinstance(classes, list) else (),
        initial_epoch=config.get(f"{OURS}initial_epoch", trial.initial_epoch),
        finished=trial.is_finished,
        notes=tuple(notes),
    )


def _structure_of(trial: Trial) -> tuple[Section | None, Section | None, int]:
    file = trial.last_weights
    if file is None:
        return None, None, 0
    try:
        return structure(trial.config, _timm_names(read_shapes(file, trial.root), file))
    except InvalidInput as error:
        raise InvalidInput(f"{trial.path}: {error}") from None
    except IndexError:
        raise CorruptFile(file, "its tensors are not shaped as those of a ViT") from None


def _timm_names(weights: Mapping[str, _T], file: Path) -> dict[str, _T]:
    """Under timm's names. Raises CorruptFile where they are not those of a published ViT."""
    for name in weights:
        if not name.startswith(PREFIX):
            rule = f"does not begin with '{PREFIX}', as all names of this format do"
            raise CorruptFile(file, f"'{name}' {rule}")
    return {name.removeprefix(PREFIX): value for name, value in weights.items()}


def _architecture(config: Mapping[str, Any], shapes: Shapes) -> Section:
    kind = str(config.get("model::type"))
    if kind not in MODELS:
        raise InvalidInput(f"unknown model::type '{kind}'{did_you_mean(kind, MODELS)}")
    usual = _usual_images(MODELS[kind])
    settings = {k: v for k, v in _images(shapes).items() if v != usual[k]}
    for name, key in (("proj_drop_rate", "dropout"), ("attn_drop_rate", "attn_dropout")):
        if rate := config.get(f"model::{key}"):
            settings[name] = rate
    return choose("architecture", "timm", model=MODELS[kind], **settings)


@cache
def _usual_images(model: str) -> dict[str, int]:
    with meta_device():
        weights = choose("architecture", "timm", model=model)(1).state_dict()
    return _images({name: tensor.shape for name, tensor in weights.items()})


def _images(shapes: Shapes) -> dict[str, int]:
    """What images a ViT is made for, as its embeddings tell."""
    try:
        _, channels, patch, _ = shapes["patch_embed.proj.weight"]
        _, tokens, _ = shapes["pos_embed"]
    except (KeyError, ValueError):
        raise InvalidInput("the weights have no patch and position embedding of a ViT") from None
    patches = tokens - ("cls_token" in shapes)
    return {"img_size": math.isqrt(patches) * patch, "patch_size": patch, "in_chans": channels}


def _head(config: Mapping[str, Any], shapes: Shapes) -> tuple[Section, int]:
    """The head that the weights have; how it was drawn, from the configuration."""
    seed = {"seed": config["model::head::seed"]} if config.get("model::head::seed") else {}
    if "head.2.weight" in shapes and "head.0.weight" in shapes:
        # the released code lets no initialization reach an MLP head
        hidden_dim, num_outputs = shapes["head.0.weight"][0], shapes["head.2.weight"][0]
        return choose("head", "mlp", hidden_dim=hidden_dim, **seed), num_outputs
    if "head.weight" in shapes:
        drawn = {}
        initialization = str(config.get("model::init_type"))
        if initialization in plugins("initialization"):
            drawn["initialization"] = {"name": initialization, "bias": 0.01}
        return choose("head", "linear", **drawn, **seed), shapes["head.weight"][0]
    if any(name.startswith("head.") for name in shapes):
        raise InvalidInput("the weights have a head that is neither linear nor an MLP of 2 layers")
    return choose("head", "none"), shapes["pos_embed"][-1] if "pos_embed" in shapes else 0


def _stated_parent(config: Mapping[str, Any]) -> tuple[list[str], int | None]:
    """Parts of the path that a configuration names as its start (none from scratch), which is never
    opened, and the checkpoint's number."""
    for key in PARENT_PATHS:
        if isinstance(config.get(key), str) and config[key]:
            parts = [part for part in re.split(r"[/\\]", config[key]) if part]
            if parts[-1:] == ["checkpoints"]:
                parts.pop()
            number = re.fullmatch(r"checkpoint_(\d{1,9})", parts[-1]) if parts else None
            return (parts[:-1], int(number[1])) if number else (parts, None)
    name = config.get("pretraining::model")
    return ([name], None) if isinstance(name, str) and name else ([], None)


def _nearest(parts: Sequence[str], names: Iterable[str]) -> str | None:
    """The model whose folder the path ends in; of several, the one that more of it names."""
    common_parts = {}
    for name in names:
        pairs = zip(reversed(parts), reversed(name.split("/")), strict=False)
        different = (i for i, (a, b) in enumerate(pairs) if a != b)
        common_parts[name] = next(different, len(name.split("/")) if parts else 0)
    best = max(common_parts.values(), default=0)
    nearest = [name for name, common in common_parts.items() if common == best]
    return nearest[0] if best and len(nearest) == 1 else None


def _parent(trial: Trial, trials: Mapping[str, Trial]) -> tuple[str | None, int | None, list[str]]:
    """Name and epoch of what a model starts from, and notes. Raises InvalidInput where its
    configuration and the folder it lies in name different models."""
    parts, number = _stated_parent(trial.config)
    candidates = [name for name in trials if name != trial.name]
    by_config = _nearest(parts, candidates)
    folder = trial.name.split("/")[1] if trial.name.startswith("finetuning/") else None
    by_folder = _nearest([folder], candidates) if folder else None
    if folder and f"pretraining/{folder}" in trials:
        by_folder = f"pretraining/{folder}"
    if by_config and by_folder and by_config != by_folder:
        raise InvalidInput(
            f"{trial.path} lies in the folder of {by_folder}, but its configuration says that it "
            f"starts from {by_config}; move it, or correct its configuration"
        )
    notes = []
    if by_folder and not by_config and parts:
        notes.append(f"its parent is told from its folder; {'/'.join(parts)} is not there")
    missing = folder or (parts[-1] if parts else None)
    parent = by_config or by_folder or (f"pretraining/{missing}" if missing else None)
    if parent and parent in trials and number is not None:
        number = trials[parent].iterations.get(number, number)
    return parent, number, notes
