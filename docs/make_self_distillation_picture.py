"""Draw docs/self_distillation.svg: three tiny runs of self-distillation on digits, epoch by epoch.

python docs/make_self_distillation_picture.py ZOO  # grows ZOO where it is not there
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from vitarium import grow

HERE = Path(__file__).parent
DINO = {"name": "dino", "prototypes": 64, "momentum": 0.99}
RUNS = {
    "DINO": DINO,
    "DINO without centering": {**DINO, "center_momentum": 1.0},
    "DINOv2, Sinkhorn-Knopp": {**DINO, "name": "dinov2", "targets": "sinkhorn"},
}
STAGE = {
    "architecture": {
        "name": "vit",
        "img_size": 16,
        "patch_size": 4,
        "in_chans": 1,
        "embed_dim": 48,
        "depth": 3,
        "num_heads": 3,
        "class_token": False,
        "global_pool": "avg",
    },
    "data": "digits",
    "augmentation": {
        "name": "multi_crop",
        "local_crops": 2,
        "local_size": 8,
        "global_scale": [0.6, 1],
        "local_scale": [0.3, 0.6],
        "horizontal_flip": 0,
        "color_jitter_probability": 0,
        "grayscale": 0,
        "global_blur": [0, 0],
        "local_blur": 0,
        "global_solarize": [0, 0],
    },
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.04},
    "schedule": {"name": "cosine", "warmup_epochs": 2},
    "batch_size": 64,
    "epochs": 12,
    "variants": [{"objective": objective} for objective in RUNS.values()],
}
PANELS = {
    "train_teacher_entropy": "teacher's entropy, share of log K",
    "val_feature_rank": "effective rank of the features",
    "val_knn_accuracy": "k-NN accuracy",
}
COLORS = ("#1f6feb", "#cf222e", "#8250df")


def main(folder: str) -> None:
    """A panel per metric, a curve per run."""
    values = {"vitarium": 1, "name": "self-distillation", "stages": {"pretrain": STAGE}}
    plain = {"precision": "fp32", "compiled": False, "stacked": 1, "threads": 1, "workers": 1}
    growth = grow(values, folder, **plain)
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "vitarium", "svg.fonttype": "none"})
    figure, panels = plt.subplots(1, len(PANELS), figsize=(9.6, 3))
    for spec, label, color in zip(growth.plan.models, RUNS, COLORS, strict=True):
        epochs = growth.zoo.epochs(spec.id)
        for axes, metric in zip(panels, PANELS, strict=True):
            axes.plot(epochs["epoch"], epochs[metric], color=color, label=label)
    for axes, title in zip(panels, PANELS.values(), strict=True):
        axes.set(xlabel="epoch", title=title)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(-0.03, 1.03)
    panels[0].legend(frameon=False, loc="center right")
    figure.tight_layout()
    figure.savefig(HERE / "self_distillation.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
