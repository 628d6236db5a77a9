"""Vectors of what models predict, which are as far apart as class probabilities are."""

import math
import warnings
from collections.abc import Iterable

from torch import Tensor

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import ByNumber
from vitarium.core.version import installed_version
from vitarium.encoders._runner.encode import checkpoint_names
from vitarium.encoders._runner.vectors import Vector, VectorCache, VectorSet, checksum, compute
from vitarium.encoders.random_projection import project
from vitarium.evaluation.inputs import Predictions, check_predictions
from vitarium.evaluation.loader import ModelLoader
from vitarium.page.answers.embeddings import EmbeddingSource
from vitarium.page.behavior import predict
from vitarium.zoo import Zoo

PREDICTIONS = "predictions"
OTHER_DATA = "other data sets or classes than most"
IMAGES = 512
_DIM = 1024
SOURCE: EmbeddingSource = {
    "name": PREDICTIONS,
    "title": "predictions",
    "what": f"Hellinger distances of class probabilities on {IMAGES} test images.",
}


def prediction_vectors(
    loader: ModelLoader,
    refs: Iterable[CheckpointRef],
    cache: VectorCache,
    *,
    store: bool = True,
    seconds: float | None = None,
) -> VectorSet:
    """Vectors of class probabilities on the first test images of each model's data set.

    Those of models of one data set, with the same classes, can be compared: their distances are
    those of `hellinger`, right to about 2 %. See `vectors.compute`.
    """
    weights = checkpoint_names(loader.zoo)

    def name(ref: CheckpointRef) -> str:
        examples = loader.examples(ref.model, "test", IMAGES)
        return checksum(weights(ref), loader.images(examples))

    def vector(ref: CheckpointRef) -> Vector:
        subject = loader.subject(ref, "test", IMAGES)
        subject.check_classifier()
        predictions = predict(subject)
        values = project(hellinger(predictions), PREDICTIONS, dim=_DIM)
        group = checksum(loader.originals(subject.examples), predictions.class_names)
        return Vector(values.float().numpy(), group)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ByNumber)  # the page of a model says so
        return compute(refs, cache, name, vector, store=store, seconds=seconds)


def prediction_cache(zoo: Zoo) -> VectorCache:
    """The vectors of predictions that are kept in the zoo."""
    return VectorCache(zoo.path, installed_version(), PREDICTIONS, str(IMAGES), str(_DIM))


def hellinger(predictions: Predictions) -> Tensor:
    """Predictions -> float64 [n, num_classes], of which the Euclidean distance to another model's
    is the root of the mean squared Hellinger distance over the images, in [0, 1]."""
    check_predictions(predictions)
    return (predictions.log_probabilities / 2).exp() / math.sqrt(2 * len(predictions))
