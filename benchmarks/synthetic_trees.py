"""Trees of models that never were trained: random walks in weight space, in safetensors files.

Every root is a ViT as it is initialized, by a seed of its own, and one long step, its pre-training.
A child is its parent and a step in a random direction; the steps of siblings have a direction in
common, as fine-tunings of one model have. As in training, some rows and columns of a tree's tensors
move more than others, so that independent steps are not quite at right angles, and every step moves
some tensors more than others. `lineage.csv` tells the true parents.

    python benchmarks/synthetic_trees.py FOLDER --models 10000 --trees 100      # 4.8 GB
    python benchmarks/synthetic_trees.py FOLDER --models 250 --trees 10 --large # ViT-S, 21.7 GB
"""

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from vitarium import create_model
from vitarium.core.seeds import derive

SMALL = {"img_size": 28, "in_chans": 1, "patch_size": 7, "embed_dim": 48, "depth": 4}
"""A ViT of 117 thousand parameters."""
STEPS = (0.01, 1.0)
"""Lengths of steps over that of the root, from which they are drawn, evenly by their logarithm."""
COMMON = (0.0, 0.5)
"""Cosines of the steps of siblings, from which one is drawn for every tensor of a parent."""
UNEVEN = 0.7
"""Standard deviation of the logarithm by which rows and columns differ in how far they move; the
cosines of independent steps in a tensor of 48 by 192 numbers are then 0.07, as in real ViTs."""
LAYERS = 0.5
"""The same of tensors, for every step."""
DEEPEST = 4
"""Steps from a root, at most."""

Vectors = Mapping[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--large", action="store_true", help="ViT-S/16 in place of a tiny ViT")
    args = parser.parse_args()
    write(args.folder, args.models, args.trees, args.seed, large=args.large)


def write(folder: Path, models: int, trees: int, seed: int = 0, *, large: bool = False) -> None:
    """Write the files; names tell nothing, nor does their order."""
    folder.mkdir(parents=True)
    parents = structure(models, trees, seed)
    children: dict[int, list[int]] = {number: [] for number in range(models)}
    for number, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(number)
    names = [f"{derive(seed, 'name', number):016x}" for number in range(models)]

    def grow(number: int, vectors: Vectors, scales: Vectors, length: float) -> None:
        (folder / f"{names[number]}.safetensors").write_bytes(save(dict(vectors)))
        if not children[number]:
            return
        noise = np.random.default_rng(derive(seed, "siblings", number))
        shares = {name: noise.uniform(*COMMON) for name in vectors}
        shared = _noise(scales, noise)
        for child in children[number]:
            noise = np.random.default_rng(derive(seed, "step", child))
            step = _noise(scales, noise)
            for name, vector in step.items():
                vector *= np.float32((1 - shares[name]) ** 0.5)
                vector += np.float32(shares[name] ** 0.5) * shared[name]
                vector *= np.float32(np.exp(noise.normal(0, LAYERS)))
            size = np.float32(length * np.exp(noise.uniform(*np.log(STEPS))) / _length(step))
            for name, vector in step.items():
                vector *= size
                vector += vectors[name]
            grow(child, step, scales, length)

    for root in (number for number, parent in enumerate(parents) if parent < 0):
        vectors = _initial(derive(seed, "root", root), large)
        scales = _scales(vectors, derive(seed, "scales", root))
        step = _noise(scales, np.random.default_rng(derive(seed, "step", root)))
        size = np.float32(_length(vectors) / _length(step))
        trained = {name: vector + size * step[name] for name, vector in vectors.items()}
        grow(root, trained, scales, _length(trained))
    with (folder / "lineage.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["model", "parent"])
        rows = [(names[n], names[p] if p >= 0 else "") for n, p in enumerate(parents)]
        table.writerows(sorted(rows))


def structure(models: int, trees: int, seed: int) -> list[int]:
    """Of every model the parent's number, -1 of a root: trees of many sizes.

    A model's tree is drawn by the tree's weight, and its parent from the models that are in it.
    """
    noise = np.random.default_rng(derive(seed, "structure"))
    weights = noise.lognormal(0, 0.7, trees)
    members: list[list[int]] = [[root] for root in range(trees)]
    parents, depths = [-1] * trees, [0] * trees
    for number, tree in enumerate(noise.choice(trees, models - trees, p=weights / weights.sum())):
        parent = int(noise.choice(members[tree]))
        parents.append(parent)
        depths.append(depths[parent] + 1)
        if depths[-1] < DEEPEST:
            members[tree].append(trees + number)
    return parents


def _initial(seed: int, large: bool) -> Vectors:
    """A ViT's tensors as it is initialized; what would be equal in all roots is a little off."""
    import torch

    torch.manual_seed(seed)
    noise = np.random.default_rng(seed)
    if large:
        model = create_model("vit_small_patch16_224", num_classes=100)
    else:
        model = create_model("vit", num_heads=3, num_classes=10, **SMALL)
    return {
        name: tensor.numpy() + np.float32(0.01) * noise.standard_normal(tensor.shape, np.float32)
        for name, tensor in model.state_dict().items()
    }


def _scales(vectors: Vectors, seed: int) -> Vectors:
    """How far each number of a tensor moves, in proportion to the tensor's spread."""
    noise = np.random.default_rng(seed)
    scales = {}
    for name, vector in vectors.items():
        scale = np.full(vector.shape, vector.std(), np.float32)
        for axis, size in enumerate(vector.shape):
            factors = np.exp(noise.normal(0, UNEVEN, size)).astype(np.float32)
            scale *= np.expand_dims(factors, [a for a in range(vector.ndim) if a != axis])
        scales[name] = scale
    return scales


def _noise(scales: Vectors, noise: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        name: noise.standard_normal(scale.shape, np.float32) * scale
        for name, scale in scales.items()
    }


def _length(vectors: Vectors) -> float:
    """Of the matrices: the scales of norms say nothing of how far models are from each other."""
    matrices = (vector for vector in vectors.values() if vector.ndim > 1)
    return float(np.sqrt(sum(np.square(vector, dtype=np.float64).sum() for vector in matrices)))


if __name__ == "__main__":
    main()
