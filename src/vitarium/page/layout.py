"""Where models lie in a plane, and which are nearest to one, by their vectors; as plain values."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

import numpy as np

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.registry import Plugin
from vitarium.encoders._runner.vectors import Vector, VectorSet
from vitarium.evaluation import embedding
from vitarium.evaluation.embedding import Method, Numbers
from vitarium.page.answers.embeddings import (
    Embedding,
    EmbeddingMethod,
    EmbeddingSource,
    LeftOut,
    Relative,
)

OTHER_ARCHITECTURES = "other architectures than most"
METHODS: list[EmbeddingMethod] = [
    {"name": name, "title": title}
    for name, title in embedding.TITLES.items()
    if name != "umap" or find_spec("umap")
]
"""Those whose libraries are installed; PCA is the first."""
_DIGITS = 6
_MOST_REASONS = 4
"""That are named, of why models are left out."""
"""Significant digits of what is drawn."""
_NEAREST = 8


def plane(
    result: VectorSet,
    method: Method,
    *,
    standardize: bool = False,
    others: str = OTHER_ARCHITECTURES,
) -> Embedding:
    """Checkpoints as points of a plane, by the Euclidean distances of their vectors.

    `ids`, and point by point `models` (numbers into `ids`), `epochs`, `x` and `y`, in the order of
    models and epochs; `explained`: of a PCA, the share of the variance on each axis, else None;
    `left_out`: reasons, with the number of `models` that each keeps out. Only vectors that can be
    compared are taken, where there are several kinds the most frequent.

    Args:
        standardize: give each entry mean 0 and deviation 1 before distances are taken.
        others: the reason why models with other vectors are left out.

    Raises NotApplicable where models are too few, or do not differ.
    """
    chosen, refused = comparable(result, others)
    refs = sorted(chosen)
    features = stacked(chosen[ref] for ref in refs) if refs else np.zeros((0, 1))
    if standardize and refs:
        features = embedding.standardized(features)
    drawn = embedding.embed_features(features, method)
    left_out = _counted(refused)
    if drawn is None:
        number = len({ref.model for ref in refs})
        reasons = "".join(f"; {each['models']}: {each['reason']}" for each in left_out)
        title = embedding.TITLES[method]
        why = f"{title} needs more models, or such as differ, than these {number}{reasons}"
        raise NotApplicable(why)
    ids = list(dict.fromkeys(ref.model for ref in refs))
    number_of = {id: number for number, id in enumerate(ids)}
    x, y = drawn.coordinates.T
    return {
        "method": method,
        "ids": ids,
        "models": [number_of[ref.model] for ref in refs],
        "epochs": [ref.epoch for ref in refs],
        "x": _rounded(x),
        "y": _rounded(y),
        "explained": None if drawn.explained is None else _rounded(drawn.explained),
        "left_out": left_out,
    }


def nearest(
    result: VectorSet, model: str, *, standardize: bool = False, count: int = _NEAREST
) -> list[Relative]:
    """The models whose vectors are nearest to a model's: their `id` and `distance`, nearest first.

    Raises NotApplicable that says why the model has no vector.
    """
    refs = [ref for ref in result.vectors if ref.model == model]
    if not refs:
        reasons = [why for ref, why in result.refused.items() if ref.model == model]
        raise NotApplicable(reasons[0] if reasons else "it has no vector")
    own = result.vectors[refs[-1]]
    kind = _kind(own)
    chosen = {r: v for r, v in result.vectors.items() if _kind(v) == kind}
    features = stacked(chosen.values())
    if standardize:
        features = embedding.standardized(features)
    difference = features - features[list(chosen).index(refs[-1])]
    distances = np.sqrt((difference**2).sum(1))
    order = np.argsort(distances, kind="stable")
    ids = [ref.model for ref in chosen]
    near = [(ids[k], float(distances[k])) for k in order if ids[k] != model]
    return [{"id": id, "distance": _round(d)} for id, d in near[:count]]


def comparable(
    result: VectorSet, others: str
) -> tuple[dict[CheckpointRef, Vector], dict[CheckpointRef, str]]:
    """Vectors that can be compared, of the kind that most have, and why others are left out."""
    kinds = Counter(_kind(vector) for vector in result.vectors.values())
    if not kinds:
        return {}, result.refused
    kind = max(sorted(kinds), key=kinds.__getitem__)
    chosen = {ref: v for ref, v in result.vectors.items() if _kind(v) == kind}
    differing = {ref: others for ref in result.vectors if ref not in chosen}
    return chosen, {**result.refused, **differing}


def source_of(plugin: Plugin) -> EmbeddingSource:
    """A weight encoder as the page offers it."""
    return {"name": plugin.name, "title": plugin.facts["title"], "what": plugin.summary}


def check_method(method: str) -> Method:
    """Raises InvalidInput for what is no method, or whose library is not installed."""
    for name in embedding.TITLES:
        if name == method:
            embedding.check_installed(name)
            return name
    raise InvalidInput(f"'{method}' is none of {', '.join(embedding.TITLES)}")


def stacked(vectors: Iterable[Vector]) -> Numbers:
    """Vectors of one length -> float64 [vectors, dim]."""
    return np.stack([vector.values for vector in vectors]).astype(np.float64)


def _kind(vector: Vector) -> tuple[str, int]:
    return vector.group, len(vector.values)


def _counted(refused: Mapping[CheckpointRef, str]) -> list[LeftOut]:
    """Reasons with the number of models that have each, the most frequent first; of many, such as
    corrupt files, whose names differ, the less frequent together."""
    models = defaultdict[str, set[str]](set)
    for ref, reason in refused.items():
        models[reason].add(ref.model)
    reasons = sorted(models, key=lambda why: -len(models[why]))
    counts: list[LeftOut] = [
        {"reason": w, "models": len(models[w])} for w in reasons[:_MOST_REASONS]
    ]
    if rare := set[str]().union(*(models[why] for why in reasons[_MOST_REASONS:])):
        counts.append({"reason": "other reasons", "models": len(rare)})
    return counts


def _rounded(numbers: Numbers) -> list[float]:
    """Numbers [n], each as it is drawn."""
    return [_round(number) for number in numbers.tolist()]


def _round(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
