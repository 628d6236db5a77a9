"""The published way of growing a model zoo, to measure vitarium against.

Zoos have been grown with one Ray Tune trial per model: a process of its own that trains in plain
fp32 PyTorch, reads through a DataLoader whose Dataset augments PIL images one by one, scores the
validation and the test images after every epoch, and saves weights and optimizer state each time.
This is that recipe in our words, as a careful user would run it on one machine: the data are read
once and shared between trials, loader workers stay from one epoch to the next, and models whose
parents are there are tuned together, so that no core waits for a stage to end. It starts from the
same initial models as vitarium and keeps the initial state too, so both make the same checkpoints.

    pip install "ray[tune]"
    python benchmarks/reference_recipe.py demo --out reference-zoo --workers 2 --loader-workers 1
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from vitarium import Blueprint, Plan, plan
from vitarium.blueprint import ModelSpec
from vitarium.data.load import load
from vitarium.objectives._nearest_neighbors import knn_classify

OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SCORED_AT_A_TIME = 256  # images, unless training batches are larger


@dataclass(frozen=True)
class Setting:
    """What a user may turn: none of it changes what is trained.

    workers: models trained at a time, each in a process of its own.
    threads: of torch, in each of those processes.
    loader_workers: processes of each DataLoader; 0: the training process reads.
    device: "cpu" or "cuda".
    reuse_actors: whether a trial may have the process of one that has ended; Ray's default is no.
    """

    workers: int = 1
    threads: int = 1
    loader_workers: int = 0
    device: str = "cpu"
    reuse_actors: bool = False

    def __str__(self) -> str:
        said = [
            f"{self.workers} at a time",
            f"threads {self.threads}",
            f"loader workers {self.loader_workers}",
        ]
        return ", ".join(said + (["actors reused"] if self.reuse_actors else []))


# Images


class Pictures:
    """A split's images as PIL images, decoded when they are asked for; and their classes.

    images: uint8 [n, c, h, w], or anything that gives uint8 [c, h, w] by number.
    labels: int64 [n]
    """

    def __init__(self, images: Any, labels: Tensor) -> None:
        self.images = np.stack([_pixels(one) for one in images]) if _in_memory(images) else images
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        found = self.images[index]
        pixels = found if isinstance(found, np.ndarray) else _pixels(found)
        return Image.fromarray(pixels), self.labels[index]


@dataclass(frozen=True)
class Source:
    """A data set that can be sent to a trial: pictures per split, and what they are like.

    mean, std: of the pixels in [0, 1], per channel of the pictures.
    """

    splits: Mapping[str, Pictures]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, spec: ModelSpec) -> "Source":
        """The data that a model is trained on."""
        data = load(spec.recipe.data)
        parts = {"train": data.train, "val": data.val, "test": data.test}
        splits = {name: Pictures(part.images, part.labels) for name, part in parts.items()}
        return cls(splits, data.num_classes, data.mean, data.std)


class Transformed(Dataset[tuple[Any, int]]):
    """Pictures as they go into a model: one tensor each, or a list of several views."""

    def __init__(self, pictures: Pictures, transform: v2.Transform, views: int = 1) -> None:
        self.pictures, self.transform, self.views = pictures, transform, views

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor | list[Tensor], int]:
        picture, label = self.pictures[index]
        if self.views == 1:
            return self.transform(picture), label
        return [self.transform(picture) for _ in range(self.views)], label


def _in_memory(images: Any) -> bool:
    return isinstance(images, Tensor)


def _pixels(image: Tensor) -> np.ndarray:
    """uint8 [c, h, w] -> what PIL takes: [h, w] where it is gray, else [h, w, c]."""
    if len(image) == 1:
        return image[0].numpy()
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


# Augmentation


def training_transform(spec: ModelSpec, source: Source) -> v2.Transform:
    """A PIL image -> a normalized tensor of the model's input size, augmented as its recipe says.

    Mixup and cutmix, which work on batches, are not in it.
    """
    steps = {"standard": _standard, "simclr": _simclr}[spec.recipe.augmentation.name]
    config, size = spec.recipe.augmentation.config, _input_size(spec)
    erasing = getattr(config, "random_erasing", 0)
    return v2.Compose(
        [
            *steps(config, size[1:]),
            *_to_input(size[0], source),
            *([v2.RandomErasing(erasing, value=_erased(config))] if erasing else []),
        ]
    )


def scoring_transform(spec: ModelSpec, source: Source) -> v2.Transform:
    """A PIL image -> a normalized tensor of the model's input size, nothing drawn."""
    config, (channels, height, width) = spec.recipe.augmentation.config, _input_size(spec)
    shorter = config.resize or min(height, width)
    mode = v2.InterpolationMode(getattr(config, "interpolation", "bilinear"))
    return v2.Compose(
        [v2.Resize(shorter, mode), v2.CenterCrop((height, width)), *_to_input(channels, source)]
    )


