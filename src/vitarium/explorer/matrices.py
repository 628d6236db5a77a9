"""How alike many models are, pair by pair; runs in the process of `worker`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Predictions, check_predictions
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner.forward import Forward
from vitarium.measures._runner.jobs import Conditions
from vitarium.measures.weights.pairs import WeightL2, weight_l2
from vitarium.page.comparison_answers import Matrix
from vitarium.zoo import Zoo

MAX_MODELS = 40
MAX_IMAGES = 1000
"""Test images on which predictions are compared, of each class in proportion."""


def agreement(zoo: Path, *ids: str) -> Matrix:
    """Share of test images to which two models give the same class, for all pairs of models.

    Of up to `MAX_IMAGES` images, the same for all models of a data set; forward passes are cached
    in the zoo. Raises UnknownName, CorruptFile, and InvalidInput for too many models.
    """
    loader, refs = _opened(zoo, ids)
    forward = Forward(
        loader, Conditions("test", MAX_IMAGES, True), [choose("measure", "agreement")]
    )
    predictions: dict[CheckpointRef, Predictions] = {}
    reasons, sets = dict[str, str](), dict[str, int]()
    images = dict[CheckpointRef, str]()
    for ref in refs:
        try:
            examples = loader.examples(ref.model, "test", MAX_IMAGES)
            predictions[ref] = forward.predictions(ref, "test")
            check_predictions(predictions[ref])
        except (NotApplicable, InvalidInput) as error:
            predictions.pop(ref, None)
            reasons[ref.model] = str(error)
            continue
        images[ref] = loader.originals(examples)
        sets[examples.dataset.name] = len(examples)
    values = torch.full((len(refs), len(refs)), torch.nan, dtype=torch.float64)
    for row, first in enumerate(refs):
        for column, second in enumerate(refs[: row + 1]):
            if first in predictions and second in predictions and images[first] == images[second]:
                values[row, column] = values[column, row] = _share(
                    predictions[first], predictions[second]
                )
    return _matrix(refs, values, 1 - values, images=sets, reasons=reasons)


def weight_distances(zoo: Path, *ids: str) -> Matrix:
    """L2 distance of two models' weights but their heads', divided by the mean of their norms.

    As the measure `weight_l2` with `relative`. None where tensors have other names or shapes.
    Raises UnknownName, CorruptFile, and InvalidInput for too many models.
    """
    loader, refs = _opened(zoo, ids)
    models = [loader.weights(ref) for ref in refs]
    values = weight_l2(WeightL2(relative=True), models)[""]
    return _matrix(refs, values, values)


def _opened(zoo: Path, ids: Sequence[str]) -> tuple[ModelLoader, list[CheckpointRef]]:
    if len(ids) > MAX_MODELS:
        raise InvalidInput(f"{len(ids)} models; at most {MAX_MODELS} are compared with each other")
    opened = Zoo.open(zoo)
    refs = [CheckpointRef(id, opened.folder(id).checkpoint()[0]) for id in map(opened.find, ids)]
    return ModelLoader(opened), refs


def _share(first: Predictions, second: Predictions) -> float:
    """NaN where their classes are not the same."""
    try:
        check_predictions(first, second)
    except NotApplicable:
        return torch.nan
    return float((first.classes == second.classes).double().mean())


def _matrix(
    refs: Sequence[CheckpointRef],
    values: Tensor,
    distances: Tensor,
    images: Mapping[str, int] = {},
    reasons: Mapping[str, str] = {},
) -> Matrix:
    return {
        "models": [ref.model for ref in refs],
        "epochs": [ref.epoch for ref in refs],
        "values": [
            [None if np.isnan(value) else value for value in row] for row in values.tolist()
        ],
        "order": clustered(distances.numpy()),
        "images": dict(images),
        "reasons": dict(reasons),
    }


def clustered(distances: np.ndarray) -> list[int]:
    """Rows in an order in which near ones are neighbors: the leaves of average linkage.

    Distances [k, k], NaN where there is none: these pairs are as far as the farthest. Branches are
    turned so that neighbors are as near as they can be (Bar-Joseph et al. 2001).
    """
    if len(distances) < 3:
        return list(range(len(distances)))
    known = distances[np.isfinite(distances)]
    complete = np.where(np.isfinite(distances), distances, known.max() if len(known) else 1.0)
    np.fill_diagonal(complete, 0)
    complete = (complete + complete.T) / 2
    condensed = squareform(complete, checks=False)
    order: list[int] = leaves_list(linkage(condensed, "average", optimal_ordering=True)).tolist()
    return order
