"""Whatever the order of models is, a method sees them sorted, and its forest is in their order."""

import numpy as np
import torch

from vitarium.core.config import NoConfig
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import (
    Edge,
    Forest,
    ModelSet,
    canonical_order,
    copies,
    first_appearance,
    tied,
)


def model_set(**values: float) -> ModelSet:
    return ModelSet([Weights(n, {"w": torch.tensor([v, 1.0])}) for n, v in values.items()], ["w"])


def test_a_method_sees_models_sorted_and_its_evidence_is_gathered_once():
    orders = []

    @canonical_order
    def method(config, sorted_set, trees):
        orders.append(
            (sorted_set.names, sorted_set.statistics.grams["w"].diagonal().tolist(), trees)
        )
        edges = [Edge("a", "b", 1.0)]
        return Forest("method", sorted_set.names, [0, 0, 1], edges, {"a": 1.0, "c": 1.0})

    models = model_set(c=3, a=1, b=2)
    forest = method(NoConfig(), models, 2)
    assert orders == [(["a", "b", "c"], [2, 5, 10], 2)]
    assert list(forest.models) == ["c", "a", "b"]
    assert list(forest.families) == [0, 1, 1]
    assert forest.trees == [["c"], ["a", "b"]]
    assert "statistics" in models.__dict__


def test_groups_are_numbered_as_they_appear():
    assert first_appearance(np.array([7, 2, 7, 0, 2])).tolist() == [0, 1, 0, 2, 1]


def test_models_with_the_same_weights_are_tied():
    models = model_set(a=1, b=2, c=1, d=2, e=3, f=1)
    assert copies(models).tolist() == [0, 1, 0, 1, 4, 0]
    assert tied(models) == [["a", "c", "f"], ["b", "d"]]
