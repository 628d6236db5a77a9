"""One combination of models: what it will be, its weights, and its place in the zoo."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from vitarium.architectures.heads import is_head
from vitarium.architectures.symmetries.base import Symmetries
from vitarium.blueprint import CheckpointRef
from vitarium.core import files
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.file_faults import check_writable, writing
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.heads import Heads, WeightSubset, common_parent
from vitarium.operators.base import Ingredients, OperatorLog
from vitarium.zoo._scratch import scratch, temporary_folder
from vitarium.zoo.model import ModelName

IN_MEMORY = 128_000_000
"""Bytes up to which a result is held in memory, and packed when it is kept; one that is larger lies
in a folder of the zoo meanwhile, mapped into memory: the system writes it out for room."""


class MergePlan:
    """What an operator is to make of checkpoints; nothing is computed before it is asked for.

    Args:
        base, heads, force: see `operators._runner.merge.merge`.
        stage: what the result is called in the zoo's tables.
        weights: weights in the place of the ingredients' own, in their order, e.g. rearranged ones
            that are nowhere kept. The spec does not tell of them: do not keep such a model.

    Raises InvalidInput and IncompatibleWeights for what cannot be combined.
    """

    def __init__(
        self,
        sources: ModelLoader,
        operator: Section,
        ingredients: tuple[CheckpointRef, ...],
        *,
        base: ModelName | None = None,
        heads: str = "merge",
        stage: str = "merge",
        force: bool = False,
        weights: Sequence[Weights] | None = None,
    ) -> None:
        self.sources, self.operator, self.chosen = sources, operator, ingredients
        self.zoo, self.force, self.facts = sources.zoo, force, operator.plugin.facts
        self.log = OperatorLog()
        models = list(weights or [sources.weights(ref) for ref in ingredients])
        self.heads = Heads(sources, ingredients, models, heads)
        self.models = [self.heads.backbone(model) for model in models]
        origin = self.heads.origin or ingredients[self.facts["origin"]]
        self._folder = self.zoo.folder(origin.model)
        """Of the model whose recipe the result has."""
        self.about = self._folder.about()
        self.base: CheckpointRef | None = None
        if base is not None and not self.facts["needs_base"]:
            raise InvalidInput(f"{operator.name} has no use for a base")
        if base is not None:
            self.base = self.zoo.at(base)
        elif self.facts["needs_base"]:
            self.base = common_parent(self.zoo, operator.name, ingredients)
        spec, changes = self._folder.spec(), dict(self.heads.changes)
        if change := self.facts["architecture"]:
            try:
                changes["architecture"] = change(operator.config, spec.origin.architecture)
            except IncompatibleWeights as error:
                raise IncompatibleWeights(f"{self.models[0].name}: {error}") from None
        self.spec = spec.combined(
            operator,
            ingredients,
            stage=stage,
            base=self.base,
            heads=self.heads.label,
            changes=changes,
        )

    def save(self, progress: Progress = SILENT) -> str:
        """Compute it and keep it in the zoo, unless it is there; its id.

        The stage is no part of what a model is: one that is there under another keeps that, with a
        warning. Raises NotWritable at once, and DiskFull.
        """
        folder = self.zoo.folder(self.spec.id)
        if folder.result():
            if (stage := folder.spec().stage) != self.spec.stage:
                warnings.warn(
                    f"model {self.spec.id} is in the zoo already, of stage '{stage}': it stays "
                    f"there, and none of stage '{self.spec.stage}' is made",
                    stacklevel=3,
                )
            return self.spec.id
        check_writable(folder.path)
        with ExitStack() as stack:
            large = self.models[0].nbytes > IN_MEMORY
            buffer = stack.enter_context(disk_buffer(self.zoo.path / "cache")) if large else None
            weights = self.weights(progress, buffer)
            folder.begin(self.spec, self.about)
            folder.commit(0, self.log.metrics, weights, None, plain=large)
        folder.finish("finished", "; ".join(self.log.lines))
        return self.spec.id

    def weights(self, progress: Progress = SILENT, buffer: Path | None = None) -> dict[str, Tensor]:
        """The merged weights, tensors [*shape] by name: in files of a folder, or in memory."""
        first = self.models[0]
        ingredients = Ingredients(
            self.models,
            base=self._base_weights if self.base else None,
            model=self.model,
            examples=self.examples if self.facts["split"] else None,
            subject=self.subject if self.facts["split"] else None,
            symmetries=self.symmetries,
            progress=progress,
            task=self.operator.name,
        )
        merged: dict[str, Tensor] = {}
        for name, tensor in self.operator(ingredients):
            stored = tensor.to(first.dtype(name) if name in first.shapes else tensor.dtype)
            if buffer and stored.numel():
                mapped = scratch(buffer / str(len(merged)), stored.numel(), stored.dtype)
                stored = mapped.view(stored.shape).copy_(stored)
            merged[name] = stored
        self.log = ingredients.log
        integers = {name: first[name] for name in first if name not in first.shapes}
        return {**merged, **integers, **self.heads.tensors()}

    def model(self) -> nn.Module:
        """A running model of the ingredients' architecture, with the first one's weights."""
        built = self._folder.spec().origin.changed(self.heads.changes).build(self.about.num_outputs)
        built.load_state_dict({**self.models[0], **self.heads.tensors()})
        return built.eval().float().to(self.sources.device).requires_grad_(False)

    def examples(self) -> EvalData:
        """Raises InvalidInput where a model was trained on images that are to select by."""
        return self._allowed(self.sources.examples(self._folder.path.name, self.facts["split"]))

    def subject(self, number: int) -> EvalModel:
        """An ingredient that runs, with images of its own data. Raises as `examples`."""
        self.sources.subject.cache_clear()  # one of them at a time is in memory
        subject = self.sources.subject(self.chosen[number], self.facts["split"], None)
        self._allowed(subject.examples)
        return subject

    def symmetries(self) -> Symmetries:
        """Raises IncompatibleWeights where the architecture declares none."""
        architecture = self.spec.origin.architecture
        declare = architecture and architecture.plugin.facts.get("symmetries")
        if not declare:
            name = architecture.name if architecture else "its architecture"
            raise IncompatibleWeights(f"{self.models[0].name}: {name} declares no symmetries")
        return declare(self.models[0].skeleton)

    def _allowed(self, examples: EvalData) -> EvalData:
        split = self.facts["split"]
        if not len(examples):
            raise InvalidInput(f"data set '{examples.dataset.name}' has no {split} images")
        for ref in self.chosen if split != "train" and not self.force else ():
            if self.sources.learned(ref.model, examples):
                raise InvalidInput(
                    f"model {ref.model} was trained on images of the {split} split by which "
                    f"{self.operator.name} selects; name other data with --data, or --force it"
                )
        return examples

    def _base_weights(self) -> Weights:
        """The base's weights, with the head that the models had before they were trained.

        A model that starts from another gets a new head, so the parent's is not what its own
        started from. Raises IncompatibleWeights where the models' heads did not start alike.
        """
        assert self.base
        weights, first = self.sources.weights(self.base), self.models[0]
        if self.heads.separate:
            return self.heads.backbone(weights)
        starts = []
        for ref in self.chosen:
            is_child = self.zoo[ref.model].parent_checkpoint == self.base
            starts.append(self.sources.weights(ref).start if is_child else weights)
        names = [name for name in first.shapes if is_head(first.skeleton, name)]
        for model, start in zip(self.models, starts, strict=True):
            for name in names:
                if name not in start or not torch.equal(start[name], starts[0][name]):
                    raise IncompatibleWeights(
                        f"{first.name} and {model.name}: their heads started from different "
                        f"values, so {name} has no common base; say what becomes of the heads: "
                        "--heads average, --heads ensemble or --heads ID"
                    )
        head = {name: starts[0][name] for name in names}
        return Weights(weights.name, {**WeightSubset(weights, head=False), **head})


def disk_buffer(folder: Path) -> AbstractContextManager[Path]:
    """A folder inside of a zoo's, gone at the end. Raises DiskFull, NotWritable, LeadsOutside."""
    files.check_inside(folder, folder.parent)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return temporary_folder(folder, ".merge.")
