"""What a site of files is told of where models lie by their weights."""

from collections.abc import Iterator, Sequence

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.encoders._runner.encode import encode_checkpoints
from vitarium.encoders._runner.vectors import VectorSet
from vitarium.page import layout
from vitarium.page.answers import EmbeddingChoices, EmbeddingSource, Refused, Relatives
from vitarium.zoo import Zoo

WEIGHTS = "random_projection"
_ENCODERS = (WEIGHTS, "layer_quantiles")


def static_answers(zoo: Zoo, checkpoints: Sequence[CheckpointRef]) -> Iterator[tuple[str, object]]:
    """Below `api/`, files and what they hold: PCAs of weights and of their statistics, and each
    model's nearest relatives. Nothing is written into the zoo; vectors that it keeps are used."""
    sources = list[EmbeddingSource]()
    for name in _ENCODERS:
        encoder = choose("weight_encoder", name)
        result = encode_checkpoints(zoo, encoder, checkpoints, store=False)
        standardize = encoder.facts["standardize"]
        try:
            embedding = layout.plane(
                result, "pca", standardize=standardize, others=layout.OTHER_ARCHITECTURES
            )
        except NotApplicable as error:
            yield f"embeddings/{name}.json", {"refused": str(error)}
        else:
            yield f"embeddings/{name}.json", embedding
        sources.append(layout.source_of(encoder.plugin))
        if name == WEIGHTS:
            for id in dict.fromkeys(checkpoint.model for checkpoint in checkpoints):
                yield f"models/{id}/relatives.json", _relatives(result, id)
    methods = [layout.METHODS[0]]
    choices: EmbeddingChoices = {"sources": sources, "methods": methods, "trajectories": False}
    yield "embeddings.json", choices


def _relatives(result: VectorSet, id: str) -> Relatives | Refused:
    try:
        return {"nearest": layout.nearest(result, id)}
    except NotApplicable as error:
        return {"refused": str(error)}
