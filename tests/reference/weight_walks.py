"""Random walks in weight space whose lineage is known, with all that a training leaves: weights begin
at random, biases at zero, gains at one; siblings' steps are alike in some layers; decay shrinks."""

from collections.abc import Mapping

import numpy as np
import torch

from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet

WIDTH = 48
_BLOCK: dict[str, tuple[int, ...]] = {
    "norm1.weight": (WIDTH,),
    "norm1.bias": (WIDTH,),
    "attn.qkv.weight": (3 * WIDTH, WIDTH),
    "attn.qkv.bias": (3 * WIDTH,),
    "attn.proj.weight": (WIDTH, WIDTH),
    "attn.proj.bias": (WIDTH,),
    "norm2.weight": (WIDTH,),
    "norm2.bias": (WIDTH,),
    "mlp.fc1.weight": (4 * WIDTH, WIDTH),
    "mlp.fc1.bias": (4 * WIDTH,),
    "mlp.fc2.weight": (WIDTH, 4 * WIDTH),
    "mlp.fc2.bias": (WIDTH,),
}
SHAPES: dict[str, tuple[int, ...]] = {
    "cls_token": (1, 1, WIDTH),
    "pos_embed": (1, 17, WIDTH),
    "patch_embed.proj.weight": (WIDTH, 1, 7, 7),
    "patch_embed.proj.bias": (WIDTH,),
    **{f"blocks.{block}.{n}": shape for block in range(2) for n, shape in _BLOCK.items()},
    "norm.weight": (WIDTH,),
    "norm.bias": (WIDTH,),
}
"""Of a small ViT of two blocks; about 60,000 numbers."""
INITIAL = 0.02
"""Standard deviation of weights at first, as timm has it."""

Tensors = dict[str, np.ndarray]


class Walks:
    """Makes models, and knows of each its parents; a copy, a soup, ... is a model like any other.

    Args:
        seed: of everything that is random.
        alike: cosine of siblings' steps in a layer, at most; every layer of a parent has its own.
        decay: share of matrices that a step of length 1 takes away, as weight decay does.
    """

    def __init__(self, seed: int, *, alike: float = 0.5, decay: float = 0.0) -> None:
        self.noise = np.random.default_rng(seed)
        self.alike, self.decay = alike, decay
        self.tensors: dict[str, Tensors] = {}
        self.parents: dict[str, tuple[str, ...]] = {}
        self._common: dict[str, tuple[Tensors, dict[str, float]]] = {}

    def initial(self) -> Tensors:
        """Weights before any training."""
        return {
            name: self.noise.normal(0, INITIAL, shape)
            if len(shape) > 1
            else np.full(shape, float("norm" in name and "weight" in name))
            for name, shape in SHAPES.items()
        }

    def root(self, name: str, start: Tensors | None = None, step: float = 1.0) -> str:
        """A model trained from initial weights by a step of so many times their length."""
        begun = start or self.initial()
        return self.put(name, self._stepped(begun, step, self.direction()))

    def child(self, name: str, parent: str, step: float) -> str:
        """A model trained from another by a step of so many times the length of initial weights."""
        common, shares = self._common.setdefault(
            parent,
            (self.direction(), {n: self.alike * self.noise.random() for n in SHAPES}),
        )
        own = self.direction()
        direction = {
            n: shares[n] ** 0.5 * common[n] + (1 - shares[n]) ** 0.5 * own[n] for n in SHAPES
        }
        return self.put(name, self._stepped(self.tensors[parent], step, direction), parent)

    def put(self, name: str, tensors: Mapping[str, np.ndarray], *parents: str) -> str:
        """A model made in any other way."""
        self.tensors[name] = {key: np.float32(value) for key, value in tensors.items()}
        self.parents[name] = parents
        return name

    def soup(self, name: str, shares: Mapping[str, float]) -> str:
        """A weighted mean."""
        mixed = {n: sum(s * self.tensors[m][n] for m, s in shares.items()) for n in SHAPES}
        return self.put(name, mixed, *shares)

    def tree(
        self,
        name: str,
        fans: tuple[int, ...] = (4, 2),
        least: float = 0.01,
        most: float = 1.0,
    ) -> str:
        """A root with fans[0] children, each with fans[1], ...; steps are log-uniform."""
        self.root(name)
        generation = [name]
        for fan in fans:
            generation = [
                self.child(
                    f"{parent}.{number}", parent, np.exp(self.noise.uniform(*np.log([least, most])))
                )
                for parent in generation
                for number in range(fan)
            ]
        return name

    def model_set(self, order: list[str] | None = None) -> ModelSet:
        """All models, in a random order if none is given."""
        names = order or self.noise.permutation(list(self.tensors)).tolist()
        models = [
            Weights(n, {key: torch.from_numpy(value) for key, value in self.tensors[n].items()})
            for n in names
        ]
        return ModelSet(models, list(SHAPES))

    def family(self, name: str) -> str:
        """The root that a model comes from, by its first parents."""
        while self.parents[name]:
            name = self.parents[name][0]
        return name

    def direction(self) -> Tensors:
        """A direction: some layers change more than others."""
        return {
            n: self.noise.normal(0, INITIAL * np.exp(self.noise.normal(0, 0.3)), shape)
            for n, shape in SHAPES.items()
        }

    def _stepped(self, tensors: Tensors, step: float, direction: Tensors) -> Tensors:
        return {
            n: (1 - self.decay * step * (len(SHAPES[n]) > 1)) * value + step * direction[n]
            for n, value in tensors.items()
        }
