"""The contract of weight encoders (`vitarium.encoders.base`), checked."""

from pathlib import Path

import torch
from torch import Tensor

from vitarium.architectures.heads import is_head
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.weight_subset import backbone
from vitarium.testing._rules import Contract
from vitarium.testing._tiny_zoo import tiny_zoo
from vitarium.zoo import Zoo


def check_weight_encoder(name: str, zoo: Zoo | str | Path | None = None) -> None:
    """Check a weight encoder by its contract: described, deterministic, blind to heads, and with
    vectors as long for all models of an architecture.

    Args:
        name: of a registered encoder. It runs with its settings `tiny`.
        zoo: the models of it that are built like its first one are encoded, of which there are two
            at least. None: a zoo of tiny models on scikit-learn's digits, grown once per process in
            a few seconds.
    """
    rule = Contract("weight_encoder", name)
    rule(rule.facts["title"], "it has a title")
    with tiny_zoo(instead=zoo) as zoo:
        loader = ModelLoader(zoo)
        models = [_in_memory(loader.weights(zoo.at(id))) for id in zoo.ids()]
    alike = [weights for weights in models if weights.shapes == models[0].shapes]
    rule(len(alike) > 1, "the zoo has two models that are built alike")
    _check_unchanged(rule, alike[0])
    vectors = [_vector(rule, weights) for weights in alike]
    again = torch.equal(vectors[0], _vector(rule, alike[0]))
    rule(again, "it gives the same bits each time")
    lengths = {len(vector) for vector in vectors}
    rule(len(lengths) == 1, "its vectors are as long for all models of an architecture")
    differing = any(not torch.equal(vector, vectors[0]) for vector in vectors)
    rule(differing, "its vectors tell models apart")
    _check_changed(rule, alike[0], vectors[0])


def _in_memory(weights: Weights, **changed: Tensor) -> Weights:
    """The same weights, or some in other tensors [*shape] of the same name."""
    state = {name: tensor.clone() for name, tensor in weights.items()}
    skeleton = weights.skeleton
    return Weights(weights.name, state | changed, skeleton=lambda: skeleton, origin=weights.origin)


def _check_unchanged(rule: Contract, weights: Weights) -> None:
    before = {name: tensor.clone() for name, tensor in weights.items()}
    rule.section(backbone(weights))
    same = all(torch.equal(tensor, before[name]) for name, tensor in weights.items())
    rule(same, "it leaves weights as they are")


def _check_changed(rule: Contract, weights: Weights, vector: Tensor) -> None:
    """Of weights whose vector [dim] this is: heads have no part in it, and NaN is refused."""
    heads = [name for name in weights if is_head(weights.skeleton, name)]
    other = _in_memory(weights, **{name: weights[name] + 1 for name in heads})
    rule(torch.equal(_vector(rule, other), vector), "the head has no part in it")
    name = next(name for name in weights.shapes if name not in heads and weights[name].numel())
    broken = _in_memory(weights, **{name: weights[name] * float("nan")})
    try:
        rule.section(backbone(broken))
    except NotApplicable:
        return
    rule(False, "it raises NotApplicable for weights that are not finite")


def _vector(rule: Contract, weights: Weights) -> Tensor:
    """Float [dim] of a model."""
    vector = rule.section(backbone(weights))
    is_vector = isinstance(vector, Tensor) and vector.dim() == 1 and len(vector) > 0
    rule(is_vector and vector.is_floating_point(), "it gives a tensor of real numbers [dim]")
    rule(torch.isfinite(vector).all(), "its vectors are finite")
    checked: Tensor = vector
    return checked
