"""Recovered forests that are made up: trees, of which some edges are wrong on purpose."""

from collections.abc import Collection, Mapping
from dataclasses import fields

import numpy as np

from vitarium.lineage.base import Edge, Forest
from vitarium.lineage.recover import ModelGroup, Recovered
from vitarium.lineage.scores import Scores


def truth_of(trees: int, children: int, grandchildren: int) -> dict[str, tuple[str, ...]]:
    """True parents: of each tree a root, its children and theirs."""
    truth: dict[str, tuple[str, ...]] = {}
    for tree in range(trees):
        root = f"r{tree}"
        truth[root] = ()
        for child in range(children):
            name = f"{root}c{child}"
            truth[name] = (root,)
            truth |= {f"{name}g{number}": (name,) for number in range(grandchildren)}
    return truth


def forest_of(
    parents: Mapping[str, tuple[str, ...]],
    *,
    method: str = "descent",
    sure: Mapping[str, float] | None = None,
    kinds: Mapping[str, str] | None = None,
    **more: object,
) -> Forest:
    """Each model with these parents; a family is what hangs together by first parents."""
    sure, kinds = sure or {}, kinds or {}

    def root(model: str) -> str:
        while parents[model]:
            model = parents[model][0]
        return model

    numbers: dict[str, int] = {}
    families = [numbers.setdefault(root(model), len(numbers)) for model in parents]
    edges = [
        Edge(parent, child, sure.get(child, 0.97), 1 / len(of), kinds.get(child, "trained"))
        for child, of in parents.items()
        for parent in of
    ]
    roots = {model: sure.get(model, 0.99) for model, of in parents.items() if not of}
    return Forest(method, list(parents), families, edges, roots, **more)


def recovered(
    trees: int = 3,
    children: int = 4,
    grandchildren: int = 2,
    *,
    wrong: Collection[str] = (),
    known: bool = True,
    mixture: bool = False,
    others: bool = True,
    **more: object,
) -> Recovered:
    """The truth but for some models, who hang below another child of their root."""
    truth = truth_of(trees, children, grandchildren)
    if mixture:
        truth["soup"] = ("r0c0", "r0c1")
    random = np.random.default_rng(0)
    found = {m: (_uncle(m),) if m in wrong else of for m, of in truth.items()}
    sure = {
        m: float(random.uniform(0.4, 0.8)) if m in wrong else 1 - 0.08 * random.random()
        for m in found
    }
    forest = forest_of(found, sure=sure, kinds={"soup": "merged"} if mixture else {})
    flat = {m: () if len(m) == 2 else ("r" + m[1:2],) if m[0] == "r" else ("r0",) for m in truth}
    score = scores_of(
        node_accuracy=1 - len(wrong) / len(truth),
        edge_precision=0.9,
        edge_recall=0.88,
        root_accuracy=1.0,
        adjusted_rand_index=1.0,
        mother_accuracy=0.9,
    )
    info = {
        m: {
            "stage": ("pretrain", "finetune", "again")[("c" in m) + ("g" in m)],
            "factors": f"lr={[0.1, 0.01][place % 2]} seed={place % 3}",
            "epoch": 6,
            "accuracy": 0.8 + place / 1000,
        }
        for place, m in enumerate(truth)
    }
    given = {
        "forest": forest,
        "truth": truth if known else None,
        "scores": score if known else None,
        "others": {
            name: (
                forest_of(flat, method=name),
                scores_of(node_accuracy=0.4, adjusted_rand_index=0.8) if known else None,
            )
            for name in ("mother", "nearest_root")
            if others
        },
        "left_out": {"broken.safetensors": "block.0.weight has NaN"},
        "groups": [ModelGroup(list(truth), 74, 0.991)],
        "info": info,
    }
    return Recovered(**(given | more))


def scores_of(**values: float) -> Scores:
    """These, and nothing to count for all others."""
    return Scores(**(dict.fromkeys(field.name for field in fields(Scores)) | values))


def _uncle(model: str) -> str:
    """Another child of the root."""
    root, _, rest = model.partition("c")
    return f"{root}c{(int(rest.partition('g')[0]) + 1) % 3}"
