"""How two models differ, for the page that compares them; runs in the process of `worker`."""

import re
from pathlib import Path
from typing import Any

import torch

from vitarium.architectures.heads import is_head
from vitarium.core.errors import NotApplicable, VitariumError
from vitarium.evaluation.compare import compare
from vitarium.evaluation.inputs import EvalModel, check_predictions
from vitarium.measures.landscape._paths import OnPath, barriers
from vitarium.measures.landscape.barrier import path_losses
from vitarium.page import behavior
from vitarium.page.answers.comparisons import Barrier

Json = dict[str, Any]
MAX_IMAGES = 16
_CKA_IMAGES = 512
PATH = OnPath(points=11, num_images=512)
"""Where the loss between two models is looked at, and on how many test images at most."""


def pair(zoo: Path, first: str, second: str) -> Json:
    """How two models differ on the test images and in their weights, after their last kept epochs.

    `predictions`: agreement (share of images with the same class), the shares that both, one, or
    neither gets right, and images on which they disagree. `similarity`: CKA of every block of the
    first with every block of the second [rows, columns]. `distances`: of each block, the L2
    distance of the weights divided by the first one's norm. Where one of these has no answer,
    it is `{"refused": why}`. Raises UnknownName and CorruptFile.
    """
    subjects = [behavior.load_subject(zoo, id) for id in (first, second)]
    return {
        "predictions": _answered(_predictions, subjects),
        "similarity": _answered(_similarity, subjects),
        "distances": _answered(_distances, subjects),
    }


def barrier(zoo: Path, first: str, second: str) -> Barrier:
    """Loss and accuracy on the straight line between two models' weights, on test images.

    As the measure `barrier` has it (Frankle et al. 2020), with 11 points and up to 512 images.
    Raises NotApplicable where nothing lies between them: they are of different architectures, or of
    different data.
    """
    one, other = (behavior.load_subject(zoo, id) for id in (first, second))
    path = path_losses(one, other, PATH.positions, PATH)
    if not path.loss.isfinite().all():
        raise NotApplicable("the loss between them is not finite")
    values = barriers(PATH.positions, path)
    ends = torch.lerp(path.loss[0], path.loss[-1], torch.tensor(PATH.positions).double())
    return {
        "positions": PATH.positions,
        "loss": path.loss.tolist(),
        "accuracy": (1 - path.error).tolist(),
        "barrier": values[""],
        "barrier_at": PATH.positions[int((path.loss - ends).argmax())],
        "accuracy_barrier": values["error"],
        "data": one.examples.dataset.name,
        "images": len(one.examples.first(PATH.num_images)),
    }


def _answered(compute: Any, subjects: list[EvalModel]) -> Any:
    try:
        return compute(*subjects)
    except VitariumError as error:
        return {"refused": str(error)}


def _predictions(first: EvalModel, second: EvalModel) -> Json:
    for subject in (first, second):
        subject.check_classifier()
    _check_data(first, second)
    one, other = behavior.predict(first), behavior.predict(second)
    check_predictions(one, other)
    names = one.class_names
    differing = (one.classes != other.classes).nonzero()[:, 0]
    right, also_right = one.correct, other.correct
    return {
        "data": first.examples.dataset.name,
        "images": len(one),
        "agreement": float((one.classes == other.classes).double().mean()),
        "both_right": float((right & also_right).double().mean()),
        "first_right": float((right & ~also_right).double().mean()),
        "second_right": float((~right & also_right).double().mean()),
        "disagreements": [
            {
                "image": behavior.png(first.examples, number),
                "label": names[int(one.labels[number])],
                "first": names[int(one.classes[number])],
                "second": names[int(other.classes[number])],
            }
            for number in differing[:MAX_IMAGES].tolist()
        ],
    }


def _similarity(first: EvalModel, second: EvalModel) -> Json:
    chosen = [subject.examples.first(_CKA_IMAGES) for subject in (first, second)]
    _check_data(first, second)
    batches = [[batch.images for batch in examples.batches(64)] for examples in chosen]
    table = compare(first.model, second.model, *batches)
    return {
        "rows": table.index.tolist(),
        "columns": table.columns.tolist(),
        "values": [[float(value) for value in row] for row in table.to_numpy()],
        "images": len(chosen[0]),
    }


def _check_data(first: EvalModel, second: EvalModel) -> None:
    data = [subject.examples.dataset.name for subject in (first, second)]
    if data[0] != data[1]:
        raise NotApplicable(
            f"they are for different data sets, {data[0]} and {data[1]}: no images are for both"
        )


def _distances(first: EvalModel, second: EvalModel) -> list[Json]:
    """By block; a part without a number is called by its first name, such as `patch_embed`."""
    tensors, others = first.model.state_dict(), second.model.state_dict()
    names = [n for n in tensors if tensors[n].is_floating_point() and not is_head(first.model, n)]
    if any(n not in others or others[n].shape != tensors[n].shape for n in names):
        raise NotApplicable("their weights have other names or shapes")
    squares: dict[str, tuple[float, float]] = {}
    for name in names:
        match = re.match(r"[a-z_]+(\.\d+)+", name)
        part = match[0] if match else name.partition(".")[0]
        difference, norm = squares.get(part, (0.0, 0.0))
        change = (tensors[name].double() - others[name].double()).square().sum()
        squares[part] = (
            difference + float(change),
            norm + float(tensors[name].double().square().sum()),
        )
    return [
        {"part": part, "distance": (difference / norm) ** 0.5 if norm else None}
        for part, (difference, norm) in squares.items()
    ]
