"""How alike many models are, pair by pair; runs in the process of `worker`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import DataNotFound, InvalidInput, NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Predictions, check_predictions
from vitarium.evaluation.loader import ModelLoader
from vitarium.explorer.computation import Transient
from vitarium.measures._runner.forward import Forward
from vitarium.measures._runner.jobs import Conditions
from vitarium.measures.weights.pairs import WeightL2, weight_l2
from vitarium.page.answers.comparisons import Matrix
from vitarium.zoo import Zoo

MAX_MODELS = 40
MAX_IMAGES = 1000
"""Test images on which predictions are compared, of each class in proportion."""


def agreement(zoo: Path, *ids: str) -> Matrix | Transient:
    """Share of test images to which two models give the same class, for all pairs of models.

    Of up to `MAX_IMAGES` images, the same for all models of a data set; forward passes are cached
    in the zoo. Raises UnknownName, CorruptFile, and InvalidInput for too many models.
    """
    compared = _Compared(zoo, ids)
    loader, measure = ModelLoader(compared.zoo), choose("measure", "agreement")
    forward = Forward(loader, Conditions("test", MAX_IMAGES, True), [measure])
    predictions, images = dict[CheckpointRef, Predictions](), dict[CheckpointRef, str]()
    sets, is_lasting = dict[str, int](), True
    for ref in list(compared.refs):
        try:
            examples = loader.examples(ref.model, "test", MAX_IMAGES)
            predicted = forward.predictions(ref, "test")
            check_predictions(predicted)
        except (NotApplicable, InvalidInput) as error:
            compared.leave_out(ref, str(error))
            is_lasting &= not isinstance(error, DataNotFound)
            continue
        predictions[ref], images[ref] = predicted, loader.originals(examples)
        sets[examples.dataset.name] = len(examples)
    count = len(compared.refs)
    values = torch.full((count, count), torch.nan, dtype=torch.float64)
    for row, first in enumerate(compared.refs):
        for column, second in enumerate(compared.refs[: row + 1]):
            if images[first] == images[second]:
                share = _share(predictions[first], predictions[second])
                values[row, column] = values[column, row] = share
    matrix = compared.matrix(values, 1 - values, sets)
    return matrix if is_lasting else Transient(matrix)


def weight_distances(zoo: Path, *ids: str) -> Matrix:
    """L2 distance of two models' weights but their heads', divided by the mean of their norms.

    As the measure `weight_l2` with `relative`. None where tensors have other names or shapes.
    Raises UnknownName, CorruptFile, and InvalidInput for too many models.
    """
    compared = _Compared(zoo, ids)
    loader, values = ModelLoader(compared.zoo), torch.empty(0, 0, dtype=torch.float64)
    if compared.refs:
        models = [loader.weights(ref) for ref in compared.refs]
        values = weight_l2(WeightL2(relative=True), models)[""]
    return compared.matrix(values, values, {})


class _Compared:
    """Models that are compared, after their last kept epochs, and why others are not."""

    def __init__(self, zoo: Path, names: Sequence[str]) -> None:
        if len(names) > MAX_MODELS:
            text = f"{len(names)} models; at most {MAX_MODELS} are compared with each other"
            raise InvalidInput(text)
        self.zoo = Zoo.open(zoo)
        self.ids = list(dict.fromkeys(map(self.zoo.find, names)))
        self.refs: list[CheckpointRef] = []
        self.reasons: dict[str, str] = {}
        for id in self.ids:
            try:
                self.refs.append(CheckpointRef(id, self.zoo.folder(id).checkpoint()[0]))
            except InvalidInput as error:  # no weights are kept
                self.reasons[id] = str(error)

    def leave_out(self, ref: CheckpointRef, reason: str) -> None:
        self.refs.remove(ref)
        self.reasons[ref.model] = reason

    def matrix(self, values: Tensor, distances: Tensor, images: dict[str, int]) -> Matrix:
        """Of values and distances [refs, refs], NaN where there are none."""
        numbers = [self.ids.index(ref.model) for ref in self.refs]
        rows: list[list[float | None]] = [[None] * len(self.ids) for _ in self.ids]
        for number, row in zip(numbers, values.tolist(), strict=True):
            for other, value in zip(numbers, row, strict=True):
                rows[number][other] = None if np.isnan(value) else value
        order = [numbers[row] for row in clustered(distances.numpy())]
        return {
            "models": self.ids,
            "values": rows,
            "order": order + [number for number in range(len(rows)) if number not in numbers],
            "images": images,
            "reasons": self.reasons,
        }


def _share(first: Predictions, second: Predictions) -> float:
    """NaN where their classes are not the same."""
    try:
        check_predictions(first, second)
    except NotApplicable:
        return torch.nan
    return float((first.classes == second.classes).double().mean())


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
