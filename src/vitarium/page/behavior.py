"""What a model does with images, for its page: what it gets wrong, and where it looks.

Unlike what the page is told else, this runs the model, so it takes torch.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.evaluation.attention import grid, watch
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Predictions, check_predictions
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures.attention.rollout import Rollout
from vitarium.measures.predictions.class_accuracy import accuracies
from vitarium.zoo import Zoo

Json = dict[str, Any]
MAX_IMAGES = 16
_BATCH = 256
_BINS = 10


def behavior(zoo: Zoo | Path, id: str) -> Json:
    """How a model does on its test images, after its last kept epoch.

    Its accuracy per class, calibration (accuracy and mean confidence by bin of confidence), and
    the errors of which it is surest, with their images. Raises NotApplicable where its outputs are
    no classes or not finite, or its images are not known, DataNotFound and CorruptFile.
    """
    subject = load_subject(zoo, id)
    subject.check_classifier()
    predictions = predict(subject)
    check_predictions(predictions)
    confidence, _ = predictions.log_probabilities.exp().max(1)
    wrong = (~predictions.correct).nonzero()[:, 0]
    surest = wrong[confidence[wrong].argsort(descending=True)][:MAX_IMAGES]
    names = predictions.class_names or tuple(map(str, range(subject.examples.num_classes)))
    shares = accuracies(predictions)
    images = torch.bincount(predictions.labels, minlength=len(names))
    return {
        "data": subject.examples.dataset.name,
        "images": len(predictions),
        "accuracy": float(predictions.correct.double().mean()),
        "classes": [
            {"name": name, "accuracy": _number(share), "images": int(count)}
            for name, share, count in zip(names, shares, images, strict=False)
        ],
        "calibration": _calibration(predictions, confidence),
        "errors": [
            {
                "image": png(subject.examples, number),
                "label": names[int(predictions.labels[number])],
                "predicted": names[int(predictions.classes[number])],
                "confidence": float(confidence[number]),
            }
            for number in surest.tolist()
        ],
    }


def attention(zoo: Zoo | Path, id: str) -> Json:
    """Where a model looks, on some of its test images, the same for all models of a data set.

    `images`: PNG as data addresses. `maps`: of each block, the attention of what is read out (the
    class token, or all patches' mean) to the patches, uint8 [images, heads, rows, columns] as
    base64, each map divided by its largest entry; `rollout` [images, rows, columns] likewise (Abnar
    and Zuidema 2020). Raises NotApplicable where the model has no such attention.
    """
    subject = load_subject(zoo, id)
    examples = subject.examples.first(MAX_IMAGES)
    (batch,) = examples.batches(MAX_IMAGES)
    maps, flow = attention_maps(subject.model, batch.images)
    return {
        "images": [png(examples, number) for number in range(len(examples))],
        "rows": grid(subject.model).height,
        "columns": grid(subject.model).width,
        "maps": [{"block": name, "heads": m.shape[1], "values": _bytes(m)} for name, m in maps],
        "rollout": _bytes(flow.flatten(1)),
    }


def load_subject(zoo: Zoo | Path, id: str) -> EvalModel:
    """A model with its test images, after its last kept epoch."""
    opened = Zoo.open(zoo)
    ref = CheckpointRef(opened.find(id), opened.folder(opened.find(id)).checkpoint()[0])
    return ModelLoader(opened).subject(ref, "test", None)


def predict(subject: EvalModel) -> Predictions:
    """Of all its images."""
    logits, examples = [], subject.examples
    with torch.inference_mode():
        for batch in examples.batches(_BATCH):
            logits.append(subject.model(batch.images).float().cpu())
    return Predictions(torch.cat(logits), examples.labels, examples.dataset.classes)


def attention_maps(model: nn.Module, images: Tensor) -> tuple[Sequence[tuple[str, Tensor]], Tensor]:
    """Of each block its name, and attention float [n, heads, patches] of what is read out; and the
    rollout [n, rows, columns]. One forward pass of images [n, c, h, w]."""
    where, flow = grid(model), Rollout(model)
    has_class = where.prefix > 0 and getattr(model, "cls_token", None) is not None
    maps: list[tuple[str, Tensor]] = []

    def see(name: str, probabilities: Tensor) -> None:
        flow.see(name, probabilities)
        read_out = probabilities[:, :, 0] if has_class else probabilities.mean(2)
        maps.append((name, read_out[..., where.prefix :].clone()))

    watch(model, images, see)
    return maps, flow.maps()


def _calibration(predictions: Predictions, confidence: Tensor) -> list[Json]:
    bins = (confidence * _BINS).ceil().clamp(1, _BINS).long() - 1
    rows = []
    for number in range(_BINS):
        inside = bins == number
        if count := int(inside.sum()):
            right = float(predictions.correct[inside].double().mean())
            mean = float(confidence[inside].mean())
            rows.append({"confidence": mean, "accuracy": right, "images": count})
    return rows


def _bytes(maps: Tensor) -> str:
    """Maps [..., patches], each divided by its largest entry, as uint8 in base64."""
    scaled = maps / maps.amax(-1, keepdim=True)
    return base64.b64encode((scaled * 255).round().to(torch.uint8).cpu().numpy().tobytes()).decode()


def png(examples: EvalData, number: int, side: int | None = None) -> str:
    """An image of the data set as it is, before it is prepared for the model; with `side`, scaled
    so that its longer side has about so many pixels, small ones in sharp squares."""
    pixels = examples.part.images[int(examples.numbers[number])]
    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    longer = max(image.size)
    if side and longer > side:
        image.thumbnail((side, side))
    elif side and (factor := side // longer) > 1:
        size = (image.width * factor, image.height * factor)
        image = image.resize(size, Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _number(share: Tensor) -> float | None:
    return None if bool(share.isnan()) else float(share)
