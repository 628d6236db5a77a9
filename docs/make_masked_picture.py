"""Draw docs/masked.png: what a masked autoencoder fills in, and the levels that MFF fuses.

python docs/make_masked_picture.py

Trains both on 5,000 digits of MNIST that come inside a package: a few minutes on one core.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from vitarium import Blueprint, plan
from vitarium.architectures.patch_tokens import patch_pixels
from vitarium.data.loader import stacked_batches
from vitarium.objectives.masked.base import encode_visible
from vitarium.training import TrainOptions
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

HERE = Path(__file__).parent
SIZE, PATCH, IMAGES = 28, 4, 8
STAGE = {
    "architecture": {
        "name": "vit",
        "img_size": SIZE,
        "patch_size": PATCH,
        "in_chans": 1,
        "embed_dim": 64,
        "depth": 6,
        "num_heads": 4,
    },
    "data": "mnist5k",
    "initialization": "mae",
    "optimizer": {"name": "adamw", "lr": 1.5e-3, "weight_decay": 0.05, "betas": [0.9, 0.95]},
    "schedule": {"name": "cosine", "warmup_epochs": 2},
    "batch_size": 64,
    "epochs": 10,
}
DECODER = {"decoder_dim": 64, "decoder_depth": 2, "decoder_heads": 4}


def main() -> None:
    with TemporaryDirectory() as folder:
        pixels = {"name": "mae", "normalize_targets": False}
        mae = new_state(Path(folder), {**pixels, **DECODER}, epochs=20, batch_size=32)
        for _ in epochs(mae):
            pass
        mff = new_state(Path(folder), {"name": "mff", **DECODER})
        weights = list(epochs(mff))
    plt.rcParams.update({"font.size": 9})
    figure, (pictures, levels) = plt.subplots(1, 2, figsize=(9.6, 2.9), width_ratios=[3, 2])
    draw_reconstructions(pictures, mae)
    draw_levels(levels, weights)
    figure.tight_layout()
    figure.savefig(HERE / "masked.png", dpi=90, metadata={"Software": None})


def new_state(folder: Path, objective: dict[str, Any], **changes: int) -> TrainState:
    """A model that is not trained, with its decoder."""
    stage = STAGE | {"objective": objective} | changes
    (spec,) = plan(Blueprint.read({"vitarium": 1, "name": "masked", "stages": {"p": stage}})).models
    return TrainState(spec, ModelFolder(folder / spec.id), None, TrainOptions())


def epochs(state: TrainState) -> Iterator[dict[str, float]]:
    """Train it; metrics of the last step of each epoch."""
    trainer = Trainer([state], TrainOptions())
    trainer.training_mode()
    for epoch in range(1, state.recipe.epochs + 1):
        for number, batch in enumerate(stacked_batches([state.batches], epoch)):
            metrics = trainer.step(batch, epoch, number)
        yield {name: value.item() for name, value in metrics.items()}
        print(state.recipe.objective.name, epoch, metrics["loss"].item(), flush=True)


def draw_reconstructions(axes: Any, state: TrainState) -> None:
    """Test images; their visible patches; these with what the decoder predicts of the others."""
    model, config = state.model.eval(), state.recipe.objective.config
    test = torch.arange(len(state.batches.dataset.test))  # ordered by class
    batch = next(state.batches.plain("test", test[:: len(test) // IMAGES][:IMAGES], IMAGES))
    masked = state.masked(batch, 1, 0)
    assert masked.masks is not None
    hidden = masked.masks.unsqueeze(-1)
    with torch.no_grad():
        encoded, _ = encode_visible(config, model, masked)  # type: ignore[arg-type]
        predicted = state.companions.decoder(encoded, masked.masks)  # type: ignore[union-attr, operator]
    pixels = patch_pixels(state.batches.pixels(batch.images), (PATCH, PATCH))
    filled = patch_pixels(state.batches.pixels(as_images(predicted)), (PATCH, PATCH))
    rows = [pixels, torch.where(hidden, 0.5, pixels), torch.where(hidden, filled, pixels)]
    images = torch.stack([as_images(row).squeeze(1) for row in rows])  # [3, images, h, w]
    framed = torch.nn.functional.pad(images, (2, 2, 2, 2), value=1)
    canvas = framed.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)
    axes.imshow(canvas.clamp(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    height = SIZE + 4
    axes.set_yticks([height * (row + 0.5) for row in range(3)], ["image", "visible", "filled in"])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("MAE: 12 of 49 patches are seen")


def as_images(patches: Tensor) -> Tensor:
    """[batch, n, patch * patch] -> [batch, 1, h, w]"""
    side = SIZE // PATCH
    grid = patches.unflatten(2, (PATCH, PATCH)).unflatten(1, (side, side))
    return grid.permute(0, 1, 3, 2, 4).reshape(-1, 1, SIZE, SIZE)


def draw_levels(axes: Any, weights: list[dict[str, float]]) -> None:
    """The weight of each fused block after each epoch."""
    levels = [name for name in weights[0] if name.startswith("level_weight_")]
    colors = matplotlib.colormaps["viridis"]
    for number, name in enumerate(levels):
        values = [1 / len(levels)] + [metrics[name] for metrics in weights]
        axes.plot(values, color=colors(number / len(levels)), label=f"block {number}")
    axes.set(xlabel="epoch", ylabel="weight", title="MFF: levels that the decoder sees")
    axes.legend(frameon=False, fontsize=7, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