def _standard(config: Any, size: tuple[int, int]) -> Iterator[v2.Transform]:
    mode = v2.InterpolationMode(config.interpolation)
    if config.crop != "random_resized":
        yield v2.Resize(config.resize or min(size), mode)
    if config.crop == "center":
        yield v2.CenterCrop(size)
    elif config.crop == "random":
        yield v2.RandomCrop(size, padding=config.padding or None)
    else:
        yield v2.RandomResizedCrop(size, config.scale, config.ratio, mode)
    if config.horizontal_flip:
        yield v2.RandomHorizontalFlip(config.horizontal_flip)
    if config.rotation:
        yield v2.RandomRotation(config.rotation, v2.InterpolationMode.BILINEAR)
    if config.color_jitter:
        yield v2.ColorJitter(config.color_jitter, config.color_jitter, config.color_jitter)


def _simclr(config: Any, size: tuple[int, int]) -> Iterator[v2.Transform]:
    yield v2.RandomResizedCrop(size, config.scale, config.ratio)
    if config.horizontal_flip:
        yield v2.RandomHorizontalFlip(config.horizontal_flip)
    if config.color_jitter_probability:
        strength = config.color_jitter
        jitter = v2.ColorJitter(strength, strength, strength, config.hue)
        yield v2.RandomApply([jitter], config.color_jitter_probability)
    if config.grayscale:
        yield v2.RandomGrayscale(config.grayscale)
    if config.blur:
        kernel = config.blur_kernel or max(3, size[0] // 10 // 2 * 2 + 1)
        yield v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], config.blur)


def _to_input(channels: int, source: Source) -> Iterator[v2.Transform]:
    """The steps from a PIL image of the right size to the model's input."""
    mean, std = source.mean, source.std
    if len(mean) != channels:
        yield v2.RGB() if channels == 3 else v2.Grayscale(channels)
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    yield v2.PILToTensor()
    yield v2.ToDtype(torch.float32, scale=True)
    yield v2.Normalize(mean, std)


def _erased(config: Any) -> float | str:
    """What v2.RandomErasing fills with: it has no color per rectangle, noise comes nearest."""
    return 0.0 if config.random_erasing_mode == "const" else "random"


def _input_size(spec: ModelSpec) -> tuple[int, int, int]:
    return spec.recipe.architecture.config.input_size


# Training


