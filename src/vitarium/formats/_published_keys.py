"""The words of the published zoos, and ours: `optim::lr` is `optimizer.lr`; all else keeps its own
name. Factors of ours that have no key there are written as `vitarium::augmentation.crop`."""

from collections.abc import Mapping
from typing import Any

from vitarium.blueprint import Recipe

OURS = "vitarium::"
MERGE_KEYS = ("made_by", "made_of")
"""What tells of a model that an operator made: which, and of what."""
NAMES: Mapping[str, str] = {
    "seed": "seed",
    "dataset::name": "data",
    "optim::optimizer": "optimizer",
    "optim::lr": "optimizer.lr",
    "optim::wd": "optimizer.weight_decay",
    "optim::momentum": "optimizer.momentum",
    "optim::nesterov": "optimizer.nesterov",
    "optim::scheduler": "schedule",
    "training::batchsize": "batch_size",
    "training::epochs_train": "epochs",
    "training::mode": "objective",
    "training::label_smoothing": "objective.label_smoothing",
    "training::temperature": "objective.temperature",
    "training::mixup": "augmentation.mixup",
    "training::cutmix": "augmentation.cutmix",
    "training::randerase": "augmentation.random_erasing",
    "model::freeze_encoder": "adaptation",
}
"""Their key -> our factor."""
VALUES: Mapping[str, tuple[tuple[Any, Any], ...]] = {
    "data": (("CIFAR10", "cifar10"), ("CIFAR100", "cifar100"), ("MNIST", "mnist")),
    "objective": (("sl", "supervised"), ("cl", "simclr")),
    "schedule": ((None, "constant"),),
    "adaptation": ((False, "full"), (True, "head")),
}
"""Our factor -> (their value, ours); another value keeps their key."""
ONLY_WITH: Mapping[str, tuple[str, str]] = {
    "optim::momentum": ("optim::optimizer", "sgd"),
    "optim::nesterov": ("optim::optimizer", "sgd"),
    "training::temperature": ("training::mode", "cl"),
}
"""Keys that say nothing of a model unless another key has that value."""
METRICS: Mapping[str, str] = {
    "train_acc": "train_accuracy",
    "val_acc": "val_accuracy",
    "test_acc": "test_accuracy",
    "time_this_iter_s": "seconds",
}
"""Their metric -> ours. Both are fractions, and seconds."""


def to_ours(config: Mapping[str, Any]) -> dict[str, Any]:
    """Their configuration -> factors under our names where they mean the same."""
    return dict(_to_ours(key, value, config) for key, value in config.items())


def to_published(factors: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `to_ours`; `vitarium::` stands before factors that they do not have."""
    named = [(name, *_to_published(name, value)) for name, value in factors.items()]
    config = {key: value for _, key, value in named}
    return {
        key if name == key or _counts(key, config) else f"{OURS}{name}": value
        for name, key, value in named
    }


def metric_name(key: str, *, contrastive: bool) -> str:
    """Our name of a metric. A contrastive run's accuracies are not of classes: they keep theirs."""
    return key if contrastive and key.endswith("_acc") else METRICS.get(key, key)


def published_metric(name: str, *, contrastive: bool) -> str:
    """The inverse of `metric_name`."""
    key = {ours: published for published, ours in METRICS.items()}.get(name, name)
    return name if contrastive and key.endswith("_acc") else key


def is_contrastive(config: Mapping[str, Any]) -> bool:
    """Whether the run learned no classes; a fine-tuning's configuration says only its loss."""
    mode, loss = config.get("training::mode"), config.get("training::loss")
    return mode == "cl" or (mode is None and loss == "info_nce")


def _to_ours(key: str, value: Any, config: Mapping[str, Any]) -> tuple[str, Any]:
    if key.startswith(OURS):
        return key.removeprefix(OURS), value
    name = NAMES.get(key)
    if name is None or not _counts(key, config):
        return key, value
    if name not in VALUES:
        return name, value
    for published, ours in VALUES[name]:
        if published == value and type(published) is type(value):  # 0 is not False
            return name, ours
    return key, value


def _to_published(name: str, value: Any) -> tuple[str, Any]:
    key = {ours: published for published, ours in NAMES.items()}.get(name)
    if key and name not in VALUES:
        return key, value
    for published, ours in VALUES.get(name, ()):
        if key and ours == value:
            return key, published
    ours_alone = name in MERGE_KEYS or name.partition(".")[0] in Recipe.model_fields
    return (f"{OURS}{name}" if ours_alone else name), value


def _counts(key: str, config: Mapping[str, Any]) -> bool:
    needed, value = ONLY_WITH.get(key, (key, None))
    return value is None or config.get(needed) == value
