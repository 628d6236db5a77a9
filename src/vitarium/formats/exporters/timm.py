"""Folders that `timm.create_model("local-dir:...", pretrained=True)` builds and loads."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from vitarium.architectures.heads import head_prefix
from vitarium.blueprint import Spec
from vitarium.core.errors import InvalidInput
from vitarium.formats._preprocessing import Preprocessed, Preprocessing, preprocessing
from vitarium.formats.base import Chosen, exporter
from vitarium.zoo import Zoo

ANY = "--exporter safetensors takes any model"
RUNS = "--exporter safetensors and --exporter onnx take it"
_OF_THE_ARCHITECTURE = ("pool_size", "fixed_input_size", "first_conv", "classifier")


class TimmFolder(Preprocessed):
    """How timm is told of the model, and whether it is asked."""

    check: bool = True
    """Let timm load each folder, and compare outputs with the zoo's: they are the same bits."""


def refuses(config: TimmFolder, zoo: Zoo, checkpoint: Chosen) -> str | None:
    """Why timm cannot build a model from a configuration; None where it can."""
    spec = zoo.spec(checkpoint.id)
    architecture, head = spec.origin.architecture, _head(spec)
    if architecture is None:
        return f"it came as tensors that nothing here builds; {ANY}"
    if head not in (None, "linear", "none"):
        return f"its head is '{head}', and timm's is one layer; {RUNS}"
    if not architecture.plugin.facts["timm"]:
        return f"its architecture '{architecture.name}' is none of timm's; {RUNS}"
    try:
        architecture.plugin.facts["timm"](architecture.config)
    except InvalidInput as error:
        return f"{error}; {RUNS}"
    return None


@exporter("timm", config=TimmFolder, refuses=refuses)
def timm_folder(
    config: TimmFolder, zoo: Zoo, models: Sequence[Chosen], out: Path
) -> Iterator[Path]:
    """A folder per model that timm.create_model("local-dir:...", pretrained=True) loads."""
    for checkpoint in models:
        folder = out / checkpoint.name
        folder.mkdir()
        settings = _settings(zoo, checkpoint, config)
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        weights = zoo.state_dict(checkpoint.id, checkpoint.epoch)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if config.check:
            _check(zoo, checkpoint, folder, settings["pretrained_cfg"]["input_size"])
        yield folder


def _settings(zoo: Zoo, checkpoint: Chosen, config: TimmFolder) -> dict[str, Any]:
    """What stands in config.json."""
    spec, about = zoo.spec(checkpoint.id), zoo.folder(checkpoint.id).about()
    name, arguments = _as_timm(spec)
    num_classes = 0 if _head(spec) == "none" else about.num_outputs
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=num_classes, **arguments)
    pool = getattr(model, "global_pool", None)
    return {
        "architecture": name,
        "num_classes": num_classes,
        "num_features": model.num_features,
        **({"global_pool": pool} if isinstance(pool, str) and pool else {}),
        **({"label_names": list(about.classes)} if len(about.classes) == num_classes else {}),
        "model_args": arguments,
        "pretrained_cfg": {
            **_facts(model),
            **_data(preprocessing(spec, config)),
            "num_classes": num_classes,
        },
    }


def _as_timm(spec: Spec) -> tuple[str, dict[str, Any]]:
    """The name of a model of timm, and what to override to get this one."""
    architecture = spec.origin.architecture
    assert architecture
    name, arguments = architecture.plugin.facts["timm"](architecture.config)
    return name, arguments


def _head(spec: Spec) -> str | None:
    head = spec.origin.head
    return head.name if head else None


def _facts(model: nn.Module) -> dict[str, Any]:
    """What of timm's own description is the architecture's, and not its published weights'."""
    pretrained_cfg: Any = model.pretrained_cfg
    return {key: pretrained_cfg.get(key) for key in _OF_THE_ARCHITECTURE} | {
        "classifier": head_prefix(model)
    }


def _data(inputs: Preprocessing) -> dict[str, Any]:
    return {
        "input_size": inputs.input_size,
        "interpolation": inputs.interpolation,
        "crop_pct": _crop_pct(min(inputs.input_size[1:]), inputs.resize),
        "crop_mode": "center",
        "mean": inputs.mean,
        "std": inputs.std,
    }


def _crop_pct(size: int, resize: int) -> float:
    """The share from which timm computes `resize` again: floor(size / share)."""
    share = size / resize
    return share if math.floor(size / share) == resize else math.nextafter(share, 0)


def _check(zoo: Zoo, checkpoint: Chosen, folder: Path, input_size: Sequence[int]) -> None:
    images = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    timm_model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        same = torch.equal(timm_model(images), zoo.load(checkpoint.id, checkpoint.epoch)(images))
    if not same:
        raise InvalidInput(
            f"model {checkpoint.id}: what timm loads has other outputs than the zoo's model; "
            f"{RUNS}; or keep the folder all the same with --set check=false"
        )
