"""The contract of methods of lineage recovery (`vitarium.lineage.base`), checked."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import networkx
import numpy as np
import torch

from vitarium.core.errors import InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import Forest, ModelSet
from vitarium.lineage.files.forests import read_json, write_json
from vitarium.testing._rules import Contract

_WIDTH = 48
_SHAPES: Mapping[str, tuple[int, ...]] = {
    "pos_embed": (1, 17, _WIDTH),
    "blocks.0.attn.qkv.weight": (3 * _WIDTH, _WIDTH),
    "blocks.0.attn.qkv.bias": (3 * _WIDTH,),
    "blocks.0.attn.proj.weight": (_WIDTH, _WIDTH),
    "blocks.0.mlp.fc1.weight": (4 * _WIDTH, _WIDTH),
    "blocks.0.mlp.fc2.weight": (_WIDTH, 4 * _WIDTH),
    "norm.weight": (_WIDTH,),
}
_TREES = {"a": None, "a.0": "a", "a.1": "a", "a.2": "a", "a.0.0": "a.0"}
_TREES |= {"b": None, "b.0": "b", "b.1": "b", "b.2": "b"}
"""Models of two trees by name, and their parents."""
_RELATIVE = 1e-6  # sums in another order may change confidences by so much


def check_lineage(name: str) -> None:
    """Check a method of lineage recovery by its contract, on a dozen small models in two trees."""
    rule = Contract("lineage", name)
    method, trained = rule.section, _trained()
    # equal shares would leave a choice between the two
    soup = {
        key: np.float32(0.6) * trained["a.0"][key] + np.float32(0.4) * trained["a.1"][key]
        for key in _SHAPES
    }
    weights = {**trained, "soup": soup, "twin": trained["b.1"]}
    _check_forest(rule, weights)
    _check_order(rule, weights)
    _check_names(rule, {**trained, "soup": soup})
    for count in (1, 2):
        few = _model_set(weights, list(weights)[:count])
        _check_structure(rule, method(few, None), few)
    for trees in (1, 2, 3):
        model_set = _model_set(trained)
        forest = method(model_set, trees)
        _check_structure(rule, forest, model_set)
        rule(len(set(forest.families)) == trees, f"{trees} trees, where they are asked for")
    for trees in (0, 100):
        model_set, message = _model_set(weights), ""
        try:
            method(model_set, trees)
        except InvalidInput as error:
            message = str(error)
        asked = f"{trees} trees"
        raises = f"{asked} of {len(model_set)} models raise InvalidInput that says '{asked}'"
        rule(asked in message, raises)


def _trained() -> dict[str, dict[str, np.ndarray]]:
    """Two trees of models: a child is its parent plus independent normal numbers; roots have heavy
    tails, so that kurtosis falls along every edge, and leaves no choice of a root."""
    noise = np.random.default_rng(0)
    weights: dict[str, dict[str, np.ndarray]] = {}
    for name, parent in _TREES.items():
        step = noise.uniform(0.01, 0.02)
        weights[name] = {
            key: np.asarray(
                weights[parent][key] + noise.normal(0, step, shape)
                if parent
                else 0.03 * noise.standard_t(5, shape),
                np.float32,
            )
            for key, shape in _SHAPES.items()
        }
    return weights


def _model_set(
    weights: Mapping[str, Mapping[str, np.ndarray]], order: Sequence[str] | None = None
) -> ModelSet:
    models = [
        Weights(name, {key: torch.from_numpy(array) for key, array in weights[name].items()})
        for name in order or weights
    ]
    return ModelSet(models, list(_SHAPES))


def _check_structure(rule: Contract, forest: Forest, model_set: ModelSet) -> None:
    families = list(forest.families)
    rule(forest.method == rule.name, "the forest says which method it is of")
    rule(list(forest.models) == model_set.names, "all models, in the order given")
    rule(len(families) == len(model_set), "every model has a family")
    numbers = list(dict.fromkeys(families))
    rule(numbers == list(range(len(numbers))), "families are numbered by appearance")
    family = dict(zip(forest.models, families, strict=True))
    graph = networkx.DiGraph()
    graph.add_nodes_from(forest.models)
    for edge in forest.edges:
        rule({edge.parent, edge.child} <= family.keys(), "edges are among the models")
        rule(family[edge.parent] == family[edge.child], "edges stay in a family")
        rule(0 <= edge.confidence <= 1, "confidences are in [0, 1]")
        rule(0 < edge.share <= 1, "shares are in (0, 1]")
        graph.add_edge(edge.parent, edge.child)
    rule(networkx.is_directed_acyclic_graph(graph), "edges close no circle")
    for model, parents in forest.parents.items():
        rule(parents or model in forest.roots, f"{model} has a parent or is a root")
        total = sum(edge.share for edge in parents.values())
        rule(not parents or abs(total - 1) < _RELATIVE, "a model's shares add up to 1")
    rule(forest.roots.keys() <= family.keys(), "roots are models")
    rule(all(0 <= p <= 1 for p in forest.roots.values()), "roots' values are in [0, 1]")


def _check_forest(rule: Contract, weights: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """A forest of all models, in which copies are tied, and which a file keeps."""
    model_set = _model_set(weights)
    forest = rule.section(model_set, None)
    _check_structure(rule, forest, model_set)
    groups = [tuple(sorted(group)) for group in forest.tied]
    rule(groups == [("b.1", "twin")], "models with equal weights are tied")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "forest.json"
        write_json(forest, path)
        stored = read_json(path).forest
    same = stored.parents == forest.parents and stored.roots == forest.roots
    for field in ("models", "families", "notes"):
        same &= list(getattr(stored, field)) == list(getattr(forest, field))
    same &= [list(group) for group in stored.tied] == [list(group) for group in forest.tied]
    rule(same, "a JSON file keeps the forest as it is")


def _check_order(rule: Contract, weights: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    plain = rule.section(_model_set(weights), None)
    order = np.random.default_rng(1).permutation(list(weights)).tolist()
    shuffled_set = _model_set(weights, order)
    shuffled = rule.section(shuffled_set, None)
    _check_structure(rule, shuffled, shuffled_set)
    edges = [{(e.parent, e.child): e for e in forest.edges} for forest in (plain, shuffled)]
    trees = [{frozenset(tree) for tree in forest.trees} for forest in (plain, shuffled)]
    same = edges[0].keys() == edges[1].keys() and trees[0] == trees[1]
    same = same and _same_numbers(plain.roots, shuffled.roots)
    for ends, edge in edges[0].items() if same else ():
        again = edges[1][ends]
        same &= edge.kind == again.kind and _near(edge.confidence, again.confidence)
    rule(same, "the order of models means nothing")


def _check_names(rule: Contract, weights: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Without copies: between these weights leave a choice, and the first name is chosen."""
    renamed = {model: f"{number:02}" for number, model in enumerate(sorted(weights, reverse=True))}
    plain = rule.section(_model_set(weights), None)
    again_set = _model_set({renamed[model]: tensors for model, tensors in weights.items()})
    again = rule.section(again_set, None)
    edges = {(renamed[edge.parent], renamed[edge.child]) for edge in plain.edges}
    same = edges == {(edge.parent, edge.child) for edge in again.edges}
    roots = {renamed[model]: value for model, value in plain.roots.items()}
    rule(same and _same_numbers(roots, again.roots), "names mean nothing")


def _near(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=_RELATIVE, abs_tol=1e-12)


def _same_numbers(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    return first.keys() == second.keys() and all(_near(first[m], second[m]) for m in first)
