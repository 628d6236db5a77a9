"""Folders that `from_pretrained` of transformers loads."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from vitarium.architectures.vit.dinov2 import ClassAndPatches
from vitarium.blueprint import Imported, Spec
from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.formats._hub_folder import CONFIG, folder_weights
from vitarium.formats._names import from_timm, to_timm
from vitarium.formats._preprocessing import Preprocessed, preprocessing
from vitarium.formats._transformers.base import Counterpart
from vitarium.formats._transformers.built import head_of
from vitarium.formats._transformers.families import FAMILIES, architecture_name, counterpart
from vitarium.formats._transformers.processor import APPLIED_THERE, processor_config
from vitarium.formats.base import (
    Checkpoints,
    Skipped,
    checkpoint_name,
    exporter,
    refuses_additions,
    taken_elsewhere,
)
from vitarium.zoo import Zoo

_FAMILIES = "ViT, DeiT, DINOv2, DINOv3, I-JEPA, BEiT, Swin, CLIP's and SigLIP's image towers"


class TransformersFolder(Preprocessed):
    """How images are normalized, and whether what is written is read again."""

    check: bool = True
    """Import each exported folder again, and check that its outputs equal the zoo's bit for bit."""


def refuses(config: TransformersFolder, zoo: Zoo, checkpoint: CheckpointRef) -> str | None:
    if reason := refuses_additions(config, zoo, checkpoint):
        return reason
    fault = next(_faults(_skeleton(zoo, checkpoint)), None)
    return fault and f"{fault}; {_taken_by(zoo, checkpoint)}"


def _taken_by(zoo: Zoo, checkpoint: CheckpointRef) -> str:
    """The hint that others take a model; timm's exporter is among them where it does."""
    origin = zoo.spec(checkpoint.model).origin
    assert origin.architecture
    as_timm = origin.architecture.plugin.facts["timm"]
    try:
        is_of_timm = bool(as_timm and as_timm(origin.architecture.config))
    except InvalidInput:
        is_of_timm = False
    is_linear = not origin.head or origin.head.name in ("linear", "none")
    return taken_elsewhere(*(["timm"] if is_of_timm and is_linear else []))


@exporter(
    "hugging_face", refuses=refuses, opened_by='transformers.AutoModel.from_pretrained("{path}")'
)
def hugging_face(
    config: TransformersFolder, zoo: Zoo, models: Checkpoints, out: Path
) -> Iterator[Path | Skipped]:
    """A folder per model for Hugging Face transformers: ViT, DINO, BEiT, Swin, CLIP, SigLIP, ...

    AutoModelForImageClassification loads it, without a head AutoModel, and CLIP's image tower with
    its projection CLIPVisionModelWithProjection.
    """
    for checkpoint in models:
        folder, id = out / checkpoint_name(checkpoint), checkpoint.model
        model, classes = _skeleton(zoo, checkpoint), zoo.folder(id).about().classes
        processor = _processor(zoo.spec(id), config)
        family = counterpart(model)
        assert family
        try:
            named = family.convert(zoo.state_dict(*checkpoint))
        except InvalidInput as error:
            yield Skipped(checkpoint, f"{error}; {_taken_by(zoo, checkpoint)}")
            continue
        files.write_json(folder / CONFIG, _config(model, family, classes))
        files.write_json(folder / "preprocessor_config.json", processor)
        prefix = family.prefix
        if prefix is None:
            is_bare = _class_name(model, family) == family.bare
            prefix = "" if is_bare else f"{family.model_type}."
        weights = from_timm(named, family.names, prefix, family.layer)
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
        fault = _difference(zoo, checkpoint, folder) if config.check else None
        if fault:
            shutil.rmtree(folder)
        yield Skipped(checkpoint, fault) if fault else folder


def _skeleton(zoo: Zoo, checkpoint: CheckpointRef) -> Any:
    id = checkpoint.model
    with meta_device():
        return zoo.spec(id).origin.build(zoo.folder(id).about().num_outputs)


def _faults(model: Any) -> Iterator[str]:
    """In what a model differs from all that transformers builds."""
    family = counterpart(model)
    if family is None:
        yield f"it is a {type(model).__name__}, none of {_FAMILIES}"
        return
    if not _class_name(model, family):
        if family.bare:
            yield f"it has a head, and {family.bare} has none"
        else:
            yield f"it has no head, and {family.classifier} has one"
    yield from family.faults(model)
    for name, tensor in family.convert(model.state_dict()).items():
        try:
            from_timm({name: tensor}, family.names, "")
        except KeyError:
            yield f"it has {name}, for which there is no place"


def _class_name(model: Any, family: Counterpart) -> str:
    """Without a head, a bare model; but where no bare one pools as this does."""
    is_bare = isinstance(head_of(model), nn.Identity) and not isinstance(model, ClassAndPatches)
    return family.bare if is_bare else family.classifier


def _config(model: Any, family: Counterpart, classes: Sequence[str]) -> dict[str, Any]:
    class_name, outputs = _class_name(model, family), getattr(head_of(model), "out_features", 0)
    names = classes if len(classes) == outputs else [f"LABEL_{i}" for i in range(outputs)]
    labels = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return {
        "architectures": [class_name],
        "model_type": family.model_type,
        **family.settings(model),
        **(labels if class_name != family.bare and family.has_labels else {}),
    }


def _processor(spec: Spec, config: Preprocessed) -> dict[str, Any]:
    """Raises InvalidInput for what an image processor of transformers cannot do."""
    inputs, origin = preprocessing(spec, config), spec.origin
    given_back = isinstance(origin, Imported) and origin.source == "hugging_face"
    for word, fault in inputs.faults.items():
        if not word.startswith(APPLIED_THERE):
            raise InvalidInput(fault)
    words = origin.settings if isinstance(origin, Imported) else {}
    return processor_config(inputs, words, given_back=given_back)


def _difference(zoo: Zoo, checkpoint: CheckpointRef, folder: Path) -> str | None:
    """Whether what was written is another function when it is imported."""
    hint = f"{taken_elsewhere()}; or keep the folder: {parameter('check', False)}"
    try:
        again, size = _imported(folder)
    except (InvalidInput, RuntimeError) as error:  # torch's own where tensors do not fit
        return f"what is written cannot be imported: {' '.join(str(error).split())}; {hint}"
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        same = torch.equal(again(images), zoo.load(*checkpoint)(images))
    return None if same else f"what is written has other outputs than the zoo's model; {hint}"


def _imported(folder: Path) -> tuple[nn.Module, tuple[int, int, int]]:
    """The model of a folder, and the size of its images. Raises InvalidInput and RuntimeError."""
    family = FAMILIES[architecture_name(folder / CONFIG)]
    config = family.config.read(folder / CONFIG)
    section = family.section(config, not family.has_classifier)
    model: nn.Module = section(family.outputs(config)[0])
    model.load_state_dict(family.convert(to_timm(folder_weights(folder))))
    return model.eval(), section.config.input_size
