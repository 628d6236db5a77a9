"""One model's training, from its spec to its last checkpoint.

After every epoch all that a later start needs is on disk. Since every random stream is named
after the epoch and the step that draw from it, a resumed run gives the bits of an unbroken one.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vitarium import seeds
from vitarium.architectures.heads import head_prefix, is_head
from vitarium.blueprint import ModelSpec
from vitarium.data import dataset as datasets
from vitarium.data.batches import Batches
from vitarium.errors import IncompatibleWeights
from vitarium.store import About, ModelFolder
from vitarium.training.progress import restore_progress, take_progress
from vitarium.training.software import software


@dataclass(frozen=True)
class Step:
    """A batch was trained on: `step` of `steps` in `epoch` (both from 1)."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch is on disk, with its metrics."""

    epoch: int
    metrics: Mapping[str, float]


Report = Callable[[Step | EpochDone], None]


@dataclass(frozen=True)
class TrainOptions:
    """Where and how to train: what does not belong to the model.

    device: "cpu", "cuda" or "cuda:1".
    loader_workers: processes that decode and augment images; 0: in the training process.
    data_dir: looked into first for data sets.
    deterministic: the same bits for the same spec, on the same device, software and threads.
    """

    device: str = "cpu"
    loader_workers: int = 0
    data_dir: Path | None = None
    deterministic: bool = True


def train(
    spec: ModelSpec,
    folder: ModelFolder,
    *,
    parent: Mapping[str, Tensor] | None = None,
    options: TrainOptions | None = None,
    report: Report = lambda event: None,
) -> Literal["finished", "diverged"]:
    """Train a model into its folder, going on after its last finished epoch.

    Args:
        spec: what to train.
        folder: where it is kept; whatever is finished in it stays as it is.
        parent: weights to start from, by name; its head is not used.
        report: called after every step and every epoch.

    Returns "finished" or "diverged" (loss or weights not finite; the checkpoint of the last finite
    epoch is kept). Raises IncompatibleWeights, DataNotFound, InvalidData and CorruptFile.
    """
    options = options or TrainOptions()
    result = folder.result()
    if result:
        return result["status"]
    with seeds.preserved(), _determinism(options.deterministic):
        return _Run(spec, folder, parent, options, report).to_the_end()


class _Diverged(Exception):
    pass


