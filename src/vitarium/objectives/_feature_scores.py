"""Scores of features, of models that learn without a head: by neighbors, by a linear probe, and
whether they collapse."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import torch
from pydantic import PositiveInt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.features import features
from vitarium.core.config import Config
from vitarium.data.batch import Batch
from vitarium.objectives._average_precision import mean_average_precision
from vitarium.objectives._nearest_neighbors import knn_classify, knn_votes
from vitarium.objectives.base import BatchesOfSplit, Evaluate

FEATURE_SCORES = ("knn_accuracy", "probe_accuracy", "feature_spread", "feature_rank")
"""What `evaluate_features` gives for a split; of images with several labels `knn_map` and
`probe_map` stand in the place of accuracies."""
_ITERATIONS = 200
"""Of L-BFGS; a probe that has not converged by then is scored as it is."""


class ScoredByFeatures(Config):
    """Settings of objectives whose models are scored by their features."""

    neighbors: PositiveInt = 20
    """Neighbors that vote in the k-NN classifier that scores the features."""
    bank: PositiveInt = 10_000
    """Largest number of training images among which the k-NN classifier looks for neighbors, and to
    which the linear probe is fitted."""


def evaluate_features(
    config: ScoredByFeatures, model: nn.Module, batches: BatchesOfSplit, splits: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Scores of each split's features, with classifiers of training images' features.

    knn_accuracy: top-1 of k nearest neighbors. probe_accuracy: top-1 of a linear probe.
    knn_map, probe_map: mean average precision of both, of images with several labels.
    feature_spread, feature_rank: see `spread` and `effective_rank`.
    """
    bank, bank_labels = images_features(model, batches("train", config.bank))
    probe = LinearProbe(bank, bank_labels)
    scores = {}
    for split in splits:
        queries, labels = images_features(model, batches(split, None))
        scores[split] = {
            **knn_score(bank, bank_labels, queries, labels, config.neighbors),
            **label_score("probe", probe(queries), labels),
            "feature_spread": spread(queries),
            "feature_rank": effective_rank(queries),
        }
    return scores


def knn_score(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor, neighbors: int
) -> dict[str, float]:
    """`knn_accuracy`, or `knn_map` of several labels.

    Features [n, num_features] and [m, num_features]; labels [n] and [m], or [n, classes] and
    [m, classes].
    """
    votes = knn_classify if labels.ndim == 1 else knn_votes
    parts = [votes(bank, bank_labels, part, k=neighbors) for part in queries.split(1024)]
    return label_score("knn", torch.cat(parts), labels)


def label_score(name: str, predicted: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy of classes [m], or mean average precision of scores [m, classes]."""
    if labels.ndim == 1:
        return {f"{name}_accuracy": _share(predicted == labels)}
    return {f"{name}_map": mean_average_precision(predicted, labels)}


def images_features(model: nn.Module, batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
    """Of all images: features [n, num_features] in float32, and labels [n] (or [n, classes])."""
    by_batch = [(features(model, batch.images).float(), batch.labels) for batch in batches]
    return torch.cat([f for f, _ in by_batch]), torch.cat([labels for _, labels in by_batch])


class HeadlessFacts(TypedDict):
    """Facts of an objective whose model has no head, and is scored by its features."""

    needs_head: bool
    trains_head: bool
    outputs: Callable[[Any, int], int]
    evaluate: Evaluate
    scores: tuple[str, ...]


WITHOUT_HEAD: HeadlessFacts = {
    "needs_head": False,
    "trains_head": False,
    "outputs": lambda config, num_classes: num_classes,
    "evaluate": evaluate_features,
    "scores": FEATURE_SCORES,
}
"""Facts for `@objective(name, **WITHOUT_HEAD)`."""


class LinearProbe:
    """Multinomial logistic regression on standardized features (l2 penalty of weight 1 over the sum
    of losses), fitted by scikit-learn's L-BFGS; of several labels one logistic regression each.

    features [n, num_features], labels [n]; calling it gives classes of features [m, num_features],
    [m]. Of several labels, bool [n, classes], it gives logits [m, classes].
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self._scaler = StandardScaler().fit(features.cpu().numpy())
        self._is_multilabel = labels.ndim == 2
        self._only_class = int(labels[0]) if _is_constant(labels) else None
        if self._only_class is not None:
            return
        self._regression: Any = LogisticRegression(max_iter=_ITERATIONS)
        if self._is_multilabel:
            self._regression = OneVsRestClassifier(self._regression)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "Label .* is present in|.*all training examples")
            self._regression.fit(self._scaled(features), labels.cpu().numpy())

    def __call__(self, features: Tensor) -> Tensor:
        if self._only_class is not None:
            return torch.full((len(features),), self._only_class, device=features.device)
        scaled = self._scaled(features)
        if self._is_multilabel:
            logits = self._regression.decision_function(scaled)
            return torch.from_numpy(logits).to(features.device)
        classes = self._regression.predict(scaled)
        return torch.from_numpy(classes).to(features.device)

    def _scaled(self, features: Tensor) -> object:
        return self._scaler.transform(features.cpu().numpy())


def spread(features: Tensor) -> float:
    """How far normalized features are apart: sqrt(num_features) times the mean over features of
    their standard deviation (Chen & He 2021, arXiv 2011.10566, Sec. 4.1).

    features [n, num_features] -> about 1 where directions are uniform, 0 where all are the same
    """
    unit = F.normalize(features.double(), dim=1)
    return (unit.std(dim=0, correction=0).mean() * unit.shape[1] ** 0.5).item()


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the singular values, as shares of their sum (RankMe; Garrido et al.
    2023, arXiv 2210.02885, Eq. 1).

    features [n, num_features] -> from 1 to the smaller of both sizes
    """
    # of the Gram matrix of the shorter side, whose eigenvalues are the squares
    values = features.double()
    short = values.T if values.shape[0] > values.shape[1] else values
    singular = torch.linalg.eigvalsh(short @ short.T).clamp_min(0).sqrt()
    shares = singular / singular.sum().clamp_min(1e-300)
    return torch.special.entr(shares).sum().exp().item()


def _is_constant(labels: Tensor) -> bool:
    return labels.ndim == 1 and len(labels.unique()) == 1


def _share(values: Tensor) -> float:
    return values.double().mean().item()
