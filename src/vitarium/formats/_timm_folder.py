"""A model's folder as timm's hub format has it: config.json, and weights under timm's names."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file
from torch import Tensor

from vitarium.architectures.heads import head_prefix
from vitarium.blueprint import Spec
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.data._image_settings import Covering
from vitarium.data.preprocessing import Preprocessing
from vitarium.formats._preprocessing import Preprocessed, preprocessing
from vitarium.formats.base import refuses_additions, taken_elsewhere
from vitarium.zoo import Zoo

_FOREIGN = ("crop_pct", "crop_mode", "interpolation", "input_size")
_OF_THE_ARCHITECTURE = ("pool_size", "fixed_input_size", "first_conv")


def write_timm_folder(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    """A new folder with what `timm_config` gave, and weights by timm's names."""
    folder.mkdir()
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})


def refuses_other_than_timms(config: Any, zoo: Zoo, checkpoint: CheckpointRef) -> str | None:
    """Why timm has no such model; None where it builds the same."""
    origin = zoo.spec(checkpoint.model).origin
    if reason := refuses_additions(config, zoo, checkpoint):
        return reason
    assert origin.architecture
    if origin.head and origin.head.name not in ("linear", "none"):
        return f"its head is '{origin.head.name}', and timm's is one layer; {taken_elsewhere()}"
    as_timm = origin.architecture.plugin.facts["timm"]
    if not as_timm:
        return (
            f"its architecture '{origin.architecture.name}' is none of timm's; {taken_elsewhere()}"
        )
    try:
        as_timm(origin.architecture.config)
    except InvalidInput as error:
        return f"{error}; {taken_elsewhere()}"
    return None


def timm_config(
    zoo: Zoo, id: str, config: Preprocessed, *, headless: bool = False
) -> dict[str, Any]:
    """What config.json of a model's folder has; `headless`: of its backbone, without outputs.

    Raises InvalidInput where timm has no word for how its images are prepared.
    """
    spec, about = zoo.spec(id), zoo.folder(id).about()
    architecture, head = spec.origin.architecture, spec.origin.head
    assert architecture
    name, arguments = architecture.plugin.facts["timm"](architecture.config)
    num_classes = 0 if headless or (head and head.name == "none") else about.num_outputs
    with meta_device():
        model = timm.create_model(name, pretrained=False, num_classes=num_classes, **arguments)
    pool = getattr(model, "global_pool", None)
    inputs = preprocessing(spec, config)
    for word, fault in inputs.faults.items():
        if word.removeprefix("preprocessing.") not in _FOREIGN:  # timm's own are given back
            raise InvalidInput(fault)
    crop_pct, crop_mode = _crop(id, inputs)
    described: Any = model.pretrained_cfg
    return {
        "architecture": name,
        "num_classes": num_classes,
        "num_features": model.num_features,
        **({"global_pool": pool} if isinstance(pool, str) and pool else {}),
        **({"label_names": list(about.classes)} if len(about.classes) == num_classes > 0 else {}),
        "model_args": arguments,
        "pretrained_cfg": {
            # of timm's own description, what is the architecture's and not its weights'
            **{key: described.get(key) for key in _OF_THE_ARCHITECTURE},
            "classifier": head_prefix(model),
            "input_size": inputs.input_size,
            "interpolation": inputs.interpolation.removesuffix("_exact"),
            "crop_pct": crop_pct,
            "crop_mode": crop_mode,
            "mean": inputs.mean,
            "std": inputs.std,
            "num_classes": num_classes,
            **_given_back(spec),
        },
    }


def _crop(id: str, inputs: Preprocessing) -> tuple[float, str]:
    """`crop_pct`, from which timm computes each side again: floor(side / crop_pct), and
    `crop_mode`. Raises InvalidInput for a resizing that timm does not know."""
    sides: tuple[int, ...] = inputs.input_size[1:]
    resize = inputs.resize
    resized: tuple[int, ...]
    if resize is None:
        raise InvalidInput(
            f"model {id}: its images are not resized, and timm always does; {taken_elsewhere()}"
        )
    if isinstance(resize, int):
        sides, resized = (min(sides),), (resize,)
    elif isinstance(resize, Covering):
        resized = (resize.height, resize.width)
    else:
        resized = resize
    pairs = list(zip(sides, resized, strict=True))
    nearby = [share for s, r in pairs for share in (s / r, math.nextafter(s / r, 0))]
    for share in nearby:
        if all(math.floor(side / share) == length for side, length in pairs):
            return share, "squash" if isinstance(resize, tuple) else "center"
    raise InvalidInput(
        f"model {id}: its images are squashed to {list(resized)} pixels, and timm has one crop_pct "
        f"for both of {list(sides)}; {taken_elsewhere('hugging_face')}"
    )


def _given_back(spec: Spec) -> dict[str, Any]:
    """What an importer found under timm's own words."""
    factors = spec.described()
    names = {key: f"preprocessing.{key}" for key in _FOREIGN}
    return {key: factors[name] for key, name in names.items() if name in factors}
