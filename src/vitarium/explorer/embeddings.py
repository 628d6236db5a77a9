"""Where models lie by their weights or predictions, for the map; runs in the process of `worker`.

Vectors are computed for some seconds at a time: what is not finished says how much remains, and
whoever asks again gets further, since vectors are kept.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.registry import Section, choose, plugins
from vitarium.encoders._runner import encode
from vitarium.encoders._runner.vectors import VectorCache, VectorSet
from vitarium.evaluation.loader import ModelLoader
from vitarium.explorer.computation import Transient
from vitarium.page import layout
from vitarium.page.answers.embeddings import Embedding
from vitarium.page.prediction_vectors import (
    OTHER_DATA,
    PREDICTIONS,
    SOURCE,
    prediction_cache,
    prediction_vectors,
)
from vitarium.page.static_embeddings import WEIGHTS
from vitarium.zoo import Zoo

Json = dict[str, Any]
SECONDS = 2.0
"""For which vectors are computed before an answer says how many remain; less than the time after
which the worker is ended when nobody waits, so that what was computed is kept."""
MAX_TRAJECTORIES = 500
"""Models of which all kept epochs are shown."""


def embedding_choices(zoo: Path) -> Json:
    """What the map can take positions from (`sources`), and how (`methods`)."""
    sources = [layout.source_of(plugin) for plugin in plugins("weight_encoder").values()]
    sources.append(SOURCE)
    return Transient(sources=sources, methods=layout.METHODS, trajectories=True)


def embedding(
    zoo: Path, source: str, method: str = "pca", trajectories: str = ""
) -> Embedding | Json:
    """Models as points of a plane (`layout.plane`), or `remaining` and `total` while vectors are
    being computed.

    Args:
        source: a weight encoder, or "predictions".
        method: "pca", "tsne" or "umap".
        trajectories: ids with commas between them of the models of which every kept epoch is a
            point, "all" for all of them; of others the last one is.

    Raises UnknownName, InvalidInput, and NotApplicable where models are too few.
    """
    chosen = layout.check_method(method)
    opened = Zoo.open(zoo)
    ids = opened.ids() if trajectories == "all" else [*filter(None, trajectories.split(","))]
    result, standardize = _vectors(opened, source, ids[:MAX_TRAJECTORIES])
    if result.remaining:
        total = len(result.vectors) + len(result.refused) + result.remaining
        return Transient(remaining=result.remaining, total=total)
    others = OTHER_DATA if source == PREDICTIONS else layout.OTHER_ARCHITECTURES
    return layout.plane(result, chosen, standardize=standardize, others=others)


def relatives(zoo: Path, id: str, source: str = WEIGHTS) -> Json:
    """The models nearest to one (`nearest`), after their last kept epochs, by a weight encoder; or
    `remaining` and `total`. Raises UnknownName and NotApplicable."""
    opened = Zoo.open(zoo)
    result, standardize = _vectors(opened, source, [])
    if result.remaining:
        total = len(result.vectors) + len(result.refused) + result.remaining
        return Transient(remaining=result.remaining, total=total)
    return {"nearest": layout.nearest(result, opened.find(id), standardize=standardize)}


def _vectors(zoo: Zoo, source: str, trajectories: list[str]) -> tuple[VectorSet, bool]:
    """Of every model's last kept epoch, and of all of these models'; and whether to standardize."""
    refs, missing = encode.last_checkpoints(zoo)
    epochs = encode.kept_epochs(zoo) if trajectories else {}
    every = [CheckpointRef(id, epoch) for id in trajectories for epoch in epochs.get(id, ())]
    refs = list(dict.fromkeys([*refs, *every]))
    if source == PREDICTIONS:
        loader, cache = _opened_predictions(zoo.path)
        result, standardize = prediction_vectors(loader, refs, cache, seconds=SECONDS), False
    else:
        encoder = choose("weight_encoder", source)
        cache = _opened_cache(zoo.path, encoder)
        result = encode.encode_checkpoints(zoo, encoder, refs, cache, seconds=SECONDS)
        standardize = encoder.facts["standardize"]
    result.refused = {**result.refused, **missing}
    return result, standardize


@lru_cache(maxsize=4)
def _opened_cache(zoo: Path, encoder: Section) -> VectorCache:
    return encode.vector_cache(Zoo.open(zoo), encoder)


@lru_cache(maxsize=1)
def _opened_predictions(zoo: Path) -> tuple[ModelLoader, VectorCache]:
    """With one loader for all answers: data sets, and how models see them, are read once."""
    opened = Zoo.open(zoo)
    return ModelLoader(opened), prediction_cache(opened)
