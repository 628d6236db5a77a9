"""One model of a training run: its module, its data, its folder, its companions and teacher."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitarium.architectures.heads import is_head
from vitarium.blueprint import ModelSpec
from vitarium.blueprint.label_rules import several_labels_misfits
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.data import load as datasets
from vitarium.data.batch import Batch
from vitarium.data.expected import Normalization
from vitarium.data.image_channels import check_channels
from vitarium.data.loader import Batches, SplitName
from vitarium.objectives.base import BatchesOfSplit, StoredOutputs
from vitarium.objectives.companions import Progress
from vitarium.training._collapse import collapse
from vitarium.training._companions import (
    MaskStream,
    ParentCompanions,
    make_companions,
    prepare_model,
)
from vitarium.training._compilable import check_compiles
from vitarium.training._evaluation_images import begun_sets, evaluation_images, selected_outputs
from vitarium.training._feature_cache import FeatureCache, caches_features
from vitarium.training._progressive import StageBatches, image_sizes, take_all_sizes
from vitarium.training._training_mode import enter_training_mode
from vitarium.training.optimize_forward import optimize_companions, optimize_forward
from vitarium.training.options import Remarked, TrainOptions, software
from vitarium.training.start import started_model
from vitarium.training.teacher import Teacher, stored_outputs
from vitarium.zoo import About, ModelFolder


class TrainState:
    """A model of a run, ready to be trained or resumed; for arguments and errors see `train`.

    The teacher is not changed, but for its device.
    """

    teacher: Teacher | None = None
    stored: StoredOutputs | None = None
    """A teacher's outputs that were computed before."""

    def __init__(
        self,
        spec: ModelSpec,
        folder: ModelFolder,
        parent: Mapping[str, Tensor] | None,
        options: TrainOptions,
        teacher: nn.Module | None = None,
        parent_architecture: Section | None = None,
        teacher_normalization: Normalization | None = None,
        parent_companions: ParentCompanions | None = None,
    ) -> None:
        self.spec, self.recipe, self.folder = spec, spec.recipe, folder
        recipe, objective = self.recipe, self.recipe.objective
        data = datasets.load(recipe.data, options.data_dir)
        check_channels(data, recipe.image_size[0], recipe.extra_channels)
        if data.is_multilabel and (misfits := several_labels_misfits(recipe)):
            raise InvalidInput("; ".join(misfits.values()))
        num_outputs = objective.plugin.facts["outputs"](objective.config, data.num_classes)
        model, fitted = started_model(spec, num_outputs, parent, parent_architecture)
        prepare_model(recipe, model, from_scratch=parent is None)
        self.start: dict[str, Tensor] = {}
        """Weights [*shape] of the parent's that learn, where the adaptation has a penalty."""
        self.model = model.to(options.device)
        self.forward: Any = self.model
        """The model as objectives call it: images [batch, c, h, w] -> outputs [batch, n]."""
        records = objective.plugin.facts.get("records_blocks", False)
        if options.compiled:
            check_compiles(recipe)
        sizes = image_sizes(recipe, self.model) if recipe.progressive else []
        if len({*sizes}) > 1:
            take_all_sizes(self.model)
        optimize_forward(self.model, options, blocks_are_read=records)
        self._bring_companions(data.num_classes, options, parent_companions)
        if self.companions is not None:
            counts = data.train.class_counts(data.num_classes)
            self.companions.before_training(counts.to(options.device))
        if recipe.adaptation.facts["penalty"]:
            self._remember_start()
        input_size = recipe.image_size
        self.stored = stored_outputs(spec, folder.path.parents[1], data)
        self.batches = Batches(
            data,
            recipe.augmentation(input_size, data.num_classes),
            input_size,
            recipe.batch_size,
            self.stored.seed if self.stored else recipe.seed,
            views=objective.plugin.facts["views"],
            sampling=recipe.sampling,
            steps_per_epoch=recipe.steps_per_epoch,
            normalization=recipe.normalization.values if recipe.normalization else None,
            device=options.device,
            loader_workers=options.loader_workers,
        )
        self.images = StageBatches(recipe, self.batches, sizes)
        """Batches to train on, by epoch."""
        sets = begun_sets(recipe, folder)
        self.evaluation = evaluation_images(recipe, self.batches, sets, options)
        if caches_features(recipe, options):
            self.forward = FeatureCache(self.model, len(data.train))
        if objective.plugin.facts["teacher_outputs"]:
            prepare = self.batches.renormalizes(teacher_normalization)
            example = torch.zeros(1, *input_size, device=options.device)
            self.teacher = Teacher(recipe, teacher, self.model, example, prepare)
        folder.sweep()
        now = software(options)
        if not folder.exists:
            folder.begin(spec, About(num_outputs, data.classes, now))
        before = folder.about().software
        changes = [f"{n} {before.get(n)} to {now[n]}" for n in now if before.get(n) != now[n]]
        changed = f"changed during training: {', '.join(changes)}" if changes else ""
        by_number = [name for name, images in self.evaluation.items() if images.by_number]
        matched = f"classes are matched by number: {', '.join(by_number)}" if by_number else ""
        gone_on = parent_companions.remark if parent_companions else ""
        self.remarks = "; ".join(filter(None, (fitted, gone_on, matched, changed)))
        """How the parent's weights were fitted, and whether its companions go on; which evaluation
        sets' classes have no names that could be compared; and what changed of the software since
        training began: from then on the bits may be others."""
        self.metrics = [epoch.metrics for epoch in folder.epochs()]
        """Of each epoch from 0 that is finished or about to be written."""
        self.last_epoch = recipe.epochs
        """After which training ends; earlier than planned where `stopped_early` is not empty."""
        self.stopped_early = ""
        if self.metrics:
            self._look_whether_to_stop()

    def _bring_companions(
        self, num_classes: int, options: TrainOptions, parent: ParentCompanions | None = None
    ) -> None:
        self.companions = make_companions(self.recipe, self.model, num_classes, parent)
        """What the objective brings beside the model; None: nothing."""
        if self.companions is not None:
            optimize_companions(self.companions, options)
        self._masks = MaskStream(self.recipe, self.model)

    def completed(self, batch: Batch, epoch: int, number: int) -> Batch:
        """The batch of step `number` (from 0) of an epoch with its masks, and a teacher's stored
        outputs, where there are some."""
        masks = self._masks(batch.images, epoch, number)
        batch = batch if masks is None else replace(batch, masks=masks)
        if self.stored is None:
            return batch
        outputs = self.stored(epoch, number).items()
        return replace(batch, teacher_outputs={n: t.to(batch.images.device) for n, t in outputs})

    def progress(self, epoch: int, number: int) -> Progress:
        """How far the training is at step `number` (from 0) of an epoch (from 1)."""
        steps = self.recipe.epochs * self.batches.steps
        return Progress(epoch, self.recipe.epochs, self.step(epoch, number), steps)

    def tokens_seen(self, epoch: int) -> dict[str, float]:
        """Patches that the model has seen in an epoch, of a progressive image size."""
        return self.images.tokens(epoch, self.model)

    def add_metrics(self, metrics: Mapping[str, float]) -> Remarked | None:
        """Take in the metrics of the next epoch, which may be the last by them; and what is to be
        reported, where by them the model's features have collapsed for the first time.

        Raises InvalidInput where the score that decides on that is not among them.
        """
        before = self.collapse
        self.metrics.append(dict(metrics))
        self._look_whether_to_stop()
        return None if before or not self.collapse else Remarked(self.spec.id, self.collapse)

    @property
    def collapse(self) -> str:
        """In which epoch its features collapsed, and how; empty where they did not."""
        return collapse(self.metrics)

    def keeps(self, epoch: int) -> bool:
        """Whether the weights after that epoch stay in the zoo."""
        return self.recipe.keeps(epoch) or epoch == self.last_epoch

    def _look_whether_to_stop(self) -> None:
        stopping = self.recipe.early_stopping
        if stopping is None:
            return
        if stopping.metric not in self.metrics[0]:
            names = ", ".join(name for name in self.metrics[0] if not name.startswith("test_"))
            raise InvalidInput(f"early_stopping: there is no '{stopping.metric}', but {names}")
        scores = [metrics[stopping.metric] for metrics in self.metrics[1:]]
        self.stopped_early = stopping.verdict(scores)
        if self.stopped_early:
            self.last_epoch = len(scores)

    @cached_property
    def frozen(self) -> set[str]:
        """Names of the parameters that do not learn."""
        return {name for name, p in self.model.named_parameters() if not p.requires_grad}

    def rate(self, epoch: int, number: int) -> float:
        """The learning rate of step `number` (from 0) of an epoch (from 1)."""
        steps, recipe = self.batches.steps, self.recipe
        share: float = recipe.schedule(self.step(epoch, number), recipe.epochs * steps, steps)
        return share * recipe.optimizer.config.lr

    def step(self, epoch: int, number: int) -> int:
        """Which step of all (from 0) is step `number` (from 0) of an epoch (from 1)."""
        return (epoch - 1) * self.batches.steps + number

    def share(self, epoch: int, number: int) -> float:
        """How much of the training is done: 0 at its first step, 1 at its last."""
        return self.step(epoch, number) / max(self.recipe.epochs * self.batches.steps - 1, 1)

    def training_mode(self) -> None:
        enter_training_mode(self.recipe, self.model, self.companions)

    def score_batches(self, split: str, limit: int | None = None) -> Iterator[Batch]:
        """The images of a split of its own data, or of an evaluation set, in order; at most so
        many."""
        if split in self.evaluation:
            return self.evaluation[split].batches.score("test", limit)
        return self.batches.score(cast(SplitName, split), limit)

    @torch.no_grad()  # not inference_mode: a model may cache a tensor that training needs too
    def scores(self, epoch: int, score: BatchesOfSplit | None = None) -> dict[str, float]:
        """Metrics on the validation split and on evaluation sets, and on the test split where the
        weights are kept. score: gives the images in place of `score_batches`."""
        self.model.eval()
        sets = {
            name: images.outputs
            for name, images in self.evaluation.items()
            if images.epochs == "all" or epoch == self.last_epoch
        }
        of_all_outputs = [name for name, outputs in sets.items() if outputs is None]
        splits = ["val", *(["test"] if self.keeps(epoch) else []), *of_all_outputs]
        scores = self._evaluated(self.forward, score or self.score_batches, splits)
        for name, outputs in sets.items():
            if outputs is not None:
                selected = selected_outputs(self.forward, outputs)
                scores |= self._evaluated(selected, score or self.score_batches, [name])
        return scores

    def _evaluated(
        self, forward: Any, score: BatchesOfSplit, splits: Sequence[str]
    ) -> dict[str, float]:
        objective = self.recipe.objective
        scores = objective.plugin.facts["evaluate"](objective.config, forward, score, splits)
        return {f"{split}_{name}": v for split in splits for name, v in scores[split].items()}

    @property
    def scored_at_the_end(self) -> bool:
        """Whether an evaluation set is scored after the last epoch alone."""
        return any(images.epochs == "last" for images in self.evaluation.values())

    def fault(self, epoch: int) -> str | None:
        """What is not finite in the weights, the companions' included."""
        weights = dict(self.model.named_parameters())
        if self.companions is not None:
            weights |= dict(self.companions.named_parameters("companions"))
        for name, weight in weights.items():
            if not torch.isfinite(weight).all():
                return f"weights of {name} were not finite after epoch {epoch}"
        return None

    def _remember_start(self) -> None:
        kept_head = self.spec.keep_head
        for name, weight in self.model.named_parameters():
            if weight.requires_grad and (kept_head or not is_head(self.model, name)):
                self.start[name] = weight.detach().clone()

    def penalty(self) -> Tensor | None:
        """What the adaptation adds to the loss, a scalar; None: nothing."""
        adaptation = self.recipe.adaptation
        penalty = adaptation.facts["penalty"]
        value: Tensor | None = penalty and penalty(adaptation.config, self.model, self.start)
        return value