class Training:
    """One model's training in this process."""

    def __init__(
        self,
        spec: ModelSpec,
        source: Source,
        setting: Setting,
        parent: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`parent`: weights to start from, by name; all but the head's are used."""
        torch.set_num_threads(setting.threads)
        torch.manual_seed(spec.recipe.seed)
        self.spec, self.recipe, self.source, self.setting = spec, spec.recipe, source, setting
        self.device = torch.device(setting.device)
        self.contrastive = self.recipe.objective.name == "simclr"
        objective = self.recipe.objective.config
        model = self.recipe.build(objective.out_dim if self.contrastive else source.num_classes)
        if parent is not None:
            own = {name: tensor for name, tensor in parent.items() if not _in_head(model, name)}
            model.load_state_dict(own, strict=False)
        self.model = model.to(self.device)
        if self.recipe.adaptation.name == "head":
            for name, weight in model.named_parameters():
                weight.requires_grad_(_in_head(model, name))
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = self.recipe.optimizer
        self.optimizer = OPTIMIZERS[optimizer.name](self.trained, **optimizer.config.model_dump())
        self.mixup = self._mixup()
        self.loaders = self._loaders()
        self.steps_done = 0

    def epoch(self) -> float:
        """Train on every image once; returns the mean loss."""
        self.model.train()
        losses = [self.step(images, labels) for images, labels in self.loaders["train"]]
        return sum(losses) / len(losses)

    def step(self, images: Tensor | list[Tensor], labels: Tensor) -> float:
        """Train on one batch; returns its loss."""
        steps = len(self.loaders["train"])
        share = self.recipe.schedule(self.steps_done, self.recipe.epochs * steps, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = share * self.recipe.optimizer.config.lr
        loss = self._contrast(images) if self.contrastive else self._classify(images, labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self.recipe.clip_grad_norm:
            nn.utils.clip_grad_norm_(self.trained, self.recipe.clip_grad_norm)
        self.optimizer.step()
        self.steps_done += 1
        return loss.item()

    @torch.inference_mode()
    def scores(self) -> dict[str, float]:
        """Loss and accuracy of validation and test images; of simclr, the accuracy by k-NN."""
        self.model.eval()
        if self.contrastive:
            bank = self._features("bank")
            return {f"{split}_knn_accuracy": self._knn(bank, split) for split in ("val", "test")}
        found: dict[str, float] = {}
        for split in ("val", "test"):
            loss, accuracy = self._score(split)
            found |= {f"{split}_loss": loss, f"{split}_accuracy": accuracy}
        return found

    def state(self) -> dict[str, Any]:
        """What is saved after an epoch."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def _classify(self, images: Tensor, labels: Tensor) -> Tensor:
        images, targets = self._moved(images), self._moved(labels)
        if self.mixup:
            images, targets = self.mixup(images, targets)
        smoothing = self.recipe.objective.config.label_smoothing
        return F.cross_entropy(self.model(images), targets, label_smoothing=smoothing)

    def _contrast(self, views: list[Tensor]) -> Tensor:
        """InfoNCE between two views: each output's partner against all others of the batch."""
        outputs = F.normalize(self.model(self._moved(torch.cat(views))), dim=1)
        similarity = outputs @ outputs.T / self.recipe.objective.config.temperature
        similarity.fill_diagonal_(float("-inf"))
        partner = torch.arange(len(outputs), device=self.device).roll(len(outputs) // 2)
        return F.cross_entropy(similarity, partner)

    def _score(self, split: str) -> tuple[float, float]:
        loss, right = 0.0, 0
        for images, labels in self.loaders[split]:
            outputs, labels = self.model(self._moved(images)), self._moved(labels)
            loss += F.cross_entropy(outputs, labels, reduction="sum").item()
            right += int((outputs.argmax(1) == labels).sum())
        count = len(self.source.splits[split])
        return loss / count, right / count

    def _features(self, split: str) -> tuple[Tensor, Tensor]:
        found = []
        for images, labels in self.loaders[split]:
            tokens = self.model.forward_features(self._moved(images))
            found.append((self.model.forward_head(tokens, pre_logits=True), self._moved(labels)))
        return torch.cat([some for some, _ in found]), torch.cat([labels for _, labels in found])

    def _knn(self, bank: tuple[Tensor, Tensor], split: str) -> float:
        queries, labels = self._features(split)
        found = knn_classify(*bank, queries, k=self.recipe.objective.config.neighbors)
        return (found == labels).float().mean().item()

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _mixup(self) -> Mixup | None:
        config = self.recipe.augmentation.config
        mixup, cutmix = getattr(config, "mixup", 0.0), getattr(config, "cutmix", 0.0)
        if not (mixup or cutmix):
            return None
        return Mixup(
            mixup_alpha=mixup,
            cutmix_alpha=cutmix,
            mode=config.mixup_mode,
            label_smoothing=0.0,  # the loss smooths
            num_classes=self.source.num_classes,
        )

    def _loaders(self) -> dict[str, DataLoader[Any]]:
        splits, batch = self.source.splits, self.recipe.batch_size
        train = training_transform(self.spec, self.source)
        plain = scoring_transform(self.spec, self.source)
        views = 2 if self.contrastive else 1
        scored = {"val": splits["val"], "test": splits["test"]}
        if self.contrastive:
            scored["bank"] = splits["train"]
        size = max(batch, SCORED_AT_A_TIME)
        return {
            "train": self._loader(
                Transformed(splits["train"], train, views), batch, shuffle=True, drop_last=True
            ),
            **{name: self._loader(Transformed(some, plain), size) for name, some in scored.items()},
        }

    def _loader(self, images: Transformed, batch_size: int, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            images,
            batch_size,
            num_workers=self.setting.loader_workers,
            persistent_workers=self.setting.loader_workers > 0,
            pin_memory=self.device.type == "cuda",
            **options,
        )


def _in_head(model: nn.Module, name: str) -> bool:
    head = model.get_classifier()
    place = next(place for place, module in model.named_modules() if module is head)
    return name.startswith(place + ".")


# A zoo: a trial per model


def grow_reference(models: Sequence[ModelSpec], out: Path, setting: Setting) -> float:
    """Train all models into `out`/ID/epoch_N.pt; returns the seconds from start to end.

    Models without a parent are tuned first, then their children, then theirs: a Tune run each.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # else Tune takes Ctrl-C for the end of one run, and the next begins
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    import ray

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as own:
        ray.init(
            "local",  # a cluster of its own
            num_cpus=max(setting.workers, len(os.sched_getaffinity(0))),
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=own,
        )
        try:
            for number, generation in enumerate(generations(models)):
                _tune(generation, out.absolute(), setting, f"generation-{number}")
        finally:
            ray.shutdown()
    return time.perf_counter() - started


def generations(models: Sequence[ModelSpec]) -> list[list[ModelSpec]]:
    """Models that need none of the others, then those that need them, and so on."""
    depth: dict[str, int] = {}
    for model in models:  # every parent stands before its children
        depth[model.id] = 0 if model.parent is None else depth[model.parent] + 1
    return [
        [model for model in models if depth[model.id] == level]
        for level in sorted(set(depth.values()))
    ]


def grow_model(
    config: Mapping[str, str],
    *,
    specs: Mapping[str, ModelSpec],
    sources: Mapping[str, Source],
    out: Path,
    setting: Setting,
) -> None:
    """A trial: train the model whose id is `config["model"]` into its folder."""
    from ray import tune

    spec = specs[config["model"]]
    parent = None
    if spec.parent:
        kept = torch.load(_checkpoint(out, spec.parent, spec.parent_epoch or 0), weights_only=True)
        parent = kept["model"]
    training = Training(spec, sources[_data_key(spec)], setting, parent)
    folder = out / spec.id
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(spec.recipe.epochs + 1):
        metrics = {"train_loss": training.epoch()} if epoch else {}
        metrics |= training.scores()
        torch.save({**training.state(), "epoch": epoch}, _checkpoint(out, spec.id, epoch))
        with (folder / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps({"epoch": epoch, **metrics}) + "\n")
        tune.report(metrics)


def _tune(models: Sequence[ModelSpec], out: Path, setting: Setting, name: str) -> None:
    from ray import tune

    examples = {_data_key(model): model for model in models}
    trainable = tune.with_parameters(
        grow_model,
        specs={model.id: model for model in models},
        sources={key: Source.of(model) for key, model in examples.items()},
        out=out,
        setting=setting,
    )
    needs = {"cpu": 1.0}
    if setting.device == "cuda":
        needs["gpu"] = torch.cuda.device_count() / setting.workers
    tuner = tune.Tuner(
        tune.with_resources(trainable, needs),
        param_space={"model": tune.grid_search([model.id for model in models])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=setting.workers, reuse_actors=setting.reuse_actors
        ),
        run_config=tune.RunConfig(name=name, storage_path=str(out / "ray"), verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise results.errors[0]


def _checkpoint(out: Path, model: str, epoch: int) -> Path:
    return out / model / f"epoch_{epoch:03d}.pt"


def _data_key(spec: ModelSpec) -> str:
    return json.dumps(spec.recipe.data.factors(), sort_keys=True)


# One process


def train_speed(
    spec: ModelSpec,
    steps: int,
    setting: Setting,
    *,
    warm_up: int = 1,
    ready: Callable[[], object] = lambda: None,
) -> float:
    """Images per second of one training process over `steps` steps; nothing scored or saved.

    The first `warm_up` steps do not count. `ready` is called after them, and may wait for others.
    """
    training = Training(spec, Source.of(spec), setting)
    training.model.train()
    batches = _endless(training.loaders["train"])
    for _ in range(warm_up):
        training.step(*next(batches))
    ready()
    started = time.perf_counter()
    for _ in range(steps):
        training.step(*next(batches))
    return steps * spec.recipe.batch_size / (time.perf_counter() - started)


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


# Command line


def chosen(planned: Plan, stage: str | None, count: int | None) -> list[ModelSpec]:
    """The first models of a plan, or of one of its stages that starts from scratch."""
    models = planned.models if stage is None else planned.of_stage(stage)
    return list(models[:count])


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("blueprint", help="a YAML file, or the name of one that vitarium ships")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--workers", type=int, default=cores, help="models trained at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each of them")
    parser.add_argument("--loader-workers", type=int, default=0, help="of each of their loaders")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--reuse-actors", action="store_true", help="of trials that have ended")
    parser.add_argument("--stage", help="only this stage's models; it has to start from scratch")
    parser.add_argument("--models", type=int, help="only the first so many")
    args = parser.parse_args()
    models = chosen(plan(Blueprint.load(args.blueprint)), args.stage, args.models)
    setting = Setting(
        args.workers, args.threads, args.loader_workers, args.device, args.reuse_actors
    )
    seconds = grow_reference(models, args.out, setting)
    result = {"models": len(models), "seconds": round(seconds, 2), "setting": str(setting)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