class _Run:
    def __init__(
        self,
        spec: ModelSpec,
        folder: ModelFolder,
        parent: Mapping[str, Tensor] | None,
        options: TrainOptions,
        report: Report,
    ) -> None:
        self.spec, self.recipe, self.folder, self.report = spec, spec.recipe, folder, report
        self.device = torch.device(options.device)
        recipe, objective = self.recipe, self.recipe.objective
        data = datasets.load(recipe.data, options.data_dir)
        num_outputs = objective.plugin.facts["outputs"](objective.config, data.num_classes)
        model = recipe.build(num_outputs)
        if parent is not None:
            _load_backbone(model, parent)
        self.model = model.to(self.device)
        self._freeze()
        input_size = recipe.architecture.config.input_size
        self.batches = Batches(
            data,
            recipe.augmentation(input_size, data.num_classes),
            input_size,
            recipe.batch_size,
            recipe.seed,
            views=objective.plugin.facts["views"],
            device=options.device,
            loader_workers=options.loader_workers,
        )
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = recipe.optimizer(self.trained)
        folder.sweep()
        now = software(options.device)
        if not folder.exists:
            folder.begin(spec, About(num_outputs, data.classes, now))
        self.changes = _changes(folder.about().software, now)

    def to_the_end(self) -> Literal["finished", "diverged"]:
        try:
            for epoch in range(self._resume() + 1, self.recipe.epochs + 1):
                started = time.perf_counter()
                metrics = self._train_epoch(epoch)
                seconds = time.perf_counter() - started
                images = self.batches.steps * self.recipe.batch_size
                metrics |= self._scores(epoch)
                metrics |= {
                    "seconds": time.perf_counter() - started,
                    "images_per_second": images / seconds,
                }
                self._commit(epoch, metrics)
        except _Diverged as fault:
            self._keep_last_finite()
            self.folder.finish("diverged", str(fault))
            return "diverged"
        self.folder.finish("finished", self.changes)
        return "finished"

    def _resume(self) -> int:
        """Bring back the state after the last finished epoch, and return its number."""
        progress = self.folder.progress()
        if progress:
            epoch, tensors = progress
            restore_progress(self.model, self.optimizer, tensors)
            return epoch
        finished = self.folder.epochs()
        if finished and finished[-1].number == self.recipe.epochs:
            return self.recipe.epochs  # stopped between its last epoch and its result
        self._commit(0, self._scores(0))
        return 0

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        recipe, objective, steps = self.recipe, self.recipe.objective, self.batches.steps
        self._training_mode()
        sums: dict[str, Tensor] = {}
        total_steps, lr = recipe.epochs * steps, 0.0
        for number, batch in enumerate(self.batches.train(epoch)):
            step = (epoch - 1) * steps + number
            share = recipe.schedule(step, total_steps, steps)
            lr = share * recipe.optimizer.config.lr
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            seeds.reseed(seeds.derive(recipe.seed, "dropout", epoch, number))
            loss = objective(self.model, batch)
            self.optimizer.zero_grad()
            loss.value.backward()
            if recipe.clip_grad_norm:
                nn.utils.clip_grad_norm_(self.trained, recipe.clip_grad_norm)
            self.optimizer.step()
            for name, value in loss.metrics.items():
                sums[name] = sums.get(name, 0) + value
            self._check_loss(sums["loss"], epoch, number)
            self.report(Step(epoch, number + 1, steps))
        self._check_weights(epoch)
        return {f"train_{name}": (value / steps).item() for name, value in sums.items()} | {
            "lr": lr
        }

    @torch.no_grad()  # not inference_mode: a model may cache a tensor that training needs too
    def _scores(self, epoch: int) -> dict[str, float]:
        """Metrics on the validation split, and on the test split where the weights are kept."""
        self.model.eval()
        objective = self.recipe.objective
        evaluate = objective.plugin.facts["evaluate"]
        scores: dict[str, float] = {}
        for split in ("val", "test") if self.recipe.keeps(epoch) else ("val",):
            found = evaluate(objective.config, self.model, self.batches.score, split)
            scores |= {f"{split}_{name}": value for name, value in found.items()}
        return scores

    def _commit(self, epoch: int, metrics: dict[str, float]) -> None:
        weights = self.model.state_dict() if self.recipe.keeps(epoch) else None
        last = epoch == self.recipe.epochs
        progress = None if last else take_progress(self.model, self.optimizer)
        self.folder.commit(epoch, metrics, weights, progress)
        self.report(EpochDone(epoch, metrics))

    def _check_loss(self, total: Tensor, epoch: int, step: int) -> None:
        # Asking a GPU for a number makes it wait, so there only now and then.
        often = 1 if self.device.type == "cpu" else 50
        if (step % often == 0 or step == self.batches.steps - 1) and not torch.isfinite(total):
            raise _Diverged(f"the loss was {total.item()} in epoch {epoch}, by step {step + 1}")

    def _check_weights(self, epoch: int) -> None:
        for name, weight in self.model.named_parameters():
            if not torch.isfinite(weight).all():
                raise _Diverged(f"weights of {name} were not finite after epoch {epoch}")

    def _keep_last_finite(self) -> None:
        """Make the last finished epoch a checkpoint, though the recipe may not keep it."""
        last = self.folder.epochs()[-1]
        progress = self.folder.progress()
        if last.checkpoint is None and progress:
            restore_progress(self.model, self.optimizer, progress[1])
            self.folder.keep(last.number, self.model.state_dict())

    def _freeze(self) -> None:
        if self.recipe.trainable == "head":
            for name, weight in self.model.named_parameters():
                weight.requires_grad_(is_head(self.model, name))

    def _training_mode(self) -> None:
        self.model.train()
        if self.recipe.trainable == "head":  # a frozen backbone gives the features it will give
            self.model.eval()
            self.model.get_submodule(head_prefix(self.model)).train()


def _changes(begun: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is no longer as it was when training began: from then on the bits may be others."""
    changed = [
        f"{name} {begun.get(name)} to {now[name]}" for name in now if begun.get(name) != now[name]
    ]
    return f"changed during training: {', '.join(changed)}" if changed else ""


def _load_backbone(model: nn.Module, parent: Mapping[str, Tensor]) -> None:
    """Copy the parent's weights, all but the head's; nothing else may be missing or differ."""
    own = {name: t for name, t in model.state_dict().items() if not is_head(model, name)}
    given = {name: t for name, t in parent.items() if not is_head(model, name)}
    faults = [f"{name} is missing" for name in own.keys() - given.keys()]
    faults += [f"{name} has no place" for name in given.keys() - own.keys()]
    faults += [
        f"{name} is {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & given.keys()
        if own[name].shape != given[name].shape
    ]
    if faults:
        raise IncompatibleWeights(
            "the parent's weights do not fit the architecture: " + "; ".join(sorted(faults)[:5])
        )
    model.load_state_dict(given, strict=False)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
