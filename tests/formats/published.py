"""A published zoo in small, written by its own libraries: torch, timm and json, none of ours."""

import json
from pathlib import Path

import timm
import torch
from torch import nn

MEASURED = ("train_loss", "train_acc", "test_loss", "test_acc")


class Published(nn.Module):
    """As the authors wrap it: timm's model is the attribute `vit`, an MLP head put in its place."""

    def __init__(self, name="test_vit", hidden=None, num_classes=10, seed=0, **settings):
        super().__init__()
        torch.manual_seed(seed)
        self.vit = timm.create_model(name, num_classes=num_classes, **settings)
        if hidden:
            width = self.vit.num_features
            layers = nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
            self.vit.head = nn.Sequential(*layers)

    def forward(self, images):
        return self.vit(images)


def configuration(**changes):
    return {
        "dataset::name": "CIFAR100",
        "dataset::dump": "/ds2/zoos/cifar.pt",
        "model::type": "vit_test_16",
        "model::o_dim": 10,
        "model::init_type": "kaiming_normal",
        "model::dropout": 0,
        "model::attn_dropout": 0,
        "optim::optimizer": "adamw",
        "optim::lr": 0.001,
        "optim::wd": 0,
        "optim::momentum": 0,
        "optim::scheduler": None,
        "training::batchsize": 256,
        "training::epochs_train": 2,
        "training::mode": "sl",
        "training::label_smoothing": 0.1,
        "training::temperature": 0,
        "training::mixup": 0.8,
        "training::cutmix": 1.0,
        "training::randerase": None,
        "seed": 42,
        "cuda": True,
        **changes,
    }


def lines(epochs, dirs=False, done=True):
    """What Ray writes of each epoch, its bookkeeping included."""
    return [
        {
            **{name: 0.1 * (n + 1) + place / 10 for place, name in enumerate(MEASURED)},
            "time_this_iter_s": 1.5,
            "done": done and n == epochs[-1],
            "training_iteration": n,
            "timesteps_total": None,
            "trial_id": "5fb5f_00000",
            "date": "2024-03-01_10-00-00",
            "pid": 4711,
            "config": {"optim::lr": 0.001},
            **({"checkpoint_dir_name": f"checkpoint_{n - epochs[0]:06d}"} if dirs else {}),
        }
        for n in epochs
    ]


def write_trial(folder: Path, config, results, checkpoints, name="config.json"):
    """checkpoints: number -> state dict."""
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps(config))
    if results is not None:
        (folder / "result.json").write_text("".join(json.dumps(line) + "\n" for line in results))
    for number, weights in checkpoints.items():
        place = folder / f"checkpoint_{number:06d}"
        place.mkdir()
        torch.save(weights, place / "checkpoints")
        (place / "optimizer").write_bytes(b"never opened")


def write_zoo(root: Path):
    """Two pre-trained models (supervised, contrastive) and a fine-tuned child of the first."""
    first = [Published(seed=n).state_dict() for n in range(3)]
    write_trial(
        root / "pretraining/sl_seed_42", configuration(), lines([0, 1, 2]), dict(enumerate(first))
    )
    contrastive = configuration(
        **{"training::mode": "cl", "training::temperature": 0.07, "training::loss": "info_nce"}
    )
    write_trial(
        root / "pretraining/cl_seed_42",
        contrastive,
        lines([0, 1, 2]),
        {2: Published(seed=5).state_dict()},
    )
    child = configuration(
        **{
            "optim::optimizer": "sgd",
            "optim::momentum": 0.9,
            "model::head::mlp": True,
            "model::head::hidden_dim": 8,
            "pretraining::model": "sl_seed_42",
            "pretraining::model::path": "/ds2/zoos/ImageNet/sl_seed_42/checkpoint_1/checkpoints",
        }
    )
    write_trial(
        root / "finetuning/sl_seed_42/ft_lr_0.001",
        child,
        lines([0, 1, 2]),
        {n: Published(hidden=8, seed=9 + n).state_dict() for n in range(3)},
    )
    return root
