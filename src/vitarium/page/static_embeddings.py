"""What a site of files is told of where models lie by their weights and predictions."""

from collections.abc import Iterator, Sequence

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.encoders._runner.encode import encode_checkpoints
from vitarium.encoders._runner.vectors import VectorSet
from vitarium.evaluation.loader import ModelLoader
from vitarium.page import layout
from vitarium.page.answers.embeddings import Embedding, EmbeddingChoices, EmbeddingSource, Relatives
from vitarium.page.answers.models import Refused
from vitarium.page.prediction_vectors import (
    OTHER_DATA,
    PREDICTIONS,
    SOURCE,
    prediction_cache,
    prediction_vectors,
)
from vitarium.zoo import Zoo

WEIGHTS = "random_projection"
_ENCODERS = (WEIGHTS, "layer_quantiles")


def static_answers(
    zoo: Zoo, checkpoints: Sequence[CheckpointRef], *, predictions: bool
) -> Iterator[tuple[str, object]]:
    """Below `api/`, files and what they hold: PCAs of weights, of their statistics, and with
    `predictions` of what models predict; and each model's nearest relatives.

    Nothing is written into the zoo; vectors that it keeps are used.
    """
    sources = list[EmbeddingSource]()
    for name in _ENCODERS:
        encoder = choose("weight_encoder", name)
        result = encode_checkpoints(zoo, encoder, checkpoints, store=False)
        embedding = _plane(result, encoder.facts["standardize"], layout.OTHER_ARCHITECTURES)
        yield f"embeddings/{name}.json", embedding
        sources.append(layout.source_of(encoder.plugin))
        if name == WEIGHTS:
            for id in dict.fromkeys(checkpoint.model for checkpoint in checkpoints):
                yield f"models/{id}/relatives.json", _relatives(result, id)
    if predictions:
        loader, cache = ModelLoader(zoo), prediction_cache(zoo)
        result = prediction_vectors(loader, checkpoints, cache, store=False)
        yield f"embeddings/{PREDICTIONS}.json", _plane(result, False, OTHER_DATA)
        sources.append(SOURCE)
    methods = [layout.METHODS[0]]
    choices: EmbeddingChoices = {"sources": sources, "methods": methods, "trajectories": False}
    yield "embeddings.json", choices


def _plane(result: VectorSet, standardize: bool, others: str) -> Embedding | Refused:
    try:
        return layout.plane(result, "pca", standardize=standardize, others=others)
    except NotApplicable as error:
        return {"refused": str(error)}


def _relatives(result: VectorSet, id: str) -> Relatives | Refused:
    try:
        return {"nearest": layout.nearest(result, id)}
    except NotApplicable as error:
        return {"refused": str(error)}
