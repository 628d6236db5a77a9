"""Draw docs/contrastive.png and docs/pairs.png: similarities of features before and after training.

python docs/make_similarity_pictures.py

Trains on 5,000 digits of MNIST that come inside a package: a few minutes on one core.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium import Blueprint, plan
from vitarium.architectures.features import features
from vitarium.data.loader import stacked_batches
from vitarium.training import TrainOptions
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

HERE = Path(__file__).parent
STAGE = {
    "architecture": {
        "name": "vit",
        "img_size": 28,
        "patch_size": 7,
        "in_chans": 1,
        "embed_dim": 64,
        "depth": 4,
        "num_heads": 4,
    },
    "data": "mnist5k",
    "augmentation": {
        "name": "simclr",
        "scale": [0.4, 1],
        "horizontal_flip": 0,
        "color_jitter_probability": 0,
        "grayscale": 0,
        "blur": 0,
    },
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "batch_size": 100,
    "epochs": 12,
}
PICTURES: dict[str, list[dict[str, Any]]] = {
    "contrastive": [
        {"name": "moco_v3", "projector_hidden_dim": 128, "out_dim": 64, "momentum": 0.95},
        {"name": "supcon", "out_dim": 64},
    ],
    "pairs": [{"name": "clip", "out_dim": 64}, {"name": "siglip", "out_dim": 64}],
}
PER_CLASS = 6


def main() -> None:
    plt.rcParams.update({"font.size": 9})
    for name, objectives in PICTURES.items():
        with TemporaryDirectory() as folder:
            states = [new_state(Path(folder), objective) for objective in objectives]
            matrices = [("untrained", similarities(states[0], name))]
            for state in states:
                train(state)
                matrices.append((state.recipe.objective.name, similarities(state, name)))
        draw(HERE / f"{name}.png", matrices, LABELS[name])


LABELS = {"contrastive": ("digit", "digit"), "pairs": ("first view", "second view")}


def new_state(folder: Path, objective: dict[str, Any]) -> TrainState:
    stage = STAGE | {"objective": objective}
    (spec,) = plan(Blueprint.read({"vitarium": 1, "name": "x", "stages": {"p": stage}})).models
    return TrainState(spec, ModelFolder(folder / spec.id), None, TrainOptions())


def train(state: TrainState) -> None:
    trainer = Trainer([state], TrainOptions())
    trainer.training_mode()
    for epoch in range(1, state.recipe.epochs + 1):
        for number, batch in enumerate(stacked_batches([state.batches], epoch)):
            metrics = trainer.step(batch, epoch, number)
        print(state.recipe.objective.name, epoch, metrics["loss"].item(), flush=True)


@torch.no_grad()
def similarities(state: TrainState, picture: str) -> Tensor:
    """Cosines of features less their mean, [n, n]: of test images with each other, by class; or of
    two views of training images, one image of a class after the other."""
    model = state.model.eval()
    if picture == "contrastive":
        (batch,) = state.batches.plain("test", by_class(state.batches.dataset.test.labels), 1000)
        rows = columns = centered(features(model, batch.images))
    else:
        batch = next(iter(state.batches.train(1)))
        chosen = by_class(batch.labels)
        views = batch.images.unflatten(0, (2, -1))
        rows, columns = (centered(features(model, view))[chosen] for view in views)
    return rows @ columns.T


def by_class(labels: Tensor) -> Tensor:
    """Numbers of the first images of each class, class by class."""
    return torch.cat([(labels == each).nonzero()[:PER_CLASS, 0] for each in labels.unique()])


def centered(values: Tensor) -> Tensor:
    return F.normalize(values - values.mean(0), dim=1)


def draw(path: Path, matrices: Sequence[tuple[str, Tensor]], labels: tuple[str, str]) -> None:
    figure, panels = plt.subplots(1, len(matrices), figsize=(3 * len(matrices), 3.2))
    for axes, (title, matrix) in zip(panels, matrices, strict=True):
        shown = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set(title=title, xlabel=labels[0], xticks=[], yticks=[])
    panels[0].set_ylabel(labels[1])
    figure.colorbar(shown, ax=list(panels), label="cosine of features", shrink=0.75)
    figure.savefig(path, dpi=80, metadata={"Software": None}, bbox_inches="tight")


if __name__ == "__main__":
    main()
