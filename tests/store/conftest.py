"""A small zoo that is written, not trained."""

import pytest
import torch

from vitarium import Blueprint, Zoo, plan
from vitarium.store import About, Record


@pytest.fixture
def zoo(tiny, tmp_path):
    """A zoo of the tiny blueprint's models: random weights that change a little every epoch."""
    return written(tiny, tmp_path / "zoo")


def written(blueprint, path):
    zoo = Zoo.create(path)
    blueprint = Blueprint.read(blueprint)
    zoo.add_blueprint(blueprint)
    noise = torch.Generator().manual_seed(0)
    for spec in plan(blueprint).models:
        folder = zoo.folder(spec.id)
        folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
        weights = spec.recipe.build(10).state_dict()
        if spec.parent:
            weights |= {n: t for n, t in zoo.state_dict(spec.parent).items() if "head" not in n}
        for epoch in range(spec.recipe.epochs + 1):
            metrics = {"val_accuracy": epoch / 10, "seconds": 1.0}
            keep = epoch != 1 or spec.stage == "finetune"
            last = epoch == spec.recipe.epochs
            folder.commit(
                epoch,
                metrics,
                weights if keep else None,
                None if last else {"model/x": torch.ones(1)},
            )
            weights = {
                name: tensor * (1 + 1e-3 * torch.randn(tensor.shape, generator=noise))
                if epoch
                else tensor  # the first epoch trains nothing: equal tensors
                for name, tensor in weights.items()
            }
        folder.add_records([Record(0, "weight_norm", {"p": 2}, 1.5, "")])
        folder.finish("finished")
    return zoo
