"""Small vision transformers that learned scikit-learn's digits, and their moved copies."""

from copy import deepcopy

import torch
from torch.nn import functional as F

from vitarium import create_model
from vitarium.architectures.symmetries._folding import folded, unfolded
from vitarium.architectures.symmetries.base import moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.registry import section
from vitarium.data import load as dataset
from vitarium.data.loader import Batches
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients

INPUT_SIZE = (1, 8, 8)
VIT = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}


def digits() -> EvalData:
    """The training images."""
    data = dataset.load(section("dataset", "digits"))
    augmentation = section("augmentation", "standard")(INPUT_SIZE, data.num_classes)
    return EvalData(Batches(data, augmentation, INPUT_SIZE, batch_size=1, seed=0), "train")


def trained(examples: EvalData, seed: int, steps: int = 150) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = create_model("vit", num_classes=10, **VIT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = list(examples.batches(64))
    for step in range(steps):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def ingredients(one: torch.nn.Module, other: dict, examples: EvalData) -> Ingredients:
    """A model, and the weights of another."""
    return Ingredients(
        [Weights("one", one.state_dict()), Weights("other", other)],
        model=lambda: deepcopy(one),
        examples=lambda number=None: examples,
        symmetries=lambda: vit_symmetries(one),
    )


def exchanged(model: torch.nn.Module, seed: int) -> dict:
    """Its weights with all units that can be exchanged somewhere else."""
    symmetries = vit_symmetries(model)
    return moved(symmetries, model.state_dict(), _moves(symmetries, seed, mixed=False))


def mixed(model: torch.nn.Module, seed: int) -> dict:
    """Its weights with all units mixed as far as its symmetries go, in the same norms."""
    symmetries, own = vit_symmetries(model), model.state_dict()
    moves = _moves(symmetries, seed, mixed=True)
    found = unfolded(symmetries, moved(symmetries, folded(symmetries, own), moves), own)
    return {name: tensor.float() for name, tensor in found.items()}


def _moves(symmetries, seed: int, *, mixed: bool) -> dict:
    generator = torch.Generator().manual_seed(seed)

    def one(group):
        if not mixed or group.maps == "permutation":
            return torch.randperm(group.size, generator=generator)
        drawn = torch.randn(group.size, group.size, generator=generator, dtype=torch.float64)
        if group.maps == "invertible":
            return torch.linalg.qr(drawn).Q
        drawn[:, 0] = 1  # the direction of the mean stays
        basis = torch.linalg.qr(drawn).Q[:, 1:]
        turn = torch.linalg.qr(torch.randn(2 * [group.size - 1], generator=generator).double()).Q
        return basis @ turn @ basis.T + 1 / group.size

    return {
        name: torch.stack([one(group) for _ in range(symmetries.groups[group.inside].size)])
        if group.inside
        else one(group)
        for name, group in symmetries.groups.items()
    }
