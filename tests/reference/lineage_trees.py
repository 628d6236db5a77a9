"""Trees of models that are known: each is its parent after a random step in weight space."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet

WIDTH = 48
SHAPES = {
    "pos_embed": (1, 5, WIDTH),
    "blocks.0.attn.qkv.weight": (3 * WIDTH, WIDTH),
    "blocks.0.attn.qkv.bias": (3 * WIDTH,),
    "blocks.0.attn.proj.weight": (WIDTH, WIDTH),
    "blocks.0.mlp.fc1.weight": (2 * WIDTH, WIDTH),
    "norm.weight": (WIDTH,),
}


@dataclass(frozen=True)
class Known:
    """A set of models, and of every model its parent (None of a root) and the number of its tree."""

    model_set: ModelSet
    parents: dict[str, str | None]
    families: list[int]


def grow(
    seed: int,
    *,
    trees: int = 1,
    fans: Sequence[int] = (3, 2),
    steps: Sequence[float] = (0.4, 0.5),
    kurtosis: Literal["falls", "grows"] = "falls",
    shuffled: bool = True,
) -> Known:
    """Grow trees: a root has fans[0] children, each of them fans[1], and so on.

    Roots have entries of variance 1, and a step to depth d adds entries of standard deviation
    steps[d - 1]. Kurtosis falls where normal numbers are added to Student's t (of 5 degrees), and
    grows where few large numbers (one entry of twenty) are added to normal ones.
    """
    rng = np.random.default_rng(seed)
    tensors: dict[str, dict[str, np.ndarray]] = {}
    parents: dict[str, str | None] = {}
    family: dict[str, int] = {}

    def root(shape: tuple[int, ...]) -> np.ndarray:
        if kurtosis == "falls":
            return rng.standard_t(5, shape) * 0.6**0.5
        return rng.normal(0, 1, shape)

    def step(shape: tuple[int, ...]) -> np.ndarray:
        share = 1 if kurtosis == "falls" else 0.05
        return rng.normal(0, share**-0.5, shape) * (rng.random(shape) < share)

    def add(name: str, parent: str | None, depth: int, tree: int) -> None:
        if parent is None:
            tensors[name] = {key: root(shape) for key, shape in SHAPES.items()}
        else:
            size = steps[depth - 1]
            tensors[name] = {
                key: value + size * step(value.shape) for key, value in tensors[parent].items()
            }
        parents[name], family[name] = parent, tree
        for child in range(fans[depth] if depth < len(fans) else 0):
            add(f"{name}.{child}", name, depth + 1, tree)

    for tree in range(trees):
        add(f"tree {tree}", None, 0, tree)
    names = list(tensors)
    if shuffled:
        names = [names[place] for place in rng.permutation(len(names))]
    models = [
        Weights(
            name, {key: torch.from_numpy(value).float() for key, value in tensors[name].items()}
        )
        for name in names
    ]
    return Known(ModelSet(models, list(SHAPES)), parents, [family[name] for name in names])
